"""What synthesis has to know of a case, measured once and kept beside nnU-Net's preprocessed arrays."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from synthoma import anatomy
from synthoma.cases import Case
from synthoma.engine.mapping import map_cases
from synthoma.errors import FailedCasesError, FileError, listed
from synthoma.integrations.labels import ANY_LESION, LabelScheme
from synthoma.integrations.nnunet.grid import preprocessed_grid
from synthoma.integrations.nnunet.host import Host
from synthoma.integrations.nnunet.normalization import CtNormalization
from synthoma.integrations.nnunet.numbers import Numbers
from synthoma.learning.entry import read_tables
from synthoma.learning.storing import placed, write
from synthoma.synthesis.insertion.scene import FRAME
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.synthesis.online.stored import pack, unpack
from synthoma.volume import Geometry, Volume

Hosts = Literal["healthy", "all"]
_FORMAT = 1  # raise it when the same case would be measured otherwise
_ABOUT = "about"  # the array with the facts beside the tables of synthesis
_PARTS = (".b2nd", "_seg.b2nd", ".npz", ".pkl")  # files of a preprocessed case

log = logging.getLogger(__name__)


class Preprocessed(Protocol):
    """A data set of nnU-Net's, as far as it is used."""

    identifiers: list[str]
    source_folder: str

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image and segmentation (1, I, J, K), that of an earlier stage if there is one, and properties."""
        ...


@dataclass(frozen=True, eq=False)
class Preparation:
    """How cases are measured. folder: of the tables. raw: identifier -> the scan that a bank was made on."""

    cases: Preprocessed
    tumors: Online | Fixed
    scheme: LabelScheme
    normalization: CtNormalization
    transpose_forward: Sequence[int]
    folder: Path
    raw: Mapping[str, Path]

    def path(self, identifier: str) -> Path:
        """Of a case's tables: another one whenever anything that they are made from is."""
        stamps = []
        for ending in _PARTS:
            file = Path(self.cases.source_folder) / f"{identifier}{ending}"
            if file.is_file():
                stamps.append([ending, file.stat().st_size, file.stat().st_mtime_ns])
        known = [
            _FORMAT, self.tumors.name, str(self.scheme), str(self.normalization), list(self.transpose_forward), stamps
        ]  # fmt: skip
        digest = hashlib.blake2b(json.dumps(known).encode(), digest_size=8).hexdigest()
        return self.folder / f"{identifier}-{digest}.npz"


def prepare(preparation: Preparation, hosts: Hosts, workers: int) -> tuple[dict[str, Host], dict[str, str]]:
    """The cases that can get tumors, by identifier, and of each other one why it gets none.

    hosts: whether cases with real tumors in an organ get new ones there too; a bank says by itself. What was measured
    at an earlier start is read. Raises `FailedCasesError` for cases that cannot be measured.
    """
    missing = [name for name in preparation.cases.identifiers if not _is_whole(preparation.path(name))]
    if missing:
        preparation.folder.mkdir(parents=True, exist_ok=True)
        log.info("measuring the organs of %d cases", len(missing))
        records = map_cases(partial(prepare_case, preparation), missing, workers=workers, key=str, title="organs")
        failed = [f"{record.case}: {record.error}" for record in records if record.status == "failed"]
        if failed:
            raise FailedCasesError(f"{len(failed)} of {len(missing)} cases cannot be used: {listed(failed, 3)}")
    numbers = Numbers.of_scheme(preparation.scheme)
    able, reasons = {}, {}
    for name in preparation.cases.identifiers:
        path = preparation.path(name)
        host, reason = _host(preparation, numbers, hosts, name, path)
        if host is not None:
            able[name] = host
        else:
            reasons[name] = reason
    return able, reasons


def prepare_case(preparation: Preparation, identifier: str) -> dict[str, Any]:
    """Measure one case and keep its tables."""
    image, segmentation, _, properties = preparation.cases.load_case(identifier)
    stored = preprocessed_grid(properties, preparation.transpose_forward, image.shape[1:], identifier)
    hu = Volume(preparation.normalization.to_hu(np.asarray(image[0])), stored).reorient(FRAME)
    labels = preparation.scheme.read(np.maximum(segmentation[0], 0).astype(np.uint16), identifier)
    masks = preparation.scheme.masks(labels, stored, preparation.scheme.tumors)
    masks = {name: mask.reorient(FRAME) for name, mask in masks.items()}
    lesions = {organ: anatomy.organ(organ).lesion for organ in preparation.scheme.tumors}
    real = {organ: lesion in masks or ANY_LESION in masks for organ, lesion in lesions.items()}
    for lesion in lesions.values():  # annotated in every case, also where there are none
        masks.setdefault(lesion, Volume(np.zeros(hu.geometry.shape, bool), hu.geometry))
    case = Case(identifier, preparation.raw.get(identifier, hu), masks)
    tables = preparation.tumors.prepare(_contiguous(hu), masks, case)
    about = {"shape": stored.shape, "affine": stored.affine.tolist(), "real": real}
    content = io.BytesIO()
    np.savez(content, **{_ABOUT: pack(about), **tables})  # type: ignore[arg-type]
    with placed(preparation.path(identifier)) as part:
        write(part, content.getvalue())
    return {}


def _contiguous(hu: Volume) -> Volume:
    """The same voxels with the first axis fastest, as synthesis reads them."""
    return Volume(np.asfortranarray(hu.data), hu.geometry)


def _is_whole(path: Path) -> bool:
    try:
        return _ABOUT in read_tables(path)
    except FileError:
        return False


def _host(
    preparation: Preparation, numbers: Numbers, hosts: Hosts, identifier: str, path: Path
) -> tuple[Host | None, str]:
    """A case as a host, or why it is none."""
    tables = read_tables(path)
    about = unpack(tables[_ABOUT])
    closed: dict[str, str] = {}
    if isinstance(preparation.tumors, Fixed):
        able = bool(unpack(tables["plans"]))
        closed = {} if able else {"": "the bank has no tumors for it"}
    else:
        if hosts == "healthy":
            closed = {organ: "real tumors" for organ, present in about["real"].items() if present}
        closed |= unpack(tables["refused"])
        able = any(organ not in closed for organ in preparation.tumors.recipe.organs)
    if not able:
        return None, "; ".join(f"{organ}: {why}" if organ else why for organ, why in closed.items())
    tumors = [anatomy.organ(organ).lesion for organ in about["real"] if organ not in closed]
    host = Host(
        case=identifier,
        stored=Geometry(tuple(about["shape"]), np.array(about["affine"])),
        annotated=(*(name for name in preparation.scheme.structures if not anatomy.is_lesion(name)), *tumors),
        path=path,
        normalization=preparation.normalization,
        numbers=numbers,
    )
    return host, ""
