"""Who gets in: tokens, hosts, origins, sizes, and what a page may load.

Three walls stand before every handler. The `Host` must be one of ours, so that a foreign name pointed at this machine
gets nothing. A write needs an `Origin` of ours and a content type that a form of another site cannot send. And all but
the entrance needs a reader's token in a cookie, which is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synthoma.review.store import Reader, Store

MOST_BYTES = 64 * 2**20  # of a mask
TYPES = ("application/json", "application/octet-stream")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self' data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(eq=False)
class Doorkeeper:
    """Tokens of one study. A link's token opens the door; a cookie's keeps it open.

    once: links work a single time. Both tokens derive from the study's own secret, so that links and cookies of a
    study outlive its server, and those of another study open nothing.
    """

    store: Store
    once: bool
    _used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._salt = secrets.token_hex(16) if self.once else "link"

    def link_token(self, reader: Reader) -> str:
        """The token of a reader's link; a new one with every start where links work once."""
        return self._sign(f"{self._salt} {reader.id}")

    def enter(self, token: str) -> Reader | None:
        """The reader whose link this is, None for a wrong or a spent one."""
        reader = self._match(token, self.link_token)
        if reader is None or (self.once and token in self._used):
            return None
        self._used.add(token)
        return reader

    @property
    def cookie(self) -> str:
        """The cookie's name; of each study another, since cookies do not know ports."""
        return f"synthoma_{self._sign('name')[:12]}"

    def pass_token(self, reader: Reader) -> str:
        """The value of a reader's cookie."""
        return self._sign(f"pass {reader.id}")

    def reader_of(self, cookies: Mapping[str, str]) -> Reader | None:
        """The reader who sent these cookies, or None."""
        return self._match(cookies.get(self.cookie, ""), self.pass_token)

    def _match(self, token: str, token_of: Callable[[Reader], str]) -> Reader | None:
        given = token.encode(errors="replace")
        found = [reader for reader in self._readers if hmac.compare_digest(given, token_of(reader).encode())]
        return found[0] if found else None

    @cached_property
    def _readers(self) -> list[Reader]:
        return self.store.readers()  # all were there when the study was made

    @cached_property
    def _secret(self) -> bytes:
        return str(self.store.fact("secret")).encode()

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()


class Walls:
    """Checks host, origin, type and size of every request before a handler sees it, and marks every response.

    origins: scheme, host and port as a browser sends them, `http://127.0.0.1:8000`.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...], most_bytes: int = MOST_BYTES) -> None:
        self.app, self.origins, self.most_bytes = app, origins, most_bytes
        self.hosts = {_host(origin) for origin in origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request, if it may pass."""
        if scope["type"] != "http":  # nothing here listens on a socket
            return
        marked = _marking(send)
        refusal = self._refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, marked)
            return
        await self.app(scope, _limited(receive, self.most_bytes), marked)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        if headers.get("host", "").lower() not in self.hosts:
            return 421, "This server answers to its own address only."
        if method not in ("GET", "HEAD", "POST"):
            return 405, "Only GET and POST are known here."
        if method == "POST":
            if headers.get("origin", "") not in self.origins:
                return 403, "This request came from another page."
            if headers.get("content-type", "").partition(";")[0].strip() not in TYPES:
                return 415, f"Expected {' or '.join(TYPES)}."
            length = headers.get("content-length", "0")
            if not length.isdigit() or int(length) > self.most_bytes:
                return 413, TooLargeError.sentence
        return None


class TooLargeError(Exception):
    """A body that grew beyond the limit while it was read."""

    sentence = "The upload is too large."


def _host(origin: str) -> str:
    """The host a browser sends for an origin: without the scheme, and without a port that is the scheme's own."""
    scheme, _, host = origin.partition("://")
    return host.removesuffix({"http": ":80", "https": ":443"}.get(scheme, "")).lower()


def _limited(receive: Receive, most_bytes: int) -> Receive:
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most_bytes:
            raise TooLargeError
        return message

    return limited


def _marking(send: Send) -> Send:
    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return marked
