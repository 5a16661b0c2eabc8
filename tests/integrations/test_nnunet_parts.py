"""What a training of nnU-Net's must be for tumors to go into it, and what is told of labels, HU and recipes."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from integrations.preprocessed import LABELS, Memory
from learning.small_cases import patient
from synthoma import anatomy
from synthoma.cli.main import app
from synthoma.errors import MissingExtraError, RecipeError, RunError, SynthomaError
from synthoma.integrations.labels import label_scheme
from synthoma.integrations.nnunet import finding
from synthoma.integrations.nnunet.changes import Changes, with_tumor_voxels
from synthoma.integrations.nnunet.joining import with_tumors
from synthoma.integrations.nnunet.normalization import CtNormalization
from synthoma.integrations.nnunet.numbers import KEEP, Numbers
from synthoma.integrations.nnunet.settings import open_tumors, read_settings
from synthoma.learning.gridding import IGNORED
from synthoma.synthesis.online.online import Online

CT = {"0": {"mean": 100.0, "std": 20.0, "percentile_00_5": 0.0, "percentile_99_5": 200.0}}


def test_values_are_turned_back_to_hu_but_for_what_clipping_cut_off() -> None:
    known = CtNormalization.of_plans(["CTNormalization"], CT)
    hu = np.array([-1000, -5, 0, 37, 150, 200, 900], np.float32)
    values = (np.clip(hu, 0, 200) - np.float32(100)) / np.float32(20)
    assert known.to_hu(values).tolist() == [0, 0, 0, 37, 150, 200, 200]
    changed = known.changed(values, np.array([30, 0, 30, -50, 10, 10, 0], np.float32))
    assert known.to_hu(changed).tolist() == [30, 0, 30, 0, 160, 200, 200]


@pytest.mark.parametrize("schemes", [["ZScoreNormalization"], ["CTNormalization", "CTNormalization"], []])
def test_other_normalizations_hold_no_hu(schemes: list[str]) -> None:
    with pytest.raises(RecipeError, match=r'cannot be turned back to HU.*"channel_names": \{"0": "CT"\}'):
        CtNormalization.of_plans(schemes, CT)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        ({"background": 0, "liver": 1, "tumor": 2}, {1: "liver", 2: "liver_lesion"}),
        ({"background": 0, "liver": [1, 2], "tumor": 2}, {1: "liver", 2: "liver_lesion"}),
        ({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}, {1: "kidney_left", 2: "kidney_lesion"}),
        ({"background": 0, "tumor": 1, "liver": 2, "spleen": 3}, {1: "liver_lesion", 2: "liver", 3: "spleen"}),
    ],
    ids=["labels", "regions", "nested regions", "tumor first"],
)
def test_labels_and_regions_become_structures_and_back(labels: dict[str, Any], values: dict[int, str]) -> None:
    numbers = Numbers.of_scheme(label_scheme(labels, "Dataset001"))
    for value, structure in values.items():
        number = anatomy.STRUCTURES[structure]
        assert numbers.numbers(np.array([value]))[0] == number
        assert numbers.value_of[number] == value
    assert numbers.numbers(np.array([-1, 0])).tolist() == [0, 0]
    assert numbers.value_of[0] == 0
    assert numbers.tumor_values == {value for value, name in values.items() if anatomy.is_lesion(name)}


def test_tumors_of_several_organs_may_share_a_value() -> None:
    numbers = Numbers.of_scheme(label_scheme({"background": 0, "liver": 1, "kidney": 2, "tumor": 3}, "Dataset001"))
    lesions = [anatomy.STRUCTURES["liver_lesion"], anatomy.STRUCTURES["kidney_lesion"]]
    assert numbers.value_of[lesions].tolist() == [3, 3]
    assert numbers.tumor_values == {3}
    assert numbers.number_of[3] not in {*anatomy.STRUCTURES.values(), 0}, "nobody knows in which organ a real one grows"


def test_what_nobody_knows_or_annotated_is_never_grown_over() -> None:
    labels = {"background": 0, "liver": 1, "tumor": 2, "stent": 3, "hepatic_vessel": 4, "ignore": 5}
    numbers = Numbers.of_scheme(label_scheme(labels, "Liver"))
    known = {*anatomy.STRUCTURES.values(), 0}
    assert numbers.number_of[3] not in known
    assert numbers.value_of[numbers.number_of[3]] == 3
    assert numbers.number_of[4] == 0, "tumors grow around vessels"
    assert numbers.number_of[5] == IGNORED
    assert numbers.value_of[IGNORED] == 5
    many = {"background": 0, "liver": 1, "tumor": 2, **{f"thing{n}": n for n in range(3, 60)}}
    numbers = Numbers.of_scheme(label_scheme(many, "Liver"))
    assert numbers.number_of.max() == 62
    assert numbers.value_of[62] == KEEP, "it stands for several"


def test_patches_are_centered_on_new_tumors_as_on_real_ones() -> None:
    numbers = Numbers.of_scheme(label_scheme({"background": 0, "liver": [1, 2], "tumor": 2}, "Liver"))
    changes = Changes(np.array([[1, 2, 3], [4, 5, 6]]), np.zeros(2, np.float32), np.array([2, KEEP], np.int16))
    organ = np.array([[0, 7, 7, 7]])
    grown = with_tumor_voxels({(1, 2): organ, 2: [], (-1, 0, 1, 2): organ}, changes, numbers)
    assert grown[2].tolist() == [[0, 1, 2, 3]]
    assert grown[(1, 2)] is organ
    assert grown[(-1, 0, 1, 2)] is organ
    assert with_tumor_voxels({2: [[0, 9, 9, 9]]}, changes, numbers)[2].tolist() == [[0, 9, 9, 9], [0, 1, 2, 3]]


def test_the_environment_comes_before_dataset_json() -> None:
    about = {"synthoma": {"tumors": "liver", "hosts": "all"}}
    assert read_settings(about, {}).hosts == "all"
    told = read_settings(about, {"SYNTHOMA_TUMORS": "liver_growth", "SYNTHOMA_HOSTS": "healthy"})
    assert (told.tumors, told.hosts) == ("liver_growth", "healthy")
    with pytest.raises(RecipeError, match=r"dataset\.json.*recipe.*known.*tumors"):
        read_settings({"synthoma": {"recipe": "liver"}}, {})
    with pytest.raises(RecipeError, match="synthoma is no table; found liver"):
        read_settings({"synthoma": "liver"}, {})


def test_recipes_by_name_file_and_table(tmp_path: Path) -> None:
    scheme = label_scheme(LABELS, "Liver")

    def opened(tumors: Any) -> Any:
        return open_tumors(read_settings({"synthoma": {"tumors": tumors}}, {}), scheme)

    by_default = opened("")
    assert isinstance(by_default, Online)
    assert by_default.recipe.organs == ("liver",)
    assert by_default.probability == 0.5
    assert opened("liver_growth").recipe.generator == "growth"
    (tmp_path / "mine.toml").write_text("lesions = [1, 2]\nprobability = 0.25\n")
    mine = opened(str(tmp_path / "mine.toml"))
    assert mine.recipe.lesions == (1, 2)
    assert mine.probability == 0.25
    assert opened({"diameter_mm": [5, 9]}).recipe.diameter_mm == (5, 9)
    with pytest.raises(RecipeError, match="no recipe livre"):
        opened("livre")


@pytest.mark.parametrize(
    ("labels", "tumors", "message"),
    [
        ({"background": 0, "liver": 1}, "", "no label for the tumors of an organ"),
        ({"background": 0, "liver": 1, "liver_tumor": 2}, "pancreas", "none of the recipe's organs: pancreas"),
        ({"background": 0, "liver": 1, "liver_tumor": 2, "pancreas": 3}, "pancreas", "no value for tumors of the panc"),
        ({"background": 0, "pancreas": 1, "tumor": 2}, "", "contrast phase cannot be told"),
    ],
)
def test_labels_that_a_recipe_lacks_are_named(labels: dict[str, int], tumors: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        open_tumors(read_settings({}, {"SYNTHOMA_TUMORS": tumors}), label_scheme(labels, "Dataset001"))


def trainer(memory: Memory, **changes: Any) -> SimpleNamespace:
    """As much of a trainer of nnU-Net's as is asked for."""
    said: list[str] = []
    plans = SimpleNamespace(
        dataset_name="Dataset001_Liver", foreground_intensity_properties_per_channel=CT, transpose_forward=[0, 1, 2]
    )
    configuration = SimpleNamespace(
        normalization_schemes=["CTNormalization"], patch_size=[16, 16, 16], data_identifier="nnUNetPlans_3d_fullres"
    )
    parts: dict[str, Any] = {
        "plans_manager": plans,
        "configuration_manager": configuration,
        "configuration_name": "3d_fullres",
        "dataset_json": {"labels": LABELS},
        "preprocessed_dataset_folder_base": memory.source_folder,
        "output_folder": memory.source_folder,
        "is_cascaded": False,
        "local_rank": 0,
        "print_to_log_file": said.append,
        "said": said,
    }
    return SimpleNamespace(**parts | changes)


def refusal(memory: Memory, **changes: Any) -> str:
    with pytest.raises(SynthomaError) as error:
        with_tumors(trainer(memory, **changes), memory)
    return str(error.value)


def test_trainings_that_can_have_no_tumors_are_refused_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    memory = Memory({"anna": patient("anna")}, str(tmp_path))
    flat = SimpleNamespace(normalization_schemes=["CTNormalization"], patch_size=[16, 16], data_identifier="2d")
    told = refusal(memory, configuration_manager=flat, configuration_name="2d")
    assert "single slices" in told
    assert "found 2d; train 3d_fullres or 3d_lowres" in told
    assert "earlier stage of a cascade" in refusal(memory, is_cascaded=True)


def test_an_nnunet_of_other_parts_is_told_with_the_versions_that_work(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    memory = Memory({"anna": patient("anna")}, str(tmp_path))
    lacking = trainer(memory)
    del lacking.plans_manager
    with pytest.raises(RunError, match=r"no plans_manager; found nnunetv2 [\d.]+, expected 2\.8; pip install"):
        with_tumors(lacking, memory)

    class Older(Memory):
        def load_case(self, identifier: str) -> Any:
            return super().load_case(identifier)[:3]

    with pytest.raises(RunError, match=r"3 parts of a loaded case.*expected 2\.8"):
        with_tumors(trainer(memory), Older(memory.cases, str(tmp_path)))


def test_the_folder_is_told_for_versions_that_look_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.8.1")
    assert (finding.trainers_folder() / "synthoma_trainer.py").is_file()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.7.0")
    with pytest.raises(RunError, match=re.escape("found nnunetv2 2.7.0, expected 2.8; pip install 'nnunetv2==2.8.*'")):
        finding.trainers_folder()

    def absent(name: str) -> str:
        raise finding.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'synthoma\[nnunet\]'"):
        finding.trainers_folder()


@pytest.mark.parametrize(
    ("torch", "torchvision", "told"),
    [
        ("2.13.0+cpu", "0.28.0", r"torch 2\.13\.0\+cpu and torchvision 0\.28\.0 are different builds.*whl/cpu$"),
        ("2.13.0", "0.28.0+cu130", r"different builds.*whl/cu130$"),
        ("2.13.0+cpu", "0.28.0+cpu", None),
        ("2.13.0", "0.28.0", None),
        ("2.13.0+cpu", "", None),
    ],
)
def test_builds_that_do_not_fit_are_told_beside_the_folder(
    monkeypatch: pytest.MonkeyPatch, torch: str, torchvision: str, told: str | None
) -> None:
    def version(name: str) -> str:
        if not (found := {"torch": torch, "torchvision": torchvision, "nnunetv2": "2.8.1"}[name]):
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr("importlib.metadata.version", version)
    result = CliRunner().invoke(app, ["nnunet"])
    assert result.stdout.splitlines() == [str(finding.trainers_folder())]
    assert re.search(told, result.stderr) if told else not result.stderr
