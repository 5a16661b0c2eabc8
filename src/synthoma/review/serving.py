"""A study served: its folder locked, its port bound, its links told."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthoma import disk, runs
from synthoma.errors import FileError, RunError
from synthoma.extras import need
from synthoma.recipe import Recipe
from synthoma.review.kinds import Kind
from synthoma.review.store import Store

PLACE = "server.json"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


Tell = Callable[[Sequence[tuple[str, str]]], None]


@dataclass(frozen=True)
class Address:
    """Where a study is served. certificate, key: of TLS; public: the address in front of a proxy, if there is one."""

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    key: Path | None = None
    public: str | None = None

    def check(self) -> None:
        """Whether a study can be served there, before the study is made.

        `RunError` for an open door: another machine can reach only TLS, or a proxy that speaks it. `MissingExtraError`
        without the extra.
        """
        for module in ("starlette", "uvicorn", "jinja2"):
            need(module, extra="review")
        if self.host not in LOOPBACK and self.certificate is None and self.public is None:
            raise RunError(
                f"--host {self.host} would send scans and tokens readable over the network",
                expected="127.0.0.1",
                fix="add --certificate and --key, or stand behind a proxy and say --public https://NAME",
            )
        if self.public is not None and not self.public.startswith("https://"):
            raise RunError(f"--public {self.public} is not encrypted", expected="https://NAME")

    def origins(self, port: int) -> tuple[str, ...]:
        """The origins under which browsers know the pages."""
        if self.public is not None:
            return (self.public.rstrip("/"),)
        scheme = "https" if self.certificate else "http"
        names = ("127.0.0.1", "localhost", "[::1]") if self.host in LOOPBACK else (self.host,)
        return tuple(f"{scheme}://{name}:{port}" for name in names)


@contextmanager
def open_study(folder: Path, kind: str, recipe: Recipe, seed: int, inputs: Mapping[str, str]) -> Iterator[Store]:
    """The study's store, made or opened, and ours alone while the block lasts.

    Raises `RunError` if another server has it (with its place), if the folder holds another study, or a newer one.
    """
    try:
        with runs.open_run(folder, f"review-{kind}", recipe, seed, inputs):
            store = Store(folder)
            try:
                yield store
            finally:
                store.close()
                (folder / PLACE).unlink(missing_ok=True)
    except RunError as error:
        if "in use" not in error.what:
            raise
        place: dict[str, Any] = {}
        with suppress(FileError):
            place = disk.read_json(folder / PLACE)
        address = place.get("address", "an address it has not told yet")
        raise RunError(f"{folder} is served already, at {address}", fix="open its link, or end that server") from error


def bind(address: Address) -> socket.socket:
    """A socket that listens; `RunError` for a port in use."""
    address.check()
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # asyncio sends small answers at once (no Nagle) only on sockets that name their protocol: 40 ms an answer
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise RunError(
            f"cannot listen on {address.host}, port {address.port}",
            found=error.strerror,
            fix="choose another --port, or leave it out for a free one",
        ) from error
    return listening


def serve(kind: Kind, folder: Path, address: Address, once: bool, tell: Tell) -> None:
    """Serves a study until it is interrupted.

    once: links work a single time. tell: gets each reader's name and link.
    """
    import uvicorn

    from synthoma.review.access import Doorkeeper
    from synthoma.review.app import Review

    listening = bind(address)
    port = listening.getsockname()[1]
    origins = address.origins(port)
    doors = Doorkeeper(kind.store, once)
    review = Review(kind, doors, secure=origins[0].startswith("https://"))
    disk.write_json(folder / PLACE, {"address": origins[0]})
    tell([(reader.name, f"{origins[0]}/enter?token={doors.link_token(reader)}") for reader in kind.store.readers()])
    settings = uvicorn.Config(
        review.application(origins), access_log=False, log_level=logging.WARNING, server_header=False, lifespan="off",
        ws="none", proxy_headers=False, timeout_graceful_shutdown=2, log_config=None,
        ssl_certfile=address.certificate, ssl_keyfile=address.key,
    )  # fmt: skip
    with suppress(KeyboardInterrupt):  # how a reading session ends
        uvicorn.Server(settings).run(sockets=[listening])
