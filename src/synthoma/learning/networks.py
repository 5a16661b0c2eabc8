"""Networks by name, as a table: each is a class of MONAI or dynamic-network-architectures and its arguments.

The arguments are plain JSON, so a network can be rebuilt elsewhere from its class and these alone (`architecture`),
as the MONAI bundle does.
"""

from __future__ import annotations

import math
import pydoc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import nn

from synthoma.errors import RecipeError
from synthoma.extras import need
from synthoma.recipe import Recipe

INSTANCE_NORM = ["instance", {"affine": True}]  # batches of two 3-D patches are too few for batch norm


class NetworkRecipe(Recipe):
    """Which network, and how large. What is left out is as published; `NETWORKS` lists names, widths and depths.

    width: features at full resolution. depth: levels of resolution. residual_units: convolutions in each level of a
    `unet`, 0 for a single one without a residual path.
    name: of the architecture. deep_supervision: a loss at coarse levels too. dropout: share of features left out
    while training.
    """

    name: str = "unet"
    width: Annotated[int, Field(ge=1, le=1024)] | None = None
    depth: Annotated[int, Field(ge=2, le=8)] | None = None
    residual_units: Annotated[int, Field(ge=0, le=8)] | None = None
    deep_supervision: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NETWORKS:
            raise ValueError(f"no such network; known: {', '.join(NETWORKS)}")
        return name

    @model_validator(mode="after")
    def _possible(self) -> Self:
        family = NETWORKS[self.name]
        if self.deep_supervision and not family.deep_supervision:
            able = ", ".join(name for name, other in NETWORKS.items() if other.deep_supervision)
            raise ValueError(f"{self.name} has no deep supervision; these have: {able}")
        if self.dropout and not family.dropout:
            able = ", ".join(name for name, other in NETWORKS.items() if other.dropout)
            raise ValueError(f"{self.name} has no dropout; these have: {able}")
        if self.residual_units is not None and self.name != "unet":
            raise ValueError(f"{self.name} has no choice of residual_units; unet has")
        if self.depth is not None and self.depth not in family.depths:
            raise ValueError(f"depth {self.depth} does not suit {self.name}; it can have {_either(family.depths)}")
        if self.width is not None and self.width % family.width_step:
            raise ValueError(f"width {self.width} does not suit {self.name}; it must be n x {family.width_step}")
        if self.width is not None and self.width > family.widest:
            raise ValueError(f"width {self.width} does not suit {self.name}; it can be {family.widest} at most")
        return self


@dataclass(frozen=True)
class Family:
    """One row of the table: a class, its arguments, and what it can vary.

    width, depth: what is published; each level has half the resolution of the one above. width_step: what the width
    must be a multiple of, widest: the most it may be. sized: whether its class can be built without memory, for its
    shapes alone. arguments(width, depth, channels, recipe) gives JSON, where `$dotted.name` is an object.
    """

    target: str
    arguments: Callable[[int, int, int, NetworkRecipe], dict[str, Any]]
    width: int
    depth: int
    depths: tuple[int, ...] = (3, 4, 5, 6, 7)
    width_step: int = 1
    widest: int = 1024
    sized: bool = True
    deep_supervision: bool = False
    dropout: bool = True


def _unet(width: int, depth: int, channels: int, recipe: NetworkRecipe) -> dict[str, Any]:
    return {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": channels,
        "channels": [width * 2**level for level in range(depth)],
        "strides": [2] * (depth - 1),
        "num_res_units": 2 if recipe.residual_units is None else recipe.residual_units,
        "norm": INSTANCE_NORM,
        "dropout": recipe.dropout,
    }


def _dynunet(width: int, depth: int, channels: int, recipe: NetworkRecipe) -> dict[str, Any]:
    return {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": channels,
        "kernel_size": [3] * depth,
        "strides": [1] + [2] * (depth - 1),
        "upsample_kernel_size": [2] * (depth - 1),
        "filters": [min(width * 2**level, 10 * width) for level in range(depth)],
        "dropout": recipe.dropout or None,
        "norm_name": INSTANCE_NORM,
        "deep_supervision": recipe.deep_supervision,
        "deep_supr_num": max(depth - 3, 1),  # as in nnU-Net, all levels but the two lowest
    }


def _segresnet(width: int, depth: int, channels: int, recipe: NetworkRecipe) -> dict[str, Any]:
    return {
        "spatial_dims": 3,
        "init_filters": width,
        "in_channels": 1,
        "out_channels": channels,
        "norm": INSTANCE_NORM,
        "blocks_down": [1, 2, 2, 4, 4, 4, 4][:depth],
        "dsdepth": max(depth - 1, 1) if recipe.deep_supervision else 1,
    }


def _swinunetr(width: int, depth: int, channels: int, recipe: NetworkRecipe) -> dict[str, Any]:
    return {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": channels,
        "feature_size": width,
        "norm_name": INSTANCE_NORM,
        "drop_rate": recipe.dropout,
    }


def _resencm(width: int, depth: int, channels: int, recipe: NetworkRecipe) -> dict[str, Any]:
    return {
        "input_channels": 1,
        "n_stages": depth,
        "features_per_stage": [min(width * 2**level, 10 * width) for level in range(depth)],
        "conv_op": "$torch.nn.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * depth,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (depth - 1),
        "n_blocks_per_stage": [1, 3, 4, 6, 6, 6, 6][:depth],
        "num_classes": channels,
        "n_conv_per_stage_decoder": [1] * (depth - 1),
        "conv_bias": True,
        "norm_op": "$torch.nn.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": "$torch.nn.Dropout3d" if recipe.dropout else None,
        "dropout_op_kwargs": {"p": recipe.dropout} if recipe.dropout else None,
        "nonlin": "$torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        "deep_supervision": recipe.deep_supervision,
    }


def _mednext(
    expansion: tuple[int, int, int, int],
    blocks: tuple[int, int, int, int],
    width: int,
    depth: int,
    channels: int,
    recipe: NetworkRecipe,
) -> dict[str, Any]:
    return {
        "spatial_dims": 3,
        "init_filters": width,
        "in_channels": 1,
        "out_channels": channels,
        "kernel_size": 3,
        "encoder_expansion_ratio": list(expansion),
        "decoder_expansion_ratio": list(reversed(expansion)),
        "bottleneck_expansion_ratio": expansion[-1],
        "blocks_down": list(blocks),
        "blocks_bottleneck": blocks[-1],
        "blocks_up": list(reversed(blocks)),
        "use_residual_connection": True,
        "norm_type": "group",
        "deep_supervision": recipe.deep_supervision,
    }


def _swin(width: int) -> Family:
    return Family(
        "monai.networks.nets.SwinUNETR", _swinunetr, width, depth=6, depths=(6,), width_step=12, widest=96, sized=False
    )


def _next(expansion: tuple[int, int, int, int], blocks: tuple[int, int, int, int]) -> Family:
    arguments = partial(_mednext, expansion, blocks)
    return Family(
        "monai.networks.nets.MedNeXt", arguments, 32, depth=5, depths=(5,), deep_supervision=True, dropout=False
    )


# Published at: unet https://doi.org/10.1007/978-3-030-12029-0_4 (MONAI's width), dynunet and resencm
# https://arxiv.org/abs/1904.08128 and https://arxiv.org/abs/2404.09556, segresnet https://arxiv.org/abs/1810.11654,
# swinunetr https://arxiv.org/abs/2201.01266, mednext https://arxiv.org/abs/2303.09975 (Table 1)
NETWORKS = {
    "unet": Family("monai.networks.nets.UNet", _unet, 16, depth=5, depths=(2, 3, 4, 5, 6, 7)),
    "dynunet": Family("monai.networks.nets.DynUNet", _dynunet, 32, depth=6, deep_supervision=True),
    "segresnet": Family(
        "monai.networks.nets.SegResNetDS",
        _segresnet,
        32,
        depth=4,
        depths=(2, 3, 4, 5, 6, 7),
        deep_supervision=True,
        dropout=False,
    ),
    "swinunetr-tiny": _swin(12),
    "swinunetr-small": _swin(24),
    "swinunetr-base": _swin(48),
    "mednext-s": _next((2, 2, 2, 2), (2, 2, 2, 2)),
    "mednext-b": _next((2, 3, 4, 4), (2, 2, 2, 2)),
    "mednext-m": _next((2, 3, 4, 4), (3, 4, 4, 4)),
    "mednext-l": _next((3, 4, 8, 8), (3, 4, 8, 8)),
    "resencm": Family(
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        _resencm,
        32,
        depth=6,
        depths=(2, 3, 4, 5, 6, 7),
        deep_supervision=True,
    ),
}


def architecture(recipe: NetworkRecipe, channels: int) -> dict[str, Any]:
    """The network as MONAI writes it: its class as `_target_`, and its arguments as JSON (`$name` is an object)."""
    family = NETWORKS[recipe.name]
    width, depth = recipe.width or family.width, recipe.depth or family.depth
    return {"_target_": family.target, **family.arguments(width, depth, channels, recipe)}


def build_network(recipe: NetworkRecipe, channels: int) -> nn.Module:
    """A network with fresh weights, drawn from torch's generator: float32, in training mode.

    channels: outputs. Takes (B, 1, I, J, K), gives logits (B, channels, I, J, K); in training mode with deep
    supervision a list of them, full resolution first. I, J and K must suit `check_patch`. Every parameter that
    requires a gradient gets one. Nothing is downloaded.
    """
    target, arguments = (parts := architecture(recipe, channels)).pop("_target_"), parts
    need(target.partition(".")[0], "train" if target.startswith("monai") else "resenc")
    net: nn.Module = pydoc.locate(target)(**{key: _object(value) for key, value in arguments.items()})  # type: ignore[operator]
    if recipe.name == "resencm":
        net.apply(type(net).initialize)
        if not recipe.deep_supervision:
            net.decoder.seg_layers[:-1].requires_grad_(False)  # built in any case, and then not used
    if recipe.deep_supervision:
        net.register_forward_hook(_full_resolution_first)
    return net


def network_shapes(recipe: NetworkRecipe, channels: int) -> nn.Module:
    """The network without numbers, which takes no memory however large it is; where that is not possible, whole."""
    with torch.device("meta" if NETWORKS[recipe.name].sized else "cpu"):
        return build_network(recipe, channels)


def _object(value: Any) -> Any:
    return pydoc.locate(value[1:]) if isinstance(value, str) and value.startswith("$") else value


def _full_resolution_first(net: nn.Module, inputs: Any, outputs: Any) -> torch.Tensor | list[torch.Tensor]:
    """The libraries differ: a list or a tuple, some in evaluation too; DynUNet stretches its coarse logits.

    It also keeps them with their graph, so that it could not be copied after a step; they are taken from it.
    """
    if hasattr(net, "heads"):
        coarse, net.heads[:] = list(net.heads), [torch.empty(0)] * len(net.heads)
        return [outputs[:, 0], *coarse] if net.training else outputs
    if isinstance(outputs, torch.Tensor):
        return outputs
    return list(outputs) if net.training else outputs[0]


def required_multiple(recipe: NetworkRecipe) -> int:
    """What each side of a patch must be a multiple of, in voxels."""
    family = NETWORKS[recipe.name]
    return 1 << (recipe.depth or family.depth) - 1


def check_patch(recipe: NetworkRecipe, patch: Sequence[int]) -> None:
    """Nothing, or a `RecipeError` if the network cannot take a patch of this size.

    patch: three sides in voxels, each a multiple of `required_multiple`, and one of them twice that: a single voxel
    at the lowest level has no spread to normalize by.
    """
    multiple = required_multiple(recipe)
    name = recipe.name if recipe.depth is None else f"{recipe.name} of depth {recipe.depth}"
    if any(side < 1 or side % multiple for side in patch):
        nearest = tuple(max(multiple, multiple * round(side / multiple)) for side in patch)
        raise RecipeError(
            f"{name} cannot take this patch",
            found=tuple(patch),
            expected=f"sides that are multiples of {multiple}",
            fix=f"{nearest} is near, or choose a smaller depth",
        )
    if math.prod(patch) == multiple**3:
        raise RecipeError(
            f"{name} would see one voxel at its lowest level",
            found=tuple(patch),
            expected=f"one side of at least {2 * multiple}",
            fix="take a larger patch or a smaller depth",
        )


def count_parameters(net: nn.Module) -> int:
    """How many numbers the network learns."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _either(numbers: Sequence[int]) -> str:
    return f"{numbers[0]} only" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
