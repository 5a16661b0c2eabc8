"""What all cases of a data set have, together: the findings of each, scans that recur, names that no command knows."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthoma import anatomy
from synthoma.datasets.catalog import Row
from synthoma.datasets.duplicates import Duplicate, find_duplicates, find_repeats
from synthoma.datasets.validation import CODES, Fault, Severity, ValidateRecipe, fault
from synthoma.engine.records import CaseRecord
from synthoma.errors import SynthomaError, without_folders


@dataclass(frozen=True)
class ValidationReport:
    """What all cases have, together. rows: for the catalog. findings: case and fault, by case."""

    rows: tuple[Row, ...]
    findings: tuple[tuple[str, Fault], ...]
    duplicates: tuple[Duplicate, ...]
    cases: int

    @property
    def ok(self) -> bool:
        """No fault; warnings may be."""
        return all(one.severity != "fault" for _, one in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by code, in the order of `CODES`."""
        counted = Counter(one.code for _, one in self.findings)
        return {code: counted[code] for code in CODES if counted[code]}

    def table(self, severity: Severity | None = None) -> list[dict[str, str]]:
        """A row of text per finding: case, severity, code, structure, found, expected, fix."""
        return [
            {"case": case, "severity": one.severity, **asdict(one)}
            for case, one in self.findings
            if severity in (None, one.severity)
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON data."""
        by_severity = Counter(one.severity for _, one in self.findings)
        return {
            "cases": self.cases,
            "faults": by_severity["fault"],
            "warnings": by_severity["warning"],
            "codes": self.counts(),
            "findings": self.table(),
            "duplicates": [pair._asdict() for pair in self.duplicates],
        }


_UNREAD = ("unreadable", "affine_broken")  # nobody can tell which masks such a case has


def summarise(
    records: Iterable[CaseRecord],
    recipe: ValidateRecipe | None = None,
    layout_faults: Iterable[SynthomaError] = (),
    advance: Callable[[int], None] | None = None,
    root: Path | None = None,
) -> ValidationReport:
    """The records of `check_case` over a data set, and what only shows when cases are compared.

    layout_faults: what the layout could not make a case of. A failed record is a fault of its case. advance: called
    with numbers of cases whose scans have been compared with all others. root: of the data set, from which files are
    named.
    """
    recipe = recipe or ValidateRecipe()
    rows: dict[str, Row] = {}
    findings: list[tuple[str, Fault]] = []
    broken: set[str] = set()
    for error in layout_faults:
        broken.add(error.case or "")
        text = without_folders(str(error).removeprefix(f"{error.case}: "), [] if root is None else [root])
        findings.append((error.case or "", fault("layout", "", text, fix=error.fix)))
    for record in records:
        if record.status == "failed":
            broken.add(record.case)
            findings.append((record.case, fault("crashed", "", record.error)))
            continue
        rows[record.case] = record.result["row"]
        findings += [(record.case, Fault(**one)) for one in record.result["faults"]]
    repeats, pairs = _duplicates(rows, recipe, advance)
    unread = {case for case, one in findings if one.code in _UNREAD and one.structure in ("", "masks")}
    findings += list(_of_names([row for case, row in rows.items() if case not in unread]))
    findings += [*_of_repeats(repeats, rows), *_of_duplicates(pairs, rows)]
    findings = [(case, one) for case, one in findings if one.code not in recipe.ignore]
    codes: dict[str, set[str]] = {}
    if "repeated" not in recipe.ignore:
        codes = {case: {"repeated"} for first, others in repeats.items() for case in (first, *others)}
    for case, one in findings:
        codes.setdefault(case, set()).add(one.code)
    marked = tuple(rows[case] | {"faults": sorted(codes.get(case, ()))} for case in sorted(rows))
    order = {code: place for place, code in enumerate(CODES)}
    findings.sort(key=lambda entry: (entry[0], order[entry[1].code], entry[1].structure))
    return ValidationReport(marked, tuple(findings), tuple(pairs), len(rows.keys() | broken))


def _duplicates(
    rows: Mapping[str, Row], recipe: ValidateRecipe, advance: Callable[[int], None] | None
) -> tuple[dict[str, list[str]], list[Duplicate]]:
    """Scans that recur among the cases of a patient, and pairs of different patients (first cases) with one scan."""
    if {"duplicate", "repeated"} <= set(recipe.ignore):
        return {}, []
    known = {case: base64.b64decode(row["fingerprint"]) for case, row in rows.items() if row["fingerprint"]}
    repeats = find_repeats({case: rows[case]["patient"] for case in known}, known, recipe.duplicates)
    copies = {case for others in repeats.values() for case in others}
    firsts = [case for case in known if case not in copies]
    if advance is not None:
        advance(len(rows) - len(firsts))
    return repeats, find_duplicates(firsts, [known[case] for case in firsts], recipe.duplicates, advance)


def _of_names(rows: Sequence[Row]) -> Iterator[tuple[str, Fault]]:
    """That there are no masks at all, and names that no command knows, all of them told once."""
    if rows and not any(row["structures"] or row["masks"] for row in rows):
        yield "", fault("no_masks", "", f"{len(rows)} scans", "masks of organs")
    unknown = sorted({name for row in rows for name in row["structures"] if not anatomy.is_known(name)})
    if unknown:
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        tumors = ", ".join(organ.lesion for organ in anatomy.ORGANS.values())
        yield "", fault("names_unknown", ", ".join(unknown[:8]) + more, f"{len(unknown)} names", f"organs, {tumors}")


def _of_repeats(repeats: Mapping[str, list[str]], rows: Mapping[str, Row]) -> Iterator[tuple[str, Fault]]:
    """All of them are told once: copies of a synthesis would fill pages."""
    if repeats:
        examples = [
            f"{', '.join([first, *others][:4])} of {rows[first]['patient']}" for first, others in repeats.items()
        ]
        cases = len(repeats) + sum(map(len, repeats.values()))
        more = f" and {len(examples) - 3} more" if len(examples) > 3 else ""
        found = f"{cases} cases share {len(repeats)} scans: {'; '.join(examples[:3])}{more}"
        yield "", fault("repeated", "", found, "one case a scan, or copies on purpose")


def _of_duplicates(pairs: Iterable[Duplicate], rows: Mapping[str, Row]) -> Iterator[tuple[str, Fault]]:
    """Each pair is told at both cases."""
    for pair in pairs:
        for case, other in ((pair.first, pair.second), (pair.second, pair.first)):
            whose = f" of {rows[other]['patient']}" if rows[other]["patient"] != other else ""
            yield (
                case,
                fault("duplicate", "", f"the scan of {other}{whose} (score {pair.score:.2f})", "a scan of its own"),
            )
