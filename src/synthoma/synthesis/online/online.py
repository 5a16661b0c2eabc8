"""Tumors drawn afresh in every epoch, or those of a manifest again: what a training loader asks of synthesis."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from synthoma import anatomy, disk
from synthoma.cases import Case
from synthoma.errors import CaseError
from synthoma.learning.gridding import paint
from synthoma.seeds import rng_for, seed_for
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion import crops
from synthoma.synthesis.insertion.crops import DrawnTumor, Voxels
from synthoma.synthesis.insertion.scene import organ_of_labels
from synthoma.synthesis.online.bank import HeldScan, pack_changes, render_changes, unpack_change
from synthoma.synthesis.online.stored import StoredOrgan, pack, pack_organ, unpack, unpack_organ
from synthoma.synthesis.pipeline import open_scene, phase_of
from synthoma.synthesis.plan import draw_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.scan import Noise, scanner_blur_mm
from synthoma.synthesis.store.manifest import MANIFEST, Manifest, manifest_at
from synthoma.synthesis.store.overlay import require_scan
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Volume

_FORMAT = 4  # raise it when organ models or their tables change: cached ones are then made anew
# what stays in memory, in each loader worker: tables of cases, and the tumors of cases in an epoch, once rendered
_ORGANS, _DRAWN = 8, 128


class Entry(Voxels, Protocol):
    """A cached case, as far as synthesis needs to know it."""

    @property
    def annotated(self) -> Sequence[str]:
        """The structures that have a mask, an empty one too."""
        ...

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Of the case: `healthy`, ..."""
        ...

    def tables(self, name: str) -> Mapping[str, Array]:
        """What `prepare` returned for this case."""
        ...


SILENT = Noise(np.zeros((4, 4, 4)))  # of tumors that are made already

T = TypeVar("T")


class _Recent(Generic[T]):
    """What was made for the last few cases, each with a number."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: OrderedDict[tuple[int, int], tuple[Entry, T]] = OrderedDict()

    def get(self, entry: Entry, number: int, make: Callable[[], T]) -> T:
        # an entry that is kept keeps its id
        key = id(entry), number
        if key not in self.kept:
            self.kept[key] = entry, make()
            if len(self.kept) > self.most:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key][1]


def may_host(entry: Entry, organ: str) -> bool:
    """Whether it is known where real tumors of the organ are: they are annotated, or the case is healthy.

    Elsewhere a synthetic tumor could stand beside a real one that counts as healthy tissue.
    """
    return is_known(organ, entry.annotated, entry.attributes)


def is_known(organ: str, annotated: Sequence[str], attributes: Mapping[str, Any]) -> bool:
    """The same, of a case with these masks and attributes."""
    return anatomy.organ(organ).lesion in annotated or bool(attributes.get("healthy"))


@dataclass(frozen=True, eq=False)
class Online:
    """Tumors of a recipe, drawn afresh for every case in every epoch; everything follows from seed, case and epoch.

    probability: that a case gets any. A rejected tumor is drawn again before patches are centered, as in `synthesize`.
    kept: drawn cases that stay in memory, for as long as their epoch may come up again.
    """

    recipe: SynthesisRecipe
    probability: float
    seed: int = 0
    kept: int = _DRAWN
    _organs: _Recent[dict[str, StoredOrgan]] = field(default_factory=lambda: _Recent(_ORGANS), init=False, repr=False)
    _drawn: _Recent[tuple[DrawnTumor, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_drawn", _Recent(self.kept))
        if not 0 <= self.probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, not at {self.probability}")

    def __reduce__(self) -> tuple[Any, ...]:
        return Online, (self.recipe, self.probability, self.seed, self.kept)

    @cached_property
    def name(self) -> str:
        """Of the tables: recipes that need the same ones share them."""
        return tables_name("online", [self.recipe.organs, self.recipe.phase, self.recipe.vessel_veto])

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """What drawing needs to know of a case, as arrays; ct, masks (bool): on the training grid.

        Organs that can have no tumors are left out, with the reason (see `refusals`).
        """
        gridded = Case(case.id, ct, masks, attributes=case.attributes)
        scene = open_scene(gridded, self.recipe.organs)
        blur = scanner_blur_mm(ct)
        refused: dict[str, str] = {}
        arrays: dict[str, Array] = {}
        for organ in self.recipe.organs:
            try:
                phase = phase_of(gridded, scene, self.recipe)
                organ_model = scene.measure_organ(organ, phase, blur, self.recipe.vessel_veto)
            except CaseError as error:
                refused[organ] = error.what
            else:
                arrays |= {f"{organ}_{key}": array for key, array in pack_organ(organ_model, ct).items()}
        return {"refused": pack(refused), **arrays}

    def draw(self, entry: Entry, epoch: int) -> tuple[DrawnTumor, ...]:
        """The tumors of a case in an epoch, judged and rendered; () with probability 1 - p, or if there is no room."""
        return self._drawn.get(entry, epoch, lambda: self._draw(entry, epoch))

    def _draw(self, entry: Entry, epoch: int) -> tuple[DrawnTumor, ...]:
        if rng_for(self.seed, entry.case, "online", epoch).random() >= self.probability:
            return ()
        seed = seed_for(self.seed, "online", epoch)
        generator = open_generator(self.recipe.generator, allowed=(self.recipe.generator,))
        drawn: list[DrawnTumor] = []
        for organ in self._organs.get(entry, 0, lambda: self.organs(entry)).values():
            try:
                plans = draw_plans(organ, self.recipe, seed)
            except CaseError:
                continue  # no room for what was drawn in this epoch
            drawn += crops.settle(entry, organ, plans, self.recipe, seed, generator, organ.noise, drawn)
        return tuple(drawn)

    def render(self, entry: Voxels, box: Box, drawn: Sequence[DrawnTumor]) -> tuple[Array, NDArray[np.uint8]]:
        """HU (int16) and labels (uint8) of a box with these tumors, as `crops.render` has them."""
        return crops.render(entry, box, drawn)

    def refusals(self, entry: Entry) -> dict[str, str]:
        """Why a case gets no tumors in organs of the recipe."""
        found: dict[str, str] = dict(unpack(entry.tables(self.name)["refused"]))
        unknown = [organ for organ in self.recipe.organs if organ not in found and not may_host(entry, organ)]
        return found | dict.fromkeys(unknown, "its tumors are not annotated, and the case is not known to be healthy")

    def organs(self, entry: Entry, unlabelled: bool = False) -> dict[str, StoredOrgan]:
        """The organs that can have tumors; unlabelled: those too whose real tumors nobody has annotated."""
        tables = entry.tables(self.name)
        return {
            organ: unpack_organ(_of(organ, tables), entry.geometry, partial(_read_organ, entry, organ))
            for organ in self.recipe.organs
            if f"{organ}_cells" in tables and (unlabelled or may_host(entry, organ))
        }


@dataclass(frozen=True, eq=False)
class Fixed:
    """The tumors of a manifest: the offline twin. Nothing is drawn and nothing rejected.

    Every epoch has the same tumors; of a case with copies in the manifest, those of another copy in turn.

    manifest: a file, the output folder of a synthesis, or what was read from it. allow_modules: generators of the form
    `module:Class` that its plans may name.
    """

    manifest: Path | str | Manifest
    allow_modules: tuple[str, ...] = ()
    _copies: _Recent[list[Any]] = field(default_factory=lambda: _Recent(_DRAWN), init=False, repr=False)
    _drawn: _Recent[tuple[DrawnTumor, ...]] = field(default_factory=lambda: _Recent(_DRAWN), init=False, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.allow_modules)

    @cached_property
    def path(self) -> Path:
        """Of the manifest."""
        path = self.manifest.path if isinstance(self.manifest, Manifest) else Path(self.manifest)
        return path / MANIFEST if path.is_dir() else path

    @cached_property
    def name(self) -> str:
        """Of the tables: another manifest has others."""
        return tables_name("fixed", disk.digest(self.path))

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """The tumors of a case and its copies, rendered on the training grid; nothing if it has none.

        Those of organs that may not host any are left out. Raises `CaseError` if the plans were made on another scan.
        """
        manifest = manifest_at(self.path)
        copies = manifest.copies(case.id)
        if not any(manifest.plans(copy) for copy in copies):
            return {"plans": pack([])}
        scan = HeldScan(case.id, ct.geometry, ct.data, paint(masks, ct.geometry))
        plans, boxes, parts = [], [], []
        for copy in copies:
            drawn = drawn_of(manifest, copy, ct, masks, case, self.allow_modules)
            own, *voxels = pack_changes(render_changes(scan, drawn))
            plans.append([tumor.plan.as_dict() for tumor in drawn])
            boxes.append(own)
            parts.append(voxels)
        hu, labels = (np.concatenate(voxels) for voxels in zip(*parts, strict=True))
        return {"plans": pack(plans), "boxes": pack(boxes), "hu": hu, "labels": labels}

    def draw(self, entry: Entry, epoch: int) -> tuple[DrawnTumor, ...]:
        """The tumors of a case, of its copies in turn by epoch; () if the manifest has none for it."""
        copies = self._copies.get(entry, 0, lambda: unpack(entry.tables(self.name)["plans"]))
        if not copies:
            return ()
        number = epoch % len(copies)
        return self._drawn.get(entry, number, lambda: self._read(entry, copies, number))

    def _read(self, entry: Entry, copies: Sequence[Sequence[Any]], number: int) -> tuple[DrawnTumor, ...]:
        """The tumors of one copy, made already."""
        tables = entry.tables(self.name)
        boxes = unpack(tables["boxes"])
        start = sum(volume_of(box) for copy in boxes[:number] for box in copy)
        drawn = []
        for index, (plan, box) in enumerate(zip(copies[number], boxes[number], strict=True)):
            change = unpack_change(box, start, tables["hu"], tables["labels"])
            drawn.append(DrawnTumor(TumorPlan.from_dict(plan), None, index, SILENT, entry.geometry, change))
            start += volume_of(box)
        return tuple(drawn)

    def render(self, entry: Voxels, box: Box, drawn: Sequence[DrawnTumor]) -> tuple[Array, NDArray[np.uint8]]:
        """HU (int16) and labels (uint8) of a box with these tumors, as `crops.render` has them."""
        return crops.render(entry, box, drawn)


def drawn_of(
    manifest: Manifest, copy: str, ct: Volume, masks: Mapping[str, Volume], case: Case, allow_modules: Sequence[str]
) -> list[DrawnTumor]:
    """The tumors of one copy of a case, none of them made; the arguments are those of `Fixed.prepare`."""
    require_scan(case.read_image(), manifest.rows(copy)[0]["scan_digest"], copy)
    hosted = [plan for plan in manifest.plans(copy) if is_known(plan.organ, list(masks), case.attributes)]
    return [
        DrawnTumor(
            plan, open_generator(plan.generator, allowed=allow_modules), index, Noise.at(ct, plan.noise_from_mm),
            ct.geometry,
        )
        for index, plan in enumerate(hosted)
    ]  # fmt: skip


def volume_of(box: Any) -> int:
    """Voxels of a box in JSON data."""
    return int(np.prod(np.subtract(box[1], box[0])))


def tables_name(kind: str, what: Any) -> str:
    """Of the tables of an augment of this kind, by what they depend on."""
    digest = hashlib.blake2b(json.dumps([_FORMAT, what]).encode(), digest_size=6)
    return f"{kind}-{digest.hexdigest()}"


def _of(organ: str, tables: Mapping[str, Array]) -> dict[str, Array]:
    """An organ's own tables."""
    return {key.removeprefix(f"{organ}_"): tables[key] for key in tables if key.startswith(f"{organ}_")}


def _read_organ(entry: Voxels, organ: str, box: Box) -> Array:
    return organ_of_labels(np.asfortranarray(entry.read_labels(box)), organ)
