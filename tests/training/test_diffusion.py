"""Training a diffusion generator: resumes bit for bit, learns a histogram; the flow on a known mixture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance
from small_cases import patient

from synthoma.datasets.writing import write_case
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.crops import build_crops
from synthoma.learning.flow import LEAST, LEVELS, bounded_velocity, follow, path, velocity
from synthoma.learning.tissue import TISSUE_HU, TissueNetwork, surroundings, tissue_field
from synthoma.reading import open_dataset
from synthoma.recipe import make_recipe
from synthoma.training import diffusion as loop
from synthoma.training.batches import collate, noise_like
from synthoma.training.diffusion import flow_loss
from synthoma.training.generators import read_generator_recipe, train_generator
from synthoma.training.recipe import DiffusionRecipe
from training.lesions import TINY, write_patients


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients with liver tumors and one without."""
    return write_patients(tmp_path_factory.mktemp("data"))


def recipe_of(**changes: object) -> DiffusionRecipe:
    return make_recipe(DiffusionRecipe, {**TINY, **changes})


def test_a_training_that_is_resumed_ends_with_equal_weights(data: Path, tmp_path: Path) -> None:
    whole = train_generator(recipe_of(), [data], tmp_path / "whole", cache=tmp_path / "cache", device="cpu")
    again = tmp_path / "again"

    class KilledError(Exception):
        pass

    steps, real = [], loop.require_finite

    def kill(losses, step, batch, folder):  # type: ignore[no-untyped-def]
        steps.append(step)
        if step == 4 and len(steps) == 4:
            raise KilledError
        return real(losses, step, batch, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "require_finite", kill)
        with pytest.raises(KilledError):
            train_generator(recipe_of(), [data], again, cache=tmp_path / "cache", device="cpu")
        resumed = train_generator(recipe_of(), [data], again, cache=tmp_path / "cache", device="cpu")
    assert steps == [1, 2, 3, 4, 3, 4]
    assert resumed.digest == whole.digest
    assert sorted(file.name for file in (again / "pictures").iterdir()) == ["step_000002.png", "step_000004.png"]
    assert (again / "metrics.jsonl").read_text().count("\n") == 4


def test_no_tumor_label_is_a_sentence(tmp_path: Path) -> None:
    write_case(patient("carl", tumors=[]), tmp_path / "data" / "carl")
    with pytest.raises(CaseError, match=r"no lesion to learn from.*give a data set with tumor labels"):
        train_generator(recipe_of(), [tmp_path / "data"], tmp_path / "out", cache=tmp_path / "cache", device="cpu")


def test_a_recipe_of_no_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "strange.toml").write_text("steps = 3\n")
    with pytest.raises(RecipeError, match="no kind ''"):
        read_generator_recipe(tmp_path / "strange.toml")
    assert read_generator_recipe("diffusion", ["steps=3"]).steps == 3


def test_flow_recovers_the_moments_of_a_mixture() -> None:
    """Two narrow normals at -2 and 1: the mean, the spread and the shares of the velocity known in closed form."""
    generator = torch.Generator().manual_seed(0)
    means, shares, sd = torch.tensor([-2.0, 1.0]), torch.tensor([0.3, 0.7]), 0.1

    def known(at: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        t = (times / LEVELS).view(-1, 1, 1)
        # E[x0 - e | x_t] for x_t = (1 - t) x0 + t e
        variance = (1 - t) ** 2 * sd**2 + t**2
        likely = shares * torch.exp(-0.5 * (at - (1 - t) * means) ** 2 / variance)
        weight = likely / likely.sum(-1, keepdim=True)
        residual = at - (1 - t) * means
        data = means + (1 - t) * sd**2 / variance * residual
        noise = t / variance * residual
        return (weight * (data - noise)).sum(-1, keepdim=True)

    found = follow(known, torch.randn(4000, 1, 1, generator=generator), 20).flatten()
    assert found.mean() == pytest.approx(0.3 * -2 + 0.7 * 1, abs=0.1)
    assert found.std() == pytest.approx(np.sqrt(0.21 * 9 + sd**2), rel=0.08)
    assert (found < -0.5).float().mean() == pytest.approx(0.3, abs=0.04)


def test_a_path_goes_from_noise_to_data_and_its_velocity_leads_there() -> None:
    data, noise = torch.randn(3, 1, 4, 4, 4), torch.randn(3, 1, 4, 4, 4)
    at, wanted = path(data, noise, torch.tensor([LEVELS, 500, 1]))
    assert torch.allclose(at[0], noise[0])
    assert torch.allclose(at[1] + 0.5 * wanted[1], data[1], atol=1e-6)


def test_what_is_learned_without_error_leads_to_the_data() -> None:
    """The guess for which the loss is 0 at every time: following it ends at the data, not beyond them."""
    data, noise = 2 * torch.rand(2, 1, 4, 4, 4) - 1, torch.randn(2, 1, 4, 4, 4)

    def guess(at: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        return at + (times / LEVELS).clamp(min=LEAST).view(-1, 1, 1, 1, 1) * (data - noise)

    for time in (1, 100, 400, LEVELS):
        times = torch.full((2,), time)
        at, wanted = path(data, noise, times)
        assert torch.allclose(velocity(guess(at, times), at, times), wanted, atol=1e-4)
    found = follow(lambda at, times: bounded_velocity(guess(at, times), at, times, 6.0), noise, 12)
    assert torch.allclose(found, data, atol=1e-4)


def test_overfitting_on_one_lesion_reproduces_its_histogram(data: Path, tmp_path: Path) -> None:
    recipe = recipe_of(network={"features": [16, 16]})
    crops = build_crops(open_dataset(data).cases, tmp_path / "cache", recipe.crops)
    batch = collate([crops.crop(0)] * 4, [0] * 4)
    # a lesion of two tissues, which no single mean can stand for
    batch["tissue"] = torch.where(torch.arange(16).view(16, 1, 1) < 8, -1.0, 1.0).expand_as(batch["tissue"])
    torch.manual_seed(0)
    net = TissueNetwork(recipe.network)
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    for step in range(120):
        optimizer.zero_grad()
        flow_loss(net, batch, torch.device("cpu"), 0, step).backward()
        optimizer.step()
    around = surroundings(batch["hu"], batch["alpha"], batch["base"])
    with torch.inference_mode():
        noise = noise_like(batch["alpha"], 5)
        made = tissue_field(net.eval(), recipe.spec(("liver",)), noise, batch["alpha"], around, batch["condition"])
    inside = batch["mask"]
    found, wanted = (np.asarray(field[inside]) for field in (made, TISSUE_HU * batch["tissue"]))
    # how far HU would have to move on average to have that histogram; a single mean is nearly TISSUE_HU away
    assert wasserstein_distance(found, wanted) < 0.15 * TISSUE_HU
