"""Adversarial training: who learns what, dark and bright lesions, resumes, and the traps of published code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_cases import patient

from synthoma.errors import RecipeError
from synthoma.learning.crops import CropRecipe, build_crops
from synthoma.learning.looks import Look, histogram, trend_of
from synthoma.learning.models import Model, ModelSpec
from synthoma.learning.networks import NetworkRecipe, build_network
from synthoma.learning.tissue import GENERATOR, TissueNetwork, load_generator, looks_of
from synthoma.learning.turns import Turn
from synthoma.reading import open_dataset
from synthoma.recipe import make_recipe
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.training import adversarial as loop
from synthoma.training.adversarial import discriminator_loss, fake_scans, generator_loss, look_loss
from synthoma.training.batches import LesionBatches, noise_like
from synthoma.training.critics import FrozenCritic
from synthoma.training.generators import train_generator
from synthoma.training.hosts import collate_hosts, open_hosts
from synthoma.training.recipe import AdversarialRecipe
from training.lesions import TINY, write_patients


def recipe_of(**changes: Any) -> AdversarialRecipe:
    plain = {name: value for name, value in TINY.items() if name != "sampling_steps"}
    fakes = {"organs": ["liver"], "diameter_mm": [12, 20], "mass_effect_share": 0.0, "contrast_hu": [-40, -40]}
    discriminator = {"name": "unet", "width": 4, "depth": 3}
    return make_recipe(AdversarialRecipe, {**plain, "discriminator": discriminator, "fakes": fakes, **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_patients(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def batch(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two real lesions and two places for fake ones."""
    cache, cases = tmp_path_factory.mktemp("cache"), open_dataset(data).cases
    recipe = recipe_of()
    crops = build_crops(cases, cache, recipe.crops)
    looks = [row.look for _, row in crops.lesions]
    hosts = open_hosts(cases, cache, 3.0, recipe.fakes, looks, 16, 2, 0)
    return loop.Pairs(LesionBatches(crops, tuple(range(len(crops))), 2, 0), hosts)(0)


def test_each_step_moves_its_own_network_only(batch: dict[str, Any]) -> None:
    recipe = recipe_of()
    net, judge = TissueNetwork(recipe.network), build_network(recipe.discriminator, 3)
    for weight in net.parameters():
        if not weight.any():  # the last layer of every block begins at zero, and nothing before it learns at first
            torch.nn.init.normal_(weight, std=0.1)
    noise = noise_like(batch["host_alpha"], 0)
    judge.requires_grad_(False)
    fakes, residual = fake_scans(net, recipe.spec(("liver",)), batch, noise)
    generator_loss(judge, None, fakes, residual, batch, recipe)[0].backward()
    assert all(parameter.grad is None for parameter in judge.parameters())
    assert still(net) == []
    net.zero_grad(set_to_none=True)
    judge.requires_grad_(True)
    discriminator_loss(judge, fakes.detach(), batch, recipe)[0].backward()
    assert all(parameter.grad is None for parameter in net.parameters())
    assert still(judge) == []


def still(net: torch.nn.Module) -> list[str]:
    """Layers that would never learn."""
    return [
        name for name, weight in net.named_parameters()
        if weight.ndim > 1 and (weight.grad is None or not weight.grad.abs().sum() > 0)
    ]  # fmt: skip


def test_outside_alpha_nothing_changes_and_the_contrast_is_met(batch: dict[str, Any]) -> None:
    recipe = recipe_of()
    torch.manual_seed(0)
    net = TissueNetwork(recipe.network)
    torch.nn.init.normal_(net.unet.out[-1].conv.weight, std=0.2)
    for contrast in (-60.0, 45.0):
        asked = {**batch, "host_contrast": torch.full((2,), contrast)}
        fakes, residual = fake_scans(net, recipe.spec(("liver",)), asked, noise_like(batch["host_alpha"], 0))
        outside = batch["host_alpha"] == 0
        assert torch.equal(fakes[outside], batch["host_hu"][outside])
        assert residual[~outside].std() > 1
        for number in range(2):
            core = batch["host_alpha"][number] > 0.95
            assert core.any()
            mean = fakes[number][core].mean() - batch["host_base"][number]
            assert mean.item() == pytest.approx(contrast, abs=8)  # the scan's noise has a mean of its own there


def test_a_slope_from_side_to_side_reaches_no_fake_and_no_gradient(batch: dict[str, Any]) -> None:
    """A network that makes one bright and one dark half: its fakes have the trend of the look that was asked for."""
    recipe = recipe_of(look=0.0)
    slope = Slope()
    asked = {**batch, "host_trend": torch.tensor([0.05, 0.3])}
    _, residual = fake_scans(slope, recipe.spec(("liver",)), asked, noise_like(batch["host_alpha"], 0))
    masks = (batch["host_alpha"] >= 0.5)[:, 0].numpy()
    shares = [trend_of(made, mask) for made, mask in zip(residual[:, 0].detach().numpy(), masks, strict=True)]
    assert shares == pytest.approx([0.05, 0.3], abs=0.01)
    residual[masks[:, None]].square().mean().backward()
    assert slope.steep.grad is not None
    before = slope.steep.grad.item()
    slope.steep.grad = None
    free = {**batch, "host_trend": torch.ones(2)}
    _, residual = fake_scans(slope, recipe.spec(("liver",)), free, noise_like(batch["host_alpha"], 0))
    assert trend_of(residual[0, 0].detach().numpy(), masks[0]) > 0.8
    residual[masks[:, None]].square().mean().backward()
    assert abs(before) < 0.1 * abs(slope.steep.grad.item())  # a wide histogram cannot be bought by it


class Slope(torch.nn.Module):
    """A network of one weight: how steep tissue is along the first axis. Besides, it gives its noise back."""

    def __init__(self) -> None:
        super().__init__()
        self.steep = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, images: torch.Tensor, times: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        del times, condition
        at = torch.arange(images.shape[2], dtype=images.dtype).view(1, 1, -1, 1, 1) - images.shape[2] / 2
        return self.steep * at + 0.3 * images[:, :1]


def test_a_place_for_a_fake_is_turned_by_chance_all_of_it_alike(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, recipe = open_dataset(data).cases, recipe_of()
    looks = [row.look for _, row in build_crops(cases, tmp_path, recipe.crops).lesions]
    hosts = open_hosts(cases, tmp_path, 3.0, recipe.fakes, looks, 16, 2, 0)
    drawn: list[Turn] = []
    real = Turn.draw
    monkeypatch.setattr(Turn, "draw", lambda rng: drawn.append(real(rng)) or drawn[-1])
    crops = [hosts.crop(number) for number in range(6)]
    monkeypatch.setattr(Turn, "draw", lambda rng: Turn((False, False, False), False))
    for number, (crop, turn) in enumerate(zip(crops, drawn, strict=True)):
        plain = hosts.crop(number)
        assert crop.look == plain.look
        assert crop.look.trend in {look.trend for look in looks}
        for name in ("hu", "alpha", "start", "depth", "others"):
            assert np.array_equal(getattr(crop, name), turn(getattr(plain, name)))
    assert len(set(drawn)) > 3


def test_a_model_keeps_the_trends_of_the_lesions_it_learned_from(data: Path, tmp_path: Path) -> None:
    model = train_generator(recipe_of(steps=1), [data], tmp_path / "run", cache=tmp_path / "cache", device="cpu")
    crops = build_crops(open_dataset(data).cases, tmp_path / "cache", recipe_of().crops)
    trends = [row.look.trend for _, row in crops.lesions]
    assert all(0 <= trend < 1 for trend in trends)
    saved = load_generator(tmp_path / "run" / GENERATOR)
    assert [look.trend for look in looks_of(saved)] == pytest.approx(trends, abs=1e-6)
    assert model.looks == pytest.approx(saved.looks)


def test_a_discriminator_of_equal_tissue_learns_nothing(batch: dict[str, Any]) -> None:
    """The same crops as real and as fake: the best it can say is one half each."""
    recipe = recipe_of(smoothing=0.0)
    same = {
        **batch,
        "real_mask": batch["host_mask"],
        "real_others": torch.zeros_like(batch["host_mask"]),
        "host_others": torch.zeros_like(batch["host_mask"]),
        "real_hu": batch["host_hu"],
    }
    torch.manual_seed(0)
    judge = build_network(recipe.discriminator, 3)
    optimizer = torch.optim.Adam(judge.parameters(), 1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        discriminator_loss(judge, batch["host_hu"], same, recipe)[0].backward()
        optimizer.step()
    with torch.no_grad():
        _, right = discriminator_loss(judge, batch["host_hu"], same, recipe)
        said = judge(loop.windowed(batch["host_hu"], recipe.window_hu)).softmax(1)
    assert float(right) == pytest.approx(0.5, abs=0.01)
    inside = batch["host_mask"][:, 0]
    assert said[:, 1][inside].mean() == pytest.approx(float(said[:, 2][inside].mean()), abs=0.1)


def test_unlabelled_scans_host_fakes_and_parenchyma_is_background(tmp_path: Path) -> None:
    from synthoma.cases import Case

    whole = patient("dora", tumors=None)
    case = Case(whole.id, whole.image, whole.masks)
    look = Look("liver", "portal", 20.0, -40.0, 0.0, 0.0, histogram(np.zeros(8)))
    recipe = SynthesisRecipe(organs=("liver",), diameter_mm=(12, 20), mass_effect_share=0, phase="portal")
    hosts = open_hosts([case], tmp_path, 3.0, recipe, [look], 16, 2, 0)
    crop = hosts.crop(0)
    assert (crop.alpha >= 0.5).sum() > 10
    batch = collate_hosts([crop])
    assert bool(batch["mask"][0].any())
    assert not bool(batch["mask"][batch["alpha"] == 0].any())
    assert np.array_equal(crop.start[crop.alpha == 0], crop.hu[crop.alpha == 0])
    assert np.array_equal(hosts.crop(0).alpha, crop.alpha)


def test_the_look_loss_is_zero_for_what_was_asked_and_grows_with_the_distance() -> None:
    mask = torch.ones(1, 1, 4, 4, 4, dtype=torch.bool)
    depth = torch.linspace(0.1, 1, 64).view(1, 1, 4, 4, 4)
    made = torch.where(depth > 0.6, 20.0, -12.0)
    made -= made.mean()
    rim = made[depth <= 0.25].mean()
    core = made[depth >= 0.6].mean()
    wanted = torch.tensor([[float(rim), float(core), *histogram(made.numpy())]])
    losses = [float(look_loss(made * factor, mask, depth, wanted)) for factor in (1.0, 1.5, 3.0)]
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[0] < losses[1] < losses[2]


def test_a_resumed_training_ends_with_equal_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str) -> str:
        return train_generator(recipe_of(), [data], tmp_path / folder, cache=tmp_path / "cache", device="cpu").digest

    whole = run("whole")
    calls, real = [], loop.require_finite

    def fail_once(losses: Any, step: int, batch: Any, folder: Any) -> Any:
        calls.append(step)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(losses, step, batch, folder)

    monkeypatch.setattr(loop, "require_finite", fail_once)
    with pytest.raises(KeyboardInterrupt):
        run("again")
    assert [path.name for path in (tmp_path / "again").glob("checkpoint-*")] == ["checkpoint-0000002"]
    assert run("again") == whole
    assert [path.name for path in (tmp_path / "again").glob("checkpoint-*")] == ["checkpoint-0000004"]


def test_a_critic_is_frozen_passes_gradients_on_and_knows_the_organ() -> None:
    network = NetworkRecipe(name="unet", width=4, depth=3)
    spec = ModelSpec(
        network=network, classes=("liver", "liver_lesion"), spacing_mm=(2.0, 2.0, 2.0), window_hu=(-160, 240),
        patch=(16, 16, 16),
    )  # fmt: skip
    critic = FrozenCritic.of(Model(build_network(network, 2), spec), 1.5, ["liver"])
    scans = torch.zeros(2, 1, 16, 16, 16, requires_grad=True)
    said = critic(scans, ["liver", "liver"])
    assert said.shape == scans.shape
    said.mean().backward()
    assert scans.grad is not None
    assert all(parameter.grad is None for parameter in critic.model.net.parameters())
    with pytest.raises(RecipeError, match="does not know tumors of the colon"):
        FrozenCritic.of(critic.model, 1.5, ["colon"])


def test_a_crop_is_augmented_together_with_its_labels(data: Path, tmp_path: Path) -> None:
    crops = build_crops(open_dataset(data).cases, tmp_path, CropRecipe(size=32, spacing_mm=2.0))
    rng = np.random.default_rng(0)
    for _ in range(4):
        crop = crops.crop(0, rng)
        assert crop.hu[crop.mask].mean() == pytest.approx(crop.base_hu + crop.look.contrast_hu, abs=8)
        assert crop.mask.sum() == pytest.approx(crops.crop(0).mask.sum())
