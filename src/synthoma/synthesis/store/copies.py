"""Several synthetic cases from one scan: each copy is a case with an id of its own and the patient of its scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from synthoma.cases import Case
from synthoma.errors import RecipeError

COPY_OF = "copy_of"  # the attribute of a copy that names the case it was made from


def copies_of(cases: Sequence[Case], count: int) -> list[Case]:
    """Each case `count` times, one after the other: CASE, CASE_copy02, CASE_copy03, ...

    The first keeps its id, so that more copies later leave the first ones as they are. Tumors are drawn by id: each
    copy gets others. Raises `RecipeError` for a count below 1, and where a copy's id is that of another case.
    """
    if count < 1:
        raise RecipeError(f"{count} copies of a case", expected="1 or more")
    made = {case.id: [as_copy(case, copy_id(case.id, number)) for number in range(2, count + 1)] for case in cases}
    if taken := sorted(copy.id for copies in made.values() for copy in copies if copy.id in made):
        raise RecipeError(
            f"{len(taken)} copies would have the id of another case of the data set",
            found=taken[0],
            fix="synthesize from the healthy scans alone",
        )
    return [each for case in cases for each in (case, *made[case.id])]


def copy_id(case: str, number: int) -> str:
    """The id of copy 2, 3, ... of a case."""
    return f"{case}_copy{number:02d}"


def as_copy(case: Case, identity: str) -> Case:
    """The same scan and masks of the same patient, as a case of another id."""
    attributes = {**case.attributes, COPY_OF: source_of(case)}
    return dataclasses.replace(case, id=identity, patient=case.patient, attributes=attributes)


def source_of(case: Case) -> str:
    """The id of the case that this one is a copy of; its own if it is none."""
    return str(case.attributes.get(COPY_OF, case.id))
