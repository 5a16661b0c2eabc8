"""What a compressed image says about itself in its first bytes: JPEG, JPEG-LS and JPEG 2000, by their markers.

A decoder that believes a damaged header may end the whole process, or take all memory; so the header is read first.
"""

from __future__ import annotations

from typing import NamedTuple

_START_2000 = b"\xff\x4f\xff\x51"
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.201")
_JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # among 0xC0 to 0xCF: tables
_JPEG_LS_FRAME = 0xF7


class FrameSize(NamedTuple):
    """The size of a compressed image. samples: numbers a pixel. bits: of each."""

    rows: int
    columns: int
    samples: int
    bits: int


def read_frame_size(stream: bytes, syntax: str) -> FrameSize | None:
    """The size that a compressed image states; None for kinds of compression that state none (RLE).

    syntax: the DICOM transfer syntax. Raises `ValueError` if the bytes are not what the syntax says.
    """
    if syntax in _JPEG_2000:
        return _of_jpeg_2000(stream)
    return _of_jpeg(stream) if syntax in _JPEG else None


def _of_jpeg_2000(stream: bytes) -> FrameSize:
    """ITU-T T.800, A.5.1: the SIZ marker follows the start of the codestream."""
    at = stream.find(_START_2000, 0, 4096) + 2
    if at < 2 or len(stream) < at + 43:
        raise ValueError("no JPEG 2000 codestream")
    numbers = [int.from_bytes(stream[at + 6 + 4 * n : at + 10 + 4 * n], "big") for n in range(8)]
    right, bottom, left, top, tile_columns, tile_rows, *_ = numbers
    samples = int.from_bytes(stream[at + 38 : at + 40], "big")
    bits, across, down = stream[at + 40], stream[at + 41], stream[at + 42]
    if not tile_columns or not tile_rows or (across, down) != (1, 1):
        raise ValueError("a JPEG 2000 codestream with tiles or steps of no size")
    return FrameSize(bottom - top, right - left, samples, (bits & 0x7F) + 1)


def _of_jpeg(stream: bytes) -> FrameSize:
    """ITU-T T.81, B.2.2, and T.87, C.2.2: the first frame header."""
    at = 2
    if stream[:2] != b"\xff\xd8":
        raise ValueError("no JPEG stream")
    while at + 10 <= len(stream):
        if stream[at] != 0xFF:
            break
        marker = stream[at + 1]
        if marker == 0xFF:  # a byte of filling
            at += 1
            continue
        if marker == _JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            rows, columns = (int.from_bytes(stream[at + n : at + n + 2], "big") for n in (5, 7))
            return FrameSize(rows, columns, stream[at + 9], stream[at + 4])
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    raise ValueError("a JPEG stream without a frame")
