"""RandomTumor in TorchIO pipelines: the voxels of synthesize, torch's seed, replay from the history, errors."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio

from integrations.label_maps import LABELS, label_map
from synthesis.patients import OBLIQUE, RECIPE, UPRIGHT, patient, synthesize_all, write_patients
from synthoma import files
from synthoma.cases import Case
from synthoma.errors import CaseError, GeometryError, MissingExtraError, RecipeError
from synthoma.integrations.torchio import RandomTumor, Tumors
from synthoma.reading import open_dataset
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.volume import Geometry, Volume

SMALL = RECIPE.with_changes(lesions=(1, 2), retries=1)


def write(case: Case, folder: Path) -> tio.Subject:
    """The case as files, and the subject that reads them."""
    folder.mkdir(exist_ok=True)
    files.write_volume(case.read_image(), folder / f"{case.id}.nii.gz")
    files.write_volume(Volume(label_map(case), case.read_geometry()), folder / f"{case.id}_seg.nii.gz")
    image, labels = folder / f"{case.id}.nii.gz", folder / f"{case.id}_seg.nii.gz"
    return tio.Subject(ct=tio.ScalarImage(image), seg=tio.LabelMap(labels), case=case.id)


def random_tumor(**changes: Any) -> RandomTumor:
    """A transform that always puts tumors in."""
    return RandomTumor(**{"tumors": SMALL, "labels": {"seg": LABELS}, **changes})


def same(one: tio.Subject, other: tio.Subject) -> bool:
    """Whether image and label map are equal, voxel for voxel."""
    return all(torch.equal(one[name].data, other[name].data) for name in ("ct", "seg"))


@pytest.mark.parametrize("geometry", [UPRIGHT, OBLIQUE], ids=["anisotropic", "oblique"])
def test_files_get_the_voxels_of_synthesize_and_the_history_makes_them_again(
    geometry: Geometry, tmp_path: Path
) -> None:
    case = patient("ill", geometry, ill=True)
    subject = write(case, tmp_path)
    torch.manual_seed(7)
    torch.rand(1)  # whether it is applied
    seed = int(torch.randint(0, 2**31, (1,)))
    torch.manual_seed(7)
    after = random_tumor(tumors=RECIPE)(subject)
    made = insert_tumors(Case(case.id, subject.ct.path, case.masks), RECIPE, seed)
    assert np.array_equal(after.ct.numpy()[0], made.ct.data)
    assert np.array_equal(after.seg.numpy()[0] == 4, made.tumors("kidney").data)
    assert (after.ct.data.dtype, after.seg.data.dtype) == (subject.ct.data.dtype, subject.seg.data.dtype)
    assert np.array_equal(subject.ct.numpy()[0], case.read_image().data)
    [replayed] = after.get_composed_history().transforms
    assert isinstance(replayed, Tumors)
    assert [plan["center_mm"] for plan in replayed.plans] == [list(tumor.plan.center_mm) for tumor in made.inserted]
    again = pickle.loads(pickle.dumps(after.get_composed_history()))(subject)
    assert same(again, after)
    assert len(again.history) == 1


def test_a_manifest_is_put_in_again_by_the_names_of_its_cases(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "oblique")
    synthesize_all(data, tmp_path / "out", "plans")
    subject = write(open_dataset(data)["oblique"], tmp_path / "tio")
    made = open_dataset(tmp_path / "out")["oblique"]
    after = random_tumor(tumors=tmp_path / "out")(subject)
    assert np.array_equal(after.ct.numpy()[0], made.read_image().data)
    assert np.array_equal(after.seg.numpy()[0] == 2, made.read_mask("liver_lesion").data)
    assert same(after.get_composed_history()(subject), after)
    del subject["case"]
    with pytest.raises(CaseError, match=r'this one has no name; .*give its id: tio.Subject.case="liver_001"'):
        random_tumor(tumors=tmp_path / "out")(subject)


def test_it_works_among_other_transforms_and_its_history_too(tmp_path: Path) -> None:
    subject = write(patient("plain"), tmp_path)
    chain = tio.Compose(
        [
            tio.ToCanonical(),
            tio.Resample((2.0, 2.0, 3.0)),
            random_tumor(),
            tio.RandomFlip(axes=(0, 1)),
            tio.Clamp(-175, 250),
            tio.RescaleIntensity((0, 1)),
        ]
    )
    torch.manual_seed(3)
    one, other = chain(subject), chain(subject)
    assert not same(one, other)
    assert (one.seg.data == 2).any()
    torch.manual_seed(3)
    assert same(pickle.loads(pickle.dumps(chain))(subject), one)
    assert same(one.get_composed_history()(subject), one)
    assert "Tumors" in [transform.name for transform in one.history]


def test_probability_and_loaders_are_torchios(tmp_path: Path) -> None:
    subject = write(patient("plain"), tmp_path)
    subject.load()
    torch.manual_seed(0)
    assert same(random_tumor(p=0.0)(subject), subject)
    dataset = tio.SubjectsDataset([subject] * 4, transform=random_tumor(tumors=SMALL.with_changes(organs=("liver",))))
    loader = tio.SubjectsLoader(dataset, batch_size=1, num_workers=2)
    seen = [batch["ct"][tio.DATA].numpy().tobytes() for _ in range(2) for batch in loader]
    assert len(set(seen)) == len(seen) == 8


def test_patches_and_subjects_without_the_organ_keep_their_history_empty(tmp_path: Path) -> None:
    subject = write(patient("plain"), tmp_path)
    patch = tio.Crop((0, 72, 0, 72, 0, 32))(subject)
    after = random_tumor()(patch)
    assert same(after, patch)
    assert [transform.name for transform in after.history] == ["Crop"]


def test_what_cannot_work_is_refused_with_the_way_out(tmp_path: Path) -> None:
    subject = write(patient("plain"), tmp_path)
    with pytest.raises(CaseError, match=r"plain: the image does not hold HU; .*then tumors; then intensity scaling"):
        tio.Compose([tio.ZNormalization(), random_tumor()])(subject)
    bare = tio.Subject(ct=tio.ScalarImage(tensor=subject.ct.data), seg=tio.LabelMap(tensor=subject.seg.data))
    with pytest.raises(GeometryError, match="size in mm is not known"):
        random_tumor()(bare)
    with pytest.raises(CaseError, match="no LabelMap 'liver'"):
        random_tumor(labels={"liver": LABELS})(subject)
    with pytest.raises(CaseError, match="not clear which image is the CT; found ct, expected image='t1'"):
        random_tumor(image="t1")(subject)
    with pytest.raises(RecipeError, match="labels name each label map"):
        random_tumor(labels=LABELS)


def test_without_torchio_the_error_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchio", None)
    monkeypatch.delitem(sys.modules, "synthoma.integrations.torchio")
    with pytest.raises(MissingExtraError, match=r"pip install 'synthoma\[torchio\]'"):
        importlib.import_module("synthoma.integrations.torchio")
