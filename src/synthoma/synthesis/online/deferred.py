"""The tumors of a manifest as plans, rendered on the training's device whenever a patch shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from synthoma import disk
from synthoma.cases import Case
from synthoma.learning.gridding import paint
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.insertion import crops
from synthoma.synthesis.insertion.crops import Change, DrawnTumor, Voxels
from synthoma.synthesis.online.bank import HeldScan, pack_changes, unpack_change
from synthoma.synthesis.online.online import SILENT, Entry, Fixed, drawn_of, tables_name, volume_of
from synthoma.synthesis.online.stored import pack, unpack
from synthoma.synthesis.scan import Noise
from synthoma.synthesis.store.manifest import manifest_at
from synthoma.synthesis.tumor import TumorPlan
from synthoma.volume import Array, Box, Volume

if TYPE_CHECKING:
    import torch

    from synthoma.synthesis.on_device.rendering import Part


class Deferred(Fixed):
    """As `Fixed`, but masses by rules are kept as plans, some kilobytes each, and rendered when a patch shows them.

    What a device cannot render (walls, mass effects, other generators) is in the tables as voxels, as with `Fixed`.
    """

    on_device = True

    @cached_property
    def name(self) -> str:
        """Of the tables, which are not those of `Fixed`."""
        return tables_name("deferred", disk.digest(self.path))

    def prepare(self, ct: Volume, masks: Mapping[str, Volume], case: Case) -> dict[str, Array]:
        """The tumors of a case and its copies; what is raised is as with `Fixed`."""
        from synthoma.synthesis.on_device.rendering import is_rendered_here

        manifest = manifest_at(self.path)
        copies = manifest.copies(case.id)
        if not any(manifest.plans(copy) for copy in copies):
            return {"plans": pack([])}
        scan = HeldScan(case.id, ct.geometry, ct.data, paint(masks, ct.geometry))
        plans: list[Any] = []
        changes: list[Change] = []
        samples: dict[Any, Array] = {}
        for copy in copies:
            drawn = drawn_of(manifest, copy, ct, masks, case, self.allow_modules)
            kept = []
            for tumor in drawn:
                here = is_rendered_here(tumor)
                if not here:
                    crops.render(scan, tumor.changed, drawn)
                    assert tumor.made is not None, "nothing is rejected here"
                    changes.append(tumor.made)
                samples.setdefault(tumor.plan.noise_from_mm, tumor.noise.sample)
                kept.append({"plan": tumor.plan.as_dict(), "made": None if here else len(changes) - 1})
            plans.append(kept)
        boxes, hu, labels = pack_changes(changes)
        return {
            "plans": pack(plans), "boxes": pack(boxes), "hu": hu, "labels": labels, "sites": pack(list(samples)),
            "noise": np.array(list(samples.values())),
        }  # fmt: skip

    def _read(self, entry: Entry, copies: Sequence[Sequence[Any]], number: int) -> tuple[DrawnTumor, ...]:
        """The tumors of one copy; those that a device renders are not made."""
        tables = entry.tables(self.name)
        boxes = unpack(tables["boxes"])
        starts = np.cumsum([0, *map(volume_of, boxes)]).tolist()
        noises = {
            tuple(site): Noise(sample) for site, sample in zip(unpack(tables["sites"]), tables["noise"], strict=True)
        }
        drawn = []
        for index, kept in enumerate(copies[number]):
            plan, made = TumorPlan.from_dict(kept["plan"]), kept["made"]
            if made is None:
                generator = open_generator(plan.generator)
                noise = noises[plan.noise_from_mm]
                drawn.append(DrawnTumor(plan, generator, index, noise, entry.geometry))
            else:
                change = unpack_change(boxes[made], starts[made], tables["hu"], tables["labels"])
                drawn.append(DrawnTumor(plan, None, index, SILENT, entry.geometry, change))
        return tuple(drawn)

    def cut(self, entry: Voxels, box: Box, drawn: Sequence[DrawnTumor]) -> Part:
        """What `render_batch` needs to put these tumors into a box: plain arrays and plans."""
        from synthoma.synthesis.on_device.rendering import cut

        return cut(entry, box, drawn)

    def render_batch(self, parts: Sequence[Part], device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """int16 HU and uint8 labels of each part's box, (I, J, K) on the device."""
        from synthoma.synthesis.on_device.rendering import render_batch

        return render_batch(parts, device)
