"""Faults a user can fix, each saying what was found, what was expected and the way out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


class SynthomaError(Exception):
    """A fault of the input, not of the program.

    The message reads `case: what; found ..., expected ...; way out`, with the parts that are known.
    Instances survive pickling, so a worker's error reaches the user whole.
    """

    def __init__(
        self,
        what: str,
        *,
        case: str | None = None,
        found: Any = None,
        expected: Any = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.case, self.found, self.expected, self.fix = what, case, found, expected, fix
        super().__init__(what)

    def __str__(self) -> str:
        facts = []
        if self.found is not None:
            facts.append(f"found {self.found}")
        if self.expected is not None:
            facts.append(f"expected {self.expected}")
        parts = [self.what, ", ".join(facts), self.fix]
        text = "; ".join(part for part in parts if part)
        return f"{self.case}: {text}" if self.case else text

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.case, self.found, self.expected, self.fix)

    def of_case(self, case: str) -> SynthomaError:
        """The same fault, naming the case it belongs to."""
        return _rebuild(type(self), self.what, self.case or case, self.found, self.expected, self.fix)


def _rebuild(kind: type[SynthomaError], what: str, case: Any, found: Any, expected: Any, fix: Any) -> SynthomaError:
    return kind(what, case=case, found=found, expected=expected, fix=fix)


class GeometryError(SynthomaError):
    """Grids that do not fit each other, or an affine that cannot be one."""


class FileError(SynthomaError):
    """A file that cannot be read or written as what it claims to be."""


class DiskFullError(FileError):
    """A file that cannot be written for want of room: no fault of a case."""


class LayoutError(SynthomaError):
    """A folder that follows none of the known conventions, or breaks its own."""


class RecipeError(SynthomaError):
    """A recipe with an unknown key or a value out of range."""


class RunError(SynthomaError):
    """A run folder that is in use, or that holds another run."""


class CaseError(SynthomaError):
    """A case that lacks what was asked of it: an organ, a mask, a phase."""


class FailedCasesError(SynthomaError):
    """More cases failed than are allowed to; the command ends with exit code 1."""


class MissingExtraError(SynthomaError):
    """An optional dependency that is not installed; the message is the install line."""


def without_folders(text: str, folders: Iterable[Path | str]) -> str:
    """The text with every file below these folders named from there, so that it tells nothing of the machine."""
    for folder in sorted({str(folder).rstrip("/") for folder in folders}, key=len, reverse=True):
        if folder:
            text = text.replace(f"{folder}/", "")
    return text


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few names, and how many there are beside them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
