"""The folder that `nnUNet_extTrainer` names: nnU-Net looks for trainers in it."""
