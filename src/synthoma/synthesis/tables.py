"""What a survey found, as a few named arrays: a host kept beside a cached case, to draw tumors without the scan."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthoma.synthesis.blending import noise_block
from synthoma.synthesis.location import Host
from synthoma.volume import Array, Box, Geometry, Volume

_ARRAYS = ("scan", "parts", "grid", "free", "cells", "depths_mm")  # fields that are not plain data


@dataclass(frozen=True, eq=False)
class StoredHost(Host):
    """A host without the organ's masks, which are read when a wall tumor asks for them.

    read: the organ, bool, in a box of the scan. quiet: the part of the scan that its noise is learned from.
    """

    read: Callable[[Box], Array]
    quiet: Volume

    def crop(self, box: Box) -> Volume:
        """The organ's mask in a box of the scan."""
        return Volume(self.read(box), self.scan.crop(box))


def pack_host(host: Host, ct: Volume) -> dict[str, Array]:
    """The host and the part of its scan that the noise is learned from, as arrays."""
    plain = {f.name: getattr(host, f.name) for f in dataclasses.fields(Host) if f.name not in _ARRAYS}
    quiet = noise_block(ct, host.noise_from_mm)
    grids = {"grid": host.grid, "quiet": quiet.geometry}
    about = plain | {name: [grid.shape, grid.affine.tolist()] for name, grid in grids.items()}
    depths, counts = np.unique(host.depths_mm, return_counts=True)
    return {
        "about": pack(about),
        "free": np.packbits(host.free.ravel()),
        "cells": host.cells,
        "depths_mm": depths,
        "counts": counts.astype(np.int32),
        "quiet": quiet.data,
    }


def unpack_host(arrays: Mapping[str, Array], scan: Geometry, read: Callable[[Box], Array]) -> StoredHost:
    """The host that `pack_host` took apart; scan: the geometry it was surveyed on."""
    about = unpack(arrays["about"])
    grid, quiet = (Geometry(tuple(shape), np.array(affine)) for shape, affine in map(about.pop, ("grid", "quiet")))
    about["noise_from_mm"] = tuple(about["noise_from_mm"])
    about["lesions"] = tuple((tuple(center), radius) for center, radius in about["lesions"])
    return StoredHost(
        **about,
        parts=(),
        grid=grid,
        free=np.unpackbits(arrays["free"], count=int(np.prod(grid.shape))).astype(bool).reshape(grid.shape),
        cells=arrays["cells"],
        depths_mm=np.repeat(arrays["depths_mm"], arrays["counts"]),
        scan=scan,
        read=read,
        quiet=Volume(arrays["quiet"], quiet),
    )


def pack(data: Any) -> Array:
    """JSON data as bytes."""
    return np.frombuffer(json.dumps(data, allow_nan=False).encode(), np.uint8)


def unpack(data: Array) -> Any:
    """The JSON data that `pack` wrote."""
    return json.loads(data.tobytes())
