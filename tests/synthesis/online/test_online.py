"""Online synthesis: in any patch the very voxels of the whole scan, drawn from stored tables, afresh in every epoch."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthesis.patients import RECIPE, open_dataset, patient, synthesize_all, tamper, write_patients
from synthesis.phantoms import FAT, grid, noise, plan_of
from synthoma import anatomy
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.seeds import seed_for
from synthoma.synthesis.insertion import mass_effect
from synthoma.synthesis.insertion.crops import DrawnTumor, read_ahead
from synthoma.synthesis.insertion.insertion import Inserted, insert
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.synthesis.pipeline import insert_tumors, open_scene, replay_plans
from synthoma.synthesis.recipe import JudgeRecipe, SynthesisRecipe
from synthoma.synthesis.store.copies import copies_of
from synthoma.synthesis.store.manifest import read_manifest, write_manifest
from synthoma.synthesis.store.outputs import synthesize_case
from synthoma.volume import Array, Box, Geometry, Volume

UPRIGHT = grid((1.5, 1.5, 1.5), (120, 120, 120))
OBLIQUE = grid((1.6, 1.4, 2.5), (120, 120, 120), (25, -15, 40))
CROWDED = SynthesisRecipe(lesions=(4, 7), diameter_mm=(7, 20), gap_mm=1.0, mass_effect_share=0.7, retries=0)
STRICT = CROWDED.with_changes(organs=("liver", "kidney"), judge=JudgeRecipe(contrast_to_noise=1.5))
WHOLE = Box((0, 0, 0), (80, 80, 80))


class Cached:
    """A cached case in memory, with the tables of some augments as they come back from a file."""

    def __init__(self, case: Case, *augments: Online | Fixed) -> None:
        ct, masks = case.read_image(), case.read_masks()
        self.case, self.geometry = case.id, ct.geometry
        self.annotated: Sequence[str] = tuple(masks)
        self.attributes: Mapping[str, Any] = case.attributes
        self.hu, self.labels = ct.data, label_map(case)
        self.stored = {augment.name: through_a_file(augment.prepare(ct, masks, case)) for augment in augments}

    def read_hu(self, box: Box) -> Array:
        """As the cache does."""
        return part_of(self.hu, box, -1024)

    def read_labels(self, box: Box) -> Array:
        """As the cache does."""
        return part_of(self.labels, box, 0)

    def tables(self, name: str) -> Mapping[str, Array]:
        """As the cache does."""
        return self.stored[name]


def label_map(case: Case) -> Array:
    """The structures' ids, lesions on top."""
    labels = np.zeros(case.read_geometry().shape, np.uint8, order="F")
    for name, mask in sorted(case.read_masks().items(), key=lambda item: anatomy.is_lesion(item[0])):
        labels[mask.data] = anatomy.STRUCTURES[name]
    return labels


def through_a_file(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as found:
        return dict(found)


def part_of(data: Array, box: Box, outside: int) -> Array:
    result = np.full(box.shape, outside, data.dtype, order="F")
    inside = box.clip(data.shape)
    result[inside.shift([-low for low in box.lower]).slices] = data[inside.slices]
    return result


def in_the_whole_scan(case: Case, drawn: Sequence[DrawnTumor]) -> tuple[Array, Array, list[Inserted]]:
    """HU and labels of the case after these tumors have been put in, one after the other."""
    scene = open_scene(case, ("liver", "kidney"))
    labels, inserted = label_map(case), []
    for tumor in drawn:
        done = insert(scene, tumor.plan, tumor.generator, tumor.index, 0)
        if isinstance(done, Inserted):
            inserted.append(done)
            displacement = mass_effect.displacement(done.plan, case.read_geometry())
            if displacement is not None:
                labels[displacement.box.slices] = mass_effect.move_mask(labels[displacement.box.slices], displacement)
            labels[done.box.slices][done.mask] = anatomy.STRUCTURES[anatomy.organ(tumor.organ).lesion]
    return scene.hu, labels, inserted


def healthy(geometry: Geometry = UPRIGHT) -> Case:
    """Liver, left kidney and spleen."""
    case = patient("online", geometry)
    return dataclasses.replace(case, attributes={**case.attributes, "healthy": True})


def boxes(geometry: Geometry, count: int) -> list[Box]:
    """Boxes of 40 voxels, some of which reach outside."""
    rng = np.random.default_rng(1)
    corners = [[int(rng.integers(-15, n - 20)) for n in geometry.shape] for _ in range(count)]
    return [Box((i, j, k), (i + 40, j + 40, k + 40)) for i, j, k in corners]


@pytest.mark.parametrize("geometry", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
def test_a_patch_shows_what_the_whole_scan_would_have_there(geometry: Geometry) -> None:
    case = healthy(geometry)
    entry = Cached(case, Online(STRICT, 1.0))
    displaced = 0
    for epoch in range(2):
        online = Online(STRICT, 1.0)
        drawn = online.draw(entry, epoch)
        hu, labels, inserted = in_the_whole_scan(case, drawn)
        displaced += sum(tumor.plan.displacement_mm > 0 for tumor in inserted)
        for number, box in enumerate(boxes(geometry, 5)):
            if number % 2:
                online = Online(STRICT, 1.0)  # one that has rendered nothing so far
            found = online.render(entry, box, online.draw(entry, epoch))
            assert [part.dtype for part in found] == [np.int16, np.uint8]
            assert np.array_equal(found[0], part_of(hu, box, -1024))
            assert np.array_equal(found[1], part_of(labels, box, 0))
    assert displaced > 0


def test_tumors_are_those_of_an_offline_synthesis() -> None:
    case, online = healthy(), Online(CROWDED, 1.0, seed=3)
    entry = Cached(case, online)
    for epoch in range(2):
        drawn = online.draw(entry, epoch)
        hu, labels = online.render(entry, WHOLE, drawn)
        offline = insert_tumors(case, CROWDED, seed_for(online.seed, "online", epoch))
        assert [(t.plan, t.index) for t in sorted((*offline.inserted, *offline.rejected), key=lambda t: t.index)] == [
            (tumor.plan, tumor.index) for tumor in drawn
        ]
        assert np.array_equal(hu, offline.ct.data)
        assert np.array_equal(labels == anatomy.STRUCTURES["liver_lesion"], offline.tumors("liver").data)


def test_boxes_that_lie_close_together_are_read_at_once() -> None:
    entry, read = Cached(healthy(), Online(CROWDED, 1.0)), []

    class Counting(Cached):
        def __init__(self) -> None:
            self.__dict__.update(entry.__dict__)

        def read_hu(self, box: Box) -> Array:
            read.append(box)
            return super().read_hu(box)

    close = [Box((n, 20, 30), (n + 24, 50, 60)) for n in (20, 31, 44)]
    far = [Box((0, 0, 0), (10, 10, 10)), Box((110, 110, 110), (120, 120, 120))]
    for boxes, count in ((close, 1), (far, 2), (close[:1], 1)):
        read.clear()
        ahead = read_ahead(Counting(), boxes)
        for box in boxes:
            hu, labels = ahead.read_hu(box), ahead.read_labels(box)
            assert np.array_equal(hu, entry.read_hu(box))
            assert np.array_equal(labels, entry.read_labels(box))
            hu[...], labels[...] = 0, 0  # what is read is the reader's own
            assert np.array_equal(ahead.read_hu(box), entry.read_hu(box))
        assert len(set(read)) == count
    outside = Box((60, 60, 60), (70, 70, 70))
    assert np.array_equal(read_ahead(Counting(), close).read_hu(outside), entry.read_hu(outside))


def test_a_draw_depends_on_seed_case_and_epoch_alone() -> None:
    online = Online(CROWDED, 1.0, seed=1)
    entry = Cached(healthy(), online)
    other = Cached(dataclasses.replace(healthy(), id="other"), online)

    def plans(augment: Online, of: Cached, epoch: int) -> list[Any]:
        return [tumor.plan for tumor in augment.draw(of, epoch)]

    first = plans(online, entry, 0)
    assert first
    copy = pickle.loads(pickle.dumps(online))
    assert plans(copy, entry, 5) == plans(online, entry, 5) != first
    assert plans(copy, entry, 0) == first
    assert plans(online, other, 0) != first
    assert plans(Online(CROWDED, 1.0, seed=2), entry, 0) != first
    assert online.name == copy.name == Online(CROWDED.with_changes(lesions=(1, 1)), 0.5, 9).name
    assert online.name != Online(STRICT, 1.0).name


def test_a_case_gets_tumors_in_as_many_epochs_as_asked_for() -> None:
    entry = Cached(healthy(), Online(CROWDED, 1.0))
    shares = [
        np.mean([bool(Online(CROWDED, share).draw(entry, epoch)) for epoch in range(60)]) for share in (0.0, 0.5, 1.0)
    ]
    assert (shares[0], shares[2]) == (0, 1)
    assert 0.3 < shares[1] < 0.7
    with pytest.raises(ValueError, match="between 0 and 1"):
        Online(CROWDED, 50)


def test_only_cases_whose_real_tumors_are_known_host_tumors() -> None:
    online, case = Online(CROWDED, 1.0), patient("online", UPRIGHT)
    nothing = Volume(np.zeros(UPRIGHT.shape, bool), UPRIGHT)
    unknown = Cached(case, online)
    assert online.draw(unknown, 0) == ()
    assert "not annotated" in online.refusals(unknown)["liver"]
    for known in (healthy(), dataclasses.replace(case, masks={**case.masks, "liver_lesion": nothing})):
        entry = Cached(known, online)
        assert online.draw(entry, 0)
        assert online.refusals(entry) == {}


def test_organs_that_cannot_host_are_left_out_with_the_reason() -> None:
    recipe = CROWDED.with_changes(organs=("pancreas", "uterus", "liver"))
    online = Online(recipe, 1.0)
    case = healthy()
    empty = Volume(np.zeros(UPRIGHT.shape, bool), UPRIGHT)
    entry = Cached(dataclasses.replace(case, masks={**case.masks, "uterus": empty}), online)
    assert {tumor.organ for tumor in online.draw(entry, 0)} == {"liver"}
    assert online.refusals(entry) == {
        "pancreas": "the pancreas is not annotated",
        "uterus": "the mask of the uterus is empty",
    }
    no_room = Online(CROWDED.with_changes(gap_mm=100.0), 1.0)
    assert no_room.draw(Cached(patient("online", UPRIGHT, ill=True), no_room), 0) == ()


def test_what_the_judge_rejects_is_drawn_again_before_a_patch_is_centered() -> None:
    never = Online(CROWDED.with_changes(judge=JudgeRecipe(contrast_to_noise=20.0)), 1.0)
    entry = Cached(healthy(), never)
    assert never.draw(entry, 0) == ()
    often = STRICT.with_changes(retries=8)
    counts = [len(Online(recipe, 1.0).draw(Cached(healthy(), Online(recipe, 1.0)), 3)) for recipe in (STRICT, often)]
    assert counts[1] > counts[0]


def test_tumors_online_are_those_of_a_whole_synthesis() -> None:
    recipe = STRICT.with_changes(organs=("liver",), retries=5)
    case = healthy()
    entry, online = Cached(case, Online(recipe, 1.0)), Online(recipe, 1.0)
    redrawn = 0
    for epoch in range(5):
        offline = insert_tumors(case, recipe, seed_for(0, "online", epoch))
        redrawn += len(offline.rejected)
        drawn = online.draw(entry, epoch)
        assert [tumor.plan for tumor in drawn] == [tumor.plan for tumor in offline.inserted]
        assert np.array_equal(online.render(entry, WHOLE, drawn)[0], offline.ct.data)
    assert redrawn > 0


def test_real_tumors_keep_their_voxels_and_their_label() -> None:
    online = Online(CROWDED, 1.0)
    case = patient("online", UPRIGHT, ill=True)
    entry = Cached(case, online)
    real = case.read_mask("liver_lesion").data
    for epoch in range(4):
        hu, labels = online.render(entry, WHOLE, online.draw(entry, epoch))
        assert np.array_equal(hu[real], entry.hu[real])
        assert (labels[real] == anatomy.STRUCTURES["liver_lesion"]).all()
        assert (labels == anatomy.STRUCTURES["liver_lesion"]).sum() > real.sum()


def test_what_nobody_annotated_stays_marked_and_untouched_in_patches_with_tumors() -> None:
    online = Online(CROWDED, 1.0)
    entry = Cached(healthy(), online)
    unknown = np.zeros(UPRIGHT.shape, bool)
    unknown[:25] = True
    entry.labels[unknown] = 255
    voxels = 0
    for epoch in range(4):
        hu, labels = online.render(entry, WHOLE, online.draw(entry, epoch))
        voxels += int((labels == anatomy.STRUCTURES["liver_lesion"]).sum())
        assert np.array_equal(labels == 255, unknown)
        assert np.array_equal(hu[unknown], entry.hu[unknown])
    assert voxels


def test_tumors_of_hollow_organs_are_the_same_in_every_patch() -> None:
    geometry = grid((1.5, 1.5, 1.5), (96, 96, 120))
    radius = np.hypot(*geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))[..., :2].transpose(3, 0, 1, 2))
    hu = np.where(radius < 12.5, -900.0, np.where(radius < 15, 40, FAT)) + noise(geometry, 10.0)
    hu[geometry.to_mm(np.moveaxis(np.indices(geometry.shape), 0, -1))[..., 1] > 30] += 145
    case = Case(
        "tube",
        Volume(np.asfortranarray(np.rint(hu).astype(np.int16)), geometry),
        {"colon": Volume(np.asfortranarray(radius < 15), geometry)},
        attributes={"healthy": True},
    )
    online = Online(SynthesisRecipe(organs=("colon",), diameter_mm=(15, 25), phase="portal"), 1.0)
    entry = Cached(case, online)
    drawn = online.draw(entry, 0)
    assert [tumor.plan.details["form"] for tumor in drawn] == ["wall"]
    whole, labels = online.render(entry, Box.whole(geometry.shape), drawn)
    scene = open_scene(case, ("colon",))
    assert isinstance(insert(scene, drawn[0].plan, drawn[0].generator, 0, 0, online.recipe.judge), Inserted)
    assert np.array_equal(whole, scene.hu)
    i, j, k = np.rint(geometry.to_ijk(drawn[0].center_mm)).astype(int).tolist()
    box = Box((i - 8, j - 30, k), (i + 32, j + 10, k + 40))
    part = Online(online.recipe, 1.0)
    found = part.render(entry, box, part.draw(entry, 0))
    assert np.array_equal(found[0], part_of(whole, box, -1024))
    assert np.array_equal(found[1], part_of(labels, box, 0))


def test_noise_is_learned_from_the_healthy_scan_not_from_tumors_before() -> None:
    case = healthy()
    quiet = (-22.0, 0.0, 0.0)
    at_the_place = plan_of(22.0, center_mm=quiet, contrast_hu=300.0, noise_from_mm=quiet)
    beside = plan_of(14.0, center_mm=(-22.0, 42.0, 0.0), noise_from_mm=quiet, seed=4)
    alone, after = replay_plans(case, [beside]), replay_plans(case, [at_the_place, beside])
    assert np.array_equal(alone.inserted[0].after, after.inserted[1].after)


def test_copies_in_a_manifest_take_turns_by_epoch(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain")
    case = dataclasses.replace(open_dataset(data)["plain"], attributes={"healthy": True, "phase": "portal"})
    copies = copies_of([case], 3)
    recipe = RECIPE.with_changes(organs=("liver",), lesions=(1, 1))
    rows = [row for copy in copies for row in synthesize_case(copy, recipe, 0, tmp_path / "out", "plans")["rows"]]
    write_manifest(rows, tmp_path / "out" / "manifest.parquet")
    fixed = Fixed(tmp_path / "out")
    entry = Cached(case, fixed)
    drawn = [[tumor.plan for tumor in fixed.draw(entry, epoch)] for epoch in range(6)]
    assert drawn[:3] == [read_manifest(tmp_path / "out").plans(copy.id) for copy in copies]
    assert drawn[3:] == drawn[:3]
    assert drawn[0] != drawn[1]


def test_a_manifest_gives_the_same_tumors_in_every_epoch(tmp_path: Path) -> None:
    data = write_patients(tmp_path / "data", "plain", "ill")
    synthesize_all(data, tmp_path / "out", "plans")
    fixed = Fixed(tmp_path / "out")
    case = open_dataset(data)["ill"]
    entry = Cached(dataclasses.replace(case, attributes={"healthy": True}), fixed)
    drawn = fixed.draw(entry, 0)
    assert drawn
    again = pickle.loads(pickle.dumps(fixed))
    assert [tumor.plan for tumor in again.draw(entry, 7)] == [tumor.plan for tumor in drawn]
    assert again.name == fixed.name
    offline = replay_plans(case, [tumor.plan for tumor in drawn])
    hu, labels = fixed.render(entry, WHOLE, drawn)
    assert np.array_equal(hu, part_of(offline.ct.data, WHOLE, -1024))
    made = offline.tumors("liver").data | case.read_mask("liver_lesion").data
    assert np.array_equal(labels == anatomy.STRUCTURES["liver_lesion"], part_of(made, WHOLE, 0))
    stranger = Cached(dataclasses.replace(case, id="stranger", attributes={"healthy": True}), fixed)
    assert fixed.draw(stranger, 0) == ()
    tamper(data / "ill" / "ct.nii.gz")
    with pytest.raises(CaseError, match="differs from the one that its tumors were made on"):
        Cached(open_dataset(data)["ill"], fixed)
