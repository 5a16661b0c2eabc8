"""Dask clusters: on this machine, by address, and through a queue whose commands are stand-ins."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from synthoma.engine import clusters
from synthoma.engine.clusters import ClusterRecipe, run_on_cluster
from synthoma.errors import RecipeError, RunError
from synthoma.recipe import read_recipe

distributed = pytest.importorskip("distributed", reason="the extra cluster is not installed")

RECIPES = Path(__file__).parents[2] / "src" / "synthoma" / "recipes" / "cluster"


def die_if_told(item: tuple[str, str]) -> str:
    """`always` kills each worker that tries it, `once` the first one (which it remembers on disk)."""
    name, place = item
    if name == "always" or (name == "once" and not Path(place).exists()):
        Path(place).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"{name}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}"


def say_why(item: Any, sentence: str, trace: str) -> str:
    return sentence


def test_a_local_cluster_replaces_killed_workers_and_gives_up_on_the_case_that_killed_three(tmp_path: Path) -> None:
    names = ["a", "once", "b", "always", "c"]
    items = [(name, str(tmp_path / name)) for name in names]
    outcome = dict(run_on_cluster(die_if_told, items, ClusterRecipe(workers=2, memory_gb=1), say_why))
    assert outcome.pop(3).startswith("killed 3 workers of the cluster")
    done = {index for index, result in outcome.items() if result == f"{names[index]}, OMP_NUM_THREADS=1"}
    assert outcome.keys() == {0, 1, 2, 4}
    # on a busy machine Dask can blame one bystander even in its second trial; it is tried again on resume
    assert len(done) >= 3


def hang_if_told(item: str) -> str:
    if item == "hang":
        time.sleep(1e6)
    return item


def test_a_case_that_hangs_on_a_cluster_is_ended_and_the_others_are_done() -> None:
    recipe = ClusterRecipe(workers=1, memory_gb=1, timeout_s=5)
    outcome = dict(run_on_cluster(hang_if_told, ["hang", "a", "b"], recipe, say_why))
    assert outcome == {0: "ended after 5 s, the time that a case has (--timeout)", 1: "a", 2: "b"}


class Scheduler:
    """A stand-in for a client of Dask with one worker: does batches at once, `kill` and `hang` as Dask tells them."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.canceled: list[Any] = []
        self.restarted = 0

    def nthreads(self) -> dict[str, int]:
        return {"worker": 1}

    def submit(self, do: Any, task: Any, items: list[str], pure: bool) -> Any:
        self.batches.append(items)
        if "hang" in items:
            return Done(len(self.batches), "pending", None)
        if "kill" in items:
            return Done(len(self.batches), "error", distributed.KilledWorker("a", "worker", 2))
        return Done(len(self.batches), "finished", do(task, items))

    def processing(self) -> dict[str, list[str]]:
        return {"worker": [str(len(self.batches))]}

    def cancel(self, futures: list[Any]) -> None:
        self.canceled += futures

    def restart_workers(self, workers: list[str], **_: Any) -> dict[str, str]:
        self.restarted += 1
        return dict.fromkeys(workers, "OK")


class Done:
    def __init__(self, number: int, status: str, outcome: Any) -> None:
        self.key, self.status, self._outcome = str(number), status, outcome

    def add_done_callback(self, tell: Any) -> None:
        if self.status != "pending":
            tell(self)

    def exception(self) -> Any:
        return self._outcome

    def result(self) -> Any:
        if self.status == "error":
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        ("kill", "killed 3 workers of the cluster; probably out of memory: more memory_gb"),
        ("hang", "ended after 0.1 s, the time that a case has (--timeout)"),
    ],
)
def test_a_quick_case_that_dies_or_hangs_takes_its_batch_along_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch, fate: str, told: str
) -> None:
    scheduler = Scheduler()
    monkeypatch.setattr(clusters, "_connect", lambda cluster: nullcontext(scheduler))
    monkeypatch.setattr(clusters, "REFRESH_S", 0.05)
    names = [f"quick{number}" for number in range(200)]
    names[100] = fate
    outcome = list(run_on_cluster(str, names, "tcp://", say_why, timeout_s=0.1))
    assert sorted(outcome) == [(index, told if name == fate else name) for index, name in enumerate(names)]
    taken = [batch for batch in scheduler.batches if fate in batch]
    assert len(taken[0]) > 1
    assert taken[1:] == [[fate]], "alone the second time"
    assert scheduler.restarted == len(scheduler.canceled) == (2 if fate == "hang" else 0)


def test_a_scheduler_is_used_by_its_address_and_left_running() -> None:
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        for _ in range(2):
            outcome = dict(run_on_cluster(str, range(20), cluster.scheduler_address, say_why))
            assert outcome == {number: str(number) for number in range(20)}


def test_no_more_cases_are_submitted_than_workers_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    submit = distributed.Client.submit

    def counting(self: Any, *arguments: Any, **settings: Any) -> Any:
        nonlocal most
        most = max(most, len(self.futures) + 1)
        return submit(self, *arguments, **settings)

    monkeypatch.setattr(distributed.Client, "submit", counting)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=3, processes=False, protocol="tcp", host="127.0.0.1", dashboard_address=None
    ) as cluster:
        assert len(list(run_on_cluster(str, range(100), cluster.scheduler_address, say_why))) == 100
    assert 3 <= most <= 3 + 2  # a finished future may not be forgotten yet


def test_an_address_where_nobody_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "CONNECT_S", 0.5)
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        next(run_on_cluster(str, [1], "tcp://127.0.0.1:9", say_why))


def test_slurm_jobs_are_submitted_and_run_the_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, body in {
        "sbatch": f"""cd {tmp_path}; cp "$1" job.sh; setsid bash job.sh >job.log 2>&1 &
                      echo "Submitted batch job $!" """,
        "scancel": 'kill -- "-$1"',
    }.items():
        (commands / name).write_text(f"#!/bin/bash\n{body}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    recipe = ClusterRecipe(
        kind="slurm",
        workers=2,
        workers_per_job=2,
        memory_gb=0.5,
        queue="cpu",
        account="radiology",
        interface="lo",
        prologue=(f"cd {shlex.quote(str(tmp_path))}",),
        directives=("--constraint=avx2",),
    )
    items = [("a", ""), ("b", ""), ("c", "")]
    outcome = dict(run_on_cluster(die_if_told, items, recipe, say_why))
    assert outcome == {index: f"{name}, OMP_NUM_THREADS=1" for index, (name, _) in enumerate(items)}
    job = (tmp_path / "job.sh").read_text()
    for line in ("-p cpu", "-A radiology", "-t 24:00:00", "--constraint=avx2", "--cpus-per-task=2", "--mem=954M"):
        assert f"#SBATCH {line}\n" in job
    assert "export OPENCV_FOR_THREADS_NUM=1" in job
    assert "--nworkers 2" in job
    assert sys.executable in job


def test_no_items_start_no_cluster() -> None:
    assert list(run_on_cluster(str, [], "tcp://127.0.0.1:9", say_why)) == []


@pytest.mark.parametrize(("kind", "command"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_a_machine_that_cannot_submit_says_so(kind: str, command: str) -> None:
    with pytest.raises(RunError, match=f"{command} is not on this machine"):
        next(run_on_cluster(str, [1], read_recipe(ClusterRecipe, RECIPES / f"{kind}.toml"), say_why))


def test_kubernetes_pods_get_one_thread_their_memory_and_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def make_cluster_spec(**settings: Any) -> dict[str, Any]:
        asked.update(settings)
        return {"spec": {"worker": {"spec": {"containers": [{}]}}}}

    stand_in = SimpleNamespace(make_cluster_spec=make_cluster_spec, KubeCluster=lambda **settings: settings)
    monkeypatch.setitem(sys.modules, "dask_kubernetes", SimpleNamespace(operator=stand_in))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", stand_in)
    deployed = clusters._START["kubernetes"](read_recipe(ClusterRecipe, RECIPES / "kubernetes.toml"))
    assert asked["resources"]["limits"] == {"cpu": "1", "memory": "4.0G"}
    assert asked["env"]["OMP_NUM_THREADS"] == "1"
    pod = deployed["custom_cluster_spec"]["spec"]["worker"]["spec"]  # type: ignore[index]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "scans"}
    assert pod["containers"][0]["volumeMounts"][0]["mountPath"] == "/data"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_we_ship_are_read(path: Path) -> None:
    assert read_recipe(ClusterRecipe, path).kind == path.stem


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (['kind="local"', 'queue="cpu"'], "queue mean nothing to kind = 'local'"),
        (['kind="kubernetes"'], "needs an image"),
        (['kind="lsf"'], "'local', 'slurm', 'pbs' or 'kubernetes'"),
        (["workers=0"], "greater than or equal to 1"),
    ],
)
def test_a_cluster_recipe_that_makes_no_sense_is_refused(settings: list[str], fault: str) -> None:
    with pytest.raises(RecipeError, match=fault):
        read_recipe(ClusterRecipe, overrides=settings)
