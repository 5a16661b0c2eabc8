"""What is published: metadata, the README on a package index, the citation."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import synthoma

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """hatch_build.py, without hatchling."""
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    interface = ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def test_the_readme_of_an_index_leads_to_the_repository(hook: ModuleType) -> None:
    text = hook.for_index(README, "https://host/owner/synthoma", "v1.2.3")
    assert "(https://host/owner/synthoma/raw/v1.2.3/docs/pictures/gallery.png)" in text
    assert "(https://host/owner/synthoma/blob/v1.2.3/docs/synthesis.md)" in text
    assert all(target.startswith("https://") for target in targets(text))


def test_the_readme_of_an_index_without_a_repository_has_nothing_broken(hook: ModuleType) -> None:
    text = hook.for_index(README, "", "v1.2.3")
    assert [target for target in targets(text) if not target.startswith("https://")] == []
    assert "*Picture: One synthetic tumor in each of six organs" in text


def test_the_package_names_its_repository_only_if_told(hook: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    made = hook.ReadmeOfPackage()
    made.root = str(ROOT)
    monkeypatch.delenv("SYNTHOMA_URL", raising=False)
    metadata = {"version": "1.2.3"}
    made.update(metadata)
    assert metadata["urls"] == {}
    monkeypatch.setenv("SYNTHOMA_URL", "https://host/owner/synthoma/")
    made.update(metadata)
    assert metadata["urls"]["Repository"] == "https://host/owner/synthoma"


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # those that the format requires
    assert citation["version"] == PROJECT["version"] == synthoma.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_pythons_that_are_named_are_those_that_are_allowed() -> None:
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert named == ["3.11", "3.12", "3.13"]  # a version is added once `.ci/pythons` has passed on it
    assert PROJECT["requires-python"] == f">={named[0]}"
    assert f"versions=${{*:-{named[0]} " in (ROOT / ".ci/pythons").read_text(encoding="utf-8")


def brought_by(extra: str) -> set[str]:
    """Names of all distributions that `pip install synthoma[EXTRA]` installs, as far as they are here."""
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]
    names: set[str] = set()
    while asked:
        requirement = Requirement(asked.pop())
        name = canonicalize_name(requirement.name)
        if name in names or not (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            asked += metadata.requires(name) or []
            names.add(name)
    return names


def test_learned_generators_need_nothing_that_the_extra_train_does_not_bring() -> None:
    brought = brought_by("train")
    assert {"torch", "monai", "numpy"} <= brought
    homes = metadata.packages_distributions()
    others = {top for top, of in homes.items() if not brought & {canonicalize_name(name) for name in of}}
    others -= {"synthoma", *sys.stdlib_module_names}
    assert {"sklearn", "pytest"} <= others
    code = """
        import sys

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in others:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        others = set(sys.argv[1].split())
        sys.meta_path.insert(0, Absent())
        from synthoma.synthesis.generators.loading import generators_in_the_box, open_generator

        for name in generators_in_the_box():
            print(name, len(open_generator(name).model.spec.organs) > 0)
    """
    told = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), " ".join(others)], capture_output=True, text=True, check=False
    )
    assert told.stdout.split() == ["adversarial-small", "True", "diffusion-small", "True"], told.stderr
