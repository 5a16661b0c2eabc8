"""Every few voxels of a scan: the same samples from whole lines and one by one, and an organ in a known box."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from phantoms import ellipsoid_case, fine, plan_of

from synthoma.bounded import Bounded
from synthoma.synthesis import coarse, location
from synthoma.synthesis.insertion.mass_effect import displacement, move_mask
from synthoma.synthesis.insertion.scene import Scene
from synthoma.synthesis.location import OrganModel, measure_organ
from synthoma.volume import Box, Geometry, Volume

SHAPE = (23, 17, 11)


@pytest.mark.parametrize("step", [(1, 1, 1), (3, 2, 1), (4, 4, 2), (5, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_samples_are_means_of_the_voxels_they_name(step: tuple[int, int, int], order: str) -> None:
    data = np.asarray(np.random.default_rng(0).integers(-1024, 3000, SHAPE), np.int16, order=order)
    whole = coarse.grid(Geometry.of(SHAPE, (1, 1, 1)), step)
    for box in (Box.whole(whole.shape), Box((1, 1, 0), whole.shape)):
        found = coarse.sample(data, box, step)
        assert found.dtype == np.float32
        assert found.flags.c_contiguous
        np.testing.assert_array_equal(found, coarse.sample(data.astype(np.float32), box, step))
        for at in ((0, 0, 0), (box.shape[0] - 1, 0, box.shape[2] - 1)):
            places = []
            for n, low, s, size, last in zip(at, box.lower, step, SHAPE, box.upper, strict=True):
                start, more = (low + n) * s, s > 1 and (last - 1) * s + s // 2 < size
                places.append([start, start + s // 2] if more else [start])
            assert found[at] == data[np.ix_(*places)].mean()


@pytest.mark.parametrize("step", [(1, 1, 1), (3, 2, 4)])
def test_a_box_holds_the_coarse_voxels_that_lie_in_it(step: tuple[int, int, int]) -> None:
    numbers = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    fine_box = Box((2, 3, 4), (22, 16, 9))
    found = coarse.thin(numbers, coarse.box(fine_box, step), step)
    whole = coarse.thin(numbers, Box.whole(coarse.grid(Geometry.of(SHAPE, (1, 1, 1)), step).shape), step)
    assert set(found.ravel()) == set(whole.ravel()) & set(numbers[fine_box.slices].ravel())


def same(one: OrganModel, other: OrganModel) -> bool:
    plain = (field.name for field in dataclasses.fields(OrganModel) if field.name not in ("parts", "scan", "grid"))
    grids = np.array_equal(one.grid.affine, other.grid.affine) and one.grid.shape == other.grid.shape
    return grids and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in plain)


@pytest.mark.parametrize("step", [(1, 1, 1), (3, 2, 1), (4, 4, 2)])
def test_a_mask_known_by_its_box_is_thinned_as_the_whole_one(step: tuple[int, int, int]) -> None:
    data = np.zeros(SHAPE, bool)
    data[5:20, 3:11, 2:9] = np.random.default_rng(0).random((15, 8, 7)) < 0.4
    mask = Volume(data, Geometry.of(SHAPE, (1, 1, 1)))
    whole = Box.whole(coarse.grid(mask.geometry, step).shape)
    for box in (whole, Box((1, 1, 0), whole.upper), Box((0, 0, 0), (2, 2, 2))):
        for known in (Bounded.of(mask), Bounded(mask.geometry, Box.whole(SHAPE), data)):
            np.testing.assert_array_equal(coarse.thin_mask(known, box, step), coarse.thin(data, box, step))
    empty = Bounded.of(Volume(np.zeros(SHAPE, bool), mask.geometry))
    assert not coarse.thin_mask(empty, whole, step).any()


def test_an_organ_measured_in_its_box_is_that_of_the_whole_scan() -> None:
    case = ellipsoid_case(fine((70, 60, 50)), (25, 20, 15))
    ct, masks = case.read_image(), case.read_masks()
    mask = next(iter(masks.values()))
    box = Box.around(mask.data)
    assert box is not None
    for scan, part in ((ct, mask), (ct.crop(Box(box.lower, box.upper)), mask.crop(Box(box.lower, box.upper)))):
        whole = Bounded(part.geometry, Box.whole(part.data.shape), part.data)
        assert same(
            measure_organ(scan, {"liver": whole}, "liver", "portal", 0.7),
            measure_organ(scan, {"liver": part}, "liver", "portal", 0.7),
        )
    scene = Scene("", ct)
    scene.add_mask("liver", Bounded.of(mask), keep=True)
    assert same(scene.measure_organ("liver", "portal", 0.7, False), measure_organ(ct, masks, "liver", "portal", 0.7))


def test_an_organ_that_a_mass_effect_has_moved_is_looked_for_where_it_went() -> None:
    case = ellipsoid_case(fine((80, 60, 50)), (22, 18, 15))
    scene = Scene("", case.read_image())
    mask = case.read_masks()["liver"]
    scene.add_mask("liver", Bounded.of(mask), keep=True)
    field = displacement(plan_of(16.0, displacement_mm=5.0, center_mm=(17.0, 0.0, 0.0)), scene.geometry)
    assert field is not None
    scene.settle(field.box, scene.hu[field.box.slices], np.zeros(field.box.shape, bool), "liver", field)
    expected = mask.data.copy()
    expected[field.box.slices] = move_mask(expected[field.box.slices], field)
    np.testing.assert_array_equal(scene.volumes()["liver"].data, expected)
    moved, before = Box.around(expected), Box.around(mask.data)
    assert moved is not None
    assert before is not None
    assert moved.hull(before) != before, "the mask has left its box"
    found = scene.measure_organ("liver", "portal", 0.7, False)
    assert same(found, measure_organ(scene.ct, {"liver": Volume(expected, mask.geometry)}, "liver", "portal", 0.7))


def test_the_even_place_is_looked_for_again_only_where_voxels_have_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def even_place(*given: Any) -> tuple[Any, Box | None]:
        asked.append(given)
        return location.even_place(*given)

    monkeypatch.setattr("synthoma.synthesis.insertion.scene.even_place", even_place)
    case = ellipsoid_case(fine((90, 60, 50)), (22, 18, 15), noise_hu=8.0)
    scene = Scene("", case.read_image())
    scene.add_mask("liver", Bounded.of(case.read_masks()["liver"]), keep=True)
    kidney = np.zeros(scene.hu.shape, bool, order="F")
    kidney[4:16, 8:20, 8:20] = True
    scene.add_mask("kidney_left", Bounded.of(Volume(kidney, scene.geometry)), keep=True)

    def place() -> tuple[float, float, float]:
        found = scene.measure_organ("kidney", "portal", 0.7, False).noise_from_mm
        assert found == measure_organ(scene.ct, scene.volumes(), "kidney", "portal", 0.7).noise_from_mm
        return found

    def put_noise(box: Box) -> None:
        noise = np.random.default_rng(0).integers(-300, 300, box.shape).astype(np.int16)
        scene.settle(box, scene.hu[box.slices] + noise, np.zeros(box.shape, bool), "kidney", None)

    first = place()
    put_noise(Box((4, 8, 8), (16, 20, 20)))
    assert place() == first
    assert len(asked) == 1, "the liver is as it was"
    put_noise(scene.geometry.box_around(first, 5.0))
    assert place() != first
    assert len(asked) == 2
