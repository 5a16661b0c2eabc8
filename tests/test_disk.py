"""Folders written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthoma.disk import atomic_folder, write_text
from synthoma.errors import CaseError, FileError


def test_a_folder_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a" / "case") as part:
        write_text(part / "inner" / "file.txt", "new")
        assert not (tmp_path / "a" / "case").exists()
    assert (tmp_path / "a" / "case" / "inner" / "file.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["case"]


def test_what_an_older_or_a_killed_attempt_left_goes(tmp_path: Path) -> None:
    for old in ("case", ".case.part"):
        write_text(tmp_path / old / "old.txt", "old")
    with atomic_folder(tmp_path / "case") as part:
        write_text(part / "new.txt", "new")
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["new.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


@pytest.mark.parametrize("error", [CaseError("no liver"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failed_attempt_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "case" / "old.txt", "old")
    kind = FileError if isinstance(error, OSError) else type(error)

    def fail() -> None:
        with atomic_folder(tmp_path / "case") as part:
            write_text(part / "new.txt", "new")
            raise error

    with pytest.raises(kind):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(FileError, match=r"cannot write .*out/case; found .*; free space or choose another --out"):
        atomic_folder(tmp_path / "out" / "case").__enter__()
