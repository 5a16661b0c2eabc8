"""RandTumord in MONAI pipelines: the voxels of synthesize, seeds, caches, lazy pipelines, crops, workers, errors."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai import transforms as mt
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, PersistentDataset

from integrations.label_maps import LABELS, label_map
from synthesis.patients import OBLIQUE, RECIPE, UPRIGHT, patient, synthesize_all, write_patients
from synthoma import files
from synthoma.cases import Case
from synthoma.errors import CaseError, GeometryError, MissingExtraError, RecipeError
from synthoma.integrations.monai import RandTumor, RandTumord
from synthoma.reading import open_dataset
from synthoma.synthesis.pipeline import insert_tumors
from synthoma.volume import Geometry, Volume

KEYS = ("image", "label")
LOAD = (mt.LoadImaged(KEYS), mt.EnsureChannelFirstd(KEYS))
SMALL = RECIPE.with_changes(organs=("liver",), lesions=(1, 2), retries=1)


def write(case: Case, folder: Path) -> dict[str, str]:
    """The case as files, as a MONAI data list names them."""
    folder.mkdir(exist_ok=True)
    image, label = folder / f"{case.id}.nii.gz", folder / f"{case.id}_label.nii.gz"
    files.write_volume(case.read_image(), image)
    files.write_volume(Volume(label_map(case), case.read_geometry()), label)
    return {"image": str(image), "label": str(label), "case": case.id}


@pytest.fixture(scope="module")
def item(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write(patient("plain"), tmp_path_factory.mktemp("monai"))


def loaded(item: dict[str, str]) -> dict[str, Any]:
    """The item's scan and label map, channel first."""
    found: dict[str, Any] = mt.Compose(LOAD)(item)
    return found


def always(**changes: Any) -> RandTumord:
    """A transform that always puts tumors in."""
    return RandTumord(**{"tumors": SMALL, "labels": {"label": LABELS}, "prob": 1.0, **changes})


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether image and label map are equal, voxel for voxel."""
    return all(torch.equal(one[key].as_tensor(), other[key].as_tensor()) for key in KEYS)


@pytest.mark.parametrize("geometry", [UPRIGHT, OBLIQUE], ids=["anisotropic", "oblique"])
def test_files_get_the_voxels_of_synthesize(geometry: Geometry, tmp_path: Path) -> None:
    case = patient("ill", geometry, ill=True)
    item = write(case, tmp_path)
    before = loaded(item)
    transform = always(tumors=RECIPE).set_random_state(5)
    after = transform(before)
    made = insert_tumors(Case(case.id, Path(item["image"]), case.masks), RECIPE, transform.seed)
    assert np.array_equal(after["image"][0].numpy(), made.ct.data)
    for value, organ in ((2, "liver"), (4, "kidney")):
        real = case.read_masks().get(f"{organ}_lesion")
        expected = made.tumors(organ).data | (made.moved(real).data if real else False)
        assert np.array_equal(after["label"][0].numpy() == value, expected)
    for key in KEYS:
        assert isinstance(after[key], MetaTensor)
        assert (after[key].dtype, after[key].shape) == (before[key].dtype, before[key].shape)
        assert torch.equal(after[key].affine, before[key].affine)
        assert after[key].meta["filename_or_obj"] == before[key].meta["filename_or_obj"]


def test_a_manifest_is_put_in_again_by_the_names_of_its_cases(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "oblique")
    synthesize_all(data, tmp_path / "out", "plans")
    item = write(open_dataset(data)["oblique"], tmp_path / "monai")
    made = open_dataset(tmp_path / "out")["oblique"]
    transform = always(tumors=tmp_path / "out")
    after = pickle.loads(pickle.dumps(transform))(loaded(item))
    assert np.array_equal(after["image"][0].numpy(), made.read_image().data)
    assert np.array_equal(after["label"][0].numpy() == 2, made.read_mask("liver_lesion").data)
    nameless = {key: value for key, value in loaded(item).items() if key != "case"}
    with pytest.raises(CaseError, match=r'this one has no name; .*give its id: \{"case": "liver_001"'):
        transform(nameless)


def test_the_random_state_decides_and_nothing_else(item: dict[str, str]) -> None:
    before = loaded(item)
    transform = always()
    first = transform.set_random_state(1)(before)
    second = transform(before)
    assert not same(first, second)
    assert not same(first, before)
    np.random.seed(3)
    torch.manual_seed(4)
    again = pickle.loads(pickle.dumps(always().set_random_state(1)))
    assert same(again(before), first)
    assert same(again(before), second)
    pipelines = [mt.Compose([*LOAD, always()]).set_random_state(seed=9) for _ in range(2)]
    assert same(pipelines[0](item), pipelines[1](item))


def test_the_array_form_gives_the_same_and_repeats_itself_when_asked(item: dict[str, str]) -> None:
    before = loaded(item)
    expected = always().set_random_state(1)({key: before[key] for key in KEYS})
    transform = RandTumor(SMALL, LABELS, prob=1.0).set_random_state(1)
    image, label = transform(before["image"], before["label"])
    assert same({"image": image, "label": label}, expected)
    repeated = transform(before["image"], before["label"], randomize=False)
    assert torch.equal(repeated[0], image)


def test_as_many_images_get_tumors_as_asked_for(item: dict[str, str]) -> None:
    before = loaded(item)
    never = always(prob=0.0)
    assert same(never(before), before)
    transform, counts = always(prob=0.3).set_random_state(0), 0
    for _ in range(400):
        transform.randomize()
        counts += transform._do_transform
    assert 0.23 < counts / 400 < 0.37
    with pytest.raises(RecipeError, match="no probability; found 30"):
        always(prob=30)


def test_caches_keep_the_healthy_scan_and_every_epoch_has_new_tumors(item: dict[str, str], tmp_path: Path) -> None:
    chain = mt.Compose([*LOAD, always(), mt.ScaleIntensityRanged("image", -175, 250, 0, 1)]).set_random_state(seed=2)
    cached = CacheDataset([item], chain, progress=False)
    stored = PersistentDataset([item], chain, cache_dir=tmp_path, track_meta=True, weights_only=False)
    for dataset in (cached, stored):
        first, second = dataset[0], dataset[0]
        assert not same(first, second)
        assert all(bool((epoch["label"] == 2).any()) for epoch in (first, second))
    healthy = loaded(item)
    kept = [cached._cache[0], torch.load(next(tmp_path.glob("*.pt")), weights_only=False)]
    assert all(same(found, healthy) for found in kept)
    without_affine = PersistentDataset([item], chain, cache_dir=tmp_path / "as it comes")
    assert not same(without_affine[0], healthy)
    with pytest.raises(RuntimeError) as refused:
        without_affine[0]
    assert "track_meta=True, weights_only=False" in str(refused.value.__cause__)


def test_lazy_pipelines_resample_before_tumors_go_in(item: dict[str, str]) -> None:
    spacing = mt.Spacingd(KEYS, (2.0, 2.0, 3.0), mode=("bilinear", "nearest"), lazy=True)
    crop = mt.CenterSpatialCropd(KEYS, (48, 48, 30), lazy=True)
    nearest = {"label": {"mode": "nearest"}}
    for lazy in (False, True):
        chain = mt.Compose([*LOAD, spacing, crop, always()], lazy=lazy, overrides=nearest).set_random_state(seed=3)
        result = chain(item)
        assert not result["image"].pending_operations
        assert result["image"].shape == (1, 48, 48, 30)
        assert (result["label"] == 2).any()
    # MONAI's lazy resampling forgets the mode of Spacingd
    with pytest.raises(RuntimeError) as refused:
        mt.Compose([*LOAD, spacing, always()], lazy=True)(item)
    assert 'overrides={"label": {"mode": "nearest"}}' in str(refused.value.__cause__)
    # outside of Compose nobody else carries out what is pending
    pending = crop(loaded(item))
    assert pending["image"].pending_operations
    alone = always().set_random_state(3)(pending)
    assert not alone["image"].pending_operations
    assert alone["image"].shape == (1, 48, 48, 30)
    assert (alone["label"] == 2).any()


def test_tumors_go_in_before_and_after_random_crops(item: dict[str, str]) -> None:
    crop = mt.RandCropByPosNegLabeld(KEYS, "label", (40, 40, 24), pos=1, neg=0, num_samples=3)
    after = mt.Compose([*LOAD, crop, always()]).set_random_state(seed=4)(item)
    assert [patch["image"].shape for patch in after] == [(1, 40, 40, 24)] * 3
    assert sum(bool((patch["label"] == 2).any()) for patch in after) >= 2
    tumor = mt.RandCropByPosNegLabeld(KEYS, "tumor", (24, 24, 12), pos=1, neg=0, num_samples=2)
    mark = [mt.CopyItemsd("label", names="tumor"), mt.Lambdad("tumor", lambda label: label == 2)]
    before = mt.Compose([*LOAD, always(), *mark, tumor]).set_random_state(seed=4)(item)
    assert all((patch["label"] == 2).any() for patch in before)


class Same(torch.utils.data.Dataset[Any]):
    """One item, many times."""

    def __init__(self, item: dict[str, Any], transform: RandTumord, count: int) -> None:
        self.item, self.transform, self.count = item, transform, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.item)["image"].as_tensor()


def batches(plain: bool, item: dict[str, Any], seed: int) -> Iterator[Any]:
    """Two epochs of a loader of two workers, MONAI's or torch's own."""
    torch.manual_seed(seed)
    transform = always(tumors=SMALL.with_changes(lesions=(1, 1))).set_random_state(0)
    data = Same(item, transform, 4) if plain else Dataset([item] * 4, mt.Compose([transform, mt.ToTensord("image")]))
    loader = torch.utils.data.DataLoader(data, 1, num_workers=2) if plain else DataLoader(data, num_workers=2)
    for _ in range(2):
        for batch in loader:
            yield (batch if plain else batch["image"].as_tensor()).numpy().tobytes()


@pytest.mark.parametrize("plain", [False, True], ids=["monai", "torch"])
def test_workers_never_repeat_each_other_and_follow_torchs_seed(plain: bool, item: dict[str, str]) -> None:
    data = loaded(item)
    first = list(batches(plain, data, 6))
    assert len(set(first)) == len(first) == 8
    assert list(batches(plain, data, 6)) == first


def test_several_label_maps_each_with_its_own_values(item: dict[str, str]) -> None:
    before = loaded(item)
    before["tumor"] = MetaTensor(torch.zeros_like(before["label"], dtype=torch.bool), meta=before["label"].meta)
    labels = {"label": {"liver": 1, "kidney_left": 3, "spleen": 5}, "tumor": {"tumor": 1}}
    after = always(labels=labels).set_random_state(1)(before)
    both = always().set_random_state(1)(before)
    assert torch.equal(after["image"], both["image"])
    assert after["tumor"].dtype == torch.bool
    assert torch.equal(after["tumor"].as_tensor(), both["label"].as_tensor() == 2)
    assert not (after["label"] == 2).any()
    labels["tumor"] = {"tumor": 2}
    with pytest.raises(CaseError, match="cannot hold a tumor's value; found bool, expected one that holds 2"):
        always(labels=labels)(before)


def test_lps_affines_are_turned_to_ras(item: dict[str, str]) -> None:
    before = loaded(item)
    expected = always().set_random_state(1)(before)
    meta = {
        **before["image"].meta,
        "affine": np.diag([-1, -1, 1, 1.0]) @ before["image"].affine.numpy(),
        "space": "LPS",
    }
    turned = {**before, "image": MetaTensor(before["image"].as_tensor(), meta=meta)}
    assert same(always().set_random_state(1)(turned), expected)


def test_what_cannot_work_is_refused_with_the_way_out(item: dict[str, str]) -> None:
    before = loaded(item)
    order = mt.Compose([*LOAD, mt.ScaleIntensityRanged("image", -175, 250, 0, 1, clip=True), always()])
    with pytest.raises(RuntimeError) as refused:
        order(item)
    assert "plain: the image does not hold HU" in str(refused.value.__cause__)
    assert "then tumors; then intensity scaling" in str(refused.value.__cause__)
    for image in (before["image"].numpy(), before["image"].as_tensor(), MetaTensor(before["image"].as_tensor())):
        with pytest.raises(GeometryError, match=r"size in mm is not known.*(LoadImaged|header)"):
            always()({**before, "image": image})
    with pytest.raises(CaseError, match=r"image is not one channel.*\(2, 80, 80, 40\)"):
        always()({**before, "image": before["image"].repeat(2, 1, 1, 1)})
    with pytest.raises(CaseError, match=r"label is not the image's shape; found \(80, 80, 39\)"):
        always()({**before, "label": before["label"][..., :-1]})
    with pytest.raises(CaseError, match=r"plain: .*does not know; found 5"):
        always(labels={"label": {"liver": 1, "tumor": 2, "kidney": 3}})(before)
    with pytest.raises(KeyError, match="mask"):
        always(labels={"mask": LABELS})(before)
    with pytest.raises(RecipeError, match="labels name the key of each label map"):
        always(labels=LABELS)


def test_without_monai_the_error_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.delitem(sys.modules, "synthoma.integrations.monai")
    with pytest.raises(MissingExtraError, match=r"pip install 'synthoma\[monai\]'"):
        importlib.import_module("synthoma.integrations.monai")
