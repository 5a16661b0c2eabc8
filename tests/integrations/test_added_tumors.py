"""Tumors in arrays: those of `synthesize`, in whole scans and patches, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from integrations.label_maps import LABELS, label_map
from synthesis.patients import OBLIQUE, RECIPE, UPRIGHT, patient, synthesize_all, write_patients
from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError, GeometryError, RecipeError
from synthoma.integrations.images import in_columns, require_hu
from synthoma.integrations.labels import LabelScheme, label_scheme
from synthoma.integrations.sources import Bank, Source, fitted, open_source
from synthoma.integrations.tumors import WithTumors, add_tumors
from synthoma.reading import open_dataset
from synthoma.synthesis.pipeline import Synthesis, insert_tumors
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.volume import Array, Box, Geometry, Volume

SCHEME = label_scheme(LABELS)
LPS = UPRIGHT.reoriented("LPS")


def put(case: Case, source: Source, seed: int = 0, image: Array | None = None) -> WithTumors:
    """Tumors in a whole case, its one label map called `label`."""
    hu, affine = case.read_image().data, case.read_geometry().affine
    image = hu if image is None else image
    return add_tumors(image, affine, {"label": label_map(case)}, {"label": SCHEME}, source, seed, case.id)


def expected_labels(case: Case, made: Synthesis) -> Array:
    """The label map of the masks that a synthesis gives."""
    moved = {name: made.moved(mask) for name, mask in case.read_masks().items()}
    labels = label_map(dataclasses.replace(case, masks=moved))
    for organ, value in SCHEME.tumors.items():
        labels[made.tumors(organ).data] = value
    return labels


@pytest.mark.parametrize("geometry", [UPRIGHT, OBLIQUE, LPS], ids=["anisotropic", "oblique", "LPS"])
@pytest.mark.parametrize("kind", [np.int16, np.float32], ids=["int16", "float32"])
def test_a_whole_scan_gets_the_voxels_of_synthesize(geometry: Geometry, kind: type) -> None:
    case = patient("ill", geometry, kind, ill=True)
    made = insert_tumors(case, RECIPE, seed=3)
    done = put(case, RECIPE, seed=3)
    assert len(done.plans) >= 2
    assert any(plan.displacement_mm for plan in done.plans)
    assert done.plans == tuple(tumor.plan for tumor in made.inserted)
    assert done.image.dtype == kind
    assert np.array_equal(done.image, made.ct.data)
    assert np.array_equal(done.labels["label"], expected_labels(case, made))


def test_whole_hu_that_were_loaded_as_float_get_the_voxels_of_the_file() -> None:
    case = patient("plain")
    loaded = case.read_image().data.astype(np.float64)
    done = put(case, RECIPE, 3, loaded)
    assert done.image.dtype == np.float64
    assert np.array_equal(done.image, insert_tumors(case, RECIPE, 3).ct.data)
    assert np.array_equal(loaded, case.read_image().data)  # the input stays as it is


def test_every_label_map_gets_what_it_has_a_value_for() -> None:
    case = patient("plain")
    labels, organs, tumors = label_map(case), label_map(case), np.zeros(UPRIGHT.shape, np.float32)
    schemes = {
        "organs": label_scheme({"liver": 1, "kidney_left": 3, "spleen": 5}),
        "tumors": label_scheme({"tumor": 9}),
    }
    image, affine = case.read_image().data, UPRIGHT.affine
    source = fitted(RECIPE, schemes.values())
    done = add_tumors(image, affine, {"organs": organs, "tumors": tumors}, schemes, source, 3, case.id)
    alone = put(case, RECIPE, 3)
    assert np.array_equal(done.image, alone.image)
    assert done.labels["tumors"].dtype == np.float32
    assert np.array_equal(done.labels["tumors"] == 9, np.isin(alone.labels["label"], (2, 4)))
    assert not np.isin(done.labels["organs"], (2, 4, 9)).any()
    assert (done.labels["organs"] != labels).any()  # the mass effect


def test_real_tumors_and_what_nobody_annotated_stay_untouched() -> None:
    case = patient("ill", ill=True)
    labels = label_map(case)
    labels[:30][labels[:30] > 0] = 255
    scheme = label_scheme({**LABELS, "ignore": 255})
    image = case.read_image().data
    for seed in range(3):
        done = add_tumors(image, UPRIGHT.affine, {"label": labels}, {"label": scheme}, RECIPE, seed)
        after = done.labels["label"]
        assert np.array_equal(after == 255, labels == 255)
        assert ((after == 2) >= (labels == 2)).all()
        assert np.array_equal(done.image[labels == 2], image[labels == 2])


def test_a_manifest_gives_the_voxels_of_its_synthesis(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "ill", "oblique", "float")
    synthesize_all(data, tmp_path / "out", "plans")
    source = open_source(tmp_path / "out")
    assert isinstance(source, Bank)
    assert source == open_source(tmp_path / "out" / "manifest.parquet")
    made = open_dataset(tmp_path / "out")
    for case in open_dataset(data).cases:
        done = put(case, source)
        assert np.array_equal(done.image, made[case.id].read_image().data), case.id
        for organ, value in SCHEME.tumors.items():
            lesion = anatomy.organ(organ).lesion
            assert np.array_equal(done.labels["label"] == value, made[case.id].read_mask(lesion).data)
    with pytest.raises(CaseError, match=r"stranger: .* has no plans for it; found 3 cases: .*synthoma info"):
        put(dataclasses.replace(case, id="stranger"), source)


def test_a_manifest_fits_its_scan_resampled_or_cropped_but_no_other(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain", "ill")
    synthesize_all(data, tmp_path / "out", "plans", RECIPE.with_changes(lesions=(2, 3)))
    source, cases = open_source(tmp_path / "out"), open_dataset(data)
    case = cases["plain"]
    whole = put(case, source)
    box = Box((8, 8, 8), (52, 72, 40))
    crop = cropped(case, box)
    patch = put(crop, source)
    inner = (slice(10, -10),) * 2 + (slice(6, -6),)
    assert (whole.labels["label"][box.slices][inner] == 2).any()
    assert np.array_equal(patch.labels["label"][inner], whole.labels["label"][box.slices][inner])
    assert np.array_equal(patch.image[inner], whole.image[box.slices][inner])
    fine = Volume(whole.labels["label"], UPRIGHT).to(UPRIGHT.resampled(2.0))
    grid = fine.geometry
    masks = {name: mask.to(grid) for name, mask in case.read_masks().items()}
    coarse = put(Case("plain", case.read_image().to(grid), masks), source)
    share = (coarse.labels["label"] == 2).sum() / (fine.data == 2).sum()
    assert 0.9 < share < 1.1
    brighter = Volume(case.read_image().data + np.int16(60), UPRIGHT)
    with pytest.raises(CaseError, match=r"made on another scan; found a liver of 16\d HU, expected about 10\d HU"):
        put(dataclasses.replace(case, image=brighter), source)
    moved = Geometry(UPRIGHT.shape, UPRIGHT.affine + shift(90))
    elsewhere = {name: Volume(mask.data, moved) for name, mask in case.read_masks().items()}
    with pytest.raises(CaseError, match=r"made on another scan; found no (liver|kidney) around"):
        put(Case("plain", Volume(case.read_image().data, moved), elsewhere), source)


def shift(mm: float) -> Array:
    """Added to an affine: to the left."""
    change = np.zeros((4, 4))
    change[0, 3] = mm
    return change


def cropped(case: Case, box: Box) -> Case:
    """A patch of a case, which knows where it lies."""
    masks = {name: mask.crop(box) for name, mask in case.read_masks().items()}
    return Case(case.id, case.read_image().crop(box), masks)


def test_a_patch_is_a_scan_of_its_own() -> None:
    case = patient("plain")
    patch = cropped(case, Box((10, 20, 5), (50, 60, 35)))
    done = put(patch, RECIPE, 1)
    assert done.plans
    assert np.array_equal(done.image, insert_tumors(patch, RECIPE.with_changes(organs=("liver",)), 1).ct.data)
    assert (done.labels["label"] == 2).any()


def test_a_patch_that_shows_nothing_but_liver_gets_tumors() -> None:
    case = patient("plain")
    patch = cropped(case, Box((18, 30, 14), (34, 50, 26)))
    assert patch.read_mask("liver").data.all()
    done = put(patch, SynthesisRecipe(lesions=(1, 1), diameter_mm=(8, 10)), 2)
    assert len(done.plans) == 1
    assert (done.labels["label"] == 2).sum() > 20


def test_without_organ_or_room_nothing_changes_and_a_note_says_why() -> None:
    case = patient("plain")
    for box, recipe, why in (
        (Box((0, 0, 0), (8, 8, 8)), RECIPE, "no organ"),
        (Box((25, 30, 10), (29, 34, 12)), RECIPE.with_changes(gap_mm=90, lesions=(2, 2), diameter_mm=(60, 70)), ""),
    ):
        patch = cropped(case, box)
        image, labels = patch.read_image().data, {"label": label_map(patch)}
        affine = patch.read_geometry().affine
        done = add_tumors(image, affine, labels, {"label": SCHEME}, recipe, 0)
        assert done.image is image
        assert done.labels is labels
        assert not done.plans
        assert why in done.notes[0]


def scaled(hu: Array, how: str) -> Array:
    """What a pipeline makes of HU."""
    values = hu.astype(np.float32)
    window = np.clip((values + 175) / 425, 0, 1)
    return {
        "0-1": window,
        "z-score": (values - values.mean()) / values.std(),
        "bytes": np.rint(255 * window),
        "stored": values + 1024,
    }[how]


SCAN, PATCH = Box((0, 0, 0), UPRIGHT.shape), Box((10, 20, 5), (50, 60, 35))


@pytest.mark.parametrize(
    ("box", "how"),
    [(SCAN, "0-1"), (SCAN, "z-score"), (SCAN, "bytes"), (PATCH, "0-1"), (PATCH, "z-score"), (PATCH, "stored")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_that_are_no_hu_are_refused_with_the_order_that_works(box: Box, how: str) -> None:
    case = cropped(patient("plain"), box)
    hu = case.read_image().data.copy()
    hu[:3] = -1000 if box == SCAN else hu[:3]
    assert put(case, RECIPE, image=hu)
    with pytest.raises(CaseError, match=r"plain: the image does not hold HU; .*spacing; then tumors; then intensity"):
        put(case, RECIPE, image=scaled(hu, how))


def test_nan_is_refused() -> None:
    case = patient("plain")
    hu = case.read_image().data.astype(np.float32)
    hu[3, 4, 5] = np.nan
    with pytest.raises(CaseError, match="NaN"):
        put(case, RECIPE, image=hu)


@pytest.mark.parametrize("affine", [None, np.eye(4)])
def test_an_image_whose_spacing_is_not_known_is_refused(affine: Any) -> None:
    case = patient("plain")
    with pytest.raises(GeometryError, match="size in mm is not known"):
        add_tumors(case.read_image().data, affine, {"label": label_map(case)}, {"label": SCHEME}, RECIPE, 0)
    with pytest.raises(GeometryError, match="3-D scans"):
        add_tumors(case.read_image().data[0], np.diag([1, 1, 2, 1]), {}, {}, RECIPE, 0)


def test_sources_are_recipes_names_files_and_manifests(tmp_path: Path) -> None:
    liver = open_source("liver")
    assert liver == open_source({"organs": ["liver"]}) == open_source(SynthesisRecipe(organs=("liver",)))
    file = tmp_path / "mine.toml"
    file.write_text('organs = ["kidney"]\n')
    assert open_source(file) == SynthesisRecipe(organs=("kidney",))
    with pytest.raises(RecipeError, match="no recipe livers"):
        open_source("livers")
    with pytest.raises(RecipeError, match="a critic judges when tumors are stored"):
        open_source({"critic": {"model": "liver-small"}})


def of(labels: dict[str, int]) -> list[LabelScheme]:
    return [label_scheme(labels)]


def test_a_recipe_asks_the_labels_for_organs_tumors_and_phase() -> None:
    both = SynthesisRecipe(organs=("liver", "uterus"))
    assert fitted(both, of({"liver": 1, "tumor": 2})) == both.with_changes(organs=("liver",))
    with pytest.raises(RecipeError, match=r"show none of the recipe's organs: liver, uterus"):
        fitted(both, of({"colon": 1, "tumor": 2}))
    with pytest.raises(RecipeError, match=r"no value for tumors of the uterus.*uterus_tumor"):
        fitted(both, of({"liver": 1, "liver_tumor": 2, "uterus": 3}))
    with pytest.raises(RecipeError, match=r"phase cannot be told"):
        fitted(both, of({"uterus": 3, "tumor": 2}))
    assert fitted(both.with_changes(phase="portal"), of({"uterus": 3, "tumor": 2}))


@pytest.mark.parametrize("place", [np.s_[1:2, 1:2, :], np.s_[2:10, 2:10, 2:10]], ids=["thin", "thick"])
@pytest.mark.parametrize(("hu", "fine"), [(100, True), (2000, False)])
def test_an_organ_whose_values_are_no_hu_is_refused_however_thin_it_is(place: Any, hu: int, fine: bool) -> None:
    mask = np.zeros((12, 12, 12), bool)
    mask[place] = True
    image = np.where(mask, hu, -1000).astype(np.int16)
    image[0] = 300
    masks = {"liver": Volume(mask, Geometry.of(mask.shape, 1.0))}
    if fine:
        require_hu(image, masks, "a")
    else:
        with pytest.raises(CaseError, match="a median of 2000 in the liver"):
            require_hu(image, masks, "a")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.float32, np.float64, bool])
@pytest.mark.parametrize("layout", ["rows", "columns", "view"])
def test_arrays_in_columns_hold_the_same_voxels(kind: type, layout: str) -> None:
    data = np.random.default_rng(0).integers(0, 200, (5, 7, 3)).astype(kind)
    given = {"rows": data, "columns": np.asfortranarray(data), "view": data[::-1, :, ::2]}[layout]

    found = in_columns(given)

    assert found.flags.f_contiguous
    assert found.dtype == given.dtype
    assert np.array_equal(found, given)
    assert (found is given) == (layout == "columns"), "what is in columns already is not copied"
