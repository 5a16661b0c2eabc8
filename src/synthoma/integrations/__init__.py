"""Synthetic tumors inside other people's training pipelines: nnU-Net, MONAI, TorchIO."""
