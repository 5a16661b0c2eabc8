"""The findings of a patient as a radiologist would write them: sentences from templates, every number from the mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthoma.measurement.response import CATEGORIES

_ISODENSE_HU = 10.0


def describe(result: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """A heading and its sentences for each scan of a patient, then for the comparison over dates.

    result: of `patient.measure_patient`.
    """
    parts = []
    for case, day in zip(result["cases"], result["days"], strict=True):
        lesions = [lesion for lesion in result["lesions"] if lesion["case"] == case]
        title = case if day is None or len(result["cases"]) == 1 else f"{case}, day {day:g}"
        parts.append((title, [describe_lesion(lesion) for lesion in lesions] or ["No lesion."]))
    if result["response"]:
        parts.append(("Over time", [*_growth(result), *_responses(result)]))
    if result["notes"]:
        parts.append(("Notes", [f"{note}." for note in result["notes"]]))
    return parts


def describe_lesion(lesion: Mapping[str, Any]) -> str:
    """One lesion in a sentence or two. lesion: a row of `measure_patient`."""
    where = f"{lesion['organ'].capitalize()}, {lesion['part']}" if lesion["part"] else lesion["organ"].capitalize()
    text = (
        f"{where}: lesion {lesion['lesion']}, {lesion['longest_mm']:.0f} x {lesion['perpendicular_mm']:.0f} mm"
        f" (slice {lesion['slice_index']}), {_ml(lesion['volume_ml'])}, {_density(lesion)}."
    )
    surface, vessel = lesion["surface_mm"], lesion["vessel_mm"]
    if surface is not None:
        reaches = f"It reaches the surface of the {lesion['organ']}"
        text += f" {reaches}." if surface < 0.5 else f" It lies {surface:.0f} mm below the surface."
    if vessel is not None:
        name = lesion["vessel"].replace("_", " ")
        text += (
            f" It touches the {name}." if vessel < 0.5 else f" The nearest vessel is the {name}, {vessel:.0f} mm away."
        )
    return text


def _ml(volume: float) -> str:
    return f"{volume:.1f} ml" if volume >= 0.95 else f"{volume:.2f} ml"


def _density(lesion: Mapping[str, Any]) -> str:
    contrast, mean = lesion["contrast_hu"], f"{lesion['mean_hu']:.0f} HU"
    if contrast is None:
        return mean
    if abs(contrast) < _ISODENSE_HU:
        return f"isodense ({mean})"
    kind, side = ("hypodense", "below") if contrast < 0 else ("hyperdense", "above")
    return f"{kind} ({mean}, {abs(contrast):.0f} HU {side} the {lesion['organ']})"


def _growth(result: Mapping[str, Any]) -> list[str]:
    """A sentence a lesion and interval."""
    sentences: list[str] = []
    before: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in result["growth"]:
        key = row["organ"], row["lesion"]
        name = f"{row['organ'].capitalize()} lesion {row['lesion']}"
        earlier = before.get(key)
        if row["event"] == "new":
            sentences.append(f"{name} is new on day {row['day']:g}: {row['longest_mm']:.0f} mm.")
        elif row["event"] == "gone":
            sentences.append(f"{name} is gone on day {row['day']:g}.")
        elif row["event"].startswith("merged"):
            sentences.append(f"{name} has {row['event']} on day {row['day']:g}.")
        elif earlier is not None and row["volume_ml"] > 0 and earlier["volume_ml"] > 0:
            sentences.append(_interval(name, earlier, row))
        if row["volume_ml"] > 0:
            before[key] = row
    return sentences


def _interval(name: str, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    change = 100 * (now["volume_ml"] / earlier["volume_ml"] - 1)
    days = now["doubling_days"]
    pace = "" if days is None else f", doubling in {days:.0f} days" if days > 0 else f", halving in {-days:.0f} days"
    split = " It has split." if now["event"] == "split" else ""
    return (
        f"{name}, day {earlier['day']:g} to {now['day']:g}: {earlier['longest_mm']:.0f} to {now['longest_mm']:.0f} mm,"
        f" {_ml(earlier['volume_ml'])} to {_ml(now['volume_ml'])} ({change:+.0f} %{pace}).{split}"
    )


def _responses(result: Mapping[str, Any]) -> list[str]:
    sentences = []
    for day, row in zip(result["days"], result["response"], strict=True):
        total = f"Day {day:g}: sum of target diameters {row['sum_mm']:.0f} mm"
        if not row["category"]:
            sentences.append(f"{total} ({', '.join(row['targets'])}).")
            continue
        change = row["from_baseline"]
        against = "" if change is None else f", {100 * change:+.0f} % of the first"
        category = CATEGORIES[row["category"]]
        sentences.append(f"{total}{against}: {category} ({row['category']}, RECIST 1.1): {row['reason']}.")
    return sentences
