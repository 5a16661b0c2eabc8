"""nnU-Net's CT normalization, and back to HU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from synthoma.errors import RecipeError
from synthoma.volume import Array

CT_SCHEME = "CTNormalization"
_LEAST_STD = 1e-8  # as nnU-Net has it


@dataclass(frozen=True)
class CtNormalization:
    """Values of a preprocessed scan: (HU clipped to `lower` ... `upper` - mean_hu) / sd_hu.

    What clipping cut off is lost: fat and air read as `lower`, bone as `upper`.
    """

    mean_hu: float
    sd_hu: float
    lower_hu: float
    upper_hu: float

    @classmethod
    def of_plans(cls, schemes: Sequence[str], intensities: Mapping[str, Mapping[str, Any]]) -> CtNormalization:
        """The one of a plans file: a configuration's `normalization_schemes`, and the intensities by channel.

        Raises `RecipeError` unless there is one channel, normalized as CT.
        """
        if list(schemes) != [CT_SCHEME]:
            raise RecipeError(
                "patches cannot be turned back to HU",
                found=f"normalization {', '.join(schemes)}",
                expected=f"one channel with {CT_SCHEME}",
                fix='name the channel in dataset.json: "channel_names": {"0": "CT"}, then plan and preprocess again',
            )
        told = intensities["0"]
        return cls(
            mean_hu=float(told["mean"]),
            sd_hu=max(float(told["std"]), _LEAST_STD),
            lower_hu=float(told["percentile_00_5"]),
            upper_hu=float(told["percentile_99_5"]),
        )

    def to_hu(self, values: Array) -> Array:
        """int16 HU, rounded."""
        hu = values * np.float32(self.sd_hu)
        hu += np.float32(self.mean_hu)
        return np.rint(hu, out=hu).clip(-32768, 32767).astype(np.int16)

    def changed(self, values: Array, by_hu: Array) -> Array:
        """The values of a scan whose HU differ by so much, clipped as nnU-Net does."""
        hu = values * np.float32(self.sd_hu) + np.float32(self.mean_hu) + by_hu
        clipped = np.clip(hu, np.float32(self.lower_hu), np.float32(self.upper_hu))
        return np.asarray((clipped - np.float32(self.mean_hu)) / np.float32(self.sd_hu), np.float32)
