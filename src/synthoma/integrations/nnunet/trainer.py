"""`SynthomaTrainer`: nnU-Net's own training, whose training patches get synthetic tumors."""

from __future__ import annotations

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from synthoma.integrations.nnunet.joining import with_tumors


class SyntheticTumors:
    """What a trainer needs to get tumors, for a class to have before any of nnU-Net's trainers among its parents.

    `class Short(SyntheticTumors, nnUNetTrainer_250epochs): ...` is another trainer with tumors.
    """

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's own data sets, that of training with tumors."""
        training, validation = super().get_tr_and_val_datasets()  # type: ignore[misc]
        return with_tumors(self, training), validation


class SynthomaTrainer(SyntheticTumors, nnUNetTrainer):
    """nnU-Net's trainer with synthetic tumors in its training patches."""
