"""A model's card: how it was made and what it is bad at, kept in the model's file and shown as a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from synthoma.learning.models import Model
from synthoma.learning.networks import count_parameters
from synthoma.recipe import Recipe


class CardRecipe(Recipe):
    """What only who made a model can say of it.

    name: what it is called in the box. real_tumor_labels: how many labels of real tumors it was trained on. data: the
    cases it was trained on, by kind. made: the commands. hardware: what it was trained on, and how long. figures: what
    was measured, each with its number of cases and interval. limits: what it is bad at.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    real_tumor_labels: int = Field(0, ge=0)
    data: dict[str, str] = Field(min_length=1)
    made: tuple[str, ...] = Field(min_length=1)
    hardware: str = Field(min_length=1)
    figures: dict[str, str] = Field(min_length=1)
    limits: tuple[str, ...] = Field(min_length=1)


def with_card(model: Model, card: CardRecipe) -> Model:
    """The model with its card as its record; what its training wrote stands under `training`."""
    record: dict[str, Any] = {
        "name": card.name,
        "data": {**card.data, "real_tumor_labels": card.real_tumor_labels},
        "made": list(card.made),
        "hardware": card.hardware,
        "figures": dict(card.figures),
        "limits": list(card.limits),
        "training": model.record,
    }
    return replace(model, record=record)


def card_page(model: Model) -> str:
    """The card of a model that has one, with its classes and operating points, in Markdown."""
    spec, record = model.spec, model.record
    lines = [
        f"# {record['name']}",
        "",
        f"{', '.join(spec.classes)} at {spec.spacing_mm[0]:g} mm; {spec.network.name} of"
        f" {count_parameters(model.net):,} weights.",
        "",
        "| | |",
        "|---|---|",
        *(f"| data: {name} | {value} |" for name, value in record["data"].items()),
        *(f"| measured: {name} | {value} |" for name, value in record["figures"].items()),
        f"| hardware | {record['hardware']} |",
        "",
    ]
    if spec.calibration:
        lines += [
            f"Operating points, chosen on {spec.calibration.data}:",
            "",
            "| `sensitivity` | false lesions a scan | lesions found | thresholds |",
            "|---|---|---|---|",
        ]
        for level, point in spec.calibration.points.items():
            cuts = ", ".join(f"{name} {value:.2f}" for name, value in point.thresholds.items())
            lines.append(f"| `{level}` | {point.false_per_scan:.2f} | {point.sensitivity:.0%} | {cuts} |")
        lines.append("")
    lines += ["What it is bad at:", "", *(f"- {limit}" for limit in record["limits"]), "", "Made by:", "", "```"]
    return "\n".join([*lines, *record["made"], "```", ""])
