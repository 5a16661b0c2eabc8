"""Worker processes on this machine that may die: the item that killed one is known, and the rest go on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from synthoma.errors import RunError

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_DEATHS = 3
GRACE_S = 5.0
LOOK_S = 5.0  # between looks at what runs long
SLOW_S = 60.0

# Libraries read these when they load, so they are set before a worker starts. Threads of many workers would fight
# for the cores, and may sum in another order than one thread does.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
}
# A worker begins with the working folder on its import path, where data lie that may be called pickle.py.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
STOP = b""
TOO_LONG = "ended after {:g} s, the time that a case has (--timeout)"


def run_on_processes(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    lost: Callable[[Item, str, str], Result],
    timeout_s: float | None = None,
    slow: Callable[[Item, float], None] | None = None,
) -> Generator[tuple[int, Result], None, None]:
    """The index and the result of every item, as they finish, from `workers` processes of one thread each.

    task: importable by name; it is sent once to each worker. lost(item, sentence, traceback): what to yield for
    an item whose workers died three times (each time a new one tries), whose time ran out, that cannot be pickled, or
    whose task raises. timeout_s: seconds that an item may take; its worker is killed then. slow(item, seconds) is
    called for an item that runs for a minute and ten times as long as any before it, and at each doubling.
    Processes are spawned, so a script that calls this needs `if __name__ == "__main__":`. Closing the
    generator kills them, and they end when this process is killed. Raises `RunError` if they cannot start.
    """
    payload = _pickled_task(task)
    waiting = deque(range(len(items)))
    deaths: Counter[int] = Counter()
    clock = _Clock(timeout_s)
    pool: list[_Worker] = []
    try:
        pool.extend(_Worker(payload) for _ in range(min(workers, len(items))))
        while waiting or any(worker.index is not None for worker in pool):
            for worker in _with_news(pool, clock.next_look_s(pool)):
                took_s = worker.busy_s()
                index, reply = worker.receive()
                if isinstance(reply, _Death):
                    pool.remove(worker)
                    reply = _verdict(index, reply, deaths)
                    if reply is None and index is not None:
                        waiting.append(index)
                        index = None
                    if waiting:
                        pool.append(_Worker(payload))
                elif waiting:  # before the yield, so that it works while its last result is written down
                    following = waiting.popleft()
                    worker.give(following, items[following])
                if index is not None:
                    clock.count(took_s)
                    yield index, lost(items[index], *reply) if isinstance(reply, _Fault) else reply
            for worker in clock.overdue(pool):
                index = worker.index
                pool.remove(worker)
                worker.end()
                if waiting:
                    pool.append(_Worker(payload))
                if index is not None:
                    yield index, lost(items[index], TOO_LONG.format(timeout_s), "")
            for worker in clock.slow(pool):
                if slow is not None and worker.index is not None:
                    slow(items[worker.index], worker.busy_s())
        for worker in pool:
            worker.dismiss()
        for worker in pool:
            worker.end(GRACE_S)
    finally:
        for worker in pool:
            worker.end()


class _Fault(NamedTuple):
    sentence: str
    traceback: str


class _Death(NamedTuple):
    exit_code: int
    started: bool


class _Clock:
    """How long items may take, and how long they usually do."""

    def __init__(self, timeout_s: float | None) -> None:
        self.timeout_s = timeout_s
        self._longest_s = 0.0

    def count(self, took_s: float) -> None:
        self._longest_s = max(self._longest_s, took_s)

    def next_look_s(self, pool: Sequence[_Worker]) -> float:
        """Seconds until some worker's time is up, at most a few: somebody may have become slow."""
        if self.timeout_s is None:
            return LOOK_S
        left = [self.timeout_s - worker.busy_s() for worker in pool if worker.index is not None]
        return max(min([LOOK_S, *left]), 0.0)

    def overdue(self, pool: Sequence[_Worker]) -> list[_Worker]:
        """Workers that have had their item for too long, and have not answered in this moment."""
        if self.timeout_s is None:
            return []
        return [
            worker
            for worker in pool
            if worker.index is not None and worker.busy_s() >= self.timeout_s and not worker.pipe.poll()
        ]

    def slow(self, pool: Sequence[_Worker]) -> list[_Worker]:
        """Workers whose item runs unusually long; each is named again when its time has doubled."""
        found = []
        for worker in pool:
            if worker.index is not None and worker.busy_s() >= max(SLOW_S, 10 * self._longest_s, 2 * worker.named_s):
                worker.named_s = worker.busy_s()
                found.append(worker)
        return found


class _Worker:
    """One process and our end of its pipe; index: of the item it has, None while it has none.

    named_s: for how long it had its item when it was last called slow.
    """

    def __init__(self, payload: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), name="synthoma-worker")
        self.index: int | None = None
        self.named_s = 0.0
        self._started, self._given = False, 0.0
        try:
            with _environment(ONE_THREAD | SAFE_PATH), _uninterrupted():
                self.process.start()
        except OSError as error:
            raise RunError("cannot start a worker", found=error.strerror, fix="fewer --workers") from error
        theirs.close()
        self._send(payload)

    def give(self, index: int, item: Any) -> None:
        try:
            message = pickle.dumps(item)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            message = pickle.dumps(
                _Fault(f"{type(error).__name__}: what goes to a worker must pickle; {error}", traceback.format_exc())
            )
        self.index, self.named_s, self._given = index, 0.0, time.monotonic()
        self._send(message)

    def busy_s(self) -> float:
        """Seconds since it was given its item; 0 if it has none."""
        return 0.0 if self.index is None else time.monotonic() - self._given

    def receive(self) -> tuple[int | None, Any]:
        """The index of its item (None: it has just started, or died idle) and what it answered."""
        index, self.index = self.index, None
        try:
            reply = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            started = self._started
            return index, _Death(self.end(GRACE_S), started)
        if not self._started and isinstance(reply, _Fault):
            raise RunError(f"worker processes cannot start: {reply.sentence}", found=reply.traceback)
        self._started = True
        return index, reply

    def dismiss(self) -> None:
        self._send(STOP)

    def end(self, grace_s: float = 0.0) -> int:
        """Its exit code, killed if it outlives the grace. Ending it again changes nothing."""
        self.process.join(grace_s)
        self.process.kill()
        self.process.join()
        self.pipe.close()
        exit_code = self.process.exitcode
        assert exit_code is not None
        return exit_code

    def _send(self, message: bytes) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead, and the next receive says so
            self.pipe.send_bytes(message)


def _with_news(pool: Sequence[_Worker], most_s: float) -> list[_Worker]:
    by_pipe = {worker.pipe: worker for worker in pool}
    return [by_pipe[pipe] for pipe in wait(list(by_pipe), most_s) if isinstance(pipe, Connection)]


def _verdict(index: int | None, death: _Death, deaths: Counter[int]) -> _Fault | None:
    """The fault of an item that has killed its last worker; None to go on."""
    if not death.started:
        raise RunError(
            f"a worker process ended with exit code {death.exit_code} before its first case",
            fix='its message is above; a script that uses workers needs `if __name__ == "__main__":`',
        )
    if index is None:
        return None
    deaths[index] += 1
    if deaths[index] < MAX_DEATHS:
        return None
    code = death.exit_code
    ending = f"{code} ({signal.Signals(-code).name})" if code < 0 else f"{code}"
    advice = "; probably out of memory: fewer --workers" if code == -signal.SIGKILL else ""
    return _Fault(f"killed three workers, last exit code {ending}{advice}", "")


def _pickled_task(task: Callable[[Item], Result]) -> bytes:
    try:
        return pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(f"workers import the function by its name, so it cannot be local: {error}") from error


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A process started in this block never sees Ctrl-C, from its first moment on; ours waits for the block's end."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(pipe: Connection) -> None:
    """The worker's side: the task, then items until told to stop; one answer for each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    if sys.platform == "linux":
        # PR_SET_PDEATHSIG: the listener alone would wait for native code that keeps the interpreter locked.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    task = _attempt(pickle.loads, inbox.get())
    pipe.send(task if isinstance(task, _Fault) else None)
    while message := inbox.get():
        item = _attempt(pickle.loads, message)
        pipe.send(item if isinstance(item, _Fault) else _attempt(task, item))


def _listen(pipe: Connection, inbox: SimpleQueue[bytes]) -> None:
    """Fill the inbox; when the pipe breaks the parent is dead, and so are we, whatever we are doing."""
    try:
        message = None
        while message != STOP:
            message = pipe.recv_bytes()
            inbox.put(message)
    except (EOFError, ConnectionResetError):
        os._exit(1)


def _attempt(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except BaseException as error:  # noqa: BLE001 (sent to the parent; nobody interrupts a worker but its own code)
        return _Fault(f"{type(error).__name__}: {error}", traceback.format_exc())
