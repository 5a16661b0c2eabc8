"""What only looks like a tumor: in the scan, in the record, never in a tumor mask."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from livers import block, site_of

from synthoma.anatomy import ORGANS
from synthoma.phantom.anatomy.abdomen import Abdomen, draw_abdomen
from synthoma.phantom.anatomy.patient import draw_patient
from synthoma.phantom.cohort import CohortRecipe, InSilico, draw_visitor
from synthoma.phantom.disease.distractors import DISTRACTORS, draw_distractors, draw_plaques
from synthoma.phantom.findings import Finding
from synthoma.phantom.hospitals import USUAL, Hospital
from synthoma.phantom.scanner import Scanner, field_of_view, scan
from synthoma.seeds import rng_for


@cache
def anatomy() -> Abdomen:
    patient = draw_patient(2, "female")
    return draw_abdomen(patient, field_of_view(patient, Scanner(spacing_mm=(4.0, 4.0, 4.0))))


def drawn(name: str, phase: str = "portal", abdomen: Abdomen | None = None, seeds: int = 6) -> list[Finding]:
    """The findings of the first seeds that give any."""
    for seed in range(seeds):
        site = site_of(abdomen or anatomy(), phase)
        found = draw_distractors(site, {name: 3.0}, rng_for(seed, "test"))
        if found:
            return found
    raise AssertionError(f"no {name} in {seeds} draws")


@pytest.mark.parametrize("name", list(DISTRACTORS))
def test_every_distractor_can_be_drawn_and_none_is_a_tumor(name: str) -> None:
    found = drawn(name)
    assert not any(finding.tumor for finding in found)
    for finding in found:
        assert 0 <= finding.share.min() <= finding.share.max() <= 1 + 1e-6
        assert finding.share.shape == finding.change_hu.shape == finding.box.shape
        assert finding.facts["kind"] == finding.kind
    ill = replace(anatomy(), findings=tuple(found))
    assert not any(ill.mask(organ.lesion).data.any() for organ in ORGANS.values())
    for structure in ("liver", "kidney_left", "pancreas"):
        assert (ill.mask(structure).data == anatomy().mask(structure).data).all()


def test_the_usual_means_name_every_distractor() -> None:
    assert set(USUAL) == set(DISTRACTORS)


def test_cysts_hold_water_in_every_phase() -> None:
    for phase, liver_hu in (("arterial", 72), ("portal", 112)):
        cyst = drawn("liver_cyst", phase, block())[0]
        inside = cyst.share > 0.95
        assert inside.any()
        assert -4 < np.median(cyst.change_hu[inside]) + liver_hu < 16


def test_haemangiomas_fill_from_their_rim() -> None:
    seeds = range(30)
    early, late = (
        [
            f
            for s in seeds
            for f in draw_distractors(site_of(block(), phase), {"haemangioma": 1.0}, rng_for(s, "t"))
            if (f.share > 0.9).sum() > 300
        ]
        for phase in ("arterial", "portal")
    )
    assert len(early) == len(late) > 0
    # arterial: dark but for bright nodules; portal: filling
    assert np.mean([np.median(f.change_hu[f.share > 0.9]) for f in early]) < 20
    assert np.mean([np.percentile(f.change_hu[f.share > 0.9], 98) for f in early]) > 50
    assert np.mean([np.median(f.change_hu[f.share > 0.9]) for f in late]) > -40


def test_metal_throws_streaks_in_its_slices_only() -> None:
    still = Scanner(spacing_mm=(4.0, 4.0, 4.0), noise_hu=0)
    clips = drawn("clips")
    with_clips = scan(replace(anatomy(), findings=tuple(clips)), still, 0).data.astype(int)
    change = np.abs(with_clips - scan(anatomy(), still, 0).data)
    touched = {k for clip in clips for k in range(clip.box.lower[2], clip.box.upper[2])}
    far = [k for k in range(change.shape[2]) if k not in touched]
    assert change.max() > 100
    assert not change[:, :, far].any()
    near = (change[:, :, sorted(touched)] > 10).sum()
    assert near > 5 * sum((clip.share > 0.05).sum() for clip in clips)


def test_plaques_lie_in_the_wall_of_the_aorta() -> None:
    site = site_of(anatomy())
    assert draw_plaques(site, 0.0, rng_for(0, "none")) == []
    aorta = np.argwhere(anatomy().mask("aorta").data)
    for plaque in draw_plaques(site, 8.0, rng_for(0, "some")):
        assert np.linalg.norm(aorta - plaque.center(), axis=1).min() < 2.5
        assert plaque.change_hu.max() > 150


@cache
def healthy() -> InSilico:
    recipe = CohortRecipe(region="liver", spacing_mm=5, noise_hu=0)
    many = dict.fromkeys(("liver_cyst", "haemangioma", "granuloma"), 4.0)
    return draw_visitor(3, recipe, Hospital(name="a", distractors=many), sick=False)


def test_a_healthy_patient_with_distractors_has_empty_tumor_masks() -> None:
    kinds = {finding.kind for finding in healthy().abdomen.findings}
    assert {"liver_cyst", "granuloma"} <= kinds
    assert not any(healthy().mask(organ.lesion).data.any() for organ in ORGANS.values())
    free = replace(healthy().abdomen, findings=())
    assert healthy().visit is not None
    without = scan(free, healthy().visit.scanner, 3)  # type: ignore[union-attr]
    assert (without.data != healthy().ct.data).sum() > 50
