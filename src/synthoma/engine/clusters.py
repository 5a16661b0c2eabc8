"""Dask clusters: where cases run when one machine is not enough."""

from __future__ import annotations

import logging
import shutil
import time
import traceback
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from synthoma.engine.batches import Batches, do_batch
from synthoma.engine.processes import MAX_DEATHS, ONE_THREAD, TOO_LONG
from synthoma.errors import RunError
from synthoma.extras import need
from synthoma.recipe import Recipe

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_S = 20.0
REFRESH_S = 1.0
WARN_S = 60.0
RESTART_S = 60.0

SUBMIT_COMMANDS = {"slurm": "sbatch", "pbs": "qsub"}
log = logging.getLogger(__name__)

_QUEUED = ("queue", "account", "walltime", "workers_per_job", "interface", "directives", "prologue")
# kind -> the settings that mean something to it, besides workers, memory_gb and timeout_s
SETTINGS = {
    "local": (),
    "slurm": _QUEUED,
    "pbs": _QUEUED,
    "kubernetes": ("image", "namespace", "volume_claim", "mount"),
}


class ClusterRecipe(Recipe):
    """Workers on another machine, or on many; each is one process that runs one case at a time with one thread.

    memory_gb: of one worker; one that exceeds it is killed and replaced. timeout_s: seconds that a case may take, as
    `--timeout` says it. directives: lines for the scheduler
    (`--gres=gpu:1`); prologue: shell lines before a worker starts (`source .venv/bin/activate`). interface: the
    network that nodes share (`ib0`). image: a container that holds synthoma. volume_claim, mount: the claim with
    the data and where it appears in a worker. Folders must have the same path on every worker.
    kind: what starts the workers. workers: how many in all. queue, account, walltime: as the scheduler has them.
    workers_per_job: share one job's memory and cores. prologue: shell lines before a worker starts. namespace: of
    Kubernetes.
    """

    kind: Literal["local", "slurm", "pbs", "kubernetes"] = "local"
    workers: int = Field(2, ge=1)
    memory_gb: float = Field(4.0, gt=0)
    timeout_s: float | None = Field(None, gt=0)
    queue: str | None = None
    account: str | None = None
    walltime: str = "24:00:00"
    workers_per_job: int = Field(1, ge=1)
    interface: str | None = None
    directives: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    image: str | None = None
    namespace: str | None = None
    volume_claim: str | None = None
    mount: str = "/data"

    @model_validator(mode="after")
    def _every_setting_counts(self) -> Self:
        known = {"kind", "workers", "memory_gb", "timeout_s", *SETTINGS[self.kind]}
        idle = sorted(self.model_fields_set - known)
        if idle:
            raise ValueError(f"{', '.join(idle)} mean nothing to kind = {self.kind!r}")
        if self.kind == "kubernetes" and self.image is None:
            raise ValueError("kind = 'kubernetes' needs an image that holds synthoma")
        return self


def run_on_cluster(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    cluster: str | ClusterRecipe,
    lost: Callable[[Item, str, str], Result],
    timeout_s: float | None = None,
) -> Generator[tuple[int, Result], None, None]:
    """The index and the result of every item, as they finish, from a Dask cluster.

    cluster: the address of a scheduler (`tcp://host:8786`), or a recipe for a cluster that lives as long as this
    call. One batch per worker thread is submitted at a time, so that the scheduler stays small with a million of
    items; a batch is a single item, or more of those that take milliseconds. Dask blames everything on a worker that
    dies, so what is blamed for three deaths is tried once more, each item alone, before it is `lost` (see
    `processes.run_on_processes`). timeout_s, or else the recipe's: an item that a worker has had for longer (to the
    second) is lost, and the worker is restarted, if it has a nanny. Raises
    `RunError` if there is no scheduler, or it goes away. No items start no cluster.
    """
    if not items:
        return
    least = 1
    if isinstance(cluster, ClusterRecipe):
        least, timeout_s = cluster.workers, timeout_s or cluster.timeout_s
    with _connect(cluster) as client:
        suspects: list[int] = []
        for batch, future in _finished(client, task, items, Batches(range(len(items))), least, timeout_s):
            if future is None and len(batch) == 1:
                yield batch[0], lost(items[batch[0]], TOO_LONG.format(timeout_s), "")
            elif future is None or _blamed(future) or (future.status == "error" and len(batch) > 1):
                suspects += batch
            else:
                yield from _outcomes(future, batch, items, lost)
        for suspect in suspects:
            for batch, future in _finished(client, task, items, Batches([suspect]), least, timeout_s):
                if future is None:
                    yield suspect, lost(items[suspect], TOO_LONG.format(timeout_s), "")
                else:
                    yield from _outcomes(future, batch, items, lost)


def _finished(
    client: Any,
    task: Callable[[Item], Result],
    items: Sequence[Item],
    batches: Batches,
    least: int,
    timeout_s: float | None,
) -> Iterator[tuple[list[int], Any]]:
    """Each batch and its finished future, None if its time ran out; as many submitted as threads, or `least`."""
    finished: SimpleQueue[Any] = SimpleQueue()
    submitted: dict[Any, list[int]] = {}
    room, looked, warned = least, -REFRESH_S, time.monotonic()
    begun: dict[str, float] = {}
    while True:
        if time.monotonic() - looked >= REFRESH_S:
            threads, looked = sum(client.nthreads().values()), time.monotonic()
            room = max(threads, least)
            if not threads and looked - warned >= WARN_S:
                warned = looked
                log.warning("the cluster has no worker; its queue and the logs of its jobs may say why")
            if timeout_s is not None:
                for future in _end_overdue(client, submitted, begun, timeout_s):
                    yield submitted.pop(future), None
        while len(submitted) < room and (batch := batches.next(room)):
            future = client.submit(do_batch, task, [items[index] for index in batch], pure=False)
            submitted[future] = batch
            future.add_done_callback(finished.put)
        if not submitted:
            return
        with suppress(Empty):  # after a second without news, look whether workers have joined
            future = finished.get(timeout=REFRESH_S)
            if future in submitted:  # what was ended for its time finishes as well, canceled
                batch = submitted.pop(future)
                if future.status == "finished":
                    batches.learn(future.result()[0], len(batch))
                yield batch, future


def _end_overdue(client: Any, submitted: Iterable[Any], begun: dict[str, float], timeout_s: float) -> list[Any]:
    """The futures that a worker has had for too long, canceled, the worker restarted. begun: key -> since when."""
    now = time.monotonic()
    workers = {str(key): worker for worker, keys in client.processing().items() for key in keys}
    for key in workers:
        begun.setdefault(key, now)
    over = [future for future in submitted if str(future.key) in workers and now - begun[str(future.key)] >= timeout_s]
    client.cancel(over)
    stuck = sorted({workers[str(future.key)] for future in over})
    if stuck:
        answers = client.restart_workers(stuck, timeout=RESTART_S, raise_for_error=False)
        for worker in (worker for worker, answer in answers.items() if answer != "OK"):
            log.warning("%s cannot be restarted and stays with its case; start workers with a nanny", worker)
    return over


def _blamed(future: Any) -> bool:
    killed = need("distributed", "cluster").KilledWorker
    return future.status == "error" and isinstance(future.exception(), killed)


def _outcomes(
    future: Any, batch: list[int], items: Sequence[Item], lost: Callable[[Item, str, str], Result]
) -> Iterator[tuple[int, Result]]:
    distributed = need("distributed", "cluster")
    try:
        results: list[Result] = future.result()[1]
    except distributed.KilledWorker as error:
        deaths = error.allowed_failures + 1
        sentence, trace = f"killed {deaths} workers of the cluster; probably out of memory: more memory_gb", ""
    except distributed.CancelledError as error:
        raise RunError("the Dask scheduler went away", fix="the same command goes on where this one stopped") from error
    except Exception as error:  # noqa: BLE001 (the task itself never raises: the worker could not load it)
        sentence, trace = f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error))
    else:
        yield from zip(batch, results, strict=True)
        return
    yield from ((index, lost(items[index], sentence, trace)) for index in batch)


@contextmanager
def _connect(cluster: str | ClusterRecipe) -> Iterator[Any]:
    distributed = need("distributed", "cluster")
    if isinstance(cluster, str):
        try:
            client = distributed.Client(cluster, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            raise RunError(
                f"no Dask scheduler answers at {cluster}", found=str(error), fix="start one (`dask scheduler`)"
            ) from error
        with client:
            yield client
        return
    settings = {"distributed.scheduler.allowed-failures": MAX_DEATHS - 1}
    settings |= {f"distributed.nanny.pre-spawn-environ.{name}": int(value) for name, value in ONE_THREAD.items()}
    with (
        need("dask", "cluster").config.set(settings),
        _START[cluster.kind](cluster) as deployed,
        distributed.Client(deployed) as client,
    ):
        yield client


def _local(recipe: ClusterRecipe) -> Any:
    # The scheduler asks nobody who they are, so it listens to this machine only.
    return need("distributed", "cluster").LocalCluster(
        n_workers=recipe.workers,
        threads_per_worker=1,
        memory_limit=f"{recipe.memory_gb}GB",
        host="127.0.0.1",
        dashboard_address=None,
    )


def _queued(recipe: ClusterRecipe) -> Any:
    command = SUBMIT_COMMANDS[recipe.kind]
    if shutil.which(command) is None:
        raise RunError(f"{command} is not on this machine", fix="start from a node that submits jobs")
    jobqueue = need("dask_jobqueue", "cluster")
    kind = {"slurm": "SLURMCluster", "pbs": "PBSCluster"}[recipe.kind]
    return getattr(jobqueue, kind)(
        n_workers=recipe.workers,
        queue=recipe.queue,
        account=recipe.account,
        walltime=recipe.walltime,
        cores=recipe.workers_per_job,
        processes=recipe.workers_per_job,
        memory=f"{recipe.memory_gb * recipe.workers_per_job}GB",
        interface=recipe.interface,
        job_extra_directives=list(recipe.directives),
        job_script_prologue=[*(f"export {name}={value}" for name, value in ONE_THREAD.items()), *recipe.prologue],
        scheduler_options={"dashboard_address": None},
    )


def _kubernetes(recipe: ClusterRecipe) -> Any:
    operator = need("dask_kubernetes.operator", "kubernetes")
    amount = {"cpu": "1", "memory": f"{recipe.memory_gb}G"}
    spec = operator.make_cluster_spec(
        name=f"synthoma-{uuid.uuid4().hex[:8]}",
        image=recipe.image,
        n_workers=recipe.workers,
        resources={"requests": amount, "limits": amount},
        # The scheduler is a pod of its own, out of reach of the settings of this process.
        env={"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": str(MAX_DEATHS - 1), **ONE_THREAD},
        worker_command=["dask", "worker", "--nthreads", "1"],
    )
    if recipe.volume_claim:
        pod = spec["spec"]["worker"]["spec"]
        pod["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": recipe.volume_claim}}]
        pod["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": recipe.mount}]
    return operator.KubeCluster(custom_cluster_spec=spec, namespace=recipe.namespace)


_START: dict[str, Callable[[ClusterRecipe], AbstractContextManager[Any]]] = {
    "local": _local,
    "slurm": _queued,
    "pbs": _queued,
    "kubernetes": _kubernetes,
}
