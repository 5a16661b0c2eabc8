"""Where nnU-Net finds the trainer, and which versions of nnU-Net look there."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from synthoma.errors import MissingExtraError, RunError

VERSIONS = "2.8"  # of nnunetv2, that this is tested with; the first that look where nnUNet_extTrainer says


def trainers_folder() -> Path:
    """The folder for `nnUNet_extTrainer`; nnU-Net itself is not imported.

    Raises `MissingExtraError` without nnU-Net, `RunError` if it is older than the versions that look there.
    """
    try:
        found = importlib.metadata.version("nnunetv2")
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingExtraError("nnunetv2 is not installed", fix="pip install 'synthoma[nnunet]'") from error
    if [int(part) for part in found.split(".")[:2]] < [int(part) for part in VERSIONS.split(".")]:
        raise RunError("this nnU-Net knows no nnUNet_extTrainer", **how_to_change(found))
    return Path(__file__).with_name("trainers")


def differing_builds() -> str | None:
    """A sentence if torch and torchvision are of different builds, as their versions tell (`+cpu`); else None.

    nnU-Net imports both when it looks for a trainer, and stops if torchvision was built for another torch. It is what
    pip makes of PyTorch's CPU build alone: torchvision then comes from another index, built for a GPU.
    """
    try:
        found = {name: importlib.metadata.version(name) for name in ("torch", "torchvision")}
    except importlib.metadata.PackageNotFoundError:
        return None
    builds = [version.partition("+")[2] for version in found.values()]
    if builds[0] == builds[1]:
        return None
    told = " and ".join(f"{name} {version}" for name, version in found.items())
    index = f"--index-url https://download.pytorch.org/whl/{builds[0] or builds[1]}"
    return (
        f"{told} are different builds, so nnU-Net may stop with 'operator torchvision::nms does not exist'; "
        f"pip install --force-reinstall torch torchvision {index}"
    )


def how_to_change(found: str) -> dict[str, str]:
    """What a `RunError` about another nnU-Net says beside its first sentence."""
    return {"found": f"nnunetv2 {found}", "expected": VERSIONS, "fix": f"pip install 'nnunetv2=={VERSIONS}.*'"}
