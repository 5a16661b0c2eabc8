"""How a replay is compared with what was made: voxel by voxel, or, where a network made the tissue, to 1 HU.

A network's sums differ in the last digits between machines, library versions and numbers of threads, and a last digit
is now and then another HU. So the manifest holds, for tumors of learned generators alone, a digest of the mask and a
sample of the HU inside. Everything else is made of arithmetic that is the same everywhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.errors import CaseError
from synthoma.synthesis.insertion.insertion import Inserted
from synthoma.synthesis.store.columns import Row
from synthoma.synthesis.tumor import TumorPlan

MOST_HU = 1  # by which a replay on another machine may differ
SAMPLED = 64  # voxels of a tumor that are kept in the manifest, spread evenly over it
EXACT = "voxel by voxel"


def sample_of(tumor: Inserted) -> dict[str, str]:
    """What a later replay is compared with beside the digest; nothing for what is the same on every machine."""
    if not is_learned(tumor.plan):
        return {}
    values = np.rint(_inside(tumor)).astype("<i2")
    return {"mask_digest": _mask_digest(tumor), "hu_sample": base64.b64encode(values.tobytes()).decode()}


def is_learned(plan: TumorPlan) -> bool:
    """Whether a network makes the tissue of a plan."""
    return "model" in plan.details


def torch_version() -> str:
    """As in the versions of a manifest; empty without torch."""
    try:
        return f", torch {metadata.version('torch')}"
    except metadata.PackageNotFoundError:
        return ""


def compare(row: Row, tumor: Inserted, case: str, versions: str) -> str:
    """How a tumor was found to be the one of its row, in words; `CaseError` if it is another one.

    versions: of what made it now.
    """
    if tumor.digest == row["digest"]:
        return EXACT
    found = f"digest {tumor.digest}"
    if row.get("mask_digest") and row.get("hu_sample"):
        before = _decoded(row["hu_sample"])
        now = _inside(tumor)
        if row["mask_digest"] != _mask_digest(tumor) or len(before) != len(now):
            found = "another mask"
        else:
            apart = float(np.abs(now.astype(np.float64) - before).max(initial=0))
            # a scan that holds fractions of HU was rounded in the sample
            if apart <= MOST_HU + (0 if now.dtype.kind == "i" else 0.5):
                return f"to {MOST_HU} HU in {len(now)} voxels, the mask voxel by voxel"
            found = f"up to {apart:.0f} HU apart in {len(now)} voxels that were compared, {found}"
    raise CaseError(
        f"tumor {row['index'] + 1} of the {row['plan']['organ']} comes out otherwise than when it was made",
        case=case,
        found=f"{found} with {versions}",
        expected=f"{row['digest']} as made with {row['versions']}",
        fix="use those versions and the same masks, or synthesize anew",
    )


def compared_rows(rows: Sequence[Row], tumors: Sequence[Inserted], how: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows of a case after its replay, those of learned tumors with how they were compared; a note if loosely."""
    found = iter(zip(tumors, how, strict=True))
    done: list[Row] = []
    for row in rows:
        if row["accepted"]:
            tumor, words = next(found)
            if is_learned(tumor.plan):
                row = row | {"digest": tumor.digest, "compared": words}
        done.append(row)
    loose = [words for words in how if words != EXACT]
    note = f"{len(loose)} of {len(how)} tumors are the same {loose[0]}; the others {EXACT}" if loose else ""
    return done, [note] if note else []


def _inside(tumor: Inserted) -> NDArray[Any]:
    """HU of some voxels of a tumor, the same ones every time."""
    values = tumor.after[tumor.box.seen_from(tumor.changed).slices][tumor.mask]
    return np.asarray(values[np.linspace(0, len(values) - 1, min(SAMPLED, len(values))).astype(int)])


def _mask_digest(tumor: Inserted) -> str:
    """8 hexadecimal digits of box and mask."""
    digest = hashlib.blake2b(repr([tumor.box.lower, tumor.box.upper]).encode(), digest_size=4)
    digest.update(np.packbits(tumor.mask.ravel(order="F")).tobytes())
    return digest.hexdigest()


def _decoded(text: str) -> NDArray[Any]:
    """The sample of a manifest; nothing for text that holds none."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), "<i2").astype(np.float64)
    except (ValueError, binascii.Error):
        return np.empty(0)
