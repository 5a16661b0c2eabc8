"""A server killed at any moment: what it acknowledged is there, once; two servers do not share a study."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench_review import Server, Storm, write_arms
from synthoma.errors import RunError
from synthoma.recipe import Recipe
from synthoma.review.serving import PLACE, Address, bind, open_study


def test_answers_through_kills_are_neither_lost_nor_double(tmp_path: Path) -> None:
    storm = Storm(tmp_path, answers=200, kills=2)
    storm.run()
    assert storm.faults == []
    assert len(storm.acknowledged) == 200
    assert storm.lost_and_double() == (0, 0)


def test_a_second_server_on_a_study_is_refused_with_the_place_of_the_first(tmp_path: Path) -> None:
    real, made = write_arms(tmp_path)
    words = ("turing", real, made, "--out", tmp_path / "study", "--set", "items=8", "--set", "repeats=0")
    server = Server(*words)
    try:
        command = [sys.executable, "-m", "synthoma", "review", *map(str, words), "--no-browser"]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
        assert second.returncode == 2
        assert f"is served already, at {server.links[0].partition('/enter')[0]}" in second.stderr
        assert "Traceback" not in second.stderr
    finally:
        server.kill()


def test_a_port_in_use_is_a_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match=r"cannot listen on 127\.0\.0\.1, port"):
            bind(Address(port=taken.getsockname()[1]))


def test_a_study_asked_for_otherwise_is_refused(tmp_path: Path) -> None:
    with open_study(tmp_path / "study", "turing", Recipe(), 0, {"real": "a"}) as store:
        assert store.fact("secret")
        assert (tmp_path / "study" / "study.db").stat().st_mode & 0o77 == 0
    with (
        pytest.raises(RunError, match="holds another run"),
        open_study(tmp_path / "study", "turing", Recipe(), 0, {"real": "b"}),
    ):
        pass
    assert not (tmp_path / "study" / PLACE).exists()


def test_small_answers_are_sent_at_once() -> None:
    """asyncio switches Nagle's algorithm off only for sockets that name TCP; else an answer waits for 40 ms."""
    with bind(Address()) as listening:
        assert listening.proto == socket.IPPROTO_TCP
