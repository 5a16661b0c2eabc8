"""What is handed on says the same as the model, and nothing is written over that is not ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.bundle import ConfigParser

from synthoma.errors import FileError, MissingExtraError
from synthoma.learning.calibration import Calibration
from synthoma.learning.models import Model, ModelSpec, load_model
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.segmentation import export as export_module
from synthoma.segmentation.export import export
from synthoma.segmentation.points import operating_points

CLASSES = ("liver", "liver_lesion", "kidney")
TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "depth": 3},
    "dynunet": {"width": 4, "depth": 4, "deep_supervision": True},
    "segresnet": {"width": 8, "depth": 3, "deep_supervision": True},
    "mednext-s": {"width": 4, "deep_supervision": True},
    "resencm": {"width": 4, "depth": 3, "deep_supervision": True},
}


def tiny_model(name: str = "unet") -> Model:
    """A network of random weights, each of its normalizations scaled and shifted."""
    spec = ModelSpec(
        network=NetworkRecipe(name=name, **TINY[name]),
        classes=CLASSES,
        spacing_mm=(1.5, 1.5, 2),
        window_hu=(-175, 250),
        patch=(32, 32, 32),
    )
    torch.manual_seed(5)
    net = build_network(spec.network, len(CLASSES))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Model(net, spec, {"data": "phantoms"})


def logits_of(model: Model, windows: torch.Tensor) -> Any:
    with torch.no_grad():
        return model.net.eval()(windows).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model and the ONNX file of it: tracing takes seconds."""
    model = tiny_model()
    return model, export(model, "onnx", tmp_path_factory.mktemp("onnx") / "deep" / "model.onnx")


def require_any_number(model: Model, path: Path) -> None:
    session = onnxruntime.InferenceSession(str(path))
    for count in (1, 3):
        windows = torch.rand(count, 1, *model.spec.patch)
        (found,) = session.run(["logits"], {"image": windows.numpy()})
        np.testing.assert_allclose(found, logits_of(model, windows), rtol=1e-4, atol=1e-4)


def test_onnx_takes_any_number_of_windows(exported: tuple[Model, Path]) -> None:
    require_any_number(*exported)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynunet", "mednext-s"])
def test_heads_and_group_norm_go_to_onnx_too(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    require_any_number(model, export(model, "onnx", tmp_path / "model.onnx"))


def test_onnx_says_what_it_is_for_in_one_file(exported: tuple[Model, Path]) -> None:
    model, path = exported
    about = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert about["classes"] == list(CLASSES)
    assert ModelSpec.model_validate(about["synthoma"]["spec"]) == model.spec
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("name", TINY)
def test_a_bundle_rebuilds_the_network_without_this_program(name: str, tmp_path: Path) -> None:
    model = tiny_model(name)
    folder = export(model, "monai-bundle", tmp_path / "bundle")
    parser = ConfigParser()
    parser.read_config(folder / "configs/inference.json")
    parser.read_meta(folder / "configs/metadata.json")
    net = parser.get_parsed_content("network_def").eval()
    assert not type(net).__module__.startswith("synthoma")
    net.load_state_dict(torch.load(folder / "models/model.pt", weights_only=True))
    windows = torch.rand(2, 1, 32, 32, 32)
    with torch.no_grad():
        assert np.array_equal(net(windows).numpy(), logits_of(model, windows))
    assert parser.get("_meta_#network_data_format#outputs#pred#channel_def") == {
        "0": "liver", "1": "liver_lesion", "2": "kidney",
    }  # fmt: skip


def test_the_workflow_of_a_bundle_gives_masks_on_the_grid_of_the_scan(tmp_path: Path) -> None:
    folder = export(tiny_model(), "monai-bundle", tmp_path / "bundle")
    affine = np.array([[-1.2, 0, 0, 30], [0, 1.1, 0.2, -10], [0, -0.2, 3, 5], [0, 0, 0, 1]])
    hu = np.random.default_rng(1).normal(50, 100, (40, 36, 18)).astype(np.int16)
    (tmp_path / "images").mkdir()
    nib.save(nib.Nifti1Image(hu, affine), tmp_path / "images/scan.nii.gz")

    parser = ConfigParser()
    parser.read_config(folder / "configs/inference.json")
    parser["dataset_dir"], parser["output_dir"] = str(tmp_path / "images"), str(tmp_path / "out")
    parser["bundle_root"] = str(folder)
    parser.get_parsed_content("initialize")
    network = parser.get_parsed_content("network").eval()
    (batch,) = parser.get_parsed_content("dataloader")
    with torch.no_grad():
        batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    parser.get_parsed_content("postprocessing")({"image": batch["image"][0], "pred": batch["pred"][0]})
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    masks = nib.load(written)
    assert masks.shape == (*hu.shape, len(CLASSES))
    np.testing.assert_allclose(masks.affine, affine, atol=1e-4)
    assert set(np.unique(masks.dataobj)) == {0, 1}


def calibrated(model: Model, **least_hu: float) -> Model:
    """The model with an operating point that asks for sure and large lesions."""
    point = {
        "false_per_scan": 1.0, "sensitivity": 0.5, "thresholds": {"liver_lesion": 0.3}, "peaks": {"liver_lesion": 0.8},
        "smallest_mm3": {"liver_lesion": 100.0}, "least_hu": least_hu,
    }  # fmt: skip
    known = Calibration.model_validate(
        {
            "data": "phantoms", "cases": 3, "temperatures": {"liver_lesion": 2.0}, "shifts": {"liver_lesion": 0.5},
            "errors": {}, "points": {"high": point, "specific": point}, "usual": "high",
        }
    )  # fmt: skip
    return Model(model.net, model.spec.with_changes(calibration=known), model.record)


def logit_of(probability: float) -> float:
    """What the network says of a tumor that means this probability once it is calibrated."""
    return 2.0 * (float(np.log(probability / (1 - probability))) - 0.5)


def test_the_workflow_of_a_bundle_cuts_at_the_usual_operating_point(tmp_path: Path) -> None:
    folder = export(calibrated(tiny_model()), "monai-bundle", tmp_path / "bundle")
    affine = np.diag([1.5, 1.5, 2, 1])
    (tmp_path / "images").mkdir()
    nib.save(nib.Nifti1Image(np.zeros((32, 32, 32), np.int16), affine), tmp_path / "images/scan.nii.gz")
    parser = ConfigParser()
    parser.read_config(folder / "configs/inference.json")
    parser["dataset_dir"], parser["output_dir"] = str(tmp_path / "images"), str(tmp_path / "out")
    (batch,) = parser.get_parsed_content("dataloader")
    pred = np.full((3, 32, 32, 32), -9.0, np.float32)
    pred[0, 2:30, 2:30, 2:30] = 0.1  # just liver
    pred[1, 4:8, 4:8, 4:8] = logit_of(0.35)  # faint around a sure core: a lesion, all of it
    pred[1, 5, 5, 5] = logit_of(0.85)
    pred[1, 12:18, 12:18, 12:18] = logit_of(0.7)  # nowhere sure
    pred[1, 24:26, 24:26, 24:26] = logit_of(0.99)  # 36 mm3
    pred[2, 0, 0, 0] = 5.0  # an organ has no smallest part here
    logits = batch["image"][0].new_empty((3, 32, 32, 32)).copy_(torch.as_tensor(pred))
    parser.get_parsed_content("postprocessing")({"image": batch["image"][0], "pred": logits})
    (written,) = (tmp_path / "out").rglob("*.nii.gz")
    masks = np.asarray(nib.load(written).dataobj)
    expected = pred > 0
    expected[1] = False
    expected[1, 4:8, 4:8, 4:8] = True
    assert np.array_equal(np.moveaxis(masks, -1, 0), expected)


def test_what_is_handed_on_says_where_to_cut_and_what_is_outside_of_the_network(
    exported: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = exported
    known = calibrated(model, liver_lesion=20.0)
    bundle = export(known, "monai-bundle", tmp_path / "bundle")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=onnx.load(path)))
    file = export(known, "onnx", tmp_path / "model.onnx")
    about = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}["operating_points"]
    assert json.loads((bundle / "configs/metadata.json").read_text())["operating_points"] == about
    lesion = {"threshold": 0.3, "peak": 0.8, "smallest_mm3": 100.0, "least_hu": 20.0}
    organ = {"threshold": 0.5, "peak": 0.5, "smallest_mm3": 0.0, "least_hu": None}
    assert about["usual"] == "high"
    assert about["points"]["high"] == {"liver": organ, "liver_lesion": lesion, "kidney": organ}
    assert set(about["points"]) == {"high", "specific"}
    assert about["scaling"]["liver_lesion"] == {"temperature": 2.0, "shift": 0.5}
    page = (bundle / "docs/README.md").read_text()
    assert "| liver_lesion | 2 | 0.5 | 0.3 | 0.8 | 100 | 20 |" in page
    assert "| kidney | 1 | 0 | 0.5 | 0.5 | 0 | none |" in page
    for step in about["outside_of_the_network"]:
        assert step in page
    assert "nothing is found in air around the patient" in " ".join(about["outside_of_the_network"])


def test_a_model_without_calibration_is_cut_at_one_half_and_says_so() -> None:
    told = operating_points(tiny_model().spec)
    assert told["usual"] == "uncalibrated"
    assert told["points"]["uncalibrated"]["liver_lesion"] == {
        "threshold": 0.5, "peak": 0.5, "smallest_mm3": 15.0, "least_hu": None,
    }  # fmt: skip
    assert told["scaling"]["kidney"] == {"temperature": 1.0, "shift": 0.0}


def test_safetensors_is_the_model_itself(tmp_path: Path) -> None:
    model = tiny_model("dynunet")
    loaded = load_model(export(model, "safetensors", tmp_path / "m.safetensors"))
    assert loaded.spec == model.spec
    assert loaded.record == model.record
    windows = torch.rand(1, 1, 32, 32, 32)
    assert np.array_equal(logits_of(loaded, windows), logits_of(model, windows))


@pytest.mark.parametrize(("to", "run"), [("onnx", "_run_onnx"), ("monai-bundle", "_run_bundle")])
def test_what_disagrees_with_the_model_is_not_given_out(
    to: Any, run: str, exported: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, path = exported
    true_answer = getattr(export_module, run)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=onnx.load(path)))
    monkeypatch.setattr(export_module, run, lambda *arguments: true_answer(*arguments)[:, [1, 0, 2]])
    with pytest.raises(FileError, match="disagrees with the model; found logits that differ by"):
        export(model, to, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_onnx_the_error_is_the_install_line(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=rf"{missing} is not installed; pip install 'synthoma\[export\]'"):
        export(tiny_model(), "onnx", tmp_path / "model.onnx")


def test_a_bundle_replaces_a_bundle_and_no_other_folder(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    for _ in range(2):
        export(tiny_model(), "monai-bundle", tmp_path / "bundle")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/text.md").write_text("years of work")
    for place in (tmp_path / "thesis", tmp_path / "thesis/text.md"):
        with pytest.raises(FileError, match="is no MONAI bundle"):
            export(tiny_model(), "monai-bundle", place)
    assert (tmp_path / "thesis/text.md").read_text() == "years of work"
