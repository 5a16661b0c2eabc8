"""Trained segmentations as critics: of fake lesions while a generator learns, and of tumors that are put into scans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from synthoma import anatomy, disk
from synthoma.cases import Case
from synthoma.errors import CaseError, RecipeError
from synthoma.learning.models import Model, find_model, model_at
from synthoma.learning.networks import required_multiple
from synthoma.segmentation.infer import SegmentRecipe, predict
from synthoma.synthesis.store.copies import source_of
from synthoma.volume import Volume

_SEEN = SegmentRecipe(overlap=0.25, threshold=0.5)


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

    @property
    def margin_mm(self) -> float:
        """Around a lesion: what fills a window of the model, whose norms change with what else they see."""
        spec = model_at(self.model, self.device).spec
        return max(side * spacing for side, spacing in zip(spec.patch, spec.spacing_mm, strict=True)) / 2

    def __call__(self, ct: Volume, lesion: Volume) -> float:
        """From 0, nothing of it is called tumor, to 1; of this lesion alone. `CaseError` for an empty mask."""
        inside = lesion.data != 0
        if not inside.any():
            raise CaseError("there is no lesion to judge", found="an empty mask")
        model = model_at(self.model, self.device)
        prediction = predict(model, ct, _SEEN, self.device)
        names = [anatomy.organ(organ).lesion for organ in self.organs]
        levels = [prediction.restore(name, ct.geometry)[inside] for name in names if name in model.spec.classes]
        return float((np.max(levels, axis=0) >= 255 * self.threshold).mean())


@dataclass(frozen=True)
class LesionCritics:
    """Critics of tumors in some organs: one model, or folds, of which each case asks one that has not seen it.

    digests: of the models' files.
    """

    models: tuple[str, ...]
    organs: tuple[str, ...]
    device: str
    digests: tuple[str, ...]

    @classmethod
    def of(cls, models: Sequence[str], organs: Sequence[str], device: str = "cpu") -> LesionCritics:
        """The critics of these models; `RecipeError` if one does not know the tumors of an organ."""
        for model in models:
            require_classes(model_at(model, device), organs)
        digests = tuple(disk.digest(find_model(model)) for model in models)
        return cls(tuple(models), tuple(organs), device, digests)

    def __call__(self, case: Case) -> LesionCritic:
        """Who judges tumors in a case; `CaseError` if all models were trained on it: they know it by heart."""
        names = {case.id, case.patient, source_of(case)}
        for model in self.models:
            if names.isdisjoint(model_at(model, self.device).record.get("data", {}).get("training", ())):
                return LesionCritic(model, self.organs, self.device)
        raise CaseError(
            "the critic was trained on this scan, and would judge its tumors by heart",
            case=case.id,
            found=", ".join(Path(model).name for model in self.models),
            expected="a model that has not seen it",
            fix="train folds (synthoma train --splits FILE --fold N) and give them all: critic.model=[A, B, ...]",
        )


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
