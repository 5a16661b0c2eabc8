"""Every network of the table builds, learns and answers; what a network cannot do is refused."""

from __future__ import annotations

import copy
import json
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from synthoma.errors import MissingExtraError, RecipeError
from synthoma.learning.networks import (
    NETWORKS,
    NetworkRecipe,
    architecture,
    build_network,
    check_patch,
    count_parameters,
    required_multiple,
)
from synthoma.recipe import read_recipe

TINY: dict[str, dict[str, Any]] = {
    "unet": {"width": 4, "depth": 3},
    "dynunet": {"width": 4, "depth": 4},
    "segresnet": {"width": 8, "depth": 3},
    "resencm": {"width": 4, "depth": 3},
    **{name: {"width": 4} for name in NETWORKS if name.startswith("mednext")},
    "swinunetr-tiny": {},  # the larger two differ in width only
}
SUPERVISED = [name for name, family in NETWORKS.items() if family.deep_supervision]


def tiny(name: str, **changes: Any) -> NetworkRecipe:
    return NetworkRecipe(name=name, **TINY[name], **changes)


def smallest_patch(recipe: NetworkRecipe) -> torch.Tensor:
    """One sample, whose axes differ."""
    multiple = required_multiple(recipe)
    return torch.randn(1, 1, 2 * multiple, multiple, multiple, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TINY)
def test_every_network_takes_its_smallest_patch_and_every_parameter_learns(name: str) -> None:
    torch.manual_seed(1)
    net = build_network(tiny(name), channels=3)
    image = smallest_patch(tiny(name))
    logits = net(image)
    assert logits.shape == (1, 3, *image.shape[2:])
    logits.square().mean().backward()
    asked = {key: parameter.grad for key, parameter in net.named_parameters() if parameter.requires_grad}
    assert [key for key, gradient in asked.items() if gradient is None] == []
    assert all(torch.isfinite(gradient).all() for gradient in asked.values() if gradient is not None)


@pytest.mark.parametrize("name", SUPERVISED)
def test_deep_supervision_gives_a_list_in_training_and_one_tensor_in_evaluation(name: str) -> None:
    torch.manual_seed(1)
    recipe = tiny(name, deep_supervision=True)
    net, image = build_network(recipe, channels=2), smallest_patch(recipe)
    heads = net(image)
    assert isinstance(heads, list)
    assert len(heads) > 1
    assert [head.shape for head in heads] == [
        (1, 2, *(side // 2**level for side in image.shape[2:])) for level in range(len(heads))
    ]
    sum(head.square().mean() for head in heads).backward()
    assert [key for key, parameter in net.named_parameters() if parameter.grad is None] == []
    net.eval()
    with torch.no_grad():
        assert net(image).shape == heads[0].shape


@pytest.mark.parametrize("name", SUPERVISED)
def test_a_network_can_be_copied_after_a_step(name: str) -> None:
    recipe = tiny(name, deep_supervision=True)
    net, image = build_network(recipe, channels=2), smallest_patch(recipe)
    sum(head.square().mean() for head in net(image)).backward()
    twin = copy.deepcopy(net)
    assert all(torch.equal(one, other) for one, other in zip(twin(image), net(image), strict=True))


def test_a_compiled_network_gives_its_heads_in_training_only() -> None:
    recipe = tiny("dynunet", deep_supervision=True)
    net, image = build_network(recipe, channels=2), smallest_patch(recipe)
    compiled = torch.compile(net, backend="eager")
    assert all(torch.equal(one, other) for one, other in zip(compiled(image), net(image), strict=True))
    net.eval()
    with torch.no_grad():
        assert torch.equal(compiled(image), net(image))


@pytest.mark.parametrize("name", SUPERVISED)
def test_the_network_without_deep_supervision_has_no_other_weights(name: str) -> None:
    plain = build_network(tiny(name), channels=2).state_dict()
    supervised = build_network(tiny(name, deep_supervision=True), channels=2).state_dict()
    assert set(plain) <= set(supervised)
    assert all(plain[key].shape == supervised[key].shape for key in plain)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("unet", 4.8), ("dynunet", 31.2), ("segresnet", 19.9), ("mednext-b", 10.5), ("resencm", 102.4)],
)
def test_defaults_are_the_published_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        net = build_network(NetworkRecipe(name=name), channels=2)
    assert count_parameters(net) / 1e6 == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("name", [name for name in TINY if NETWORKS[name].dropout])
def test_dropout_acts_in_training_only(name: str) -> None:
    torch.manual_seed(1)
    recipe = tiny(name, dropout=0.5)
    net, image = build_network(recipe, channels=1), smallest_patch(recipe)
    with torch.no_grad():
        assert not torch.equal(net(image), net(image))
        net.eval()
        assert torch.equal(net(image), net(image))


@pytest.mark.parametrize("name", TINY)
def test_an_architecture_is_json(name: str) -> None:
    parts = architecture(tiny(name), channels=2)
    assert json.loads(json.dumps(parts)) == parts
    assert parts["_target_"].split(".")[0] in ("monai", "dynamic_network_architectures")


def test_the_same_seed_gives_the_same_weights() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(7)
        nets.append(build_network(tiny("resencm"), channels=2).state_dict())
    assert all(torch.equal(nets[0][key], nets[1][key]) for key in nets[0])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"name": "unett"}, "no such network; known: unet, dynunet"),
        ({"name": "unet", "deep_supervision": True}, "unet has no deep supervision; these have: dynunet"),
        ({"name": "mednext-s", "dropout": 0.1}, "mednext-s has no dropout; these have: unet"),
        ({"name": "swinunetr-tiny", "depth": 4}, "depth 4 does not suit swinunetr-tiny; it can have 6 only"),
        ({"name": "resencm", "residual_units": 1}, "no choice of residual_units; unet has"),
        ({"name": "dynunet", "depth": 2}, "it can have 3 to 7"),
        ({"name": "swinunetr-tiny", "width": 16}, "it must be n x 12"),
    ],
)
def test_what_a_network_cannot_do_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        NetworkRecipe(**settings)
    with pytest.raises(RecipeError, match=says):
        read_recipe(NetworkRecipe, None, [f"{key}={str(value).lower()}" for key, value in settings.items()])


def test_a_patch_that_cannot_be_halved_is_refused_with_one_that_can() -> None:
    with pytest.raises(
        RecipeError, match=r"found \(96, 96, 50\), expected sides that are multiples of 16; \(96, 96, 48\)"
    ):
        check_patch(NetworkRecipe(name="unet"), (96, 96, 50))


def test_a_patch_of_one_voxel_at_the_lowest_level_is_refused_and_two_are_enough() -> None:
    recipe = NetworkRecipe(name="resencm", width=2)
    with pytest.raises(RecipeError, match="one side of at least 64"):
        check_patch(recipe, (32, 32, 32))
    check_patch(recipe, (32, 64, 32))
    build_network(recipe, channels=1)(torch.zeros(1, 1, 32, 64, 32))


def test_resencm_without_its_library_is_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'synthoma\[resenc\]'"):
        build_network(NetworkRecipe(name="resencm", width=4, depth=3), 2)
