"""Reads damaged copies of small files, in a process of its own with little memory; prints what came of them.

python fuzz.py KIND COUNT FOLDER; the kinds are those of `MADE`.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from synthoma import files
from synthoma.errors import SynthomaError
from synthoma.formats import dicom_write
from synthoma.volume import Geometry, Volume

SPARE_BYTES = 2**30
SECONDS_EACH = 10


def damaged(whole: bytes, rng: np.random.Generator, reach: int) -> bytes:
    """A copy with up to eight bytes of its first `reach` changed, or (one in six) cut short."""
    if rng.random() < 1 / 6:
        return whole[: rng.integers(len(whole))]
    copy = bytearray(whole)
    for place in rng.integers(min(reach, len(whole)), size=rng.integers(1, 9)):
        copy[place] = rng.choice([0, 1, 127, 128, 255, rng.integers(256)])
    return bytes(copy)


def listed(path: Path) -> None:
    """The segments of a file, each read."""
    for segment in files.list_segments(path):
        segment()


GRID = Geometry.of((64, 48, 4), (0.8, 0.8, 2.5), "LPS")
CT = Volume(np.random.default_rng(0).integers(0, 2000, GRID.shape).astype(np.int16), GRID)


def one_file(name: str) -> Callable[[Path], tuple[Path, Path, int]]:
    """The scan as one file: what is read, what is damaged, and how far into it."""

    def make(folder: Path) -> tuple[Path, Path, int]:
        path = folder / name
        files.write_volume(CT, path)
        return path, path, 400

    return make


def segments(folder: Path) -> tuple[Path, Path, int]:
    path = folder / "a.seg.nrrd"
    files.write_volume(Volume((CT.data > 1000).astype(np.uint8), GRID), path)
    whole = path.read_bytes()
    at = whole.index(b"\n\n") + 1
    words = "Segment0_ID:=s\nSegment0_Name:=liver\nSegment0_Layer:=0\nSegment0_LabelValue:=1\n"
    path.write_bytes(whole[:at] + words.encode() + whole[at:])
    return path, path, at + len(words)


def series(change: Callable[[Dataset], None] = lambda image: None) -> Callable[[Path], tuple[Path, Path, int]]:
    """The scan as slices, of which the third is damaged, its header or what follows."""

    def make(folder: Path) -> tuple[Path, Path, int]:
        dicom_write.write_series(CT, folder / "series", "P1")
        for path in (folder / "series").iterdir():
            image = pydicom.dcmread(path)
            change(image)
            image.save_as(path)
        return folder / "series", folder / "series" / "00002.dcm", 1600

    return make


def enhanced(folder: Path) -> tuple[Path, Path, int]:
    """The scan as one image of four frames."""
    path, _, _ = series()(folder)
    slices = [pydicom.dcmread(file) for file in sorted(path.iterdir())]
    one = slices[0]
    one.PerFrameFunctionalGroupsSequence = []
    for image in slices:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = image.ImagePositionPatient
        group.PlanePositionSequence = [place]
        one.PerFrameFunctionalGroupsSequence.append(group)
    del one.ImagePositionPatient
    one.NumberOfFrames, one.PixelData = len(slices), b"".join(image.PixelData for image in slices)
    (folder / "many").mkdir()
    one.save_as(folder / "many" / "a.dcm")
    return folder / "many", folder / "many" / "a.dcm", 2000


def deflate(image: Dataset) -> None:
    image.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian


def compress(image: Dataset, syntax: str, stream: bytes) -> None:
    image.PixelRepresentation = 0
    image.PixelData = pydicom.encaps.encapsulate([stream])
    image["PixelData"].is_undefined_length = True
    image.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)


def jpeg_2000(image: Dataset) -> None:
    from openjpeg.utils import encode_array

    compress(image, "JPEG2000Lossless", encode_array(image.pixel_array, photometric_interpretation=2))


def jpeg_ls(image: Dataset) -> None:
    import jpeg_ls

    compress(image, "JPEGLSLossless", bytes(jpeg_ls.encode_array(image.pixel_array.astype(np.uint16))))


MADE: dict[str, Callable[[Path], tuple[Path, Path, int]]] = {
    "nifti": one_file("ct.nii"),
    "packed": one_file("ct.nii.gz"),
    "nrrd": one_file("ct.nrrd"),
    "mha": one_file("ct.mha"),
    "segments": segments,
    "dicom": series(),
    "enhanced": enhanced,
    "deflated": series(deflate),
    "jpeg2000": series(jpeg_2000),
    "jpegls": series(jpeg_ls),
}


def main(kind: str, count: int, folder: Path) -> None:
    path, target, reach = MADE[kind](folder)
    whole = target.read_bytes()
    raw = zlib.decompress(whole, 31) if kind == "packed" else whole
    files.read_image(path)  # imports what is needed, before memory is limited
    warnings.simplefilter("ignore")
    warnings.filterwarnings("error", category=RuntimeWarning, module="synthoma")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, used + SPARE_BYTES))
    counts = {"result": 0, "error": 0}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        copy = damaged(raw, rng, reach)
        if kind == "packed":
            squeeze = zlib.compressobj(1, wbits=31)
            copy = squeeze.compress(copy) + squeeze.flush()
        target.write_bytes(copy)
        for read in (files.read_image, files.read_labels, files.read_geometry, files.affine_doubts, listed):
            signal.alarm(SECONDS_EACH)
            try:
                read(path)
            except SynthomaError as error:
                counts["error"] += 1
                if target.parent.name not in str(error):
                    raise AssertionError(f"seed {seed}: {error}") from error
            except BaseException:
                print(f"seed {seed}, {read.__name__}", file=sys.stderr)
                raise
            else:
                counts["result"] += 1
            signal.alarm(0)
    print(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
