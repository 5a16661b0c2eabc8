"""Manifests and overlays that are damaged or hostile: a result, or one sentence; never a traceback, never gigabytes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthesis.patients import RECIPE, patient
from synthoma.errors import FileError, SynthomaError
from synthoma.synthesis.pipeline import Synthesis, insert_tumors
from synthoma.synthesis.store.manifest import read_manifest, rows_of, write_manifest
from synthoma.synthesis.store.overlay import lay_over, write_overlay
from synthoma.synthesis.store.rendered import replay_rows

CASE = patient("p")


@pytest.fixture(scope="module")
def done() -> Synthesis:
    return insert_tumors(CASE, RECIPE.with_changes(lesions=(1, 1), mass_effect_share=1.0), seed=2)


@pytest.fixture
def manifest(done: Synthesis, tmp_path: Path) -> Path:
    write_manifest(rows_of(done, RECIPE.organs), tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


@pytest.fixture
def overlay(done: Synthesis, tmp_path: Path) -> Path:
    write_overlay(done, rows_of(done, RECIPE.organs), tmp_path / "o.npz")
    return tmp_path / "o.npz"


def mutations(path: Path, seed: int, count: int) -> list[bytes]:
    """The file cut, with bytes changed, and with parts repeated."""
    rng, whole = np.random.default_rng(seed), path.read_bytes()
    mutants = []
    for number in range(count):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: int(rng.integers(len(data)))]
        elif number % 3 == 1:
            for at in rng.integers(0, len(data), int(rng.integers(1, 6))):
                data[at] = int(rng.integers(256))
        else:
            start, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
            data[start:start] = data[start : start + length]
        mutants.append(bytes(data))
    return mutants


def test_damaged_manifests_end_in_rows_or_a_sentence(manifest: Path) -> None:
    refused = 0
    for data in mutations(manifest, 0, 150):
        manifest.write_bytes(data)
        try:
            table = read_manifest(manifest)
            for case in table.cases:
                table.plans(case)
            list(table.tumors())
        except SynthomaError:
            refused += 1
    assert refused > 100


def test_damaged_overlays_end_in_the_same_tumors_or_a_sentence(overlay: Path, done: Synthesis) -> None:
    refused = 0
    for data in mutations(overlay, 1, 60):
        overlay.write_bytes(data)
        try:
            assert np.array_equal(lay_over(CASE.read_image(), overlay, "p").ct.data, done.ct.data)
        except SynthomaError:
            refused += 1
    assert refused > 30


def rewritten(path: Path, change: Callable[[Any], Any]) -> None:
    """The manifest with another table, its metadata kept."""
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def with_column(name: str, values: Any) -> Callable[[Any], Any]:
    def change(table: Any) -> Any:
        return table.set_column(table.column_names.index(name), name, pa.array(values * len(table)))

    return change


def first_plans(manifest: Path) -> Any:
    table = read_manifest(manifest)
    return table.plans(table.cases[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop_columns(["digest"]), "column digest: 0 columns of that name"),
        (lambda table: table.append_column("case", table["case"]), "column case: 2 columns of that name"),
        (with_column("seed", ["x"]), "column seed: string, expected int64"),
        (with_column("measured_equivalent_diameter_mm", ["x"]), "expected double"),
        (with_column("volume_mm3", [None]), "volume_mm3"),
        (with_column("details", ["{"]), "JSONDecodeError"),
        (with_column("details", ["[" * 100_000]), "damaged"),
        (lambda table: pa.concat_tables([table, with_column("case", ["q"])(table), table]), "rows of p come apart"),
        *[
            (with_column("case", [name]), "plain name")
            for name in ("../precious", "/etc", "a/b", "a\\b", "..", ".", "", "a\nb", "x" * 300, None)
        ],
    ],
)
def test_tables_that_were_changed_by_hand_are_refused(manifest: Path, change: Any, message: str) -> None:
    rewritten(manifest, change)
    with pytest.raises(SynthomaError, match=message):
        first_plans(manifest)


def test_a_table_larger_than_any_synthesis_is_refused_before_it_is_read(manifest: Path) -> None:
    rewritten(manifest, lambda table: pa.table({name: pa.repeat(table[name][0], 3_000_001) for name in ("case",)}))
    assert manifest.stat().st_size < 100_000
    with pytest.raises(FileError, match="too large for a manifest; found 3,000,001 rows"):
        read_manifest(manifest)


@pytest.mark.parametrize("key", ["__import__('os')", "os:abort", "subprocess:run", "no_such"])
def test_a_generator_that_a_manifest_names_is_not_imported(manifest: Path, key: str) -> None:
    rewritten(manifest, with_column("generator", [key]))
    table = read_manifest(manifest)
    with pytest.raises(SynthomaError, match="generator"):
        replay_rows(CASE, table.rows("p"))


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def array(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def claiming(shape: str) -> bytes:
    """An array whose header speaks of another shape than its data has."""
    return array(np.zeros(10, np.uint8)).replace(b"(10,)", shape.encode())


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("masks.npy", claiming("(9000000000,)")[:-10]),
        ("steps.npy", array(np.zeros(3, np.float64))),
        ("changed.npy", array(np.zeros(0, np.uint8))),
        ("masks.npy", array(np.array([{}], object))),
        ("header.npy", array(np.frombuffer(b"[" * 100_000, np.uint8))),
        ("header.npy", array(np.frombuffer(b'{"format": 2}', np.uint8))),
        ("steps.npy", b"no array"),
    ],
)
def test_overlays_with_wrong_arrays_are_refused(overlay: Path, name: str, data: bytes) -> None:
    packed(overlay, members(overlay) | {name: data})
    with pytest.raises(FileError):
        lay_over(CASE.read_image(), overlay, "p")


def test_an_overlay_of_gigabytes_is_refused_by_its_directory(overlay: Path) -> None:
    parts = members(overlay)
    with zipfile.ZipFile(overlay, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
        for number in range(2):
            archive.writestr(f"more{number}", bytes(600_000_000))
    with pytest.raises(FileError, match="more than"):
        lay_over(CASE.read_image(), overlay, "p")


@pytest.mark.parametrize(
    "change",
    [
        {"box": [[0, 0, 0], [10_000, 10_000, 10_000]]},
        {"box": [[-5, 0, 0], [5, 5, 5]]},
        {"changed": [[0, 0], [5, 5]]},
        {"changed": "anywhere"},
        {"plan": None},
        {"scores": [1]},
    ],
)
def test_overlays_with_wrong_rows_are_refused(overlay: Path, change: dict[str, Any]) -> None:
    parts = members(overlay)
    header = json.loads(np.load(io.BytesIO(parts["header.npy"])).tobytes())
    header["tumors"][0] |= change
    parts["header.npy"] = array(np.frombuffer(json.dumps(header).encode(), np.uint8))
    packed(overlay, parts)
    with pytest.raises(FileError, match="is damaged"):
        lay_over(CASE.read_image(), overlay, "p")
