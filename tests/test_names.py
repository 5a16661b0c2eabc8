"""Names that become files: paths are refused, letters are kept, and what is written is read back."""

from __future__ import annotations

import random

import pytest

from synthoma import names
from synthoma.cases import Case
from synthoma.datasets.layouts.msd import label_values as msd_labels
from synthoma.datasets.layouts.nnunet import label_values as nnunet_labels
from synthoma.errors import LayoutError, SynthomaError

PLAIN = (
    "liver_0",
    "Müller (2)",
    "患者 01",
    "_a",
    ".hidden",
    "-x",
    "a.b",
    "a b",
    "CASE",
    "case",
    "naïve",
    "%2E",
    "x" * 200,
)
PATHS = (
    "../x",
    "a/b",
    "/etc/passwd",
    "..",
    ".",
    "a\\b",
    "C:\\x",
    "c:x",
    "",
    "  ",
    "a\nb",
    "a\0b",
    "a\x7f",
    "\ud800",
    "ü" * 101,
)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_keep_their_letters(name: str) -> None:
    assert names.require_plain(name, "the id of a case") == name
    assert names.usable_name(name) == name


@pytest.mark.parametrize("name", PATHS)
def test_what_is_no_plain_name_is_refused_and_has_a_usable_one_beside_it(name: str) -> None:
    with pytest.raises(SynthomaError, match=r"^the id of a case (is|holds) .*expected a plain name"):
        names.require_plain(name, "the id of a case")
    assert names.require_plain(names.usable_name(name), "the name instead")


@pytest.mark.parametrize("value", [None, 3, ["a"], b"a"])
def test_what_is_no_text_is_no_name(value: object) -> None:
    with pytest.raises(SynthomaError, match="is no text"):
        names.require_plain(value, "a label")


def test_two_long_names_that_begin_alike_stay_two() -> None:
    assert names.usable_name("患" * 300 + "a") != names.usable_name("患" * 300 + "b")


def test_composed_and_decomposed_letters_are_one_name() -> None:
    assert names.usable_name("Mu\u0308ller") == "Müller"


def test_every_name_is_read_back_as_it_was_and_none_is_passed_over() -> None:
    rng = random.Random(0)
    odd = [
        ".x",
        "..x",
        "%2Ex",
        "%252Ex",
        "%25252E",
        "segmentations",
        "Manifest.parquet",
        "%6Danifest.parquet",
        "aux",
        "NUL.1",
    ]
    drawn = ["".join(rng.choices(".%25EeDd_aux_ct", k=rng.randint(1, 7))) for _ in range(5000)]
    plain = [name for name in (*PLAIN, *odd, *names.OURS, *drawn) if name.strip(".")]
    written = {name: names.file_name(name) for name in plain}
    assert all(names.name_of_file(file) == name for name, file in written.items())
    assert len(set(written.values())) == len(written)
    assert not any(names.is_junk(file) or file.lower() in names.OURS for file in written.values())


def test_ordinary_names_are_written_as_they_are() -> None:
    for name in ("liver_0", "BDMAP_00000001", "患者 01", "100% sure", "%zz", "_a", "Müller (2)"):
        assert names.file_name(name) == name


@pytest.mark.parametrize("name", ["../mine", "/mine", "a/../../b", "", "a\nb"])
def test_no_case_and_no_label_is_called_as_a_path(name: str) -> None:
    with pytest.raises(SynthomaError, match="the id of a case"):
        Case(name, lambda: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(SynthomaError, match="c1: the name of a structure"):
        Case("c1", lambda: None, {name: lambda: None})  # type: ignore[arg-type, return-value, dict-item]
    from pathlib import Path

    with pytest.raises(LayoutError, match="the name of a label"):
        nnunet_labels(Path("dataset.json"), {"background": 0, "liver": 1, name: 2}, "x")
    with pytest.raises(LayoutError, match="the name of a label"):
        msd_labels(Path("dataset.json"), {"0": "background", "1": "liver", "2": name}, "x")
