"""Segmentations as critics of single lesions: the share called tumor, folds, and models that do not know the organ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import ellipsoid_case, fine, rho

from synthoma.cases import Case
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.calibration import Calibration
from synthoma.learning.models import Model, ModelSpec, load_model, save_model
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.training.critics import LesionCritic, LesionCritics
from synthoma.volume import Volume

NETWORK = NetworkRecipe(name="unet", width=4, depth=2)


def model_file(folder: Path, name: str, training: tuple[str, ...], level: float = 0.0) -> str:
    """A model that gives every voxel the same logit, trained on these cases."""
    net = build_network(NETWORK, 2)
    last = [module for module in net.modules() if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d)][-1]
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(last.bias, level)
    spec = ModelSpec(
        network=NETWORK, classes=("liver", "liver_lesion"), spacing_mm=(2.0, 2.0, 2.0), window_hu=(-160, 240),
        patch=(16, 16, 16),
    )  # fmt: skip
    path = folder / f"{name}.safetensors"
    save_model(path, Model(net, spec, {"data": {"training": list(training)}}))
    return str(path)


@pytest.mark.parametrize(("level", "score"), [(3.0, 1.0), (-3.0, 0.0)])
def test_the_score_is_the_share_of_the_lesion_called_tumor(level: float, score: float, tmp_path: Path) -> None:
    case = ellipsoid_case(fine(40), (18, 18, 18))
    ct = case.read_image()
    lesion = Volume(rho(ct.geometry, (5, 5, 5)) < 1, ct.geometry)
    critic = LesionCritic(model_file(tmp_path, "a", (), level), ("liver",))
    assert critic(ct, lesion) == score
    with pytest.raises(CaseError, match="no lesion to judge"):
        critic(ct, Volume(np.zeros(ct.data.shape, bool), ct.geometry))


def test_a_critic_asks_at_one_half_though_the_model_is_used_at_another_point(tmp_path: Path) -> None:
    point = {
        "false_per_scan": 1.0, "sensitivity": 0.5, "thresholds": {"liver_lesion": 0.9}, "smallest_mm3": {},
    }  # fmt: skip
    known = Calibration.model_validate(
        {"data": "phantoms", "cases": 3, "flips": ["R", "A"], "temperatures": {}, "errors": {},
         "points": {"balanced": point}}
    )  # fmt: skip
    torch.manual_seed(3)
    net = build_network(NETWORK, 2)
    spec = load_model(model_file(tmp_path, "none", ())).spec
    case = ellipsoid_case(fine(40), (18, 18, 18))
    ct = case.read_image()
    lesion = Volume(rho(ct.geometry, (12, 12, 12)) < 1, ct.geometry)
    scores = []
    for name, calibration in (("plain", None), ("calibrated", known)):
        path = tmp_path / f"{name}.safetensors"
        save_model(path, Model(net, spec.with_changes(calibration=calibration), {}))
        scores.append(LesionCritic(str(path), ("liver",))(ct, lesion))
    assert 0.05 < scores[0] < 0.95
    assert scores[1] == scores[0]  # at the usual point the mean of four mirror images would be looked at


def test_each_case_asks_a_fold_that_has_not_seen_it(tmp_path: Path) -> None:
    folds = [model_file(tmp_path, "a", ("anna",)), model_file(tmp_path, "b", ("bert",))]
    critics = LesionCritics.of(folds, ("liver",))
    image: Any = Path("scan.nii.gz")
    assert critics(Case("anna", image, {})).model == folds[1]
    assert critics(Case("bert", image, {})).model == folds[0]
    assert critics(Case("anna_copy02", image, {}, attributes={"copy_of": "anna"})).model == folds[1]
    with pytest.raises(CaseError, match=r"trained on this scan.*critic\.model=\[A, B"):
        LesionCritics.of(folds[:1], ("liver",))(Case("anna", image, {}))
    with pytest.raises(RecipeError, match="does not know tumors of the colon"):
        LesionCritics.of(folds, ("liver", "colon"))
