"""Cases as DICOM: a scan as a CT series, and masks as a SEG that refers to one."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from synthoma.cases import Case
from synthoma.datasets.layouts.dicom import SeriesFolder
from synthoma.datasets.layouts.folders import provenance_of
from synthoma.datasets.writing import report
from synthoma.errors import CaseError, RecipeError
from synthoma.formats import dicom_seg, dicom_write
from synthoma.formats.dicom_seg import Origin
from synthoma.names import file_name

SERIES, SEGMENTATION = "ct", "segmentation.dcm"
Drawn = Literal["", "manual", "semiautomatic", "automatic"]


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
    if drawn:
        name, _, number = algorithm.rpartition(" ")
        return Origin(drawn, name or algorithm, number if name else "unknown")
    told = provenance_of(case)
    if isinstance(told.get("model"), str):
        return origin_of_model(told)
    if is_synthetic(case, told):
        return Origin("automatic", "synthoma", version("synthoma"))
    raise CaseError(
        "nobody says who drew its masks, which DICOM wants to know",
        case=case.id,
        expected="a case.json of synthoma segment beside them, or a word",
        fix='--set drawn=manual, or --set drawn=automatic --set algorithm="NAME VERSION"',
    )


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
    origin = origin_of(case, drawn, algorithm)
    with case.named():
        segments = dicom_seg.write_segmentation(case.each_mask(), case.image.folder, path, origin, anonymous=anonymous)
    return report(case, out, [path], segments=segments)
