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
    voxels where there is nothing costs n / (n + smooth), and none costs nothing. empty_dice: whether patches in which a
    structure is annotated and absent take part in its Dice term; a rare structure, absent in most, may never be learned
    if they do.
    dice, cross_entropy, focal: weights of these terms; 0 leaves one out. focal_gamma: how much easy voxels are played
    down. positive_weight: of voxels in a structure against those around, in cross-entropy; balance: the power of the
    ratio of voxels around to voxels inside, in each patch, that they weigh in addition: with 0.5 those of a structure
    that takes a hundredth of a patch weigh ten times as much. batch_dice: Dice over all patches of a step together.
    within_organ: the terms of an organ's tumors are of its own voxels, and those of all other voxels, where there is no
    such tumor, are added: one that takes a thousandth of a patch but a tenth of its organ counts as the latter.
    """

    dice: Weight = 1.0
    cross_entropy: Weight = 1.0
    focal: Weight = 0.0
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = 2.0
    positive_weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    batch_dice: bool = False
    empty_dice: bool = True
    within_organ: bool = False
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
    taking_part = None if ignored is None else (~ignored)[:, 0]
    if taking_part is not None:
        logits, target = _alone(logits, ~taking_part[:, None]), target.masked_fill(~taking_part[:, None], 0.0)
    for index, name in enumerate(classes):
        rows = known[:, index]  # on the CPU, so that no GPU is waited for
        if not rows.any():
            continue
        inside, around = taking_part, None
        if _has_organ(name, classes, recipe):
            organ = classes.index(name.removesuffix("_lesion"))
            unknown = ~known[:, organ, None, None, None].to(target.device)
            place = (target[:, organ] > 0) | (target[:, index] > 0) | unknown
            inside = place if taking_part is None else place & taking_part
            around = ~place if taking_part is None else ~place & taking_part
        those = slice(None) if rows.all() else rows
        inside, around = (None if voxels is None else voxels[those] for voxels in (inside, around))
        for term, weight, value in _terms(logits[:, index][those], target[:, index][those], recipe, inside, around):
            total = total + weight * int(rows.sum()) / known.numel() * value
            found[f"{term}_loss_{name}"] = value.detach()
    return total, found


def _has_organ(name: str, classes: Sequence[str], recipe: LossRecipe) -> bool:
    """Whether the terms of a class are those of an organ's voxels alone."""
    return recipe.within_organ and name.endswith("_lesion") and name.removesuffix("_lesion") in classes


def _alone(logits: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """No probability in the other voxels: nothing to sum in any term, and a gradient of exactly zero."""
    return logits.masked_fill(others, _CERTAINLY_NOT)


def _terms(
    logits: torch.Tensor,
    target: torch.Tensor,
    recipe: LossRecipe,
    inside: torch.Tensor | None,
    around: torch.Tensor | None,
) -> list[tuple[str, float, torch.Tensor]]:
    """Name, weight and mean of each term that counts, for one class (B, I, J, K).

    inside: bool, the voxels that terms are of; None for all. around: bool, those that add Dice and a mean cross-entropy
    of their own; they hold no target. None for none.
    """
    everything = logits
    if around is not None:
        logits = _alone(logits, around)
    terms = []

    def mean(value: torch.Tensor, of: torch.Tensor | None) -> torch.Tensor:
        return value if of is None else value / of.float().mean().clamp(min=1e-12)

    if recipe.dice:
        smooth = recipe.smooth
        # soft_label: the same as without where the target is 0 or 1, and right for the shares of coarse voxels
        dice = DiceLoss(
            sigmoid=True, batch=recipe.batch_dice, smooth_nr=smooth, smooth_dr=smooth, soft_label=True, reduction="none"
        )(logits[:, None], target[:, None]).flatten()
        if not recipe.empty_dice:
            there = target.flatten(1).any(1)
            dice = torch.where(there.any()[None] if recipe.batch_dice else there, dice, 0.0)
        if around is not None:
            false = torch.sigmoid(_alone(everything, ~around)).flatten(1).sum(1)
            dice = dice + false / (false + smooth)
        terms.append(("dice", recipe.dice, dice.mean()))
    if recipe.cross_entropy:
        weight = _positive_weight(target, inside, recipe)
        value = mean(functional.binary_cross_entropy_with_logits(logits, target, pos_weight=weight), inside)
        if around is not None:
            value = value + mean(functional.softplus(_alone(everything, ~around)).mean(), around)
        terms.append(("cross_entropy", recipe.cross_entropy, value))
    if recipe.focal:
        focal = FocalLoss(gamma=recipe.focal_gamma)(logits[:, None], target[:, None])
        terms.append(("focal", recipe.focal, mean(focal, inside)))
    return terms


def _positive_weight(target: torch.Tensor, inside: torch.Tensor | None, recipe: LossRecipe) -> torch.Tensor:
    """What a voxel of the class weighs in each patch: (B, 1, 1, 1)."""
    there = target.flatten(1).sum(1)
    room = target.new_full((len(target),), target[0].numel()) if inside is None else inside.flatten(1).sum(1).float()
    ratio = torch.where(there > 0, (room - there).clamp(min=1) / there.clamp(min=1e-6), 1.0)
    return recipe.positive_weight * ratio[:, None, None, None] ** recipe.balance
