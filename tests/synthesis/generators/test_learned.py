"""Learned generators: exact masks, the contrast that was asked for, replay, crops like the whole scan, other models."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from generators.tiny import LOOKS, tiny_file, tiny_model
from phantoms import FAT, GRIDS, ellipsoid_case, fine, grid, noise

from synthoma.cases import Case
from synthoma.commands.tumors import synthesize
from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, FileError, RecipeError, RunError
from synthoma.learning.looks import trend_of
from synthoma.learning.models import load_model
from synthoma.learning.tissue import load_generator, looks_of, save_generator, tissue_field
from synthoma.learning.turns import Turn
from synthoma.seeds import rng_for
from synthoma.synthesis.bodies.forms import form_of
from synthoma.synthesis.generators.learned import Learned
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.pipeline import insert_tumors, replay_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Box, Volume

KINDS = ("adversarial", "diffusion")


def recipe_of(generator: str, **changes: object) -> SynthesisRecipe:
    plain = {"lesions": (2, 2), "diameter_mm": (12, 18), "contrast_hu": (-45, -35), "mass_effect_share": 0.0}
    return SynthesisRecipe.model_validate({**plain, "generator": generator, **changes})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS)
def test_masks_and_contrast_are_those_of_the_plan(kind: str, grid: str, tmp_path: Path) -> None:
    case = ellipsoid_case(GRIDS[grid](90), (42, 42, 42))
    made = insert_tumors(case, recipe_of(tiny_file(tmp_path, kind)), 3)  # type: ignore[arg-type]
    assert len(made.inserted) == 2
    before, after = (volume.reorient("RAS") for volume in (case.read_image(), made.ct))
    may_change = np.zeros(before.data.shape, bool)
    for tumor in made.inserted:
        body = form_of(tumor.plan).make(tumor.plan, before.geometry, case.read_mask("liver").reorient("RAS"), False)
        box = body.box.clip(before.data.shape)
        may_change[box.slices] |= body.alpha[box.seen_from(body.box).slices] > 0
        assert tumor.verdict.scores["contrast_hu"] == pytest.approx(tumor.plan.contrast_hu, rel=0.1, abs=2)
        assert tumor.verdict.scores["volume_ratio"] == pytest.approx(1, abs=0.1)
    assert np.array_equal(before.data[~may_change], after.data[~may_change])
    assert (before.data != after.data)[may_change].mean() > 0.5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contrast_hu", [-40.0, 40.0])
def test_a_lesion_darker_and_one_brighter_than_its_organ_both_come_out(
    kind: str, contrast_hu: float, tmp_path: Path
) -> None:
    case = ellipsoid_case(fine(60), (28, 28, 28))
    recipe = recipe_of(tiny_file(tmp_path, kind), lesions=(1, 1), contrast_hu=(contrast_hu, contrast_hu))  # type: ignore[arg-type]
    (tumor,) = insert_tumors(case, recipe, 3).inserted
    before = case.read_image().reorient("RAS").data[tumor.box.slices][tumor.mask]
    after = tumor.after[tumor.box.seen_from(tumor.changed).slices][tumor.mask]
    assert float(after.mean() - before.mean()) == pytest.approx(contrast_hu, abs=8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_that_is_stored_mirrored_gets_the_same_tumors(kind: str, tmp_path: Path) -> None:
    case = ellipsoid_case(fine(60), (28, 28, 28))
    recipe = recipe_of(tiny_file(tmp_path, kind), lesions=(1, 1))  # type: ignore[arg-type]
    masks = {name: case.read_mask(name).reorient("LAI") for name in case.masks}
    mirrored = dataclasses.replace(case, image=case.read_image().reorient("LAI"), masks=masks)
    plain, other = insert_tumors(case, recipe, 3), insert_tumors(mirrored, recipe, 3)
    assert other.ct.geometry.axes == "LAI"
    assert np.array_equal(plain.ct.reorient("RAS").data, other.ct.reorient("RAS").data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_gives_the_same_voxels_and_another_model_is_refused(kind: str, tmp_path: Path) -> None:
    case = ellipsoid_case(fine(80), (38, 38, 38))
    name = tiny_file(tmp_path, kind)  # type: ignore[arg-type]
    made = insert_tumors(case, recipe_of(name), 1)
    plans = [TumorPlan.from_dict(tumor.plan.as_dict()) for tumor in made.inserted]
    assert np.array_equal(replay_plans(case, plans).ct.data, made.ct.data)
    other = tiny_file(tmp_path, kind, seed=1)  # type: ignore[arg-type]
    moved = [dataclasses.replace(plan, generator=other) for plan in plans]
    with pytest.raises(CaseError, match="planned with another model"):
        replay_plans(case, moved)


def sloping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network makes tissue of small parts, dark on the low side of its first axis."""

    def field(net: object, spec: object, noise: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return torch.linspace(-20, 20, noise.shape[2]).view(1, 1, -1, 1, 1) + 2 * noise

    monkeypatch.setattr("synthoma.learning.tissue.tissue_field", field)


def test_a_slope_is_flattened_to_the_trend_of_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sloping(monkeypatch)
    case, name = ellipsoid_case(fine(60), (28, 28, 28)), tiny_file(tmp_path, spacing_mm=1.0)
    plan = insert_tumors(case, recipe_of(name, lesions=(1, 1)), 3).inserted[0].plan
    ct, organ = case.read_image(), case.read_mask("liver")
    shares = {}
    for trend in (1.0, 0.4, 0.1):
        asked = dataclasses.replace(plan, details={**plan.details, "trend": trend})
        made = open_generator(name).render(ct, organ, asked)
        shares[trend] = trend_of(made.hu, made.alpha >= 0.5)
    assert shares[1.0] > 0.6
    assert shares[0.4] == pytest.approx(0.4, abs=0.03)
    assert shares[0.1] == pytest.approx(0.1, abs=0.03)


def test_no_side_of_the_patient_is_the_dark_one_in_every_tumor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sloping(monkeypatch)
    case, name = ellipsoid_case(fine(60), (28, 28, 28)), tiny_file(tmp_path, spacing_mm=1.0)
    plan = insert_tumors(case, recipe_of(name, lesions=(1, 1)), 3).inserted[0].plan
    assert plan.details["turned"] is True
    ct, organ = case.read_image(), case.read_mask("liver")

    def dark_side(seed: int, **details: object) -> tuple[int, bool]:
        """The axis along which tissue slopes most, and whether it falls."""
        asked = dataclasses.replace(plan, seed=seed, details={**plan.details, **details})
        made = open_generator(name).render(ct, organ, asked)
        at, values = np.argwhere(made.alpha >= 0.5), made.hu[made.alpha >= 0.5]
        slopes = np.linalg.lstsq(at - at.mean(axis=0), values - values.mean(), rcond=None)[0]
        axis = int(np.abs(slopes).argmax())
        return axis, bool(slopes[axis] < 0)

    assert {dark_side(seed) for seed in range(24)} == {(0, False), (0, True), (1, False), (1, True)}
    assert {dark_side(seed, turned=False) for seed in range(4)} == {(0, False)}


def test_a_plan_of_before_has_any_trend_and_is_not_turned(tmp_path: Path) -> None:
    case, name = ellipsoid_case(fine(60), (28, 28, 28)), tiny_file(tmp_path)
    plan = insert_tumors(case, recipe_of(name, lesions=(1, 1)), 3).inserted[0].plan
    before = {key: value for key, value in plan.details.items() if key not in ("trend", "turned")}
    plain = {**plan.details, "trend": 1.0, "turned": False}
    assert dataclasses.replace(plan, details=before).details_as(Learned) == dataclasses.replace(
        plan, details=plain
    ).details_as(Learned)


def test_another_seed_gives_another_texture_in_the_same_body(tmp_path: Path) -> None:
    case = ellipsoid_case(fine(60), (28, 28, 28))
    generator = open_generator(tiny_file(tmp_path))
    drawn = insert_tumors(case, recipe_of(tiny_file(tmp_path), lesions=(1, 1)), 1).inserted[0].plan
    plan = dataclasses.replace(drawn, details={**drawn.details, "roughness": 0.0})
    first, second = (
        generator.render(case.read_image(), case.read_mask("liver"), dataclasses.replace(plan, seed=seed))
        for seed in (1, 2)
    )
    assert np.array_equal(first.alpha, second.alpha)
    assert np.abs(first.hu - second.hu)[first.alpha > 0.5].mean() > 0.5


@pytest.mark.parametrize("spacing_mm", [1.0, 1.5])
def test_a_crop_of_the_scan_gives_the_same_tissue(spacing_mm: float, tmp_path: Path) -> None:
    case = ellipsoid_case(GRIDS["oblique"](90), (42, 42, 42))
    name = tiny_file(tmp_path, spacing_mm=spacing_mm)
    generator = open_generator(name)
    plan = insert_tumors(case, recipe_of(name, lesions=(1, 1)), 2).inserted[0].plan
    ct, liver = case.read_image().reorient("RAS"), case.read_mask("liver").reorient("RAS")
    whole = generator.render(ct, liver, plan)
    box = ct.geometry.box_around(plan.center_mm, generator.reach(plan)).grow(1).clip(ct.data.shape)
    crop = generator.render(ct.crop(box), liver.crop(box), plan)
    assert box.shape != ct.data.shape
    assert crop.box.shift(box.lower) == whole.box
    assert np.array_equal(crop.hu[crop.alpha > 0], whole.hu[whole.alpha > 0])


def tube_case() -> Case:
    """A colon with gas in it, along the third axis."""
    geometry = grid((1.5, 1.5, 1.5), (120, 120, 150))
    radius = np.hypot(*geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))[..., :2].transpose(3, 0, 1, 2))
    hu = np.where(radius < 12.5, -900.0, np.where(radius < 15, 40, FAT)) + noise(geometry, 10.0)
    ct, colon = np.asfortranarray(np.rint(hu).astype(np.int16)), np.asfortranarray(radius < 15)
    return Case("tube", Volume(ct, geometry), {"colon": Volume(colon, geometry)})


def test_the_network_is_asked_of_a_wall_tumor_and_not_of_all_its_organ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, name = tube_case(), tiny_file(tmp_path)
    asked: list[tuple[int, ...]] = []

    def looking(net: object, spec: object, seeds: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(seeds.shape[2:]))
        return tissue_field(net, spec, seeds, *others)  # type: ignore[arg-type, call-arg]

    monkeypatch.setattr("synthoma.learning.tissue.tissue_field", looking)
    recipe = recipe_of(name, organs=("colon",), lesions=(1, 1), diameter_mm=(22, 22), phase="portal")
    (made,) = insert_tumors(case, recipe, 2).inserted
    plan, generator = made.plan, open_generator(name)
    ct, colon = case.read_image(), case.read_mask("colon")
    asked.clear()
    whole = generator.render(ct, colon, plan)
    assert (whole.hu[whole.alpha > 0] != 0).all()
    box = ct.geometry.box_around(plan.center_mm, generator.reach(plan)).grow(1).clip(ct.data.shape)
    crop = generator.render(ct.crop(box), colon.crop(box), plan)
    assert box.shape != ct.data.shape
    assert np.array_equal(crop.hu[crop.alpha > 0], whole.hu[whole.alpha > 0])
    filled = Box.around(whole.alpha > 0)
    assert filled is not None
    assert asked[0] == asked[1]
    seen = Turn.draw(rng_for(plan.seed, "turn")).back(np.empty(asked[0])).shape  # along the scan's axes
    assert all(len_ >= side for len_, side in zip(seen, filled.shape, strict=True))

    old = dataclasses.replace(plan, details={key: value for key, value in plan.details.items() if key != "grid"})
    cube = generator.render(ct, colon, old)
    assert np.array_equal(cube.alpha, whole.alpha)
    assert (cube.hu[cube.alpha > 0] != whole.hu[whole.alpha > 0]).any()
    assert set(asked[2]) == {asked[2][0]}, "as older manifests have it"
    assert np.prod(asked[0]) < np.prod(asked[2]) / 3


def test_tissue_is_that_of_the_scan_as_it_was_when_the_tumor_was_rendered(tmp_path: Path) -> None:
    case = ellipsoid_case(fine(60), (28, 28, 28))
    name = tiny_file(tmp_path)
    plan = insert_tumors(case, recipe_of(name, lesions=(1, 1)), 1).inserted[0].plan
    ct, liver = case.read_image().reorient("RAS"), case.read_mask("liver").reorient("RAS")
    wanted = open_generator(name).render(ct, liver, plan).hu
    hu = ct.data.copy()
    tumor = open_generator(name).render(Volume(hu, ct.geometry), liver, plan)
    hu[:] = 900  # as a mass effect changes a scan before the tissue is asked for
    assert np.array_equal(tumor.hu, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tumor_that_half_fills_no_voxel_is_rejected_before_a_network_is_asked(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ellipsoid_case(grid((6.0, 6.0, 6.0), 144), (60, 60, 60))
    asked: list[float] = []

    def counting(*arguments: object) -> torch.Tensor:
        asked.append(1.0)
        return tissue_field(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("synthoma.learning.tissue.tissue_field", counting)
    recipe = recipe_of(tiny_file(tmp_path, kind), lesions=(4, 4), diameter_mm=(4, 9), retries=1)  # type: ignore[arg-type]
    made = insert_tumors(case, recipe, 2)
    empty = [attempt for attempt in made.rejected if attempt.verdict.reason == "no voxel is half filled"]
    assert empty
    assert len(asked) == len(made.inserted) + len(made.rejected) - len(empty)
    # the verdict is that on the tumor with its tissue in it
    plan = empty[0].plan
    assert np.isnan(empty[0].verdict.scores["contrast_hu"])
    assert empty[0].verdict.scores["volume_ratio"] == 0
    replayed = replay_plans(case, [plan])
    assert len(asked) == len(made.inserted) + len(made.rejected) - len(empty) + 1
    assert (replayed.ct.data != case.read_image().data).any()  # a replay rejects nothing


def test_a_model_file_gives_the_model_back(tmp_path: Path) -> None:
    model = tiny_model("diffusion")
    save_generator(tmp_path / "a.safetensors", model)
    again = load_generator(tmp_path / "a.safetensors")
    assert again.spec == model.spec
    assert looks_of(again) == pytest.approx(LOOKS)
    assert again.digest
    for name, weight in model.net.state_dict().items():
        assert torch.equal(weight, again.net.state_dict()[name])


def test_files_that_are_no_generators_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"no safetensors at all")
    case = ellipsoid_case(fine(60), (28, 28, 28))
    with pytest.raises(FileError, match="not a whole safetensors file"):
        insert_tumors(case, recipe_of(str(tmp_path / "weights.safetensors")), 1)
    with pytest.raises(RecipeError, match=r"holds no generator\.safetensors"):
        open_generator(str(tmp_path))
    with pytest.raises(RecipeError, match="one of rules"):
        open_generator("nobody")


def test_a_generator_given_to_segment_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a generator of tumors, no segmentation"):
        load_model(tiny_file(tmp_path))


def test_an_organ_it_has_not_seen_is_told_once_and_a_device_that_is_not_there_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = tiny_file(tmp_path)
    case = ellipsoid_case(fine(80), (38, 38, 38), organ="uterus")
    made = insert_tumors(case, recipe_of(name, organs=("uterus",)), 1)
    assert made.inserted
    assert len([record for record in caplog.records if "none of the uterus" in record.message]) == 1
    with pytest.raises(CaseError, match=r"learned no lesion of the uterus.*leave as_learned out, or give contrast_hu"):
        insert_tumors(case, recipe_of(name, organs=("uterus",), contrast_hu=None, as_learned=True), 1)
    if not torch.cuda.is_available():
        write_case(case, tmp_path / "data" / "one")
        with pytest.raises(RunError, match="no CUDA device"):
            synthesize(recipe_of(name, organs=("uterus",)), tmp_path / "data", tmp_path / "out", device="cuda")


def test_adversarial_tissue_has_no_pattern_finer_than_tissue() -> None:
    model = tiny_model("adversarial")
    noise = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    alpha, condition = torch.ones_like(noise), torch.from_numpy(np.stack([look.condition() for look in LOOKS]))
    with torch.inference_mode():
        field = tissue_field(model.net, model.spec, noise, alpha, torch.zeros_like(noise), condition)
    fade = torch.hann_window(16, periodic=False)  # the ends of the crop are no pattern
    faded = (field - field.mean()) * fade.view(-1, 1, 1) * fade.view(-1, 1) * fade
    power = torch.fft.fftn(faded, dim=(2, 3, 4)).abs().square()
    frequency = torch.stack(torch.meshgrid(*[torch.fft.fftfreq(16).abs()] * 3, indexing="ij")).amax(0)
    assert float(power[:, :, frequency >= 0.4].sum() / power.sum()) < 0.01


def test_tissue_stays_within_what_the_look_knows(tmp_path: Path) -> None:
    """Of the look: four bins around the mean, so 20 HU either way, and a bin more."""
    assert LOOKS[0].range_hu == (-25.0, 25.0)
    case = ellipsoid_case(fine(60), (28, 28, 28))
    generator = open_generator(tiny_file(tmp_path))
    torch.nn.init.normal_(generator.model.net.unet.out[-1].conv.weight, std=30.0)  # a network gone wild
    plan = insert_tumors(case, recipe_of(tiny_file(tmp_path), lesions=(1, 1)), 1).inserted[0].plan
    tumor = generator.render(case.read_image(), case.read_mask("liver"), plan)
    spread = tumor.hu[tumor.alpha > 0.5]
    assert np.ptp(spread) > 20
    assert np.ptp(spread) <= 50 + 1e-3


def test_a_diffusion_network_gone_wild_stays_within_its_limit() -> None:
    model = tiny_model("diffusion")
    torch.nn.init.normal_(model.net.unet.out[-1].conv.weight, std=50.0)
    noise, condition = torch.randn(2, 1, 16, 16, 16), torch.from_numpy(np.stack([look.condition() for look in LOOKS]))
    with torch.inference_mode():
        field = tissue_field(model.net, model.spec, noise, torch.ones_like(noise), torch.zeros_like(noise), condition)
    assert float(field.abs().max()) <= model.spec.limit_hu + 1e-3
