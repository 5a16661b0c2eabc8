"""Names that become files: checked where they are read, and written so that they can be read back.

A name that a shared file gives (the id of a case, a label, a class, a structure) is refused unless it is plain: it
names one entry of a folder on any system, and nothing else. A plain name keeps its letters, in any script, with spaces
and brackets; only names that would vanish or mean something else in a folder of ours (`.hidden`, `manifest.parquet`)
are written with their first letter as `%2E`, and read back as they were.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from functools import lru_cache
from pathlib import PureWindowsPath
from typing import Any

from synthoma.errors import FileError, SynthomaError

LONGEST_BYTES = 200  # file systems take 255; suffixes and the marks of half-written files come on top

# What lies beside the folders of cases, or makes a folder something else: written with its first letter escaped.
OURS = frozenset(
    (
        "run.json", "recipe.toml", "records.jsonl", "events.jsonl", "report.json", "report.html", "catalog.parquet",
        "manifest.parquet", "synthesis.json", "case.json", "dataset.json", "splits.json", "splits_final.json",
        "inputs.jsonl", "metrics.jsonl", "plots", "tensorboard", "examples", "segmentations", "ct", "label", "imagestr",
        "imagests", "labelstr", "labelsts", "imagetr", "imagete", "labeltr", "labelte", "patient_dicom", "masks_dicom",
        "dicom_anon", "ground", "instances",
    )
)  # fmt: skip
# What other systems leave in folders, and device names of Windows. Files of the first kind are no one's data.
JUNK = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"))
DEVICES = frozenset(("con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))))


def require_plain(name: Any, what: str, case: str | None = None) -> str:
    """The name, if it can be the name of a file and of nothing else.

    what: what the name is of, for the error (`the id of a case`). Raises `SynthomaError` for text that is empty, is a
    path (separators, `..`, a drive), holds control characters or half letters, or is longer than 200 bytes, and for
    what is no text.
    """
    fault = "is no text" if not isinstance(name, str) else _fault(name)
    if fault is None:
        return str(name)
    shown = repr(name if len(repr(name)) <= 80 else str(name)[:60] + "...")
    raise SynthomaError(
        f"{what} {fault}",
        case=case,
        found=shown,
        expected=f"a plain name: letters of any script, digits, spaces, dots; up to {LONGEST_BYTES} bytes",
        fix="rename it where it comes from",
    )


def require_unicode(path: str) -> None:
    """`FileError` if a path holds bytes that are no UTF-8: no table, record or page can name such a file."""
    try:
        path.encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise FileError(f"the name {shown} is not UTF-8", fix="rename it, for instance with convmv") from error


@lru_cache(4096)
def _fault(name: str) -> str | None:
    """What keeps a text from being a plain name."""
    if not name.strip():
        return "is empty"
    if "/" in name or "\\" in name or name in (".", "..") or PureWindowsPath(name).drive:
        return "is a path"
    if any(map(_is_control, name)):
        return "holds control characters"
    if len(name.encode()) > LONGEST_BYTES:
        return "is too long"
    return None


def _is_control(letter: str) -> bool:
    """Control characters, halves of a letter, ends of lines and paragraphs."""
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")


@lru_cache(4096)
def usable_name(name: str) -> str:
    """The plain name nearest to what a file is called: itself, in composed letters (`e` and an accent are one).

    What no plain name holds (control characters, half letters, backslashes) becomes `_`; a longer name is cut and ends
    in a digest of the whole, so that two stay two.
    """
    plain = unicodedata.normalize("NFC", name)
    plain = "".join("_" if letter in "/\\" or _is_control(letter) else letter for letter in plain)
    if len(plain.encode()) > LONGEST_BYTES:
        tail = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=4).hexdigest()
        plain = plain.encode()[: LONGEST_BYTES - 9].decode(errors="ignore") + "-" + tail
    return plain if _fault(plain) is None else "_" + re.sub(r"[.:\s]", "_", plain)


def file_name(name: str) -> str:
    """What the file or folder of a plain name is called: the name, unless that would be passed over or misread."""
    return f"%{ord(name[0]):02X}{name[1:]}" if _is_escaped(name) else name


@lru_cache(4096)
def name_of_file(written: str) -> str:
    """The name that `file_name` wrote so; any other text is itself."""
    escaped = re.fullmatch(r"%([0-9A-F]{2})(.*)", written, re.DOTALL)
    if escaped:
        name = chr(int(escaped[1], 16)) + escaped[2]
        if _is_escaped(name):
            return name
    return written


def is_junk(entry: str) -> bool:
    """Whether an entry of a folder is hidden, half-written, or left by another system: passed over by all readers."""
    return entry.startswith(".") or entry.lower() in JUNK


def _is_escaped(name: str) -> bool:
    """Whether the name as it stands would be passed over, mean something else, or be taken for an escaped one."""
    plain = name.lower()
    reserved = plain in OURS or plain.split(".")[0] in DEVICES
    return is_junk(name) or reserved or name_of_file(name) != name
