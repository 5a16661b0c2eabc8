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
_SCAN = 0xDA
_CODES = (0xC4, 0xCC)  # tables of Huffman and arithmetic codes
_SEGMENTS = {*_CODES, 0xDB, 0xDD, 0xF8, 0xFE, *range(0xE0, 0xF0)}  # what may come before a scan


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
    """ITU-T T.81, B.2, and T.87, C.2: the frame header, and whether all before the first scan is as it must be."""
    if stream[:2] != b"\xff\xd8":
        raise ValueError("no JPEG stream")
    at, frame = 2, b""
    tables: set[int] = set()
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a byte of filling
            at += 1
            continue
        length = int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = stream[at + 4 : at + 2 + length]
        is_frame = marker == _JPEG_LS_FRAME or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME)
        if marker == _SCAN:
            return _frame_of_scan(frame, segment, tables)
        if len(segment) != length - 2 or (is_frame and frame) or not (is_frame or marker in _SEGMENTS):
            break
        frame = segment if is_frame else frame
        tables.add(marker)
        at += 2 + length
    raise ValueError("a JPEG stream whose segments are damaged")


def _frame_of_scan(frame: bytes, scan: bytes, tables: set[int]) -> FrameSize:
    """The size in a frame header, if the scan is one of its components and their tables are there."""
    parts = {frame[at] for at in range(6, len(frame), 3)}
    count = frame[5] if len(frame) > 5 else 0
    if not count or len(frame) != 6 + 3 * count or len(scan) < 4 or len(scan) != 4 + 2 * scan[0]:
        raise ValueError("a JPEG stream without a frame")
    named = {scan[1 + 2 * n] for n in range(scan[0])}
    if not named <= parts or not tables & {_JPEG_LS_FRAME, *_CODES}:
        raise ValueError("a JPEG scan without its component or tables")
    return FrameSize(int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), count, frame[0])
