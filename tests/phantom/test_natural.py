"""Natural tumors: exact labels, the size asked for, growth along tissue, HU by phase."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from livers import block, middle_mm, site_of, with_half
from scipy import ndimage

from synthoma.phantom.anatomy.abdomen import Abdomen
from synthoma.phantom.anatomy.tissues import TISSUE_ID, TISSUES
from synthoma.phantom.disease.kinds import HOMES, KINDS
from synthoma.phantom.disease.natural import Seedling, grow
from synthoma.phantom.findings import Finding
from synthoma.phantom.scanner import Scanner, scan
from synthoma.volume import Volume


def seedling(
    abdomen: Abdomen, kind: str = "metastasis", diameter_mm: float = 24, seed: int = 3, off: float = 0
) -> Seedling:
    x, y, z = middle_mm(abdomen)
    return Seedling(kind, (x + off, y, z), diameter_mm, (0.0, 0.0, 0.0), seed)


def grown(abdomen: Abdomen, phase: str = "portal", **what: object) -> Finding:
    tumor = grow(seedling(abdomen, **what), abdomen, site_of(abdomen, phase))  # type: ignore[arg-type]
    assert tumor is not None
    return tumor


def mean_hu(tumor: Finding) -> float:
    inside = tumor.share > 0.5
    return float(tumor.change_hu[inside].mean())


def test_the_label_is_where_a_tumor_fills_half_a_voxel_and_the_organ_holds_it() -> None:
    liver = block(thick=3)
    sick = replace(liver, findings=(grown(liver),))
    share = np.zeros(sick.fine.shape)
    share[sick.findings[0].box.slices] = sick.findings[0].share
    by_hand = share.reshape(*share.shape[:2], -1, 3).mean(axis=3) >= 0.5
    lesion = sick.mask("liver_lesion")
    assert lesion.geometry == sick.geometry
    assert (lesion.data == by_hand).all()
    assert by_hand.any()
    assert sick.mask("liver").data.all()
    assert not sick.mask("pancreas_lesion").data.any()
    assert (sick.labels().data[by_hand] == 27).all()


def test_a_tumor_changes_the_scan_where_it_is_and_nowhere_else() -> None:
    liver = block()
    tumor = grown(liver)
    still = Scanner(noise_hu=0, blur_mm=0.01, spacing_mm=(2.0, 2.0, 2.0), table="none")
    sick = replace(liver, findings=(tumor,))
    change = scan(sick, still, 0).data.astype(int) - scan(liver, still, 0).data
    inside = np.zeros(change.shape, bool)
    inside[tumor.box.slices] = tumor.share > 0
    assert not change[~inside].any()
    assert np.median(change[sick.mask("liver_lesion").data]) < -20


@pytest.mark.parametrize("diameter", [6, 14, 40])
@pytest.mark.parametrize("kind", ["metastasis", "hcc"])
def test_the_label_has_the_size_that_was_asked_for(kind: str, diameter: float) -> None:
    liver = block(spacing_mm=max(0.5, diameter / 20), size_mm=2.6 * diameter)
    tumor = grown(liver, kind=kind, diameter_mm=diameter)
    volume = float((tumor.share >= 0.5).sum()) * liver.fine.voxel_mm3
    assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(diameter, rel=0.1)


def test_fronts_are_irregular_and_infiltrating_kinds_more_so() -> None:
    liver = block(spacing_mm=1.5, size_mm=80)

    def roughness(kind: str) -> float:
        spread = []
        for seed in range(4):
            tumor = grown(liver, kind=kind, diameter_mm=30, seed=seed)
            whole = np.pad(tumor.share >= 0.5, 2)
            whole = ndimage.label(whole)[0] == 1
            border = np.argwhere(whole & ~ndimage.binary_erosion(whole))
            away = np.linalg.norm(border - np.argwhere(whole).mean(axis=0), axis=1)
            spread.append(away.std() / away.mean())
        return float(np.mean(spread))

    calm, wild = roughness("metastasis"), roughness("cholangiocarcinoma")
    assert calm > 0.08
    assert wild > 1.2 * calm


def test_the_same_seed_gives_the_same_tumor_and_another_seed_another() -> None:
    liver = block()
    first, again, other = grown(liver), grown(liver), grown(liver, seed=4)
    assert first.share.tobytes() == again.share.tobytes()
    assert first.change_hu.tobytes() == again.change_hu.tobytes()
    assert other.share.shape != first.share.shape or not np.array_equal(other.share, first.share)


def test_another_grid_shows_the_same_tumor() -> None:
    coarse, fine = block(spacing_mm=3, size_mm=90), block(spacing_mm=1.5, size_mm=90)
    masks = [replace(one, findings=(grown(one, diameter_mm=36),)).mask("liver_lesion") for one in (coarse, fine)]
    seen = Volume(masks[1].data.astype(np.uint8), masks[1].geometry).to(masks[0].geometry, labels="majority").data > 0
    assert 2 * (seen & masks[0].data).sum() / (seen.sum() + masks[0].data.sum()) > 0.9


def test_growth_stops_at_the_capsule_and_takes_no_other_tissue() -> None:
    organ = with_half(block(), "spleen")
    free, held = grown(block(), off=-6.0), grown(organ, off=-6.0)
    border = organ.main.shape[0] // 2
    assert free.box.upper[0] > border + 1
    assert held.box.upper[0] <= border
    assert held.share[-1].max() > 0.9
    assert float(held.share.sum()) == pytest.approx(float(free.share.sum()), rel=0.1)


def test_vessels_are_encased_not_replaced() -> None:
    liver = block(spacing_mm=1.5, size_mm=90)
    main = liver.main.copy()
    main[31:34, 31:34] = TISSUE_ID["portal_vein_in_liver"]
    vessel = replace(liver, main=main, under=main.copy())
    tumor = grown(vessel, kind="cholangiocarcinoma", diameter_mm=36, off=9.0, seed=2)
    share = np.zeros(main.shape)
    share[tumor.box.slices] = tumor.share
    around = ndimage.binary_dilation(main == TISSUE_ID["portal_vein_in_liver"], iterations=3)
    vein = main == TISSUE_ID["portal_vein_in_liver"]
    level = slice(20, 40)
    assert share[:, :, level][(around & ~vein)[:, :, level]].mean() > share[:, :, level][vein[:, :, level]].mean() + 0.2


def test_a_tumor_without_room_does_not_grow() -> None:
    spleen = block("spleen")
    assert grow(seedling(spleen), spleen, site_of(spleen)) is None


def test_tumors_show_as_their_kind_does_in_each_phase() -> None:
    liver = block()
    for seed in range(3):
        assert mean_hu(grown(liver, "arterial", kind="hcc", diameter_mm=14, seed=seed)) > 15
        assert mean_hu(grown(liver, "portal", kind="hcc", diameter_mm=14, seed=seed)) < -8
        assert -75 < mean_hu(grown(liver, "portal", kind="metastasis", seed=seed)) < -15


def test_what_lies_too_deep_for_blood_is_dead() -> None:
    liver = block(spacing_mm=2.5, size_mm=150)
    deep, shallow = [], []
    for seed in range(6):
        tumor = grown(liver, kind="mucinous_metastasis", diameter_mm=60, seed=seed)
        depth = ndimage.distance_transform_edt(np.pad(tumor.share >= 0.5, 1))[1:-1, 1:-1, 1:-1] * 2.5
        deep.append(tumor.change_hu[depth > 14].mean())
        shallow.append(tumor.change_hu[(depth > 0) & (depth < 6)].mean())
    assert np.mean(deep) < np.mean(shallow) - 8


def test_every_kind_has_a_home_and_tissues_that_exist() -> None:
    for kind in KINDS.values():
        home = HOMES[kind.organ]
        assert set(home.tissues) | {home.reference} | set(kind.paths) <= set(TISSUES)
        assert kind.count[0] >= 1
