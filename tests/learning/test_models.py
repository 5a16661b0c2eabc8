"""A model comes back as it was saved, and nothing else is taken for one."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from synthoma.errors import FileError, RecipeError
from synthoma.learning.models import Model, ModelSpec, load_model, model_at, models_in_the_box, save_model
from synthoma.learning.networks import NETWORKS, NetworkRecipe, build_network, required_multiple

TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "depth": 3},
    "dynunet": {"width": 4, "depth": 3, "deep_supervision": True},
    "segresnet": {"width": 8, "depth": 3, "deep_supervision": True},
    "swinunetr-tiny": {},
    "mednext-s": {"width": 4, "deep_supervision": True},
    "resencm": {"width": 4, "depth": 3},
}


def tiny_model(name: str = "unet", classes: tuple[str, ...] = ("liver", "liver_lesion"), **changes: Any) -> Model:
    recipe = NetworkRecipe(name=name, **{**TINY[name], **changes})
    side = required_multiple(recipe)
    spec = ModelSpec(
        network=recipe, classes=classes, spacing_mm=(1.5, 1.5, 2), window_hu=(-175, 250), patch=(2 * side, side, side)
    )
    torch.manual_seed(3)
    return Model(build_network(recipe, len(classes)), spec, {"figures": {"dsc": 0.5}, "data": ["a", "ä"]})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_model(tmp_path / "model.safetensors", tiny_model())
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", TINY)
def test_a_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    save_model(tmp_path / "m.safetensors", model)
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.spec == model.spec
    assert loaded.record == model.record
    assert not loaded.net.training
    before, after = model.net.state_dict(), loaded.net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    image = torch.randn(1, 1, *model.spec.patch)
    with torch.no_grad():
        assert torch.equal(model.net.eval()(image), loaded.net(image))


def test_every_family_of_networks_is_tried() -> None:
    assert {NETWORKS[name].target for name in TINY} == {family.target for family in NETWORKS.values()}


def test_the_same_model_gives_the_same_bytes_and_each_weight_once(tmp_path: Path) -> None:
    model = tiny_model("resencm")
    for name in ("a", "b"):
        save_model(tmp_path / name, model)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "a").values())
    assert stored == sum(parameter.numel() for parameter in model.net.parameters())


def test_half_the_bytes_cost_three_digits(tmp_path: Path, saved: Path) -> None:
    model = tiny_model()
    save_model(tmp_path / "half.safetensors", model, half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.65 * saved.stat().st_size
    loaded = load_model(tmp_path / "half.safetensors")
    for before, after in zip(model.net.parameters(), loaded.net.parameters(), strict=True):
        assert after.dtype == torch.float32
        torch.testing.assert_close(before.half().float(), after.detach(), rtol=0, atol=0)


def test_weights_too_large_for_half_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        next(model.net.parameters()).fill_(1e6)
    with pytest.raises(FileError, match="too large for float16"):
        save_model(tmp_path / "m.safetensors", model, half=True)
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_found_by_file_by_run_folder_and_by_name(tmp_path: Path, saved: Path) -> None:
    box = tmp_path / "box"
    save_model(box / "liver-small.safetensors", tiny_model(classes=("liver",)))
    assert models_in_the_box(box) == ("liver-small",)
    assert load_model(saved, box=box).spec.classes == ("liver", "liver_lesion")
    assert load_model(tmp_path, box=box).spec.classes == ("liver", "liver_lesion")
    assert load_model("liver-small", box=box).spec.classes == ("liver",)


def test_an_unknown_name_lists_the_models_there_are(tmp_path: Path) -> None:
    save_model(tmp_path / "liver-small.safetensors", tiny_model())
    with pytest.raises(FileError, match=r"no model liver-smal; expected .* one of these names: liver-small"):
        load_model("liver-smal", box=tmp_path)
    with pytest.raises(FileError, match="none in the box"):
        load_model("liver-small", box=tmp_path / "absent")


def test_a_name_does_not_lead_out_of_the_box(tmp_path: Path) -> None:
    save_model(tmp_path / "secret.safetensors", tiny_model())
    with pytest.raises(FileError, match="no model"):
        load_model("../secret", box=tmp_path / "box")


def test_a_run_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="when its training has ended"):
        load_model(tmp_path)


class _Trap:
    """Makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "old torch", "pickle"])
@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_is_refused_and_never_runs(how: str, name: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / name
    if how == "pickle":
        path.write_bytes(pickle.dumps({"weights": _Trap(marker)}))
    else:
        torch.save({"weights": _Trap(marker)}, path, _use_new_zipfile_serialization=how == "torch")
    with pytest.raises(FileError, match="weights are never unpickled"):
        load_model(path)
    assert not marker.exists()
    with pytest.raises(pickle.UnpicklingError):  # the trap is one: even torch's own reader refuses it
        torch.load(io.BytesIO(path.read_bytes()), weights_only=True)


@pytest.mark.parametrize("kept", [0, 5, 30, 0.5, -1])
def test_a_file_that_was_cut_is_refused(kept: float, saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(FileError, match=r"is damaged|is not a model"):
        load_model(saved)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.999])
def test_a_weight_that_changed_on_the_disk_is_noticed(place: float, saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start + int(place * (len(data) - start))] ^= 4
    saved.write_bytes(data)
    with pytest.raises(FileError, match=r"is damaged.*checksum"):
        load_model(saved)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a file that begins with b'<!DOCTYP'"),
    ],
)
def test_other_files_are_named(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(FileError, match=says):
        load_model(tmp_path / "m.safetensors")


def test_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    with pytest.raises(FileError, match="not what they are for; found header entries: format"):
        load_model(tmp_path / "m.safetensors")


def _rewrite(path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> None:
    """The model file with other tensors, or with changed entries of its header."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["synthoma"])
    kept = load_file(path) if tensors is None else tensors
    save_file(kept, path, metadata={"synthoma": json.dumps({**about, **changes})})


@pytest.mark.parametrize(
    "network",
    [
        {"name": "os:system"},
        {"name": "monai.networks.nets.UNet"},
        {"name": "unet", "_target_": "os.system"},
        {"name": "unet", "width": 10**9},
        {"name": "swinunetr-base", "width": 960},
    ],
)
def test_a_model_names_networks_that_come_along_and_nothing_else(network: dict[str, Any], saved: Path) -> None:
    spec = tiny_model().spec.as_dict() | {"network": network}
    _rewrite(saved, spec=spec)
    with pytest.raises(FileError, match="cannot be understood"):
        load_model(saved)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "", "liver\n"])
def test_a_class_that_would_be_a_path_is_refused(name: str, saved: Path) -> None:
    _rewrite(saved, spec=tiny_model().spec.as_dict() | {"classes": ["liver", name]})
    with pytest.raises(FileError, match=r"cannot be understood; found .*a class of a model"):
        load_model(saved)


def test_a_network_larger_than_its_weights_takes_no_memory(saved: Path) -> None:
    from resource import RUSAGE_SELF, getrusage

    largest = getrusage(RUSAGE_SELF).ru_maxrss
    # 256 features at depth 7 are some 10^10 weights
    network = {"name": "unet", "width": 256, "depth": 7}
    _rewrite(saved, spec=tiny_model().spec.as_dict() | {"network": network, "patch": [128, 64, 64]})
    with pytest.raises(FileError, match="of another network"):
        load_model(saved)
    assert getrusage(RUSAGE_SELF).ru_maxrss - largest < 1_000_000  # kB


def test_weights_of_another_network_are_refused_with_three_names(saved: Path) -> None:
    tensors = load_file(saved)
    first, second, *_ = tensors
    tensors[first] = torch.zeros(3)
    del tensors[second]
    tensors["head.weight"], tensors["tail.weight"] = torch.zeros(1), torch.zeros(1)
    _rewrite(saved, tensors)
    with pytest.raises(FileError, match="of another network") as caught:
        load_model(saved)
    found = str(caught.value.found)
    assert f"{second} is missing" in found
    assert "head.weight is unknown" in found
    assert "and 1 more" in found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "synthoma model 9"}, "another version"),
        ({"spec": {"classes": ["liver"]}}, "cannot be understood"),
        ({"spec": None}, "cannot be understood"),
        ({"record": 3}, "cannot be understood"),
    ],
)
def test_a_header_of_another_kind_is_refused(changes: dict[str, Any], says: str, saved: Path) -> None:
    _rewrite(saved, **changes)
    with pytest.raises(FileError, match=says):
        load_model(saved)


def test_a_model_whose_network_cannot_take_its_patch_is_refused(saved: Path) -> None:
    spec = tiny_model().spec
    with pytest.raises(RecipeError, match="multiples of 4"):
        spec.with_changes(patch=(30, 32, 32))
    _rewrite(saved, spec={**spec.as_dict(), "patch": [30, 32, 32]})
    with pytest.raises(FileError, match="cannot be understood"):
        load_model(saved)


def test_a_model_of_the_same_name_elsewhere_or_written_anew_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weight_read(folder: str, weight: float) -> float:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        model = tiny_model()
        with torch.no_grad():
            next(model.net.parameters()).fill_(weight)
        save_model("m.safetensors", model)
        assert model_at("m.safetensors") is model_at("m.safetensors")
        return next(model_at("m.safetensors").net.parameters()).flatten()[0].item()

    assert [weight_read("a", 1.0), weight_read("b", 2.0), weight_read("b", 3.0)] == [1.0, 2.0, 3.0]
