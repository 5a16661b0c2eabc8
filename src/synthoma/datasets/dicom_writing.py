"""Cases as DICOM: a scan as a CT series, and masks as a SEG that refers to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from synthoma.cases import Case
from synthoma.datasets.layouts.dicom import SeriesFolder
from synthoma.datasets.layouts.folders import provenance_of
from synthoma.datasets.writing import report
from synthoma.errors import CaseError, RecipeError, listed
from synthoma.formats import dicom_seg, dicom_write
from synthoma.formats.dicom_seg import Origin
from synthoma.names import file_name

SERIES, SEGMENTATION = "ct", "segmentation.dcm"
Drawn = Literal["", "manual", "semiautomatic", "automatic"]
_BARE = "there is no mask to write as DICOM SEG"
_NAME_SOME = "name structures that the cases have: --set 'structures=[...]'"
_UNTOLD = "nobody says who drew the masks, which DICOM wants to know"
_WHO = {
    "expected": "a case.json of synthoma segment beside them, or a word",
    "fix": '--set drawn=manual, or --set drawn=automatic --set algorithm="NAME VERSION"',
}


def require_origin(drawn: Drawn, algorithm: str) -> None:
    """`RecipeError` for masks drawn by a program that is not named."""
    if drawn in ("semiautomatic", "automatic") and not algorithm:
        raise RecipeError(
            f"masks that are {drawn} were drawn by a program, which DICOM wants to know",
            fix='name it: --set algorithm="TotalSegmentator 2.4"',
        )


def origin_of(case: Case, drawn: Drawn, algorithm: str) -> Origin:
    """Who drew the masks of a case: as told, else as its `case.json` says, if a model or synthoma itself did.

    algorithm: name of a program and, after the last space, its version. Raises `CaseError` if nobody says.
    """
    told = _origin(case, drawn, algorithm)
    if told is None:
        raise CaseError(_UNTOLD, case=case.id, **_WHO)
    return told


def require_segments(cases: Sequence[Case], segments: bool, drawn: Drawn, algorithm: str, allowed: int = 0) -> None:
    """`CaseError` if nobody says who drew the masks of more than `allowed` cases, or so many have no mask.

    To be asked before anything is written. segments: nothing but masks is written, so every case needs one; else cases
    without any are fine.
    """
    bare = [case.id for case in cases if not case.masks]
    if segments and len(bare) > allowed:
        raise CaseError(_BARE, found=f"{len(bare)} of {len(cases)} cases without: {listed(bare, 3)}", fix=_NAME_SOME)
    untold = [case.id for case in cases if case.masks and _origin(case, drawn, algorithm) is None]
    if len(untold) > allowed:
        raise CaseError(_UNTOLD, found=f"{len(untold)} of {len(cases)} cases: {listed(untold, 3)}", **_WHO)


def _origin(case: Case, drawn: Drawn, algorithm: str) -> Origin | None:
    """None if nobody says it."""
    if drawn:
        name, _, number = algorithm.rpartition(" ")
        return Origin(drawn, name or algorithm, number if name else "unknown")
    told = provenance_of(case)
    if isinstance(told.get("model"), str):
        return origin_of_model(told)
    return Origin("automatic", "synthoma", version("synthoma")) if is_synthetic(case, told) else None


def origin_of_model(told: Mapping[str, Any]) -> Origin:
    """A model of `synthoma segment`, by its name and the digest of its file."""
    digest = told.get("model_digest")
    details = {"model_digest": str(digest)} if digest else {}
    return Origin("automatic", f"synthoma {told['model']}"[:64], version("synthoma"), details)


def is_synthetic(case: Case, provenance: Mapping[str, Any]) -> bool:
    """Whether tumors were put into the scan, or the whole patient is made up."""
    made = not isinstance(case.image, Path | SeriesFolder)
    return made or bool(case.attributes.get("in_silico")) or "tumors" in provenance


def write_series_case(case: Case, out: Path, drawn: Drawn, algorithm: str) -> dict[str, Any]:
    """`OUT/CASE/ct/*.dcm` and, if the case has masks, `OUT/CASE/segmentation.dcm`; what was written.

    Nothing of the header of the scan's own files is copied: identifiers are new, and the header says that the series is
    derived and, where tumors were put in, synthetic.
    """
    folder = out / file_name(case.id)
    synthetic = is_synthetic(case, provenance_of(case))
    origin = origin_of(case, drawn, algorithm) if case.masks else None
    kind = "Synthetic: tumors or the whole patient are made up" if synthetic else "Written from another file format"
    dicom_write.write_series(
        case.read_image().reorient("LPS"),  # as scanners store it: viewers show rows and columns as they come
        folder / SERIES,
        case.patient,
        description="synthetic CT" if synthetic else "CT",
        derivation=f"{kind} by synthoma {version('synthoma')}; not for diagnosis",
    )
    written = sorted((folder / SERIES).iterdir())
    facts: dict[str, Any] = {"synthetic": synthetic}
    if origin is not None:
        path = folder / SEGMENTATION
        facts["segments"] = dicom_seg.write_segmentation(case.each_mask(), folder / SERIES, path, origin)
        written.append(path)
    return report(case, out, written, **facts)


def write_segmentation_case(case: Case, out: Path, drawn: Drawn, algorithm: str, anonymous: bool) -> dict[str, Any]:
    """`OUT/CASE/segmentation.dcm`, which refers to the series that the case's scan is; what was written."""
    assert isinstance(case.image, SeriesFolder)
    path = out / file_name(case.id) / SEGMENTATION
    path.unlink(missing_ok=True)
    if not case.masks:
        raise CaseError(_BARE, case=case.id, fix=_NAME_SOME)
    origin = origin_of(case, drawn, algorithm)
    with case.named():
        segments = dicom_seg.write_segmentation(case.each_mask(), case.image.folder, path, origin, anonymous=anonymous)
    return report(case, out, [path], segments=segments)
