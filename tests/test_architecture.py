"""The house rules: floors, no cycles, docstrings, short modules, heavy libraries in their rooms only."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "synthoma"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A room's floor; imports go down only. What is not listed is a fault: say where a new room belongs.
FLOORS = {
    "errors": 0, "seeds": 0, "extras": 0, "disk": 0, "names": 0, "recipe": 0, "resampling": 0, "volume": 0,
    "components": 0, "bounded": 0,
    "orientation": 0, "hounsfield": 0,
    "recipe_text": 0,
    "formats": 1, "anatomy": 1, "tables": 1,
    "files": 2, "runs": 2, "inputs": 2, "statistics": 2, "degradation": 2,
    "cases": 3,
    "slices": 4, "pictures": 5,
    "engine": 6,
    "datasets": 7,
    "phantom": 8, "learning": 8, "reports": 8,
    "synthesis": 9, "segmentation": 9, "evaluation": 9, "measurement": 9,
    "reading": 10,
    "training": 11, "followup": 11,
    "scaling": 12, "review": 12, "realism": 12, "trials": 12, "integrations": 12,
    "commands": 13,
    "cli": 14, "__main__": 15,
}  # fmt: skip
GROUND = 0  # its rooms may use each other, without cycles
ROOMS = {
    "torch": ("learning", "segmentation", "synthesis.generators", "synthesis.on_device", "training", "integrations"),
    "monai": ("learning", "segmentation", "synthesis.generators", "integrations"),
    "torchio": ("integrations",),
    "nnunetv2": ("integrations",),
    "batchgenerators": ("integrations",),
    "dask": ("engine.clusters",),
    "distributed": ("engine.clusters",),
    "starlette": ("review",),
    "uvicorn": ("review",),
    "jinja2": ("review",),
    "pydicom": ("formats",),
    "highdicom": ("formats",),
    "SimpleITK": ("formats",),
    "nibabel": ("formats",),
    "typer": ("cli",),
    "numba": ("synthesis.kernels",),
}
TABLES = {"anatomy.py"}
LONGEST = 400
SCREEN = 65  # lines of a function without its docstring
# a training loop may be longer, if it reads from top to bottom
LOOPS = dict.fromkeys(("train.py", "diffusion.py", "adversarial.py"), 120)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__").replace("__init__", "")


def room_of(module: str) -> str:
    return module.split(".")[0]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Dotted names imported, inside functions too, but not under TYPE_CHECKING."""
    tree = tree_of(path)
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


KNOWN = {name_of(module): module for module in MODULES}


@cache
def ours(path: Path) -> frozenset[str]:
    """Modules of ours that a module imports."""
    found = set()
    for name in imports_of(path):
        if name.split(".")[0] == "synthoma":
            inner = name.removeprefix("synthoma").removeprefix(".")
            while inner and inner not in KNOWN:
                inner = inner.rpartition(".")[0]
            if inner:
                found.add(inner)
    return frozenset(found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_down_only(path: Path) -> None:
    module = name_of(path)
    if not module:
        return  # the front door names what lies behind it
    room = room_of(module)
    assert room in FLOORS, f"{module}: no floor is written down for {room}"
    for other in ours(path):
        target = room_of(other)
        if target == room:
            continue
        assert FLOORS[target] < FLOORS[room] or FLOORS[target] == FLOORS[room] == GROUND, f"{module} imports {other}"


def test_no_module_imports_itself_by_a_detour() -> None:
    edges = {name_of(path): ours(path) - {name_of(path)} for path in MODULES if name_of(path)}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in edges.get(module, ()):
                walk(other, (*path, module))
            done.add(module)

    for module in edges:
        walk(module, ())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)), path


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_public_function_and_class_says_what_it_gives(path: Path) -> None:
    kinds = (ast.FunctionDef, ast.ClassDef)
    silent = [
        node.name
        for node in tree_of(path).body
        if isinstance(node, kinds) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent, f"{path}: {silent}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_short_and_their_functions_fit_a_screen(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert path.name in TABLES or len(lines) <= LONGEST, f"{path.name} has {len(lines)} lines"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            docstring = len((ast.get_docstring(node) or "").splitlines())
            assert length - docstring <= LOOPS.get(path.name, SCREEN), f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    module = name_of(path)
    for name in imports_of(path):
        rooms = ROOMS.get(name.split(".")[0])
        assert rooms is None or module.startswith(rooms), f"{module} imports {name}; its rooms are {rooms}"


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE], ids=name_of
)
def test_folders_hold_no_code_of_their_own(path: Path) -> None:
    assert len(tree_of(path).body) == 1


def test_importing_synthoma_is_cheap() -> None:
    import subprocess
    import sys

    heavy = {"torch", "scipy", "pydantic", "nibabel", "cv2", "numba"}
    code = f"import synthoma, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_in_the_project_points_out_of_it() -> None:
    allowed = {"tests/conftest.py", "benchmarks/data.py", "tests/test_architecture.py"}
    outside = ".." + "/shared"
    for folder in ("src", "tests", "benchmarks", "docs"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".md", ".toml"} and str(path.relative_to(ROOT)) not in allowed:
                assert outside not in path.read_text(encoding="utf-8"), path


def test_natural_and_synthetic_tumors_share_no_code() -> None:
    """The in-silico cohort's tumors and those of `synthesis` may meet in plain data and arrays only."""
    neutral = {"errors", "seeds", "extras", "disk", "recipe", "resampling", "volume", "anatomy", "cases", "files"}
    for path in MODULES:
        module = name_of(path)
        if module.startswith(("phantom.anatomy", "phantom.disease")):
            reached = {name for name in ours(path) if not name.startswith("phantom")}
            assert {room_of(name) for name in reached} <= neutral, module
        if room_of(module) == "synthesis":
            assert not {name for name in ours(path) if room_of(name) == "phantom"}, module
    # the priors of tumors that synthesis draws from are tables of anatomy; the cohort knows structures and phases only
    for path in (PACKAGE / "phantom").rglob("*.py"):
        taken = {name for name in imports_of(path) if name.startswith("synthoma.anatomy.")}
        assert taken <= {f"synthoma.anatomy.{name}" for name in ("STRUCTURES", "PHASES", "ORGANS")}, path.name


def test_no_two_tests_have_one_name() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted({name for name in names if names.count(name) > 1} - {"conftest.py"}) == []  # pytest imports by name


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_import_what_there_is(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("synthoma")):
            continue
        module = (node.module or "").removeprefix("synthoma").removeprefix(".")
        assert module in KNOWN, f"{path.name}: {node.module}"
        text = KNOWN[module].read_text(encoding="utf-8")
        for alias in node.names:
            inside = f"{module}.{alias.name}".removeprefix(".") in KNOWN or re.search(rf"\b{alias.name}\b", text)
            assert inside, f"{path.name}: {node.module}.{alias.name}"
