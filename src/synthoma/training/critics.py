"""Trained segmentations as critics: of fake lesions while a generator learns, and of tumors that are put into scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from synthoma import anatomy
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.models import Model, load_model
from synthoma.learning.networks import required_multiple
from synthoma.segmentation.infer import SegmentRecipe, predict
from synthoma.volume import Volume

_SEEN = SegmentRecipe(overlap=0.25)


@dataclass(frozen=True, eq=False)
class FrozenCritic:
    """A segmentation that says of each voxel of some crops how probable a tumor of an organ is there.

    It learns nothing, but what is asked of it can. spacing_mm: of the crops; where it is not the model's, they are
    resampled.
    """

    model: Model
    spacing_mm: float

    @classmethod
    def of(cls, model: Model, spacing_mm: float, organs: Sequence[str]) -> FrozenCritic:
        """A critic of tumors in these organs. Raises `RecipeError` if the model does not know one's tumors."""
        require_classes(model, organs)
        model.net.eval().requires_grad_(False)
        return cls(model, spacing_mm)

    def __call__(self, scans: torch.Tensor, organs: list[str]) -> torch.Tensor:
        """scans: HU (B, 1, S, S, S); organs: of each lesion -> probabilities of its tumor (B, 1, S, S, S)."""
        spec = self.model.spec
        low, high = spec.window_hu
        image = ((scans - low) / (high - low)).clamp(0, 1)
        own = [max(1, round(n * self.spacing_mm / s)) for n, s in zip(scans.shape[2:], spec.spacing_mm, strict=True)]
        if tuple(own) != tuple(scans.shape[2:]):
            image = functional.interpolate(image, own, mode="trilinear", align_corners=False)
        multiple = required_multiple(spec.network)
        # padded with what the window shows as black, to a size the network takes
        padding = [side for n in reversed(own) for side in (0, max(-n % multiple, 2 * multiple - n))]
        logits = self.model.net(functional.pad(image, padding))
        logits = logits[..., : own[0], : own[1], : own[2]]
        channels = [spec.classes.index(anatomy.organ(organ).lesion) for organ in organs]
        picked = torch.stack([logits[number, channel] for number, channel in enumerate(channels)])[:, None]
        if picked.shape[2:] != scans.shape[2:]:
            picked = functional.interpolate(picked, scans.shape[2:], mode="trilinear", align_corners=False)
        return picked.sigmoid()


@dataclass(frozen=True)
class LesionCritic:
    """Judges a lesion in its surroundings by the share of its voxels that a model calls tumor; it pickles.

    model: a file, a train run, or the name of one in the box. threshold: of the probability of a tumor.
    """

    model: str
    organs: tuple[str, ...]
    device: str = "cpu"
    threshold: float = 0.5

    def __call__(self, ct: Volume, lesion: Volume) -> float:
        """From 0, nothing of it is called tumor, to 1; of this lesion alone. `CaseError` for an empty mask."""
        inside = lesion.data != 0
        if not inside.any():
            raise CaseError("there is no lesion to judge", found="an empty mask")
        model = _opened(self.model, self.device)
        prediction = predict(model, ct, _SEEN, self.device)
        names = [anatomy.organ(organ).lesion for organ in self.organs]
        levels = [prediction.restore(name, ct.geometry)[inside] for name in names if name in model.spec.classes]
        return float((np.max(levels, axis=0) >= 255 * self.threshold).mean())


def lesion_critic(model: str, organs: Sequence[str], scans: Sequence[str] = (), device: str = "cpu") -> LesionCritic:
    """A critic of tumors in these organs of the scans (ids of cases) they will be put into.

    Raises `RecipeError` if the model does not know the tumors of an organ, or if it was trained on one of the scans:
    it would know them by heart.
    """
    opened = _opened(model, device)
    require_classes(opened, organs)
    known = set(opened.record.get("data", {}).get("training", ()))
    seen = [case for case in scans if case in known]
    if seen:
        raise RecipeError(
            f"the critic {Path(model).name} was trained on these scans",
            found=f"{len(seen)} of {len(scans)}: {', '.join(seen[:5])}",
            expected="a critic that has not seen the scans it judges lesions in",
            fix="train it on other folds (synthoma train --splits --fold), one critic for each part of the scans",
        )
    return LesionCritic(model, tuple(organs), device)


def require_classes(model: Model, organs: Sequence[str]) -> None:
    """`RecipeError` if a model does not know the tumors of one of these organs."""
    missing = [organ for organ in organs if anatomy.organ(organ).lesion not in model.spec.classes]
    if missing:
        raise RecipeError(
            f"the critic does not know tumors of the {' and '.join(missing)}",
            found=f"classes {', '.join(model.spec.classes)}",
            expected=", ".join(anatomy.organ(organ).lesion for organ in missing),
            fix="give a critic that was trained on them, or leave the organ out",
        )


@lru_cache(maxsize=2)
def _opened(model: str, device: str) -> Model:
    return load_model(model, device)
