"""Rendering on a device: the voxels of the CPU's renderer, for any form of plan, grid and box."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from online.test_online import healthy, label_map
from phantoms import GRIDS, ellipsoid_case, noise, plan_of

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.synthesis.bodies.mass import mass, star
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion import blending, crops
from synthoma.synthesis.insertion.crops import DrawnTumor
from synthoma.synthesis.on_device.grain import noise_inside
from synthoma.synthesis.on_device.rendering import cut, is_rendered_here, render_batch
from synthoma.synthesis.on_device.shapes import shape_of
from synthoma.synthesis.online.bank import HeldScan
from synthoma.synthesis.online.online import Online
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Array, Box, Geometry

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_CUDA)]
LESION = anatomy.STRUCTURES["liver_lesion"]
ROUGH: dict[str, Any] = {"roughness": 0.25, "skew": 0.2, "seed": 5}
PLANS: dict[str, TumorPlan] = {
    "plain": plan_of(18),
    "of a few voxels": plan_of(3, **ROUGH, texture_hu=30.0, texture_mm=2.0, rim_hu=40.0, rim_mm=1.0),
    "long and rough": plan_of(24, (1, 0.7, 0.5), **ROUGH, texture_hu=9.0, texture_mm=4.0),
    "with a core": plan_of(26, (1, 0.9, 0.8), **ROUGH, core_hu=-45.0, core_share=0.6),
    "with a rim": plan_of(22, **ROUGH, rim_hu=40.0, rim_mm=3.0, texture_hu=12.0),
    "drifting": plan_of(20, (1, 0.8, 0.8), **ROUGH, drift_hu=-25.0, drift_mm=6.0),
    "calcified": plan_of(20, **ROUGH, calcifications=[[[0.1, 0.2, -0.3], 1.5, 400.0], [[0.9, 0.0, 0.0], 1.0, 250.0]]),
    "with a wide border": plan_of(16, **ROUGH, edge_mm=2.5, noise_by="neighbors"),
    "beside a vessel": plan_of(14, **ROUGH, center_mm=(18.0, 3.0, 0.0), noise_by="neighbors", texture_hu=8.0),
    "across the organ's surface": plan_of(20, **ROUGH, center_mm=(0.0, 28.0, 4.0), rim_hu=30.0, rim_mm=2.0),
    "cut by the scan": plan_of(28, **ROUGH, center_mm=(27.0, 0.0, 24.0), core_hu=-30.0, core_share=0.5),
}


def liver(geometry: Geometry) -> Case:
    """A liver in fat that the scan cuts, with a bright vessel in it."""
    case = ellipsoid_case(geometry, (60, 30, 60), seed=3)
    ct = case.read_image()
    points = geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))
    vessel = np.hypot(points[..., 0] - 24, points[..., 1]) < 4
    return dataclasses.replace(case, image=dataclasses.replace(ct, data=np.where(vessel, ct.data + 90, ct.data)))


def held(case: Case) -> HeldScan:
    ct = case.read_image()
    return HeldScan(case.id, ct.geometry, ct.data, label_map(case))


def drawn_of(scan: HeldScan, plans: Sequence[TumorPlan]) -> list[DrawnTumor]:
    """The tumors of these plans, none of them made."""
    ct = crops.Volume(scan.hu, scan.geometry)
    return [
        DrawnTumor(plan, open_generator(plan.generator), n, Noise.at(ct, (-20.0, 0.0, 0.0)), scan.geometry)
        for n, plan in enumerate(plans)
    ]


def same(scan: HeldScan, plans: Sequence[TumorPlan], boxes: Sequence[Box], device: str) -> list[tuple[Array, Array]]:
    """What the CPU renders in these boxes, once the device has been found to render it too."""
    fresh = drawn_of(scan, plans)
    found = render_batch([cut(scan, box, fresh) for box in boxes], device)
    drawn, expected = drawn_of(scan, plans), []
    for box, (hu, labels) in zip(boxes, found, strict=True):
        expected.append(crops.render(scan, box, drawn))
        assert (hu.dtype, labels.dtype, hu.device.type) == (torch.int16, torch.uint8, device)
        apart = np.abs(hu.cpu().numpy().astype(int) - expected[-1][0])
        assert apart.max() <= 1
        assert (apart > 0).sum() <= 2 + 1e-3 * (expected[-1][1] == LESION).sum()  # where rounding went the other way
        assert np.array_equal(labels.cpu().numpy(), expected[-1][1])
    return expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GRIDS)
def test_a_batch_of_plans_has_the_voxels_of_the_cpu(name: str, device: str) -> None:
    geometry = GRIDS[name](64)
    scan = held(liver(geometry))
    for what, plan in PLANS.items():
        ((hu, labels),) = same(scan, [plan], [Box.whole(geometry.shape)], device)
        assert (labels == LESION).any(), what
        assert (hu != scan.hu).sum() >= (labels == LESION).sum() / 2, what


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("need_inside", [False, True])
def test_shares_and_depths_are_those_of_the_cpu(need_inside: bool, device: str) -> None:
    for grid in GRIDS.values():
        for plan in (PLANS["of a few voxels"], PLANS["long and rough"], PLANS["plain"]):
            body = mass(plan, grid(64), need_inside)
            filled = star(plan, grid(64), need_inside)
            shape = shape_of(filled, torch.device(device), need_inside)
            assert filled.box == body.box
            alpha = shape.alpha.cpu().numpy().T
            assert np.abs(alpha - body.alpha).max() < 1e-3
            assert np.array_equal(alpha >= 0.5, body.alpha >= 0.5)
            assert ((alpha > 0.01) & (alpha < 0.99)).any()
            if need_inside:
                assert shape.radius is not None
                assert shape.depth_mm is not None
                there = body.alpha > 0
                assert np.allclose(shape.radius.cpu().numpy().T[there], body.radius[there], atol=1e-4)
                assert np.allclose(shape.depth_mm.cpu().numpy().T[there], body.depth_mm[there], atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GRIDS)
def test_a_box_that_cuts_tumors_shows_what_the_whole_scan_would_show(name: str, device: str) -> None:
    geometry = GRIDS[name](64)
    scan, plans = held(liver(geometry)), [PLANS["with a core"], PLANS["across the organ's surface"]]
    i, j, k = (n // 2 for n in geometry.shape)
    boxes = [
        Box((0, 0, 0), (i, j, k)),
        Box((i, j, k), geometry.shape),
        Box((i - 3, j, 1), (i + 4, j + 9, k + 1)),
        Box((-9, -5, -2), (i, j + 6, geometry.shape[2] + 3)),
    ]
    whole = same(scan, plans, [Box.whole(geometry.shape)], device)[0]
    for box, (hu, labels) in zip(boxes, same(scan, plans, boxes, device), strict=True):
        inside = box.clip(geometry.shape)
        assert np.array_equal(hu[inside.seen_from(box).slices], whole[0][inside.slices])
        assert (labels == LESION).any()


@pytest.mark.parametrize("device", DEVICES)
def test_tumors_that_touch_are_put_in_in_their_order(device: str) -> None:
    geometry = GRIDS["oblique"](64)
    scan = held(liver(geometry))
    first = plan_of(18, **ROUGH, rim_hu=30.0, rim_mm=2.0)
    second = dataclasses.replace(first, center_mm=(9.0, 4.0, 0.0), seed=7, contrast_hu=-70.0)
    third = dataclasses.replace(first, center_mm=(4.0, 27.0, 3.0), seed=8, contrast_hu=30.0)
    box = Box.whole(geometry.shape)
    there = [same(scan, plans, [box], device)[0][0] for plans in ([first, second, third], [third, second, first])]
    assert (there[0] != there[1]).any()


@pytest.mark.parametrize("device", DEVICES)
def test_what_bulges_out_of_the_organ_is_no_organ_to_the_next_tumor(device: str) -> None:
    geometry = GRIDS["1 mm"](64)
    scan = held(ellipsoid_case(geometry, (60, 24, 60), around=55.0, seed=3))  # muscle: no room but a margin
    plans = [
        dataclasses.replace(PLANS["with a rim"], center_mm=(x, 22.0, 0.0), seed=seed)
        for x, seed in ((-9.0, 1), (9.0, 2), (0.0, 3))
    ]
    same(scan, plans, [Box.whole(geometry.shape)], device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GRIDS)
def test_noise_is_that_of_the_cpu_near_to_and_far_from_vessels(name: str, device: str) -> None:
    geometry = GRIDS[name](64)
    ct = liver(geometry).read_image()
    learned, kinds = Noise.at(ct, (-20.0, 0.0, 0.0)), set()
    hu = torch.from_numpy(np.array(ct.data.T, order="C")).to(device)
    for noise_by in ("voxel", "neighbors"):
        for x in np.arange(4.0, 16.0, 0.7).tolist():
            plan = plan_of(10, **ROUGH, noise_by=noise_by, center_mm=(x, 0.0, 0.0))
            body = mass(plan, geometry)
            tumor = Tumor(plan, body.box, body.alpha, body.alpha).within(geometry.shape)
            expected = blending.noise_inside(ct, tumor, learned).T
            alpha = torch.from_numpy(np.array(tumor.alpha.T, order="C")).to(device)
            found = noise_inside(hu, tumor.box, alpha, plan, geometry, learned).cpu().numpy()
            inside = tumor.alpha.T > 0
            assert np.allclose(found[inside], expected[inside], atol=1e-2)
            other = blending.noise_inside(ct, tumor, Noise(2 * learned.sample)).T
            kinds.add(np.array_equal(expected[inside], other[inside]))
    assert kinds == {True, False}  # some need learned noise, some do not


@pytest.mark.parametrize("device", DEVICES)
def test_what_the_device_cannot_render_is_made_by_the_cpu_in_its_turn(device: str) -> None:
    geometry = GRIDS["oblique"](64)
    scan = held(liver(geometry))
    growing = dataclasses.replace(PLANS["long and rough"], displacement_mm=3.0)
    beside = dataclasses.replace(PLANS["with a rim"], center_mm=(-2.0, 24.0, 6.0))
    plans = [PLANS["beside a vessel"], growing, beside]
    assert [is_rendered_here(tumor) for tumor in drawn_of(scan, plans)] == [True, False, True]
    same(scan, plans, [Box.whole(geometry.shape), Box((10, 10, 5), (40, 50, 20))], device)


def test_plans_drawn_for_a_patient_are_rendered_alike_and_many_at_a_time() -> None:
    recipe = SynthesisRecipe(
        organs=("liver", "kidney"), lesions=(4, 7), diameter_mm=(7, 20), gap_mm=1.0, mass_effect_share=0.0, retries=0
    )
    case, online = healthy(), Online(recipe, 1.0)
    scan, boxes = held(case), [Box((0, 0, 0), (48, 80, 40)), Box((30, 10, 20), (80, 70, 80))]
    ct, masks = case.read_image(), case.read_masks()
    tables = online.prepare(ct, masks, case)
    entry = type("Entry", (HeldScan,), {"annotated": tuple(masks), "attributes": case.attributes})(
        scan.case, scan.geometry, scan.hu, scan.labels
    )
    entry.tables = lambda name: tables
    parts, expected = [], []
    for epoch in range(3):
        drawn = online.draw(entry, epoch)
        fresh = [dataclasses.replace(tumor, made=None) for tumor in drawn]
        assert len(fresh) > 3
        parts += [cut(entry, box, fresh) for box in boxes]
        expected += [crops.render(entry, box, drawn) for box in boxes]
    for (hu, labels), (right, right_labels) in zip(render_batch(parts, "cpu"), expected, strict=True):
        assert np.abs(hu.numpy().astype(int) - right).max() <= 1
        assert np.array_equal(labels.numpy(), right_labels)


def test_noise_is_kept_where_the_tissue_is_plain_and_learned_elsewhere() -> None:
    geometry = GRIDS["1 mm"](64)
    scan = held(liver(geometry))
    plain, beside = dataclasses.replace(PLANS["plain"], center_mm=(-8.0, 0.0, 0.0)), PLANS["beside a vessel"]
    for plan, keeps in ((plain, True), (beside, False)):
        ((hu, labels),) = render_batch([cut(scan, Box.whole(geometry.shape), drawn_of(scan, [plan]))], "cpu")
        inside = labels.numpy() == LESION
        correlation = np.corrcoef(hu.numpy()[inside], noise(geometry, 12.0, 3)[inside])[0, 1]
        assert (correlation > 0.8) == keeps


@pytest.mark.parametrize("device", DEVICES)
def test_without_a_tumor_the_voxels_stay_as_they_are(device: str) -> None:
    geometry = GRIDS["oblique"](64)
    scan = held(liver(geometry))
    box = Box((-3, 4, 2), (20, 30, 9))
    far = dataclasses.replace(PLANS["of a few voxels"], center_mm=(20.0, 0.0, 20.0))
    for plans in ([], [far]):
        ((hu, labels),) = render_batch([cut(scan, box, drawn_of(scan, plans))], device)
        assert np.array_equal(hu.cpu().numpy(), scan.read_hu(box))
        assert np.array_equal(labels.cpu().numpy(), scan.read_labels(box))
    assert render_batch([], device) == []


def test_a_part_is_small_pickles_and_is_not_written_into() -> None:
    geometry = GRIDS["1 mm"](64)
    scan = held(liver(geometry))
    part = cut(scan, Box((20, 20, 20), (44, 44, 44)), drawn_of(scan, [PLANS["with a core"], PLANS["cut by the scan"]]))
    hu, labels = part.hu.copy(), part.labels.copy()
    text = pickle.dumps(part)
    assert len(text) < 3 * part.hu.size + 250_000  # voxels, and the noise learned for two tumors
    one, other = render_batch([part, pickle.loads(text)], "cpu")
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert np.array_equal(hu, part.hu)
    assert np.array_equal(labels, part.labels)


def test_a_tumor_outside_the_scan_is_refused_as_on_the_cpu() -> None:
    geometry = GRIDS["1 mm"](64)
    scan = held(liver(geometry))
    (tumor,) = drawn_of(scan, [dataclasses.replace(PLANS["plain"], center_mm=(39.5, 0.0, 0.0))])
    far = dataclasses.replace(tumor, plan=dataclasses.replace(tumor.plan, radius_mm=400.0))
    part = cut(scan, Box((20, 20, 20), (44, 44, 44)), [])
    with pytest.raises(CaseError, match="too large"):
        render_batch([dataclasses.replace(part, outer=Box.whole(geometry.shape), tumors=(far,))], "cpu")


def test_torch_is_loaded_only_where_a_device_renders() -> None:
    code = (
        "import sys, synthoma.synthesis.online.online, synthoma.synthesis.pipeline, synthoma.cli.main;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
