"""Models: a network with what its user must know, in one safetensors file that is never unpickled."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import nn

from synthoma.errors import FileError, SynthomaError
from synthoma.learning.calibration import Calibration
from synthoma.learning.loop import read_tensors, write_tensors
from synthoma.learning.networks import NetworkRecipe, build_network, check_patch, network_shapes
from synthoma.names import require_plain
from synthoma.recipe import Recipe

MODEL = "model.safetensors"  # in a run folder
BOX = Path(__file__).parents[1] / "segmentation" / "models"  # models that come with the program
LARGEST_HALF = 65504.0
_FORMAT = "synthoma model 1"


Spacing = Annotated[float, Field(gt=0, le=1000)]
Side = Annotated[int, Field(ge=1, le=4096)]


class ModelSpec(Recipe):
    """What must be known to use a network.

    Its input is RAS+ at `spacing_mm`, with `window_hu` scaled to 0 ... 1 and clipped, in windows of `patch` voxels;
    its outputs are one logit for each of `classes`. calibration: of those outputs, if it has been calibrated. Raises
    `RecipeError` if the network cannot take such a patch.
    """

    network: NetworkRecipe = NetworkRecipe()
    classes: tuple[str, ...] = Field(min_length=1, max_length=256)
    spacing_mm: tuple[Spacing, Spacing, Spacing]
    window_hu: tuple[float, float]
    patch: tuple[Side, Side, Side]
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes must differ from each other")
        for name in self.classes:  # they become the names of files
            require_plain(name, "a class of a model")
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError("window_hu is (low, high), low first")
        check_patch(self.network, self.patch)
        known = self.calibration
        if known and (strange := sorted({*known.temperatures, *known.shifts} - {*self.classes})):
            raise ValueError(f"a calibration for {strange[0]}, which is no class of the model")
        return self


@dataclass(frozen=True, eq=False)
class Model:
    """A network, how to use it, and its record: the recipe, data and figures that it comes from, as JSON data."""

    net: nn.Module
    spec: ModelSpec
    record: dict[str, Any] = field(default_factory=dict)


def save_model(path: Path | str, model: Model, *, half: bool = False) -> None:
    """The model as one safetensors file, whole or not at all; the same model gives the same bytes.

    half: weights as float16, which halves the file and rounds them to three digits; refused with a `FileError` if
    one is too large for it.
    """
    tensors = distinct_tensors(model.net)
    if half:
        large = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not _fits_half(tensor)]
        if large:
            raise FileError(
                f"{large[0]} has weights too large for float16",
                expected=f"at most {LARGEST_HALF:.0f}",
                fix="half=False",
            )
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    write_tensors(path, tensors, {"synthoma": json.dumps(described(model), sort_keys=True)})


def load_model(path_or_name: Path | str, device: torch.device | str = "cpu", box: Path | str = BOX) -> Model:
    """The model of a file, of a run folder, or of the box by its name: float32, in evaluation mode.

    box: the folder of models that are known by name. Nothing is ever unpickled or imported: whatever is not a whole
    safetensors file of ours, with a network of `NETWORKS`, is refused with a `FileError` that says what it is, and so
    are weights that do not fit the network, or are not those that were written.
    """
    path = find_model(path_or_name, box)
    try:
        tensors, strings = read_tensors(path)
    except FileError as error:
        raise _not_a_model(path, error) from error
    spec, record = _understood(path, strings)
    _require_fitting(network_shapes(spec.network, len(spec.classes)), tensors, path)  # before memory is taken
    net = build_network(spec.network, len(spec.classes))
    for name, tensor in distinct_tensors(net).items():
        tensor.copy_(tensors[name])
    return Model(net.to(device).eval(), spec, record)


def models_in_the_box(folder: Path | str = BOX) -> tuple[str, ...]:
    """Names of the models that came with the program, in order; none if the folder is absent."""
    return tuple(sorted(path.stem for path in Path(folder).glob("*.safetensors")))


def described(model: Model) -> dict[str, Any]:
    """All of a model but its weights, as JSON data: what its file says in its header."""
    return {"format": _FORMAT, "spec": model.spec.as_dict(), "record": model.record}


def distinct_tensors(net: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers to keep, each once, under the first name that its network gives it."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        found.setdefault(id(tensor), (name, tensor.detach()))
    return dict(found.values())


def _fits_half(tensor: torch.Tensor) -> bool:
    return not tensor.numel() or float(tensor.abs().max()) <= LARGEST_HALF


def model_at(path_or_name: Path | str, device: torch.device | str = "cpu") -> Model:
    """As `load_model`; a process reads a file once, and again when it has changed."""
    path = find_model(path_or_name).absolute()
    return _model_at(path, path.stat().st_mtime_ns, str(device))


@lru_cache(maxsize=2)
def _model_at(path: Path, changed: int, device: str) -> Model:
    del changed
    return load_model(path, device)


def find_model(path_or_name: Path | str, box: Path | str = BOX) -> Path:
    """The model file of a path, of a run folder, or of the box by its name; `FileError` if there is none."""
    path = Path(path_or_name)
    if path.is_dir():
        if not (path / MODEL).is_file():
            raise FileError(f"{path} holds no {MODEL}", fix="a run has one when its training has ended")
        return path / MODEL
    if path.is_file():
        return path
    names = models_in_the_box(box)
    if str(path_or_name) in names:
        return Path(box) / f"{path_or_name}.safetensors"
    raise FileError(
        f"no model {path_or_name}",
        expected="a model file, a run folder, or one of these names: " + (", ".join(names) or "(none in the box)"),
    )


def _not_a_model(path: Path, error: FileError) -> FileError:
    """What the file is instead, from its first bytes."""
    with path.open("rb") as file:
        head = file.read(64)
    length = int.from_bytes(head[:8], "little")
    size = path.stat().st_size
    if head.startswith(b"PK\x03\x04") or head.startswith(b"\x80"):
        return FileError(
            f"{path} is not loaded",
            found="a pickle (torch.save), which can run any program while it is read; weights are never unpickled",
            expected="a safetensors file",
            fix="ask whoever made it for safetensors, or convert it where you trust it",
        )
    if head.startswith(b"version https://git-lfs"):
        return FileError(f"{path} is not the file itself", found="a Git LFS pointer", fix="git lfs pull")
    if head[8:9] == b"{" and length < 100_000_000:
        return FileError(
            f"{path} is damaged", found=f"{size} bytes, {error.found}", fix="copy or download it again: it is cut short"
        )
    return FileError(f"{path} is not a model", found=f"a file that begins with {head[:8]!r}", expected="safetensors")


def _understood(path: Path, strings: dict[str, str]) -> tuple[ModelSpec, dict[str, Any]]:
    if "synthoma" not in strings:
        raise FileError(
            f"{path} holds weights, but not what they are for",
            found=f"header entries: {', '.join(sorted(strings)) or 'none'}",
            expected="a model written by synthoma train or export",
        )
    try:
        about = json.loads(strings["synthoma"])
        version = about["format"]
        if version == _FORMAT:
            return ModelSpec.model_validate(about["spec"]), dict(about["record"])
    except (ValueError, KeyError, TypeError, RecursionError, SynthomaError) as error:
        fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else repr(error)
        fault = str(error) if isinstance(error, SynthomaError) else fault
        raise FileError(f"the header of {path} cannot be understood", found=fault) from error
    if str(version).startswith("synthoma generator"):
        raise FileError(
            f"{path} is a generator of tumors, no segmentation",
            fix=f"synthesize with it (--set generator={path}), or give a model that `synthoma train` wrote",
        )
    raise FileError(f"{path} is of another version", found=version, expected=_FORMAT)


def _require_fitting(net: nn.Module, tensors: dict[str, torch.Tensor], path: Path) -> None:
    """`FileError` unless the tensors are those of the network, by name and shape."""
    own = distinct_tensors(net)
    faults = [f"{name} is missing" for name in own if name not in tensors]
    faults += [f"{name} is unknown" for name in tensors if name not in own]
    faults += [
        f"{name} is {tuple(tensors[name].shape)} and should be {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if faults:
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise FileError(f"the weights in {path} are of another network", found=", ".join(faults[:3]) + more)
