"""Folders written whole or not at all."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from synthoma import disk
from synthoma.disk import atomic, atomic_folder, host_key, read_json, sweep, write_json, write_text
from synthoma.errors import CaseError, FileError

DEAD = 2**22 + 1  # above the largest number that Linux gives a process


def part_name(name: str, process: int, host: str = "") -> str:
    return f".{name}.{host or host_key()}-{process}.part"


def test_a_folder_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "a" / "case") as part:
        write_text(part / "inner" / "file.txt", "new")
        assert not (tmp_path / "a" / "case").exists()
    assert (tmp_path / "a" / "case" / "inner" / "file.txt").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["case"]


def test_what_an_older_or_a_killed_attempt_left_goes(tmp_path: Path) -> None:
    for old in ("case", part_name("case", DEAD)):
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
    with pytest.raises(FileError, match=r"cannot write .*out/case; found .*; what lies there is in the way: move it"):
        atomic_folder(tmp_path / "out" / "case").__enter__()


def test_what_is_written_now_is_left_alone_and_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    alive, other = part_name("a", os.getppid()), part_name("a", DEAD, "0123abcd")
    old, dead, folder = part_name("b", DEAD, "0123abcd"), part_name("a", DEAD), part_name("case", DEAD)
    mine = (".a.part", ".a.json", "a.part")
    for name in (alive, other, old, dead, *mine):
        (tmp_path / name).write_text("half")
    write_text(tmp_path / folder / "inner" / "file", "half")
    os.utime(tmp_path / old, (1e9, 1e9))
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([alive, other, *mine])


def test_two_processes_that_write_one_folder_at_once_both_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as first:
        one = first.enter_context(atomic_folder(tmp_path / "case"))
        monkeypatch.setattr(disk.os, "getpid", os.getppid)  # the other process
        with atomic_folder(tmp_path / "case") as two:
            write_text(two / "file", "whole")
        assert (tmp_path / "case" / "file").read_text() == "whole"
        assert one != two
        (one / "file").write_text("whole")
    assert (tmp_path / "case" / "file").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EFBIG, "files may be this large"),
        (errno.EACCES, "where you may write"),
        (errno.EIO, "choose another --out"),
    ],
)
def test_the_advice_fits_the_fault(tmp_path: Path, number: int, advice: str) -> None:
    with pytest.raises(FileError) as fault, atomic(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert advice in str(fault.value)
    assert ("free space" in str(fault.value)) == (advice == "free space")
    assert not list(tmp_path.iterdir())


def test_a_byte_order_mark_is_no_obstacle_and_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf{}\r\n")
    assert read_json(tmp_path / "marked.json") == {}
    name = os.fsdecode(b"lum\xe8re")
    write_json(tmp_path / "name.json", [name, "lumière"])
    assert read_json(tmp_path / "name.json") == [name, "lumière"]


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{", b"\xff"])
def test_json_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileError, match="cannot read"):
        read_json(tmp_path)
