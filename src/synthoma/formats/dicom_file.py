"""One DICOM file: its header and its stored pixels, however it is wrapped (extra `dicom`).

Files without preamble, the deflated transfer syntax and compressed pixels are read. Whatever a file promises is
compared with what it holds before anything as large as the promise is made.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import FileError, SynthomaError
from synthoma.extras import need
from synthoma.formats.codestream import read_frame_size
from synthoma.formats.limits import require_room
from synthoma.volume import Array

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PREAMBLE = 128  # bytes before the letters DICM
_HEADER_BYTES = 2**26  # no header is larger, functional groups of a thousand frames included
_PIXELS = (
    "SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation "
    "PlanarConfiguration NumberOfFrames PixelData"
)


def read_header(path: Path, keywords: Sequence[str]) -> tuple[Any, bool] | None:
    """A data set of the elements asked for, and whether pixels follow; None if the file is not DICOM.

    Raises `FileError` naming the file if it is DICOM and cannot be parsed.
    """
    pydicom = need("pydicom", extra="dicom")
    with parsing(path), path.open("rb") as file:
        start = file.read(2048)
        if not _is_dicom(start):
            return None
        stream: Any = file
        if _DEFLATED in start:
            stream = io.BytesIO(_inflated(path, _HEADER_BYTES)[0])
        stream.seek(0)
        header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(keywords), force=True)
        for keyword in keywords:
            header.get(keyword)  # parses the value, which may fail
        return header, bool(stream.read(1)) and "Rows" in header


def require_header(path: Path, keywords: Sequence[str]) -> Any:
    """The same elements; `FileError` if the file is not DICOM."""
    read = read_header(path, keywords)
    if read is None:
        raise FileError(f"{path} is no DICOM file")
    return read[0]


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """A block that reads values of a header, many of which pydicom parses only then; `FileError` for damaged ones."""
    try:
        yield
    except SynthomaError:
        raise
    except OSError as error:
        raise FileError(f"cannot read {path}", found=error.strerror or str(error)) from error
    except Exception as error:  # on damaged bytes pydicom raises almost anything
        raise FileError(f"{path} has a damaged DICOM header", found=_told(error)) from error


class PixelFile:
    """The pixels of one file, frame by frame."""

    def __init__(self, path: Path) -> None:
        """Raises `FileError` if the file is cut short, or compressed in a way that nothing here decodes."""
        from pydicom.pixels import get_decoder

        self.path = path
        try:
            self._image, self._syntax = _with_pixels(path)
            self._decoder = get_decoder(self._syntax)
            self._frames = int(self._image.get("NumberOfFrames") or 1)
            size = (int(self._image.Rows), int(self._image.Columns), self._frames)
            self._bits = int(self._image.BitsAllocated)
        except FileError:
            raise
        except Exception as error:  # on damaged bytes pydicom raises almost anything
            raise FileError(f"{path} cannot be decoded", found=_told(error)) from error
        require_room(path, size, self._bits / 8)
        if not self._decoder.is_available:
            raise FileError(
                f"{path} is compressed as {self._syntax.name}",
                found="no decoder: " + "; ".join(self._decoder.missing_dependencies),
                fix="pip install 'synthoma[dicom]'",
            )

    def frame(self, number: int, rows: int, columns: int) -> Array:
        """The stored values (rows, columns) of a frame, counted from 0."""
        try:
            if self._syntax.is_encapsulated:
                self._check_codestream(number, rows, columns)
            if self._bits == 1 and not self._syntax.is_encapsulated:
                pixels = self._unpacked(number)
            else:
                pixels, _ = self._decoder.as_array(self._image, index=number)
        except FileError:
            raise
        except Exception as error:  # as above, and whatever the decoders raise
            found = _told(error)
            raise FileError(f"{self.path} cannot be decoded", found=found, fix="copy or download it again") from error
        if pixels.shape != (rows, columns):
            raise FileError(f"{self.path} is damaged", found=pixels.shape, expected=(rows, columns))
        return np.asarray(pixels)

    def _unpacked(self, number: int) -> Array:
        """A frame of single bits, which need not begin with a byte (pydicom's own decoder takes it that it does)."""
        rows, columns = int(self._image.Rows), int(self._image.Columns)
        first, last = number * rows * columns, (number + 1) * rows * columns
        packed = np.frombuffer(self._image.PixelData, np.uint8, -(-last // 8) - first // 8, first // 8)
        bits = np.unpackbits(packed, bitorder="little")[first % 8 :]
        return bits[: last - first].reshape(rows, columns)

    def _check_codestream(self, number: int, rows: int, columns: int) -> None:
        """Compares what the compressed frame says of itself with the header: decoders may end the process over it."""
        from pydicom.encaps import get_frame

        frame = get_frame(self._image.PixelData, number, number_of_frames=self._frames)
        told = read_frame_size(frame, str(self._syntax))
        if told is None:
            return
        if (told.rows, told.columns, told.samples) != (rows, columns, 1) or not 2 <= told.bits <= self._bits:
            raise FileError(
                f"{self.path} is damaged: its compressed pixels are not those of its header",
                found=f"{told.columns}x{told.rows} pixels of {told.samples} x {told.bits} bits",
                expected=f"{columns}x{rows} of 1 x at most {self._bits} bits",
                fix="copy or download it again",
            )


def _with_pixels(path: Path) -> tuple[Any, Any]:
    """The elements that describe pixels, the pixels with them, and how they are compressed."""
    pydicom = need("pydicom", extra="dicom")
    with path.open("rb") as file:
        deflated = _DEFLATED in file.read(2048)
    tags = _PIXELS.split()
    if not deflated:
        image = pydicom.dcmread(path, specific_tags=tags, force=True)
        syntax = image.file_meta.get("TransferSyntaxUID")
        if syntax is None:  # without a preamble nothing tells it; files of that kind are not compressed
            explicit = image.original_encoding[0] is False
            syntax = pydicom.uid.ExplicitVRLittleEndian if explicit else pydicom.uid.ImplicitVRLittleEndian
            image.file_meta.TransferSyntaxUID = syntax
        return image, syntax
    header = pydicom.dcmread(
        io.BytesIO(_inflated(path, _HEADER_BYTES)[0]), stop_before_pixels=True, specific_tags=tags, force=True
    )
    told = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    require_room(path, (told,), int(header.BitsAllocated) // 8)
    most = _HEADER_BYTES + told * int(header.BitsAllocated) // 8
    whole, more = _inflated(path, most)
    if more:
        raise FileError(f"{path} is damaged", found=f"more than {most} bytes", expected="what its header says")
    image = pydicom.dcmread(io.BytesIO(whole), specific_tags=tags, force=True)
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    return image, pydicom.uid.ExplicitVRLittleEndian


def _inflated(path: Path, most: int) -> tuple[bytes, bool]:
    """The data set of a deflated file, at most so many bytes, and whether there are more."""
    pydicom = need("pydicom", extra="dicom")
    meta = pydicom.filereader.read_file_meta_info(path)
    with path.open("rb") as file:
        file.seek(_PREAMBLE + 4 + 12 + int(meta.FileMetaInformationGroupLength))
        unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        parts, count = [], 0
        while count < most and not unpack.eof and (block := unpack.unconsumed_tail or file.read(2**20)):
            parts.append(unpack.decompress(block, most - count))
            count += len(parts[-1])
    return b"".join(parts), count >= most and not unpack.eof


def _is_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM: with its letters, or, written without them, with an element of group 2 or 8."""
    if start[_PREAMBLE : _PREAMBLE + 4] == b"DICM":
        return True
    if start[:2] not in (b"\x02\x00", b"\x08\x00") or len(start) < _PREAMBLE:
        return False
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    length = int.from_bytes(start[6:8] if explicit else start[4:8], "little")
    return start[3] == 0 and length < 2**10


def _told(error: Exception) -> str:
    """An error of a library in a line."""
    lines = str(error).split("\n")
    return lines[0].strip() or type(error).__name__
