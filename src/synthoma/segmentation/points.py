"""What `segment` does beside the network, for those who use the network alone: operating points, and steps in words."""

from __future__ import annotations

from typing import Any

from synthoma import anatomy
from synthoma.learning.models import ModelSpec
from synthoma.segmentation.field import LEAST_AIR_MM2
from synthoma.segmentation.infer import SegmentRecipe

PLAIN = "uncalibrated"  # the name of the only point of a model without calibration


def usual_point(spec: ModelSpec) -> str:
    """The name of the operating point that `segment` takes where nobody asks for another."""
    known = spec.calibration
    return known.usual if known and known.usual in known.points else PLAIN


def operating_points(spec: ModelSpec) -> dict[str, Any]:
    """All operating points, for every class in full, as JSON data.

    usual: the name of the one that `segment` takes. scaling: by class; the probability is
    sigmoid(logit / temperature + shift). flips: axes whose mirror images are looked at too. points: by name and class,
    threshold and peak (of that probability), smallest_mm3 and least_hu (None: not asked for).
    """
    known = spec.calibration
    points = {}
    for name in {usual_point(spec): None} | dict.fromkeys(known.points if known else ()):
        recipe = SegmentRecipe() if name == PLAIN else SegmentRecipe.model_validate({"sensitivity": name})
        points[name] = {each: _figures(recipe.at_point(spec), each) for each in spec.classes}
    scaling = {each: known.scaling(each)._asdict() if known else _SAME for each in spec.classes}
    return {
        "usual": usual_point(spec),
        "scaling": scaling,
        "flips": list(known.flips) if known else [],
        "points": points,
        "outside_of_the_network": steps_outside(),
    }


_SAME = {"temperature": 1.0, "shift": 0.0}


def steps_outside() -> list[str]:
    """What `synthoma segment` does before and after the network, a sentence each, in order."""
    recipe = SegmentRecipe()
    return [
        "Scaling: a logit is divided by the temperature of its class and the shift is added; the sigmoid of that is "
        "the probability. With flips it is the mean over mirror images.",
        "Air: nothing is found in air around the patient, which comes in from the border of an axial slice "
        f"({LEAST_AIR_MM2 / 100:g} cm2 and more of it). The network has not learned such places and may call them "
        "anything.",
        "Grid: probabilities, not masks, are interpolated to the scan's grid.",
        "Organs: a voxel is taken from the threshold on; parts smaller than "
        f"{100 * recipe.part_share:g} % of the organ's largest one are dropped.",
        "Tumors: voxels from the threshold on make parts (26-connected). A part is a lesion if one of its voxels "
        "reaches the peak, if it is no smaller than smallest_mm3, and if the median HU of its surer half is at least "
        "least_hu (what is darker is water, as in a cyst).",
    ]


def _figures(recipe: SegmentRecipe, name: str) -> dict[str, float | None]:
    """Of one class. An organ has no peak above its threshold, no smallest part in mm3 and no least HU."""
    if not anatomy.is_lesion(name):
        threshold = recipe.threshold_of(name)
        return {"threshold": threshold, "peak": threshold, "smallest_mm3": 0.0, "least_hu": None}
    cut = recipe.cut_of(name)
    return {
        "threshold": cut.threshold,
        "peak": max(cut.peak, cut.threshold),
        "smallest_mm3": cut.smallest_mm3,
        "least_hu": cut.least_hu,
    }


def points_as_text(spec: ModelSpec) -> str:
    """The operating points as tables of Markdown, the usual one first, and the steps as a list."""
    told = operating_points(spec)
    lines = []
    for name, classes in told["points"].items():
        usual = " (usual: what `synthoma segment` takes)" if name == told["usual"] else ""
        lines += [f"Operating point `{name}`{usual}:", ""]
        lines += ["| class | temperature | shift | threshold | peak | smallest mm3 | least HU |", "|---|" + "---|" * 6]
        for each, one in classes.items():
            scaling = told["scaling"][each]
            figures = [scaling["temperature"], scaling["shift"], one["threshold"], one["peak"], one["smallest_mm3"]]
            least = "none" if one["least_hu"] is None else f"{one['least_hu']:g}"
            lines.append(f"| {each} | {' | '.join(f'{figure:.4g}' for figure in figures)} | {least} |")
        lines.append("")
    flips = ", ".join(told["flips"]) or "none"
    lines += [f"Mirror images that are looked at too: {flips}.", ""]
    lines += ["What `synthoma segment` does outside of the network:", ""]
    lines += [f"{number}. {step}" for number, step in enumerate(told["outside_of_the_network"], 1)]
    return "\n".join(lines) + "\n"
