"""A model's card: in its file, and as a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthoma.errors import RecipeError
from synthoma.learning.calibration import Calibration, OperatingPoint
from synthoma.learning.models import Model, ModelSpec, load_model
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.segmentation.export import write_with_card

CARD = """
name = "liver-tiny"
hardware = "one CPU core, a second"
made = ["synthoma train tiny"]
limits = ["everything"]
[data]
in_silico = "two balls"
[figures]
in_silico = "none of 2 found (0 to 66 %)"
"""


def tiny_model() -> Model:
    network = NetworkRecipe(name="unet", width=4, depth=3)
    point = OperatingPoint(false_per_scan=0.8, sensitivity=0.9, thresholds={"liver_lesion": 0.62}, smallest_mm3={})
    known = Calibration(data="9 balls", cases=9, temperatures={}, errors={}, points={"balanced": point})
    spec = ModelSpec(
        network=network, classes=("liver", "liver_lesion"), spacing_mm=(2, 2, 2), window_hu=(-100, 200),
        patch=(16, 16, 16), calibration=known,
    )  # fmt: skip
    return Model(build_network(network, 2), spec, {"steps": 2})


def test_a_card_is_in_the_file_and_beside_it(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD)
    page = write_with_card(tiny_model(), tmp_path / "card.toml", tmp_path / "liver-tiny.safetensors")
    found = load_model(tmp_path / "liver-tiny.safetensors")
    assert found.record["name"] == "liver-tiny"
    assert found.record["data"] == {"in_silico": "two balls", "real_tumor_labels": 0}
    assert found.record["training"] == {"steps": 2}
    assert found.spec == tiny_model().spec
    text = page.read_text()
    assert "| `balanced` | 0.80 | 90% | liver_lesion 0.62 |" in text
    assert "- everything" in text
    assert "none of 2 found (0 to 66 %)" in text


def test_a_card_without_limits_is_none(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(CARD.replace('limits = ["everything"]', "limits = []"))
    with pytest.raises(RecipeError, match="limits"):
        write_with_card(tiny_model(), tmp_path / "card.toml", tmp_path / "model.safetensors")
