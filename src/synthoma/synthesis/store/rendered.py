"""A case with tumors in it as a `Case`: voxels made when asked for, by replay or from an overlay."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path

from synthoma import anatomy
from synthoma.bounded import Bounded
from synthoma.cases import Case, Source
from synthoma.inputs import Reads
from synthoma.synthesis.pipeline import Synthesis, replay_plans
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.store.comparing import compare, torch_version
from synthoma.synthesis.store.degraded import degraded
from synthoma.synthesis.store.manifest import accepted, manifest_at, versions
from synthoma.synthesis.store.overlay import lay_over, require_scan
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Volume


def replay_rows(
    case: Case, rows: Sequence[Row], allow_modules: Collection[str] = (), generator: str = ""
) -> tuple[Synthesis, list[str]]:
    """The healthy case with the accepted tumors of its rows, and how each was compared (see `comparing`).

    allow_modules: generators of the form `module:Class` that the rows may name. generator: see `replay_plans`. Raises
    `CaseError` if the scan is another one, or a tumor comes out otherwise.
    """
    scan = case.read_image()
    frame = require_scan(scan, rows[0]["scan_digest"], case.id)
    there = accepted(rows)
    plans = [TumorPlan.from_dict(row["plan"]) for row in there]
    known = dataclasses.replace(case, image=scan)
    synthesis = replay_plans(known, plans, allow_modules=allow_modules, frame=frame, generator=generator)
    made_with = versions() + torch_version()
    how = [compare(row, tumor, case.id, made_with) for row, tumor in zip(there, synthesis.inserted, strict=True)]
    return dataclasses.replace(synthesis, phase=rows[0]["phase"]), how


def lesions_of(rows: Sequence[Row]) -> tuple[str, ...]:
    """The structures that hold the tumors of these rows."""
    return tuple(dict.fromkeys(anatomy.organ(row["plan"]["organ"]).lesion for row in accepted(rows)))


@dataclass(frozen=True, eq=False)
class MaskWithTumors:
    """A structure after synthesis: after the mass effect; of a tumor mask, real and synthetic tumors together."""

    healthy: Case
    synthesis: Synthesis
    structure: str

    def __call__(self) -> Volume:
        """On the grid of the scan."""
        return self.bounded().whole

    def bounded(self) -> Bounded:
        """The same as the box around it."""
        synthesis, mask = self.synthesis, self.synthesis.masks.get(self.structure)
        if mask is None and self.structure in self.healthy.masks:
            _, healthy = next(self.healthy.each_bounded([self.structure]))
            mask = synthesis.moved_mask(healthy.reorient(synthesis.frame))
        if anatomy.is_lesion(self.structure):
            mask = synthesis.tumor_mask(self.structure.removesuffix("_lesion"), mask)
        assert mask is not None, f"{self.structure} is neither annotated nor a tumor"
        return mask.onto(synthesis.ct.geometry)


def synthetic_case(healthy: Case, image: Source, masks: Mapping[str, Source], dataset: str) -> Case:
    """The case as it is called with tumors in it: id, patient and attributes are the healthy one's, save `healthy`."""
    attributes = {name: value for name, value in healthy.attributes.items() if name != "healthy"}
    return Case(healthy.id, image, masks, healthy.patient, dataset, attributes)


@dataclass(frozen=True, eq=False)
class Rendering:
    """What a case of an output folder is made from: the healthy case, and its tumors in the folder's manifest.

    overlay: the file that holds its voxels; None to replay the plans. allow_modules: generators of the form
    `module:Class` that the plans may name. Of each process the last case rendered stays
    in memory, so that its scan and masks are made once.
    """

    healthy: Case
    manifest: Path
    overlay: Path | None
    allow_modules: tuple[str, ...] = ()

    @property
    def rows(self) -> list[Row]:
        """The case's rows."""
        return manifest_at(self.manifest).rows(self.healthy.id)

    def synthesis(self) -> Synthesis:
        """The case with its tumors; `CaseError` if the healthy scan is not the one they were made on."""
        return _rendered(self)

    def image(self) -> Volume:
        """The scan with its tumors, made worse where the manifest says so."""
        return degraded(self.synthesis().ct, self.rows)

    def mask(self, structure: str) -> Volume:
        """A structure as it is with the tumors."""
        return MaskWithTumors(self.healthy, self.synthesis(), structure)()

    def case(self, dataset: str) -> Case:
        """The case, to be read as any other; it pickles."""
        return synthetic_case(self.healthy, self.image, RenderedMasks(self), dataset)


@dataclass(frozen=True, eq=False)
class RenderedMasks(Mapping[str, Source]):
    """The masks of a rendered case: those that no tumor and no mass effect changes are the healthy case's own."""

    rendering: Rendering

    @cached_property
    def _changed(self) -> dict[str, bool]:
        """Structure -> whether it has to be made."""
        rows = accepted(self.rendering.rows)
        displaced = any(row["plan"]["displacement_mm"] for row in rows)
        return dict.fromkeys(self.rendering.healthy.masks, displaced) | dict.fromkeys(lesions_of(rows), True)

    def reads(self) -> Reads:
        """What the case is made from: the healthy one, its rows in the manifest, and the overlay if there is one."""
        made = Reads(self.rendering.rows, (self.rendering.overlay,) if self.rendering.overlay else ())
        return self.rendering.healthy.reads() + made

    def __getitem__(self, structure: str) -> Source:
        if self._changed[structure]:
            return partial(self.rendering.mask, structure)
        return self.rendering.healthy.masks[structure]

    def __iter__(self) -> Iterator[str]:
        return iter(self._changed)

    def __len__(self) -> int:
        return len(self._changed)


@lru_cache(maxsize=1)
def _rendered(rendering: Rendering) -> Synthesis:
    healthy = rendering.healthy
    with healthy.named():
        if rendering.overlay is not None:
            return lay_over(healthy.read_image(), rendering.overlay, healthy.id)
        return replay_rows(healthy, rendering.rows, rendering.allow_modules)[0]
