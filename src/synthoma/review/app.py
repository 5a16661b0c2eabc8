"""The web application: pages, scans and masks out, answers in. Requests name tasks by random codes, never paths."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import IO, Any

import pydantic
from jinja2 import DictLoader, Environment
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from synthoma.errors import SynthomaError
from synthoma.review import frames
from synthoma.review.access import Doorkeeper, TooLargeError, Walls
from synthoma.review.kinds import AnswerError, Kind, state_of
from synthoma.review.store import Reader, StaleAnswerError, Task

log = logging.getLogger(__name__)

TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".txt": "text/plain"}
PIECE_BYTES = 2**22
SCANS_AT_ONCE = 2  # read from the disk at the same time: a scan is up to some hundred MB


class Given(pydantic.BaseModel):
    """An answer as the page sends it. key: the browser's own, so that a repeated request counts once."""

    model_config = pydantic.ConfigDict(extra="forbid")
    key: str = pydantic.Field(min_length=8, max_length=64)
    after: int = pydantic.Field(ge=0)
    content: dict[str, Any]
    mask: str | None = pydantic.Field(None, max_length=64)
    final: bool = False
    seconds: float = pydantic.Field(0, ge=0, le=86400)
    action: str = pydantic.Field("", max_length=64)
    detail: dict[str, Any] = pydantic.Field(default_factory=dict, max_length=64)


class RefusedError(Exception):
    """A request that gets a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(eq=False)
class Review:
    """The handlers of one study."""

    kind: Kind
    doors: Doorkeeper
    secure: bool = False

    def __post_init__(self) -> None:
        self._reading = threading.BoundedSemaphore(SCANS_AT_ONCE)

    @cached_property
    def _pages(self) -> dict[str, bytes]:
        """Every file of the pages by its name, read once: no request names a path."""
        folder = resources.files("synthoma.review") / "pages"
        return {
            file.name: file.read_bytes()
            for part in ("static", "templates", "vendor")
            for file in (folder / part).iterdir()
            if file.is_file()
        }

    @cached_property
    def _templates(self) -> Environment:
        sources = {name: text.decode() for name, text in self._pages.items() if name.endswith(".html")}
        return Environment(loader=DictLoader(sources), autoescape=True)

    def page(self, name: str, status: int = 200, **facts: Any) -> HTMLResponse:
        """A page from its template."""
        return HTMLResponse(self._templates.get_template(f"{name}.html").render(**facts), status)

    def enter(self, request: Request) -> Response:
        """Trades a link's token for a cookie."""
        reader = self.doors.enter(request.query_params.get("token", ""))
        if reader is None:
            return self.page("message", 403, sentence="This link is wrong, or has been used. Ask for a new one.")
        self.kind.store.note(reader.id, "enter", {})
        response = RedirectResponse("/", 303)
        value = self.doors.pass_token(reader)
        response.set_cookie(self.doors.cookie, value, httponly=True, samesite="lax", secure=self.secure, path="/")
        return response

    def home(self, request: Request, reader: Reader) -> Response:
        """The page of the study."""
        return self.page(self.kind.page, reader=reader.name)

    def file(self, request: Request) -> Response:
        """A file of the pages, by its name in a table."""
        name = request.path_params["name"]
        suffix = name[name.rfind(".") :]
        if name not in self._pages or suffix not in TYPES or suffix == ".html":
            raise RefusedError(404, "There is no such file.")
        return Response(self._pages[name], media_type=TYPES[suffix])

    def work(self, request: Request, reader: Reader) -> Response:
        """What the reader has before him or her: tasks by code, what is done, and the study's settings."""
        answers = self.kind.store.last_answers()
        tasks = [
            {"code": task.code, "stage": task.stage, "done": task.id in answers and answers[task.id].final}
            for task in self.kind.store.tasks(reader.id)
        ]
        facts = {"reader": reader.name, "role": reader.role, "tasks": tasks, **self.kind.settings(reader)}
        return JSONResponse(facts)

    def task(self, request: Request, reader: Reader, task: Task) -> Response:
        """The facts of a task: grid, labels' box, and how far the reader came."""
        view = self._known(task, lambda: self.kind.view(task))
        _, state = state_of(self.kind, task)
        state["content"] = state["content"] or view.facts.get("content")
        facts = {name: value for name, value in view.facts.items() if name != "content"}
        return JSONResponse({**frames.describe(view.geometry), "box": view.mask[0], "state": state, "facts": facts})

    def labels(self, request: Request, reader: Reader, task: Task) -> Response:
        """The packed voxels of a task's labels."""
        view = self._known(task, lambda: self.kind.view(task))
        return Response(view.mask[1], media_type="application/octet-stream")

    def scan(self, request: Request, reader: Reader, task: Task) -> Response:
        """A scan's voxels; it counts as shown."""
        which = request.path_params["which"]

        def read() -> tuple[int, IO[bytes]]:
            # through a file without a name: a slow reader holds a file open, not a scan in memory
            spool = tempfile.TemporaryFile(dir=self.kind.store.path.parent)  # noqa: SIM115 (sent, then closed)
            try:
                with self._reading:
                    size, chunks = self.kind.scan(task, which)
                    spool.writelines(chunks)
            except BaseException:
                spool.close()
                raise
            spool.seek(0)
            return size, spool

        size, spool = self._known(task, read)
        self.kind.store.note(reader.id, "scan", {"which": which}, task.id)
        headers = {"content-length": str(size)}
        return StreamingResponse(_pieces(spool), media_type="application/octet-stream", headers=headers)

    def keep_answer(self, reader: Reader, task: Task, body: bytes) -> Response:
        """Keeps an answer; it is on the disk when this returns."""
        given = _parsed(Given, body)
        store = self.kind.store
        content = self.kind.check(task, given.content, given.final)
        if given.mask is not None and store.mask(given.mask) is None:
            raise RefusedError(422, "The mask of this answer was not received.")
        mask = given.mask or self.kind.mask_of(task)
        audit = {"action": given.action, "seconds": given.seconds, **given.detail}
        try:
            with store.transaction():
                number = store.add_answer(
                    task, given.key, given.after, content, mask, given.final, given.seconds, audit
                )
                if given.final:
                    self.kind.finished(task)
        except StaleAnswerError as error:
            raise RefusedError(409, "This case was changed in another tab. Reload the page.") from error
        return JSONResponse({"number": number})

    def keep_mask(self, reader: Reader, task: Task, body: bytes) -> Response:
        """Keeps a mask; its digest. The body: a line of JSON with the box, then the packed voxels."""
        box, packed, geometry = self._mask_in(task, body)
        frames.unpack(box, packed, geometry)
        digest = frames.digest(box, packed)
        self.kind.store.add_mask(digest, box, packed)
        return JSONResponse({"digest": digest})

    def fill(self, reader: Reader, task: Task, body: bytes) -> Response:
        """The mask in the body with its gaps between drawn axial slices filled, in the same form."""
        box, packed, geometry = self._mask_in(task, body)
        packed = frames.filled(box, packed, geometry)
        return Response(json.dumps(box).encode() + b"\n" + packed, media_type="application/octet-stream")

    def mask_file(self, request: Request, reader: Reader, task: Task) -> Response:
        """The labels of a task as NIfTI on the scan's grid, for another tool."""
        view = self._known(task, lambda: self.kind.view(task))
        labels = frames.unpack(view.mask[0], view.mask[1], view.geometry)
        return Response(frames.to_nifti(labels), media_type="application/octet-stream")

    def read_mask_file(self, reader: Reader, task: Task, body: bytes) -> Response:
        """The labels of such a file, which must lie on the scan's grid, as `fill` answers."""
        geometry = self._known(task, lambda: self.kind.view(task).geometry)
        box, packed = frames.pack(frames.from_nifti(body, geometry))
        return Response(json.dumps(box).encode() + b"\n" + packed, media_type="application/octet-stream")

    def note(self, reader: Reader, task: Task, body: bytes) -> Response:
        """A row of the audit: what the reader did without answering (windows, help, pauses)."""
        given = _parsed(Noted, body)
        self.kind.store.note(reader.id, given.action, given.detail, task.id)
        return JSONResponse({})

    def _mask_in(self, task: Task, body: bytes) -> tuple[list[int], bytes, Any]:
        head, _, packed = body.partition(b"\n")
        box = _parsed(Boxed, b'{"box": ' + head[:200] + b"}").box
        return box, packed, self._known(task, lambda: self.kind.view(task).geometry)

    def _known(self, task: Task, read: Callable[[], Any]) -> Any:
        """What was read of a case; a sentence that names no file if it cannot be."""
        try:
            return read()
        except (SynthomaError, OSError) as error:
            log.warning("task %s: the case cannot be read (%s)", task.code, type(error).__name__)
            sentence = "This case can no longer be read: it was moved, removed or damaged. Go on with the next one."
            raise RefusedError(410, sentence) from error

    def application(self, origins: tuple[str, ...]) -> Walls:
        """The whole, behind its walls."""

        def opened(handler: Callable[..., Response]) -> Callable[[Request], Any]:
            async def endpoint(request: Request) -> Response:
                return await run_in_threadpool(self._answered, handler, request, None)

            return endpoint

        def writing(handler: Callable[..., Response]) -> Callable[[Request], Any]:
            async def endpoint(request: Request) -> Response:
                try:
                    body = await request.body()
                except TooLargeError as error:
                    return JSONResponse({"error": error.sentence}, 413)
                return await run_in_threadpool(self._answered, handler, request, body)

            return endpoint

        task = "/api/task/{code}"
        routes = [
            Route("/enter", opened(self.enter)),
            Route("/static/{name}", opened(self.file)),
            Route("/", opened(self.home)),
            Route("/api/work", opened(self.work)),
            Route(task, opened(self.task)),
            Route(task + "/labels", opened(self.labels)),
            Route(task + "/scan/{which:int}", opened(self.scan)),
            Route(task + "/answer", writing(self.keep_answer), methods=["POST"]),
            Route(task + "/mask", writing(self.keep_mask), methods=["POST"]),
            Route(task + "/fill", writing(self.fill), methods=["POST"]),
            Route(task + "/nifti", opened(self.mask_file)),
            Route(task + "/nifti", writing(self.read_mask_file), methods=["POST"]),
            Route(task + "/note", writing(self.note), methods=["POST"]),
        ]
        return Walls(Starlette(routes=routes), origins)

    def _answered(self, handler: Callable[..., Response], request: Request, body: bytes | None) -> Response:
        """What a handler gives; a refusal as a sentence."""
        try:
            if handler in (self.enter, self.file):
                return handler(request)
            reader = self.doors.reader_of(request.cookies)
            if reader is None:
                if handler == self.home:
                    return self.page("message", 401, sentence="Open the link that you were given for this study.")
                raise RefusedError(401, "Open the link that you were given for this study.")
            if handler in (self.home, self.work):
                return handler(request, reader)
            task = self.kind.store.task(request.path_params["code"], reader.id)
            if task is None:
                raise RefusedError(404, "There is no such task.")
            return handler(request, reader, task) if body is None else handler(reader, task, body)
        except AnswerError as error:
            return JSONResponse({"error": str(error)}, 422)
        except SynthomaError as error:  # of a mask that was uploaded
            return JSONResponse({"error": error.what}, 422)
        except RefusedError as error:
            return JSONResponse({"error": error.sentence}, error.status)


def _pieces(spool: IO[bytes]) -> Iterator[bytes]:
    with spool:
        while piece := spool.read(PIECE_BYTES):
            yield piece


class Boxed(pydantic.BaseModel):
    """Where a mask lies: lower corner and shape."""

    box: list[int] = pydantic.Field(min_length=6, max_length=6)


class Noted(pydantic.BaseModel):
    """Something for the audit."""

    model_config = pydantic.ConfigDict(extra="forbid")
    action: str = pydantic.Field(min_length=1, max_length=64)
    detail: dict[str, Any] = pydantic.Field(default_factory=dict, max_length=64)


def _parsed(kind: type[Any], body: bytes) -> Any:
    try:
        return kind.model_validate_json(body)
    except pydantic.ValidationError as error:
        raise RefusedError(422, "The request is damaged. Reload the page.") from error
