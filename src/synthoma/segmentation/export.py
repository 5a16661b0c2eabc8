"""A model handed on: to ONNX, as a MONAI bundle, or as its own file; every file is tried before it is given out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

import synthoma
from synthoma.disk import atomic, atomic_folder, write_json, write_text
from synthoma.errors import FileError
from synthoma.extras import need
from synthoma.learning.models import Model, ModelSpec, described, save_model
from synthoma.learning.networks import architecture, build_network
from synthoma.recipe import read_recipe
from synthoma.segmentation.card import CardRecipe, card_page, with_card
from synthoma.segmentation.points import PLAIN, operating_points, points_as_text, usual_point

Kind = Literal["onnx", "monai-bundle", "safetensors"]
OPSET = 20  # of ONNX 1.15, November 2023
WEIGHTS, METADATA, INFERENCE = "models/model.pt", "configs/metadata.json", "configs/inference.json"
TOLERANCE = 1e-3  # of the largest logit; rounding reaches 1e-5, and what is wrong differs by 1


def export(model: Model, to: Kind, out: Path | str) -> Path:
    """What was written: a file, or for `monai-bundle` a folder.

    Heads of deep supervision are left out, except of `safetensors`, which is the model as it is. `onnx` takes any
    number of windows of `spec.patch` and gives logits.
    Raises `MissingExtraError` without onnx, `FileError` if the place cannot be written, holds something else, or
    what was written disagrees with the model.
    """
    _EXPORTS[to](model, Path(out))
    return Path(out)


def write_with_card(model: Model, card: Path, out: Path) -> Path:
    """Writes the model with its card in its record, in half precision, and the card as a page: where that is."""
    known = with_card(model, read_recipe(CardRecipe, card))
    save_model(out, known, half=True)
    page = out.with_suffix(".md")
    write_text(page, card_page(known))
    return page


def _without_heads(model: Model) -> nn.Module:
    """The network as it is used, on the CPU: in evaluation, one output."""
    spec = model.spec
    net = build_network(spec.network.with_changes(deep_supervision=False), len(spec.classes))
    trained = model.net.state_dict()
    net.load_state_dict({name: trained[name] for name in net.state_dict()})
    return net.eval()


def _windows(model: Model, count: int) -> torch.Tensor:
    """Noise in the windows that the model is made for: (count, 1, I, J, K)."""
    return torch.rand(count, 1, *model.spec.patch, generator=torch.Generator().manual_seed(1))


def _require_agreement(what: str, found: Any, net: nn.Module, windows: torch.Tensor) -> None:
    with torch.no_grad():
        expected = net(windows).numpy()
    found = np.asarray(found)
    worst = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise FileError(f"{what} disagrees with the model", found=f"logits that differ by {worst:.3g}")


def _onnx(model: Model, out: Path) -> None:
    onnx, *_ = (need(module, extra="export") for module in ("onnx", "onnxscript", "onnxruntime"))
    net, windows = _without_heads(model), _windows(model, count=2)  # one would be taken for the only number
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own insides
        program = torch.onnx.export(
            net,
            (windows,),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["image"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    graph = program.model_proto
    about = {"synthoma": json.dumps(described(model), sort_keys=True), "classes": json.dumps(model.spec.classes)}
    about["operating_points"] = json.dumps(operating_points(model.spec), sort_keys=True)
    onnx.helper.set_model_props(graph, about)
    onnx.checker.check_model(graph, full_check=True)
    with atomic(out) as part:
        onnx.save(graph, part)
        _require_agreement(out.name, _run_onnx(part, windows), net, windows)


def _run_onnx(path: Path, windows: torch.Tensor) -> Any:
    runtime = need("onnxruntime", extra="export")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": windows.numpy()})[0]


def _bundle(model: Model, out: Path) -> None:
    if out.exists() and not (out / METADATA).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise FileError(f"{out} is not replaced", found="something that is no MONAI bundle", fix="choose another --out")
    net = _without_heads(model)
    with atomic_folder(out) as part:
        write_json(part / METADATA, _metadata(model))
        write_json(part / INFERENCE, _inference(model))
        write_text(part / "docs/README.md", _bundle_page(model.spec))
        with atomic(part / WEIGHTS) as file:
            torch.save(net.state_dict(), file)
        windows = _windows(model, count=1)
        _require_agreement(out.name, _run_bundle(part, windows), net, windows)


def _run_bundle(folder: Path, windows: torch.Tensor) -> Any:
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config(folder / INFERENCE)
    parser.read_meta(folder / METADATA)
    net = parser.get_parsed_content("network_def")
    net.load_state_dict(torch.load(folder / WEIGHTS, weights_only=True))
    with torch.no_grad():
        return net.eval()(windows).numpy()


def _metadata(model: Model) -> dict[str, Any]:
    import monai

    spec = model.spec
    window = {"type": "image", "dtype": "float32", "spatial_shape": list(spec.patch), "is_patch_data": True}
    image = {"format": "hounsfield", "modality": "CT", "num_channels": 1, "value_range": [0, 1]}
    pred = {"format": "segmentation", "num_channels": len(spec.classes), "value_range": [0, 1]}
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by synthoma {synthoma.__version__}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.2.0", "scikit-image": "0.22.0"},
        "name": f"{', '.join(spec.classes)} in CT",
        "task": f"Segmentation of {', '.join(spec.classes)} in CT",
        "description": "Each class is a sigmoid of its own; an organ includes its lesions.",
        "authors": "see the record",
        "copyright": "see the record",
        "intended_use": "Research only, not for diagnosis.",
        "network_data_format": {
            "inputs": {"image": {**window, **image, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {**window, **pred, "channel_def": {str(i): n for i, n in enumerate(spec.classes)}}},
        },
        "operating_points": operating_points(model.spec),
        "synthoma": described(model),
    }


def _inference(model: Model) -> dict[str, Any]:
    """The bundle's workflow: a folder of scans in, one mask per class and scan out, on the scan's own grid."""
    spec = model.spec
    low, high = spec.window_hu

    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": False, "to_tensor": True}
    network = spec.network.with_changes(deep_supervision=False)
    return {
        "imports": [
            "$import glob",
            "$import os",
            "$from skimage.filters import apply_hysteresis_threshold",
            "$import torch",
        ],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$[{'image': i} for i in sorted(glob.glob(os.path.join(@dataset_dir, '*.nii.gz')))]",
        "network_def": architecture(network, len(spec.classes)),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                _step("LoadImaged", "image"),
                _step("EnsureChannelFirstd", "image"),
                _step("Orientationd", "image", axcodes="RAS"),
                _step("Spacingd", "image", pixdim=list(spec.spacing_mm), mode="bilinear"),
                _step("ScaleIntensityRanged", "image", a_min=low, a_max=high, b_min=0, b_max=1, clip=True),
            ],
        },
        "dataset": {"_target_": "Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(spec.patch),
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
        **_figures(spec),
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                _step("Lambdad", "pred", func="$lambda x: x / @temperatures.to(x.device) + @shifts.to(x.device)"),
                _step("Activationsd", "pred", sigmoid=True),
                _step("Invertd", "pred", **back),
                _step("Lambdad", "pred", func=_SURE_PARTS),
                *_without_small_parts(spec),
                _step("SaveImaged", "pred", output_dir="@output_dir", output_dtype="$torch.uint8"),
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "checkpoint": f"$@bundle_root + '/{WEIGHTS}'",
        "initialize": ["$@network.load_state_dict(torch.load(@checkpoint, map_location=@device, weights_only=True))"],
        "run": ["$@evaluator.run()"],
    }


def _step(transform: str, keys: str | list[str], /, **arguments: Any) -> dict[str, Any]:
    """A transform of MONAI over entries of a dictionary, as a config says it."""
    return {"_target_": transform, "keys": keys, **arguments}


# Voxels from the threshold on, of parts with a voxel from the peak on; by class, which is the first axis.
_SURE_PARTS = (
    "$lambda x: type(x)(torch.stack([torch.as_tensor(apply_hysteresis_threshold("
    "one.cpu().numpy(), low, high)) for one, low, high in zip(x, @thresholds, @peaks)]).float(), meta=x.meta)"
)


def _figures(spec: ModelSpec) -> dict[str, Any]:
    """The usual operating point as entries of a config, in the order of the classes."""
    told = operating_points(spec)
    point = told["points"][told["usual"]]

    def column(name: str) -> str:
        values = [told["scaling"][each][name] for each in spec.classes]
        return f"$torch.tensor({values}).reshape(-1, 1, 1, 1)"

    return {
        "temperatures": column("temperature"),
        "shifts": column("shift"),
        "thresholds": [point[each]["threshold"] for each in spec.classes],
        "peaks": [point[each]["peak"] for each in spec.classes],
    }


def _without_small_parts(spec: ModelSpec) -> list[dict[str, Any]]:
    """Transforms that drop parts below the volume that a class asks for: a class by itself, then all in one again."""
    point = operating_points(spec)["points"][usual_point(spec)]
    keys = [f"pred_{number}" for number in range(len(spec.classes))]
    drop = [
        _step("RemoveSmallObjectsd", key, min_size=point[name]["smallest_mm3"], connectivity=3, by_measure=True)
        for key, name in zip(keys, spec.classes, strict=True)
        if point[name]["smallest_mm3"]
    ]
    if len(keys) == 1 or not drop:
        return [each | {"keys": "pred"} for each in drop]
    split = _step("SplitDimd", "pred", dim=0, keepdim=True, output_postfixes=[str(n) for n in range(len(keys))])
    return [split, *drop, _step("ConcatItemsd", keys, name="pred", dim=0)]


def _bundle_page(spec: ModelSpec) -> str:
    """The README of a bundle."""
    usual = usual_point(spec)
    point = "threshold and smallest lesion" if usual == PLAIN else f"the operating point `{usual}`, but its least HU"
    return _BUNDLE_PAGE.format(classes=", ".join(spec.classes), point=point, points=points_as_text(spec))


_BUNDLE_PAGE = """# {classes} in CT

Written by synthoma. Where it comes from is in `configs/metadata.json` under `synthoma`. Research only.

    pip install "monai[nibabel,ignite,fire,skimage]"
    python -m monai.bundle run --config_file configs/inference.json --meta_file configs/metadata.json \\
        --dataset_dir FOLDER_OF_NII_GZ --output_dir FOLDER

## What the workflow does, and what it does not

`configs/inference.json` applies temperatures, shifts, thresholds, peaks and smallest volumes: {point}.

It does **not** leave out air around the patient, drop lesions that are as dark as water (least HU), drop small parts
of organs, or look at mirror images. So it may find things in air beside the table that `synthoma segment` does not,
and call cysts tumors: keep the largest part of an organ. Parts of lesions hold together by faces only, not by edges and
corners.
Its masks are near to those of `synthoma segment`, not the same.

## Operating points

The same figures are in `configs/metadata.json` under `operating_points`. To take another point, change `thresholds`,
`peaks` and `min_size` in `configs/inference.json`.

{points}"""

_EXPORTS: Mapping[str, Callable[[Model, Path], None]] = {
    "onnx": _onnx,
    "monai-bundle": _bundle,
    "safetensors": lambda model, out: save_model(out, model),
}
