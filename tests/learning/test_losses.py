"""The loss is right by hand, silent about what is not annotated, and finite in half precision."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from synthoma.learning.losses import LossRecipe, loss

CLASSES = ("liver", "liver_lesion", "kidney")
ALL_TERMS = LossRecipe(dice=1, cross_entropy=1, focal=1)


def batch(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits that require a gradient, and random targets, of 2 samples and 3 classes."""
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 8, 6, 4, generator=draw).requires_grad_()
    return logits, torch.rand(2, 3, 8, 6, 4, generator=draw) < 0.2


def everything() -> torch.Tensor:
    return torch.ones(2, 3, dtype=torch.bool)


def test_terms_are_what_their_formulas_give() -> None:
    logits, target = batch()
    recipe = LossRecipe(dice=2, cross_entropy=3, focal=5, focal_gamma=1.5, smooth=0.5)
    total, terms = loss(logits, target, everything(), recipe, CLASSES)
    p, t = torch.sigmoid(logits.detach()), target.float()
    voxels = (2, 3, 4)
    dice = 1 - (2 * (p * t).sum(voxels) + 0.5) / (p.sum(voxels) + t.sum(voxels) + 0.5)
    right = p * t + (1 - p) * (1 - t)
    entropy = -right.log()
    focal = (1 - right) ** 1.5 * entropy
    for index, name in enumerate(CLASSES):
        assert float(terms[f"dice_loss_{name}"]) == pytest.approx(float(dice[:, index].mean()), rel=1e-5)
        assert float(terms[f"cross_entropy_loss_{name}"]) == pytest.approx(float(entropy[:, index].mean()), rel=1e-5)
        assert float(terms[f"focal_loss_{name}"]) == pytest.approx(float(focal[:, index].mean()), rel=1e-5)
    assert total.item() == pytest.approx(float(2 * dice.mean() + 3 * entropy.mean() + 5 * focal.mean()), rel=1e-5)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("poison", [0.0, math.inf, math.nan])
def test_what_is_not_annotated_has_exactly_no_gradient_and_no_say(batch_dice: bool, poison: float) -> None:
    annotated = torch.tensor([[True, False, False], [True, True, False]])
    recipe = ALL_TERMS.with_changes(batch_dice=batch_dice)
    logits, target = batch()
    total, terms = loss(logits, target, annotated, recipe, CLASSES)
    total.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[~annotated] == 0)
    assert all(logits.grad[sample, channel].abs().sum() > 0 for sample, channel in annotated.nonzero())
    assert {name.split("_", 1)[0] for name in terms} == {"dice", "cross", "focal"}
    assert not any("kidney" in name for name in terms)

    other = logits.detach().clone()
    other[~annotated] = poison
    again, _ = loss(other.requires_grad_(), target ^ ~annotated[:, :, None, None, None], annotated, recipe, CLASSES)
    again.backward()
    assert torch.equal(again, total)
    assert other.grad is not None
    assert torch.equal(other.grad, logits.grad)


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("poison", [0.0, math.inf, math.nan])
def test_ignored_voxels_count_as_if_the_patch_ended_before_them(batch_dice: bool, poison: float) -> None:
    annotated = torch.tensor([[True, True, False], [True, True, True]])
    recipe = ALL_TERMS.with_changes(batch_dice=batch_dice, balance=0.5, within_organ=True)
    logits, target = batch()
    ignored = torch.zeros(2, 1, 8, 6, 4, dtype=torch.bool)
    ignored[:, :, 5:] = True
    part, part_terms = loss(logits[:, :, :5], target[:, :, :5], annotated, recipe, CLASSES)
    whole = logits.detach().clone()
    whole[:, :, 5:] += poison
    total, terms = loss(whole.requires_grad_(), target, annotated, recipe, CLASSES, ignored)
    assert total.item() == pytest.approx(part.item(), rel=1e-5)
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(
        {name: float(value) for name, value in part_terms.items()}, rel=1e-5
    )
    total.backward()
    assert whole.grad is not None
    assert torch.count_nonzero(whole.grad[:, :, 5:]) == 0
    assert torch.count_nonzero(whole.grad[annotated][:, :5]) > 0


def test_a_patch_of_ignored_voxels_alone_costs_nothing() -> None:
    logits, target = batch()
    coarse = torch.randn(2, 3, 4, 3, 2, requires_grad=True)
    ignored = torch.ones(2, 1, 8, 6, 4, dtype=torch.bool)
    total, _ = loss([logits, coarse], target, everything(), ALL_TERMS, CLASSES, ignored)
    total.backward()
    assert total.item() == 0
    assert torch.count_nonzero(logits.grad) == torch.count_nonzero(coarse.grad) == 0


def test_nothing_annotated_costs_nothing_and_still_has_a_graph() -> None:
    logits, target = batch()
    coarse = torch.randn(2, 3, 4, 3, 2, requires_grad=True)
    total, terms = loss([logits, coarse], target, ~everything(), ALL_TERMS, CLASSES)
    total.backward()
    assert total.item() == 0
    assert terms == {}
    assert torch.count_nonzero(logits.grad) == torch.count_nonzero(coarse.grad) == 0


@pytest.mark.parametrize("batch_dice", [False, True])
def test_perfect_logits_cost_nothing_even_where_there_is_nothing(batch_dice: bool) -> None:
    _, target = batch()
    target[0, 1] = False
    target[:, 2] = False
    total, _ = loss(target * 60.0 - 30, target, everything(), ALL_TERMS.with_changes(batch_dice=batch_dice), CLASSES)
    assert total.item() == pytest.approx(0, abs=1e-5)


def test_a_prediction_where_there_is_nothing_costs_by_its_voxels() -> None:
    target = torch.zeros(1, 1, 8, 8, 8)
    logits = torch.full_like(target, -40.0)
    logits[0, 0, :3, 0, 0] = 40
    recipe = LossRecipe(cross_entropy=0, smooth=2)
    total, _ = loss(logits, target, torch.ones(1, 1, dtype=torch.bool), recipe, ("liver",))
    assert total.item() == pytest.approx(3 / (3 + 2))


@pytest.mark.parametrize("batch_dice", [False, True])
def test_dice_of_patches_without_a_structure_can_be_left_out(batch_dice: bool) -> None:
    logits, target = batch()
    target[0, 0] = False
    target[:, 2] = False
    recipe = LossRecipe(cross_entropy=0, batch_dice=batch_dice)
    _, terms = loss(logits, target, everything(), recipe, CLASSES)
    total, left = loss(logits, target, everything(), recipe.with_changes(empty_dice=False), CLASSES)
    assert float(terms["dice_loss_kidney"]) > 0.9
    assert float(left["dice_loss_kidney"]) == 0
    assert left["dice_loss_liver_lesion"] == terms["dice_loss_liver_lesion"]
    alone, _ = loss(logits[1:, :1], target[1:, :1], torch.ones(1, 1, dtype=torch.bool), recipe, ("liver",))
    expected = terms["dice_loss_liver"].item() if batch_dice else alone.item() / 2
    assert float(left["dice_loss_liver"]) == pytest.approx(expected, rel=1e-5)
    total.backward()
    assert logits.grad is not None
    assert (torch.count_nonzero(logits.grad[0, 0]) > 0) == batch_dice
    assert torch.count_nonzero(logits.grad[:, 2]) == 0


def test_dice_over_the_batch_pools_the_samples_that_are_annotated() -> None:
    logits, target = batch()
    target[1, 0] = False
    recipe = LossRecipe(cross_entropy=0, batch_dice=True, smooth=1e-6)
    _, terms = loss(logits, target, torch.tensor([[True, True, True], [True, True, False]]), recipe, CLASSES)
    p, t = torch.sigmoid(logits.detach()), target.float()
    pooled = 1 - 2 * (p * t)[:, 0].sum() / (p + t)[:, 0].sum()
    alone = 1 - 2 * (p * t)[0, 2].sum() / (p + t)[0, 2].sum()
    assert float(terms["dice_loss_liver"]) == pytest.approx(float(pooled), rel=1e-5)
    assert float(terms["dice_loss_kidney"]) == pytest.approx(float(alone), rel=1e-5)


def test_two_halves_of_a_batch_average_to_the_whole() -> None:
    annotated = torch.tensor([[True, False, False], [True, True, True]])
    logits, target = batch()
    whole, _ = loss(logits, target, annotated, ALL_TERMS, CLASSES)
    halves = [loss(logits[i : i + 1], target[i : i + 1], annotated[i : i + 1], ALL_TERMS, CLASSES)[0] for i in (0, 1)]
    assert sum(halves).item() / 2 == pytest.approx(whole.item(), rel=1e-6)


def test_coarse_heads_count_half_and_see_the_share_of_target_in_their_voxels() -> None:
    logits, target = batch()
    coarse = torch.randn(2, 3, 4, 3, 2, generator=torch.Generator().manual_seed(3))
    recipe = LossRecipe(dice=0)
    total, terms = loss([logits, coarse], target, everything(), recipe, CLASSES)
    fine, alone = loss(logits, target, everything(), recipe, CLASSES)
    share = target.float().reshape(2, 3, 4, 2, 3, 2, 2, 2).mean(dim=(3, 5, 7))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(coarse, share)
    assert total.item() == pytest.approx((2 * fine.item() + expected.item()) / 3, rel=1e-5)
    assert terms == alone


def test_the_positive_weight_counts_missed_voxels_only() -> None:
    _, target = batch()
    recipe, heavy = LossRecipe(dice=0), LossRecipe(dice=0, positive_weight=10)
    for logits, factor in ((torch.full(target.shape, -9.0), 10), (torch.full(target.shape, 9.0), 1)):
        light, weighed = (loss(logits, target, everything(), each, CLASSES)[0].item() for each in (recipe, heavy))
        assert weighed / light == pytest.approx(factor, rel=0.01)


def test_balance_weighs_the_voxels_of_a_class_by_how_few_they_are_in_their_patch() -> None:
    target = torch.zeros(2, 1, 8, 6, 4, dtype=torch.bool)  # 192 voxels
    target[0, 0, 0, :3, 0] = True  # 3 of them
    target[1, 0, :4] = True  # half
    silent = torch.full(target.shape, -9.0)
    annotated = torch.ones(2, 1, dtype=torch.bool)
    plain, half, whole = (
        loss(silent, target, annotated, LossRecipe(dice=0, balance=power), ("liver",))[0].item()
        for power in (0.0, 0.5, 1.0)
    )
    assert plain == pytest.approx((9 * 3 + 9 * 96) / 384, rel=0.01)
    assert half == pytest.approx((9 * 3 * 63**0.5 + 9 * 96) / 384, rel=0.01)
    assert whole == pytest.approx((9 * 3 * 63 + 9 * 96) / 384, rel=0.01)


@pytest.mark.parametrize("poison", [0.0, math.nan])
def test_tumors_within_their_organ_are_judged_by_its_voxels_and_the_rest_has_a_mean_of_its_own(poison: float) -> None:
    annotated = torch.tensor([[True, True, True], [False, True, True]])
    logits, target = batch()
    target[:, 1] &= target[:, 0]
    target[1, 0] = target[1, 1]
    given = target.float()
    given[1, 0] += poison  # not annotated: not looked at, and the tumor is judged in the whole patch
    recipe = LossRecipe(dice=2, smooth=3, within_organ=True)
    total, terms = loss(logits, given, annotated, recipe, CLASSES)
    p, t, organ = torch.sigmoid(logits.detach())[:, 1], target[:, 1].float(), target[:, 0].clone()
    organ[1] = True
    entropy = -torch.where(target[:, 1], p, 1 - p).log()
    inside = (entropy * organ).sum() / organ.sum()
    outside = (entropy * ~organ).sum() / (~organ).sum()
    dice = [1 - (2 * (p * t)[n].sum() + 3) / ((p * organ)[n].sum() + t[n].sum() + 3) for n in range(2)]
    assert float(terms["cross_entropy_loss_liver_lesion"]) == pytest.approx(float(inside + outside), rel=1e-5)
    false = [(p * ~organ)[n].sum() for n in range(2)]
    dice = [one + out / (out + 3) for one, out in zip(dice, false, strict=True)]
    assert float(terms["dice_loss_liver_lesion"]) == pytest.approx(float(sum(dice)) / 2, rel=1e-5)
    total.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, 1] != 0).all(), "what lies outside of the organ is no tumor, and is learned as that"
    _, plain = loss(logits, given, annotated, recipe.with_changes(within_organ=False), CLASSES)
    for name in ("liver", "kidney"):
        assert terms[f"dice_loss_{name}"] == plain[f"dice_loss_{name}"], "organs are judged everywhere"


def test_half_precision_is_left_before_anything_can_overflow() -> None:
    target = torch.ones(1, 1, 64, 64, 32, dtype=torch.bool)
    logits = torch.full(target.shape, 8.0, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = loss(logits, target, torch.ones(1, 1, dtype=torch.bool), LossRecipe(), ("liver",))
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(1.5 * math.exp(-8), rel=0.01)


def test_a_loss_of_nothing_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match="needs a weight above 0"):
        LossRecipe(dice=0, cross_entropy=0)
    logits, target = batch()
    with pytest.raises(ValueError, match="do not fit"):
        loss(logits, target[:, :2], everything(), LossRecipe(), CLASSES)
    with pytest.raises(ValueError, match="2 classes do not fit"):
        loss(logits, target, everything(), LossRecipe(), CLASSES[:2])
