"""The loss: Dice, cross-entropy and focal loss of independent classes, where a case may not annotate all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from monai.losses import DiceLoss, FocalLoss
from pydantic import Field, model_validator
from torch.nn import functional

from synthoma.recipe import Recipe

_CERTAINLY_NOT = -1e4  # a logit whose probability, cross-entropy and gradient are 0 in float32
Weight = Annotated[float, Field(ge=0, le=1000)]


class LossRecipe(Recipe):
    """What the terms of the loss weigh, and how they treat rare classes.

    smooth: voxels added above and below in the Dice term, so that an empty target is learned too: a prediction of n
    voxels where there is nothing costs n / (n + smooth), and none costs nothing.
    dice, cross_entropy, focal: weights of these terms; 0 leaves one out. focal_gamma: how much easy voxels are played
    down. positive_weight: of voxels in a structure against those around, in cross-entropy. hardest: the share of each
    patch's voxels, the costliest, that cross-entropy is the mean of (arXiv:1605.06885); with 1, of all, a structure of
    a thousandth of a patch costs next to nothing where it is missed, and in a network of many such it is never learned.
    batch_dice: Dice over all patches of a step together.
    """

    dice: Weight = 1.0
    cross_entropy: Weight = 1.0
    focal: Weight = 0.0
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    positive_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    hardest: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch_dice: bool = False
    smooth: Annotated[float, Field(gt=0, le=1000)] = 1.0

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.dice or self.cross_entropy or self.focal):
            raise ValueError("one of dice, cross_entropy and focal needs a weight above 0")
        return self


def loss(
    logits: torch.Tensor | Sequence[torch.Tensor],
    target: torch.Tensor,
    annotated: torch.Tensor,
    recipe: LossRecipe,
    classes: Sequence[str],
    ignored: torch.Tensor | None = None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss to minimize, and its unweighted terms by class at full resolution (`dice_loss_liver`), detached.

    logits: (B, C, I, J, K), or a list of them from deep supervision, full resolution first; each counts half as much
    as the one before (arXiv:1904.08128), and a coarse one is compared with the share of target in its voxels.
    target: (B, C, I, J, K), bool or 0 and 1. annotated: (B, C) bool, best on the CPU (a GPU is waited for); where it
    is False the target is not looked at and the gradient is exactly zero. classes: C names. ignored: (B, 1, I, J, K)
    bool, voxels that take part in nothing, as if the patch ended there; a coarse voxel does not if any of its own does
    not.

    The loss is a mean over all B x C, the annotated ones or not: a scan with few annotated classes weighs less, and
    the mean over processes that share a batch is the loss of the whole batch (except with `batch_dice`, which is each
    process's own). Nothing annotated gives 0 with a graph. A class that no sample annotates has no terms.
    Float32, also inside autocast. Raises `ValueError` if shapes do not fit.
    """
    heads = [logits] if isinstance(logits, torch.Tensor) else list(logits)
    if heads[0].shape != target.shape or tuple(annotated.shape) != (len(target), len(classes)):
        shapes = f"logits {tuple(heads[0].shape)}, target {tuple(target.shape)}, annotated {tuple(annotated.shape)}"
        raise ValueError(f"{shapes} and {len(classes)} classes do not fit each other")
    truth, known = target.float(), annotated.bool().cpu()
    weights = [0.5**level for level in range(len(heads))]
    total, terms = truth.new_zeros(()), dict[str, torch.Tensor]()
    with torch.autocast(truth.device.type, enabled=False):
        for head, weight in zip(heads, weights, strict=True):
            share, out = truth, ignored
            if head.shape != truth.shape:
                share = functional.adaptive_avg_pool3d(truth, head.shape[2:])
                out = None if ignored is None else functional.adaptive_max_pool3d(ignored.float(), head.shape[2:]) > 0
            value, found = _at_one_resolution(head.float(), share, known, recipe, classes, out)
            total = total + weight / sum(weights) * value
            terms = terms or found
    return total, terms


def _at_one_resolution(
    logits: torch.Tensor,
    target: torch.Tensor,
    known: torch.Tensor,
    recipe: LossRecipe,
    classes: Sequence[str],
    ignored: torch.Tensor | None,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    total = logits[:0].sum()  # an empty sum is 0 even where a logit is not finite, and keeps the graph
    found = {}
    if ignored is not None:
        # no probability and no target: nothing to sum in any term, and a gradient of exactly zero
        logits, target = logits.masked_fill(ignored, _CERTAINLY_NOT), target.masked_fill(ignored, 0.0)
    for name, logit, truth, rows in zip(classes, logits.unbind(1), target.unbind(1), known.unbind(1), strict=True):
        if not rows.any():
            continue
        if not rows.all():
            logit, truth = logit[rows], truth[rows]
        counted = None if ignored is None else (~ignored[rows.to(ignored.device)]).float().mean()
        for term, weight, value in _terms(logit[:, None], truth[:, None], recipe, counted):
            total = total + weight * len(logit) / known.numel() * value
            found[f"{term}_loss_{name}"] = value.detach()
    return total, found


def _terms(
    logits: torch.Tensor, target: torch.Tensor, recipe: LossRecipe, counted: torch.Tensor | None
) -> list[tuple[str, float, torch.Tensor]]:
    """Name, weight and mean of each term that counts, for one class (B, 1, I, J, K).

    counted: the share of voxels that take part, over which means are taken; None for all.
    """
    terms = []

    def mean(value: torch.Tensor) -> torch.Tensor:
        return value if counted is None else value / counted.clamp(min=1e-12)

    if recipe.dice:
        smooth = recipe.smooth
        # soft_label: the same as without where the target is 0 or 1, and right for the shares of coarse voxels
        dice = DiceLoss(sigmoid=True, batch=recipe.batch_dice, smooth_nr=smooth, smooth_dr=smooth, soft_label=True)
        terms.append(("dice", recipe.dice, dice(logits, target)))
    if recipe.cross_entropy:
        positive = logits.new_tensor(recipe.positive_weight)
        each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=positive)
        terms.append(("cross_entropy", recipe.cross_entropy, mean(_of_hardest(each, recipe.hardest))))
    if recipe.focal:
        terms.append(("focal", recipe.focal, mean(FocalLoss(gamma=recipe.focal_gamma)(logits, target))))
    return terms


def _of_hardest(each: torch.Tensor, share: float) -> torch.Tensor:
    """The mean of the largest values of each patch (B, 1, I, J, K), at least of one voxel."""
    if share == 1:
        return each.mean()
    flat = each.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), sorted=False).values.mean()
