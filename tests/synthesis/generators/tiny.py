"""Tiny tissue networks with random weights, as files: what they make is nonsense, but keeps every promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from synthoma.learning.looks import Look
from synthoma.learning.tissue import (
    GeneratorSpec,
    Kind,
    TissueModel,
    TissueNetwork,
    TissueNetworkRecipe,
    save_generator,
)

NETWORK = TissueNetworkRecipe(features=(8, 8))
FLAT = (0.0,) * 6 + (0.25,) * 4 + (0.0,) * 6
LOOKS = [
    Look("liver", "portal", 14.0, -40.0, 5.0, -10.0, FLAT),
    Look("liver", "portal", 30.0, 35.0, 15.0, -20.0, FLAT),
]


def tiny_model(kind: Kind = "adversarial", seed: int = 0, spacing_mm: float = 1.5) -> TissueModel:
    """A model that makes texture of some HU."""
    torch.manual_seed(seed)
    net = TissueNetwork(NETWORK).eval()
    torch.nn.init.normal_(net.unet.out[-1].conv.weight, std=0.2)  # which begins at zero
    spec = GeneratorSpec(kind=kind, network=NETWORK, spacing_mm=spacing_mm, size=16, steps=3, organs=("liver",))
    return TissueModel(net, spec, np.stack([look.numbers() for look in LOOKS]), {"seed": seed})


def tiny_file(folder: Path, kind: Kind = "adversarial", seed: int = 0, spacing_mm: float = 1.5) -> str:
    """The file of a tiny model."""
    path = folder / f"{kind}-{seed}-{spacing_mm}.safetensors"
    save_generator(path, tiny_model(kind, seed, spacing_mm))
    return str(path)
