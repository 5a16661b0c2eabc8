"""Patches: the same for any loader, aligned with the scan, and centered as often as the recipe says."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learning.small_cases import GRIDS, LIVER, Balls, BallTumor, ball, cached, patient
from synthoma.anatomy import IGNORE
from synthoma.cases import Lesion
from synthoma.errors import CaseError, FileError, RecipeError, RunError
from synthoma.learning.augmentation import AugmentationRecipe
from synthoma.learning.entry import Entry
from synthoma.learning.loader import collate, loader, steps_per_epoch
from synthoma.learning.negatives import Negative, read_negatives, write_negatives
from synthoma.learning.patches import Patch, Patches, PatchRecipe
from synthoma.learning.sampling import Balance, choose, size_class, turn_of
from synthoma.seeds import rng_for
from synthoma.synthesis.online.online import Online
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.volume import Box, Geometry, Volume

CLASSES = ("liver", "liver_lesion", "pancreas")
PLAIN = AugmentationRecipe(
    flip=(0, 0, 0),
    **{name: 0 for name in AugmentationRecipe.model_fields if name.endswith("probability")},
)
RECIPE = PatchRecipe(size=(24, 20, 16), spacing_mm=2.0, per_epoch=12)
STILL = RECIPE.with_changes(augmentation=PLAIN)
BIG, SMALL = ((-20.0, 5.0, 5.0), 11.0), ((5.0, -12.0, -8.0), 4.0)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """Two ill cases, two healthy ones, one whose tumors are not annotated, with the tables of `Balls`."""
    cases = [
        patient("ill", GRIDS["anisotropic"], [BIG, SMALL]),
        patient("tilted", GRIDS["oblique"], [BIG]),
        patient("well"),
        patient("sound", tumors=None, healthy=True),
        patient("unknown", tumors=None),
    ]
    found = cached(tmp_path_factory.mktemp("cache"), *cases, augment=Balls())
    return {entry.case: entry for entry in found}


def patches(entries: dict[str, Entry], *names: str, recipe: PatchRecipe = STILL, **how: Any) -> Patches:
    return Patches([entries[name] for name in names or entries], recipe, how.pop("classes", CLASSES), **how)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]
        for name, value in one.items()
    )


def take(source: Patches, **how: Any) -> list[dict[str, Any]]:
    return list(loader(source, how.pop("epoch", 3), **how))


def test_patches_are_the_same_for_any_number_of_workers(entries: dict[str, Entry]) -> None:
    source = patches(entries, recipe=RECIPE, augment=Balls(0.6))
    here, one, two = (take(source, workers=workers) for workers in (0, 1, 2))
    assert len(here) == 6
    assert all(same(a, b) and same(a, c) for a, b, c in zip(here, one, two, strict=True))
    assert not same(here[0], here[1])


def test_a_resumed_epoch_goes_on_with_the_same_patches(entries: dict[str, Entry]) -> None:
    source = patches(entries, recipe=RECIPE, augment=Balls(0.6))
    undisturbed = take(source, epochs=2)
    resumed = take(source, start=4, epochs=2, workers=2)
    assert [(batch["epoch"], batch["step"]) for batch in resumed] == [(3, 4), (3, 5), *((4, n) for n in range(6))]
    assert all(same(a, b) for a, b in zip(undisturbed[4:], resumed, strict=True))


def test_an_epoch_differs_from_the_next_and_a_seed_from_another(entries: dict[str, Entry]) -> None:
    first, next_epoch, other_seed = (
        patches(entries, recipe=RECIPE, seed=seed).draw(epoch, 0).image for seed, epoch in ((1, 0), (1, 1), (2, 0))
    )
    assert not np.array_equal(first, next_epoch)
    assert not np.array_equal(first, other_seed)


def test_a_patch_does_not_depend_on_what_was_drawn_before(entries: dict[str, Entry]) -> None:
    source = patches(entries, recipe=RECIPE, augment=Balls(0.6), seed=5)
    forth = [source.draw(0, index) for index in range(6)]
    for index in reversed(range(6)):
        again = Patches(list(entries.values()), RECIPE, CLASSES, Balls(0.6), 5).draw(0, index)
        np.testing.assert_array_equal(again.image, forth[index].image)
        assert (again.case, again.box, again.augmentation) == (
            forth[index].case,
            forth[index].box,
            forth[index].augmentation,
        )


def test_two_ranks_see_together_what_one_with_twice_the_batch_sees(entries: dict[str, Entry]) -> None:
    source = patches(entries, recipe=RECIPE)
    whole = take(source, batch=4)
    ranks = [take(source, batch=2, rank=rank, world=2) for rank in (0, 1)]
    assert len(whole) == len(ranks[0]) == len(ranks[1]) == 3
    for all_of, first, second in zip(whole, *ranks, strict=True):
        assert torch.equal(all_of["image"][0::2], first["image"])
        assert torch.equal(all_of["target"][1::2], second["target"])
        assert sorted(first["index"] + second["index"]) == all_of["index"]


def test_the_generator_of_the_training_loop_is_left_alone(entries: dict[str, Entry]) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    take(patches(entries), workers=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_holds_what_the_network_takes(entries: dict[str, Entry]) -> None:
    batch = take(patches(entries, recipe=RECIPE), batch=3)[0]
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 1, 24, 20, 16), torch.float32)
    assert (batch["target"].shape, batch["target"].dtype) == ((3, 3, 24, 20, 16), torch.uint8)
    assert (batch["annotated"].shape, batch["annotated"].dtype) == ((3, 3), torch.bool)
    assert 0 <= batch["image"].min() <= batch["image"].max() <= 1
    assert batch["index"] == [0, 1, 2]


@pytest.mark.parametrize("name", ["ill", "tilted"])
def test_image_and_target_are_the_scan_in_the_box(entries: dict[str, Entry], name: str) -> None:
    source = patches(entries, name)
    for index in range(8):
        patch = source.draw(0, index)
        hu = entries[name].read_hu(patch.box)
        np.testing.assert_allclose(patch.image[0], np.clip((hu + 175) / 425, 0, 1), atol=1e-6)
        there = entries[name].geometry.crop(patch.box)
        inside = ball(there, *LIVER)
        assert (patch.target[0] != inside).mean() < (0.04 if name == "ill" else 0.02)  # from slices of 4 mm
        lesion = ball(there, *BIG) | (ball(there, *SMALL) if name == "ill" else False)
        assert (patch.target[1] != lesion).mean() < 0.02
        assert not (patch.target[1] & ~patch.target[0].astype(bool)).any()


def test_on_the_scans_own_grid_the_target_is_the_mask(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient(tumors=[BIG, SMALL]))
    source = Patches([entry], STILL, CLASSES)
    for index in range(8):
        patch = source.draw(0, index)
        there = entry.geometry.crop(patch.box)
        np.testing.assert_array_equal(patch.target[0], ball(there, *LIVER))
        np.testing.assert_array_equal(patch.target[1], ball(there, *BIG) | ball(there, *SMALL))


def test_a_class_that_is_not_annotated_is_marked_so(entries: dict[str, Entry]) -> None:
    known = {name: patches(entries, name).draw(0, 0).annotated.tolist() for name in ("ill", "sound", "unknown")}
    assert known == {"ill": [True, True, False], "sound": [True, True, False], "unknown": [True, False, False]}


def test_a_scan_smaller_than_the_patch_lies_in_its_middle(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(size=(80, 80, 80))
    patch = patches(entries, "well", recipe=recipe).draw(0, 0)
    shape = entries["well"].geometry.shape
    assert patch.box.shape == (80, 80, 80)
    assert all(abs(low + high - n) <= 1 for low, high, n in zip(*patch.box, shape, strict=True))
    assert (patch.image[0, :10] == 0).all()


def test_boxes_stay_inside_the_scan_and_hold_the_tumor(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(lesion_share=1, organ_share=0)
    source = patches(entries, "ill", recipe=recipe)
    for index in range(40):
        patch = source.draw(0, index)
        assert patch.box.clip(entries["ill"].geometry.shape) == patch.box
        assert patch.target[1].any()


def kinds(source: Patches, count: int, epoch: int = 0) -> Counter[str]:
    """What the patches show, the rarest thing first."""
    found: Counter[str] = Counter()
    for index in range(count):
        target = source.draw(epoch, index).target
        found["tumor" if target[1].any() else "organ" if target[0].any() else "neither"] += 1
    return found


def test_what_a_patch_is_centered_on_lies_anywhere_in_its_middle_half(tmp_path: Path) -> None:
    """A network must not learn that tumors lie in the very middle of what it sees."""
    (entry,) = cached(tmp_path, patient("small", tumors=[SMALL]))
    drawn = Patches([entry], STILL.with_changes(lesion_share=1.0, organ_share=0.0), CLASSES)
    boxes = [drawn.draw(0, index).box for index in range(200)]
    middles = np.array([(np.asarray(box.lower) + np.asarray(box.upper) - 1) / 2 for box in boxes])
    away = (middles - entry.geometry.to_ijk(entry.lesions[0].center_mm)) / STILL.size
    # evenly over half of the patch is an SD of 0.144; the voxels of the tumor itself add 0.05
    assert np.std(away, axis=0) == pytest.approx([0.155] * 3, rel=0.2)
    assert 0.25 < np.abs(away).max() < 0.25 + 0.17


def test_ignored_voxels_are_marked_and_belong_to_no_class(tmp_path: Path) -> None:
    case = patient("anna", tumors=[BIG])
    unknown = ball(case.read_geometry(), BIG[0], 8.0)
    masks = {**case.masks, IGNORE: Volume(unknown, case.read_geometry())}
    (entry,) = cached(tmp_path, replace(case, masks=masks))
    whole = STILL.with_changes(size=entry.geometry.shape)
    patch = Patches([entry], whole, CLASSES).draw(0, 0)
    assert patch.ignored is not None
    np.testing.assert_array_equal(patch.ignored[0], unknown)
    assert not patch.target[:, unknown].any()
    assert patch.target[0].sum() > 1000
    batch = collate([(0, patch), (1, replace(patch, ignored=None))])
    assert torch.equal(batch["ignored"].sum(dim=(1, 2, 3, 4)), torch.tensor([unknown.sum(), 0]))
    assert collate([(0, replace(patch, ignored=None))])["ignored"] is None


def test_without_tumors_patches_are_centered_on_organs(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(size=(8, 8, 8), lesion_share=0.5, organ_share=0.5)
    assert kinds(patches(entries, "well", recipe=recipe), 30) == {"organ": 30}


def test_a_share_of_patches_lies_anywhere_in_the_body(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(size=(8, 8, 8), lesion_share=0.3, organ_share=0.3)
    found = kinds(patches(entries, "ill", "well", recipe=recipe), 200)
    body = 4 / 3 * np.pi * 49**3
    elsewhere = 0.4 * (1 - 4 / 3 * np.pi * (LIVER[1] + 6) ** 3 / body)
    assert found["neither"] / 200 == pytest.approx(elsewhere, abs=0.09)
    assert found["tumor"] / 200 >= 0.3


def test_any_few_patches_in_a_row_hold_the_kinds_in_their_shares() -> None:
    for start in (0, 7, 100):
        turns = [turn_of(index, 0.3) for index in range(start, start + 10)]
        assert 4 <= sum(turn < 0.5 for turn in turns) <= 6


def many_lesions(folder: Path, entry: Entry, diameters: Sequence[float]) -> Entry:
    """An entry that claims tumors of these sizes, each a single voxel of its own."""
    lesions, spans = [], {}
    for index, diameter in enumerate(diameters, 1):
        box = Box((index, 0, 0), (index + 1, 1, 1))
        lesions.append(Lesion(entry.case, "liver", index, 1, 0.0, diameter, (0.0, 0.0, 0.0), box))
        spans[f"liver_lesion {index}"] = (index, index + 1)
    return replace(entry, lesions=tuple(lesions), spans={**entry.spans, **spans})


@pytest.mark.parametrize(("balance", "expected"), [(0.0, [0.6, 0.3, 0.0, 0.1]), (1.0, [1 / 3, 1 / 3, 0.0, 1 / 3])])
def test_tumors_are_balanced_over_sizes(
    entries: dict[str, Entry], tmp_path: Path, balance: float, expected: list[float]
) -> None:
    sizes = [5.0] * 6 + [15.0] * 3 + [70.0]
    entry = many_lesions(tmp_path, entries["ill"], sizes)
    recipe = STILL.with_changes(size_balance=balance, lesion_share=1, organ_share=0)
    found = centered_on(Patches([entry], recipe, CLASSES), 900)
    shares = [sum(found[n] for n, size in enumerate(sizes) if size_class(size) == kind) / 900 for kind in range(4)]
    np.testing.assert_allclose(shares, expected, atol=0.05)
    # within a size every tumor alike
    np.testing.assert_allclose([found[n] / 900 for n in range(6)], expected[0] / 6, atol=0.03)


def centered_on(source: Patches, count: int) -> Counter[int]:
    """How often each of the single-voxel tumors of an entry was chosen."""
    entry = source.entries[0]
    points = {tuple(entry.points(f"liver_lesion {n.index}")[0]): n.index - 1 for n in entry.lesions}
    found: Counter[int] = Counter()
    for index in range(count):
        site = choose(source.places, source.entries, source._balance, lambda _: (), 0.0, rng_for(0, index))
        found[points[site.center]] += 1
    return found


def test_organs_are_balanced_whatever_their_size(tmp_path: Path) -> None:
    case = patient("two")
    grid = case.read_geometry()
    small = ball(grid, (38, -15, 0), 5)
    masks = {**case.masks, "pancreas": replace(case.read_mask("liver"), data=small)}
    (entry,) = cached(tmp_path, replace(case, masks=masks))
    recipe = STILL.with_changes(size=(8, 8, 8), lesion_share=0, organ_share=1)
    source = Patches([entry], recipe, CLASSES)
    shown = sum(bool(source.draw(0, index).target[2].any()) for index in range(200)) / 200
    assert shown == pytest.approx(0.5, abs=0.1)


@dataclass(frozen=True)
class LiverOrSpot(Balls):
    """A ball in the liver of every host; one host has a tumor of its pancreas as well."""

    has_spot: str = "rare"

    def draw(self, entry: Entry, epoch: int) -> Sequence[BallTumor]:
        spot = (BallTumor("pancreas", (30.0, -20.0, 0.0), 6.0),) if entry.case == self.has_spot else ()
        return (*super().draw(entry, epoch), *spot)


def test_an_organ_that_is_rare_in_a_cohort_is_still_seen_in_its_share(tmp_path: Path) -> None:
    """One case of twelve shows a pancreas; it has the half of the organs' patches, and of the synthetic tumors'.

    With a weight of 3 it has three quarters of both.
    """
    rare = patient("rare")
    spot = Volume(np.asfortranarray(ball(GRIDS["upright"], (30, -20, 0), 8)), GRIDS["upright"])
    none = Volume(np.zeros(GRIDS["upright"].shape, bool, order="F"), GRIDS["upright"])
    rare = replace(rare, masks={**rare.masks, "pancreas": spot, "pancreas_lesion": none})
    entries = cached(tmp_path / "cache", rare, *(patient(f"case_{n}") for n in range(11)), augment=LiverOrSpot())
    classes = ("liver", "liver_lesion", "pancreas", "pancreas_lesion")
    shares: tuple[dict[str, Any], ...] = ({"lesion_share": 1, "organ_share": 0}, {"lesion_share": 0, "organ_share": 1})
    for changes, expected in [
        *((share, 0.5) for share in shares),
        *(({**share, "organ_weights": {"pancreas": 3.0}}, 0.75) for share in shares),
    ]:
        source = Patches(entries, STILL.with_changes(size=(8, 8, 8), **changes), classes, augment=LiverOrSpot())
        on_spot = 0
        for index in range(200):
            middle = np.add(*source.draw(0, index).box) / 2
            at_mm = entries[0].geometry.to_mm(middle - 0.5)
            on_spot += bool(np.linalg.norm(at_mm - (30, -20, 0)) < 14)
        assert on_spot / 200 == pytest.approx(expected, abs=0.11), changes


def alarm(case: str, at_mm: tuple[float, float, float], organ: str = "liver") -> Negative:
    return Negative(case=case, organ=organ, center_mm=at_mm, score=0.8, volume_ml=0.5)


def test_false_alarms_have_their_share_of_patches_in_their_case_as_it_is(
    entries: dict[str, Entry], tmp_path: Path
) -> None:
    file = tmp_path / "negatives.json"
    write_negatives(file, [alarm("well", (20.0, 20.0, 20.0)), alarm("elsewhere", (0.0, 0.0, 0.0))])
    assert read_negatives(file)[0] == alarm("well", (20.0, 20.0, 20.0))
    recipe = STILL.with_changes(size=(8, 8, 8), lesion_share=0.5, organ_share=0.2, negative_share=0.25)
    with_them, without = (
        Patches([entries["ill"], entries["well"]], recipe.with_changes(negatives=name), CLASSES, augment=Balls())
        for name in (str(file), None)
    )
    on_alarm = []
    for index in range(200):
        patch = with_them.draw(0, index)
        at_mm = entries["well"].geometry.to_mm(np.add(*patch.box) / 2 - 0.5)
        if patch.case == "well" and np.linalg.norm(at_mm - (20, 20, 20)) < 9:
            on_alarm.append(patch)
        elif turn_of(index, float(rng_for(0, "turn", 0).random())) < 0.7:  # what is no negative stays as it was
            assert np.array_equal(patch.image, without.draw(0, index).image)
    assert len(on_alarm) / 200 == pytest.approx(0.25, abs=0.03)
    assert not any(patch.synthetic for patch in on_alarm)


def test_files_of_false_alarms_that_teach_nothing_are_refused(entries: dict[str, Entry], tmp_path: Path) -> None:
    file = tmp_path / "negatives.json"
    recipe = STILL.with_changes(negatives=str(file))
    write_negatives(file, [alarm("elsewhere", (0.0, 0.0, 0.0))])
    with pytest.raises(CaseError, match="none of the false alarms"):
        patches(entries, recipe=recipe)
    write_negatives(file, [])
    with pytest.raises(FileError, match="no false alarm in it"):
        patches(entries, recipe=recipe)
    file.write_text('{"format": "synthoma negatives 1", "places": [{"case": "well"}]}')
    with pytest.raises(FileError, match="damaged"):
        patches(entries, recipe=recipe)
    file.write_text("[]")
    with pytest.raises(FileError, match="no file of false alarms"):
        patches(entries, recipe=recipe)
    with pytest.raises(ValueError, match="more than 1 together"):
        STILL.with_changes(lesion_share=0.6, organ_share=0.4, negatives=str(file))


def test_cases_are_chosen_by_their_weights(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(weights={"well": 4.0})
    source = patches(entries, "well", "sound", recipe=recipe)
    found = Counter(source.draw(0, index).case for index in range(200))
    assert found["well"] / 200 == pytest.approx(0.8, abs=0.08)


def drawn(source: Patches, count: int) -> list[Patch]:
    return [source.draw(0, index) for index in range(count)]


def test_patches_are_centered_on_synthetic_tumors_as_on_real_ones(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(lesion_share=1, organ_share=0)
    for patch in drawn(patches(entries, "well", "sound", recipe=recipe, augment=Balls()), 30):
        assert patch.synthetic
        assert patch.annotated[1]
        assert patch.target[1].any()
        np.testing.assert_array_equal(patch.target[1] == 1, patch.image[0] == 1)  # 500 HU


def test_a_tumor_is_the_same_in_every_patch_of_an_epoch(entries: dict[str, Entry]) -> None:
    source = patches(entries, "well", augment=Balls())
    seen = np.full(entries["well"].geometry.shape, 2, np.uint8)
    for patch in drawn(source, 25):
        part = seen[patch.box.slices]
        known = part < 2
        np.testing.assert_array_equal(part[known], patch.target[1][known])
        part[...] = patch.target[1]
    assert (seen == 1).any()


def test_rule_based_tumors_are_the_same_in_every_worker_and_patch(tmp_path: Path) -> None:
    rules = SynthesisRecipe(organs=("liver",), phase="portal", lesions=(1, 2), diameter_mm=(8, 14))
    online = Online(rules, 0.8, seed=3)
    entries = cached(tmp_path, patient("well"), patient("sound"), augment=online)
    source = Patches(entries, RECIPE, CLASSES, online)
    here, there = take(source), take(Patches(entries, RECIPE, CLASSES, Online(rules, 0.8, seed=3)), workers=2)
    assert sum(int(batch["synthetic"].sum()) for batch in here) >= 4
    assert all(same(one, other) for one, other in zip(here, there, strict=True))
    seen: dict[str, np.ndarray] = {}
    for patch in drawn(Patches(entries, STILL, CLASSES, online), 25):
        grid = np.full((2, *source.entries[0].geometry.shape), np.nan, np.float32)
        whole = seen.setdefault(patch.case, grid)
        part = whole[:, *patch.box.slices]
        now = np.stack([patch.image[0], patch.target[1]])
        known = ~np.isnan(part)
        np.testing.assert_array_equal(part[known], now[known])
        part[...] = now


def test_synthetic_share_is_that_of_patches_from_hosts(entries: dict[str, Entry]) -> None:
    for share in (0.0, 0.25, 1.0):
        recipe = STILL.with_changes(synthetic_share=share)
        found = drawn(patches(entries, recipe=recipe, augment=Balls()), 120)
        hosts = sum(patch.case in ("well", "sound") for patch in found) / 120
        assert hosts == pytest.approx(share, abs=0.09 if 0 < share < 1 else 0)
        assert not any(patch.synthetic for patch in found if patch.case not in ("well", "sound"))


def test_the_probability_is_the_augments_where_patches_are_not_centered_on_tumors(entries: dict[str, Entry]) -> None:
    recipe = STILL.with_changes(size=(48, 48, 48), lesion_share=0, organ_share=1)
    source = patches(entries, "well", "sound", recipe=recipe, augment=Balls(0.4))
    with_tumor = [source.draw(epoch, 0).synthetic for epoch in range(150)]
    assert np.mean(with_tumor) == pytest.approx(0.4, abs=0.11)
    never = patches(entries, "well", recipe=STILL, augment=Balls(0.0))
    assert not any(patch.synthetic for patch in drawn(never, 10))


def test_tumor_bearing_cases_host_only_when_told(entries: dict[str, Entry]) -> None:
    with pytest.raises(
        CaseError, match=r"no case can host.*2 cases, of which 1 have real tumors.*synthesis=none.*hosts=all"
    ):
        patches(entries, "ill", "unknown", augment=Balls())
    recipe = STILL.with_changes(hosts="all", synthetic_share=0.5, size=(48, 48, 48))
    found = drawn(patches(entries, "ill", "unknown", recipe=recipe, augment=Balls()), 60)
    bright = [bool((patch.image == 1).any()) for patch in found]
    assert np.mean(bright) == pytest.approx(0.5, abs=0.2)
    assert {patch.case for patch, one in zip(found, bright, strict=True) if one} == {"ill"}
    assert all(patch.target[1].any() or patch.case == "unknown" for patch in found)


def test_tumors_of_organs_that_are_no_class_are_not_centered_on(entries: dict[str, Entry]) -> None:
    with pytest.raises(CaseError, match="no case can host"):
        patches(entries, "well", classes=("liver",), augment=Balls())


def test_a_fault_in_synthesis_names_the_case(entries: dict[str, Entry]) -> None:
    source = patches(entries, "well", augment=Balls(fails_for="well"))
    with pytest.raises(ZeroDivisionError, match="a fault of the generator") as caught:
        take(source)
    assert "case well" in "".join(caught.value.__notes__)
    with pytest.raises(ZeroDivisionError, match=r"(?s)small_cases\.py.*a fault of the generator.*epoch 3, case well"):
        take(source, workers=2)


@dataclass(frozen=True)
class Killed(Balls):
    """Synthesis in a process that is killed, as for want of memory."""

    def render(self, *about: Any) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed_is_said_to_be(entries: dict[str, Entry]) -> None:
    with pytest.raises(RunError, match=r"killed.*fewer workers"):
        take(patches(entries, "well", augment=Killed()), workers=1)


def test_real_tumors_and_false_alarms_follow_the_weights_of_their_organs(entries: dict[str, Entry]) -> None:
    """Where `pancreas` has three times the weight, three quarters of either lie on it."""
    ill, tilted = entries["ill"], entries["tilted"]
    tilted = replace(tilted, spans={**tilted.spans, "pancreas_lesion 1": tilted.spans["liver_lesion 1"]})
    of_pancreas = replace(tilted.lesions[0], organ="pancreas", index=1)
    places = patches(entries, "ill", "tilted").places
    lesions = {"liver": {2: {0: [ill.lesions[0]]}}, "pancreas": {2: {1: [of_pancreas]}}}
    alarms = {"liver": [(0, (1, 1, 1))], "pancreas": [(1, (2, 2, 2))]}
    places = replace(places, plain=replace(places.plain, lesions=lesions), negatives=alarms)
    for shares, turn in ((1.0, 0.0, 0.0), 0.0), ((0.0, 0.0, 1.0), 0.99):
        balance = Balance(*shares, size_balance=0.5, synthetic_share=0.0, organ_weights={"pancreas": 3.0})
        found = [choose(places, [ill, tilted], balance, lambda _: (), turn, rng_for(1, n)).entry for n in range(400)]
        assert np.mean(found) == pytest.approx(0.75, abs=0.06), shares


def test_what_cannot_be_trained_on_is_refused(entries: dict[str, Entry]) -> None:
    with pytest.raises(ValueError, match="organ_weights: no organ 'kidneys', but liver"):
        PatchRecipe(organ_weights={"kidneys": 2.0})
    patches(entries, recipe=STILL.with_changes(organ_weights={"kidney": 2.0}))  # a recipe's organs may be fewer
    with pytest.raises(RecipeError, match=r"no class 'spleen'.*one of liver, liver_lesion"):
        patches(entries, classes=("spleen",))
    with pytest.raises(CaseError, match="there is no case"):
        Patches([], STILL, CLASSES)
    with pytest.raises(RecipeError, match=r"less patches than a batch.*per_epoch 12.*expected 16"):
        steps_per_epoch(patches(entries), 8, 2)
    for wrong in ({"size": (4, 8, 8)}, {"window_hu": (1, 0)}, {"lesion_share": 0.7, "organ_share": 0.4}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            PatchRecipe(**wrong)


def test_the_grid_of_patches_is_upright_for_any_scan(entries: dict[str, Entry]) -> None:
    for entry in entries.values():
        assert isinstance(entry.geometry, Geometry)
        assert entry.geometry.axes == "RAS"
        np.testing.assert_allclose(entry.geometry.spacing_mm, 2.0)
