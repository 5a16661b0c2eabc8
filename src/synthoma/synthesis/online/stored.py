"""Organ models as a few named arrays, kept beside a cached case, to draw tumors without the scan."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthoma.synthesis.location import OrganModel
from synthoma.synthesis.scan import Noise
from synthoma.volume import Array, Box, Geometry, Volume

_ARRAYS = ("scan", "parts", "grid", "free", "cells", "depths_mm")  # fields that are not plain data


@dataclass(frozen=True, eq=False)
class StoredOrgan(OrganModel):
    """An organ model without the organ's masks, which are read when a wall tumor asks for them.

    read: the organ, bool, in a box of the scan. noise: the scan's at `noise_from_mm`.
    """

    read: Callable[[Box], Array]
    noise: Noise

    def crop(self, box: Box) -> Volume:
        """The organ's mask in a box of the scan."""
        return Volume(self.read(box), self.scan.crop(box))


def pack_organ(organ_model: OrganModel, ct: Volume) -> dict[str, Array]:
    """The organ model and the noise of its scan, as arrays."""
    plain = {f.name: getattr(organ_model, f.name) for f in dataclasses.fields(OrganModel) if f.name not in _ARRAYS}
    depths, counts = np.unique(organ_model.depths_mm, return_counts=True)
    return {
        "about": pack(plain | {"shape": organ_model.grid.shape, "affine": organ_model.grid.affine.tolist()}),
        "free": np.packbits(organ_model.free.ravel()),
        "cells": organ_model.cells,
        "depths_mm": depths,
        "counts": counts.astype(np.int32),
        "noise": Noise.at(ct, organ_model.noise_from_mm).sample,
    }


def unpack_organ(arrays: Mapping[str, Array], scan: Geometry, read: Callable[[Box], Array]) -> StoredOrgan:
    """The organ model that `pack_organ` took apart; scan: the geometry it was measured on."""
    about = unpack(arrays["about"])
    grid = Geometry(tuple(about.pop("shape")), np.array(about.pop("affine")))
    about["noise_from_mm"] = tuple(about["noise_from_mm"])
    about["lesions"] = tuple((tuple(center), radius) for center, radius in about["lesions"])
    return StoredOrgan(
        **about,
        parts=(),
        grid=grid,
        free=np.unpackbits(arrays["free"], count=int(np.prod(grid.shape))).astype(bool).reshape(grid.shape),
        cells=arrays["cells"],
        depths_mm=np.repeat(arrays["depths_mm"], arrays["counts"]),
        scan=scan,
        read=read,
        noise=Noise(arrays["noise"]),
    )


def pack(data: Any) -> Array:
    """JSON data as bytes."""
    return np.frombuffer(json.dumps(data, allow_nan=False).encode(), np.uint8)


def unpack(data: Array) -> Any:
    """The JSON data that `pack` wrote."""
    return json.loads(data.tobytes())
