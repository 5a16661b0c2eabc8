"""A training data set of nnU-Net's whose cases get tumors whenever they are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthoma.integrations.nnunet.changes import ChangedArray, new_values, with_tumor_voxels
from synthoma.integrations.nnunet.host import Host
from synthoma.integrations.nnunet.preparation import Preprocessed
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.volume import Array

LOCATIONS = "class_locations"


@dataclass(frozen=True, eq=False)
class CasesWithTumors:
    """What nnU-Net's loader asks for cases. Hosts come with tumors; all others as they are.

    Which tumors follows from numpy's random state, which nnU-Net seeds differently in each of its workers. Arrays of a
    host change where they are read, so a patch costs what lies in it. Patches are centered on new tumors as on real
    ones.
    """

    cases: Preprocessed
    tumors: Online | Fixed
    hosts: Mapping[str, Host]

    @property
    def identifiers(self) -> list[str]:
        """The names of all cases."""
        return self.cases.identifiers

    @property
    def source_folder(self) -> str:
        """Where the preprocessed arrays lie."""
        return self.cases.source_folder

    def __getitem__(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        return self.load_case(identifier)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image, segmentation, that of an earlier stage, and properties, as nnU-Net's own data set has them."""
        image, segmentation, previous, properties = loaded = self.cases.load_case(identifier)
        host = self.hosts.get(identifier)
        if host is None:
            return loaded
        try:
            with host.reading(image, segmentation):
                drawn = self.tumors.draw(host, int(np.random.randint(2**31)))
                changes = host.changes(drawn) if drawn else None
        except Exception as error:
            error.add_note(f"while tumors were put into {identifier}")
            raise
        if changes is None:
            return loaded

        def new_intensities(values: Array, chosen: Array) -> Array:
            return host.normalization.changed(values, changes.by_hu[chosen])

        locations = with_tumor_voxels(properties[LOCATIONS], changes, host.numbers)
        return (
            ChangedArray(image, changes, new_intensities),
            ChangedArray(segmentation, changes, new_values(changes)),
            previous,
            {**properties, LOCATIONS: locations},
        )
