"""`nnUNetv2_train ... -tr SynthomaTrainer` finds the trainer here."""

from synthoma.integrations.nnunet.trainer import SynthomaTrainer

__all__ = ["SynthomaTrainer"]
