"""Networks that make the tissue of a lesion, adversarial or by diffusion, and their files.

A network sees a crop in channels: noise (or what became of it so far), the lesion's alpha, and the scan around it. It
is told how the lesion is to look, and gives HU around the lesion's mean. Noise of the scan is no part of it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from torch import nn
from torch.nn import functional

from synthoma import disk
from synthoma.errors import FileError, RecipeError
from synthoma.learning.flow import LEVELS, bounded_velocity, follow
from synthoma.learning.looks import CONDITION, TISSUE_MM, TISSUE_VOXELS, Look
from synthoma.learning.loop import read_tensors, write_tensors
from synthoma.learning.models import distinct_tensors
from synthoma.recipe import Recipe

GENERATOR = "generator.safetensors"  # in a run folder
FORMAT, READABLE = "synthoma generator 2", ("synthoma generator 1", "synthoma generator 2")  # 2: looks have a trend
TISSUE_HU = 20.0  # HU of a network's unit
_AROUND_HU = 100.0  # of the scan around the lesion, less the organ's
_GRAIN_MM = 3.0  # SD of the mean over the noise that an adversarial network begins with
_NORM_GROUPS = 8
_LOOKS = "looks"

Kind = Literal["adversarial", "diffusion"]


class TissueNetworkRecipe(Recipe):
    """A U-Net told what to make. features: by level, multiples of 8. fold: voxels along each axis put into channels."""

    features: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field((32, 64, 128), min_length=2, max_length=6)
    fold: int = Field(2, ge=1, le=4)

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if any(count % _NORM_GROUPS for count in self.features):
            raise ValueError(f"features are multiples of {_NORM_GROUPS}")
        return self

    @property
    def multiple(self) -> int:
        """What each side of a crop must be a multiple of."""
        return int(self.fold << (len(self.features) - 1))


class GeneratorSpec(Recipe):
    """What must be known to use a generator's network.

    spacing_mm: of its voxels. size: sides of the crops it learned from. steps: of diffusion, when it is used.
    limit_hu: how far from a lesion's mean a network can go. organs: those whose lesions it learned from.
    """

    kind: Kind
    network: TissueNetworkRecipe = TissueNetworkRecipe()
    spacing_mm: float = Field(1.5, gt=0)
    size: int = Field(48, ge=8)
    steps: int = Field(12, ge=1, le=LEVELS)
    limit_hu: float = Field(120.0, gt=0)
    organs: tuple[str, ...] = ()


class TissueNetwork(nn.Module):
    """MONAI's diffusion U-Net without attention; instead of a class it is told a condition (B, `CONDITION`)."""

    def __init__(self, recipe: TissueNetworkRecipe) -> None:
        super().__init__()
        from monai.networks.nets import DiffusionModelUNet

        self.fold = recipe.fold
        voxels = recipe.fold**3
        levels = len(recipe.features)
        self.unet = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=3 * voxels,
            out_channels=voxels,
            num_res_blocks=1,
            channels=recipe.features,
            attention_levels=(False,) * levels,
            norm_num_groups=_NORM_GROUPS,
            num_class_embeds=1,
        )
        width = 4 * recipe.features[0]  # of the embedding that MONAI adds to every block
        self.unet.class_embedding = nn.Sequential(nn.Linear(CONDITION, width), nn.SiLU(), nn.Linear(width, width))
        # its middle block has attention whatever it is told, which is the cost of large crops
        self.unet.middle_block.attention = _Nothing()

    def forward(self, images: torch.Tensor, times: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S, S), (B,) and (B, `CONDITION`) -> (B, 1, S, S, S)."""
        folded = self.unet(_fold(images, self.fold), times, class_labels=condition)
        return _unfold(folded, self.fold)


@dataclass(frozen=True, eq=False)
class TissueModel:
    """A generator's network, how to use it, and the looks of the lesions it learned from.

    looks: float32 (lesions, numbers), rows of `Look.numbers`. record: recipe, data and figures, as JSON data. digest:
    of its file; empty if it has none yet.
    """

    net: TissueNetwork
    spec: GeneratorSpec
    looks: NDArray[np.float32]
    record: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


def tissue_field(
    net: nn.Module, spec: GeneratorSpec, noise: torch.Tensor, alpha: torch.Tensor, around: torch.Tensor,
    condition: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """HU around the lesion's mean, as the network has them; all (B, 1, S, S, S), condition (B, `CONDITION`).

    noise: standard normal. around: `surroundings`. An adversarial network is asked once, with noise as coarse as
    tissue, a diffusion network `spec.steps` times.
    """
    support = (alpha > 0).to(alpha.dtype)

    def ask(at: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = net(torch.cat([at * support, alpha, around], 1), times, condition)
        return made

    if spec.kind == "diffusion":
        most = spec.limit_hu / TISSUE_HU  # a guess beyond it would drive the next one further out
        return TISSUE_HU * follow(
            lambda at, times: bounded_velocity(ask(at, times), at, times, most), noise, spec.steps
        )
    grain = smoothed(noise, _GRAIN_MM / spec.spacing_mm)
    made = ask(grain / grain.std((1, 2, 3, 4), keepdim=True), torch.zeros(len(noise), device=noise.device))
    # tissue is what the mean of `looks.tissue_of` leaves; a discriminator does not see every pattern finer than that
    sigma = max(TISSUE_MM / spec.spacing_mm, TISSUE_VOXELS)
    return smoothed(spec.limit_hu * torch.tanh(made * (TISSUE_HU / spec.limit_hu)), sigma)


def leveled(hu: torch.Tensor, alpha: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    """Tissue (B, 1, S, S, S) whose plane explains no more than its share (B,) of the variance inside each lesion.

    The plane of least squares where alpha is .5 or more becomes flatter; what lies on it stays. A share of 1 leaves all
    as it is. Half bright, half dark is the cheapest way to the histogram that is asked for: what knows the tissue's
    rim, core and histogram alone cannot tell it from many small parts.
    """
    if bool((most >= 1).all()):
        return hu
    most = most.double()[:, None]
    inside = (alpha >= 0.5).double().flatten(1)
    count = inside.sum(1, keepdim=True).clamp(min=1)
    axes = [torch.arange(n, dtype=torch.double, device=hu.device) for n in hu.shape[2:]]
    at = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    away = at[None] - (inside @ at.T / count)[..., None]  # (B, 3, voxels)
    values = hu.flatten(1).double()
    values = values - (inside * values).sum(1, keepdim=True) / count
    soft = 1e-6 * count[..., None] * torch.eye(3, dtype=torch.double, device=hu.device)  # a single slice has no slope
    products = (away * inside[:, None]) @ away.transpose(1, 2) + soft
    plane = (torch.linalg.solve(products, away @ (inside * values)[..., None]) * away).sum(1)
    of_plane, of_rest = ((inside * part**2).sum(1, keepdim=True) for part in (plane, values - plane))
    kept = (of_rest * most / (1 - most).clamp(min=1e-9) / of_plane.clamp(min=1e-6)).clamp(min=1e-12).sqrt()
    kept = torch.where(most < 1, kept.clamp(max=1), 1.0)
    return hu - ((1 - kept) * plane).to(hu.dtype).view_as(hu)


def smoothed(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Images (B, 1, S, S, S) after a Gaussian mean of this SD in voxels, their borders repeated outward."""
    reach = max(1, math.ceil(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(images, (reach,) * 6, mode="replicate")
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(kernel)
        padded = functional.conv3d(padded, kernel.view(shape))
    return padded


def surroundings(hu: torch.Tensor, alpha: torch.Tensor, base_hu: torch.Tensor) -> torch.Tensor:
    """The scan around a lesion as a network sees it, blank where the lesion is; base_hu (B,)."""
    plain = (hu - base_hu.view(-1, 1, 1, 1, 1)) / _AROUND_HU
    return plain.clamp(-3, 3) * (1 - alpha)


def save_generator(path: Path | str, model: TissueModel, *, half: bool = False) -> None:
    """The generator as one safetensors file, whole or not at all. half: weights as float16."""
    tensors = {f"net.{name}": tensor for name, tensor in distinct_tensors(model.net).items()}
    if half:
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    about = {"format": FORMAT, "spec": model.spec.as_dict(), "record": model.record}
    tensors[_LOOKS] = torch.from_numpy(np.asarray(model.looks, np.float32))
    write_tensors(path, tensors, {"synthoma": json.dumps(about, sort_keys=True)})


def load_generator(path: Path | str, device: torch.device | str = "cpu") -> TissueModel:
    """The generator of a file: float32, in evaluation mode; `FileError` for anything else. Nothing is unpickled."""
    tensors, strings = read_tensors(path)
    try:
        about = json.loads(strings.get("synthoma", "{}"))
        if about.get("format") not in READABLE:
            raise FileError(
                f"{path} is no generator",
                found=str(about.get("format", "a safetensors file without our header")),
                expected=" or ".join(READABLE),
                fix="give a file that `synthoma train-generator` wrote",
            )
        spec = GeneratorSpec.model_validate(about["spec"])
        net = TissueNetwork(spec.network)
        net.load_state_dict({name.removeprefix("net."): t.float() for name, t in tensors.items() if name != _LOOKS})
        looks = tensors[_LOOKS].float().numpy()
        if not np.isfinite(looks).all():
            raise ValueError("looks that are no numbers")
        for row in looks.tolist():
            Look.of_numbers(row)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, RecursionError, RecipeError) as error:
        fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else " ".join(str(error).split())[:200]
        raise FileError(f"the generator {path} cannot be understood", found=fault) from error
    return TissueModel(net.to(device).eval(), spec, looks, dict(about["record"]), disk.digest(Path(path)))


def looks_of(model: TissueModel) -> list[Look]:
    """The looks of the lesions that a generator learned from."""
    return [Look.of_numbers(row) for row in model.looks.tolist()]


def padded_side(extent: int, spec: GeneratorSpec) -> int:
    """The side of a crop for a lesion of this many voxels: what the network takes, at least its training's."""
    multiple = spec.network.multiple
    return max(spec.size, multiple * math.ceil(extent / multiple))


class _Nothing(nn.Module):
    """In place of an attention block: gives back what it is given."""

    def forward(self, hidden: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        del context
        return hidden


def _fold(images: torch.Tensor, fold: int) -> torch.Tensor:
    """(B, C, I, J, K) -> (B, C fold^3, I/fold, J/fold, K/fold)."""
    count, channels, i, j, k = images.shape
    split = images.reshape(count, channels, i // fold, fold, j // fold, fold, k // fold, fold)
    return split.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(count, -1, i // fold, j // fold, k // fold)


def _unfold(images: torch.Tensor, fold: int) -> torch.Tensor:
    """Undoes `_fold` of one channel."""
    count, _, i, j, k = images.shape
    split = images.reshape(count, fold, fold, fold, i, j, k)
    return split.permute(0, 4, 1, 5, 2, 6, 3).reshape(count, 1, i * fold, j * fold, k * fold)
