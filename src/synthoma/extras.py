"""Optional dependencies, imported when they are needed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from synthoma.errors import MissingExtraError

# extra -> the module that shows it is there
EXTRAS = {
    "dicom": "pydicom",
    "itk": "SimpleITK",
    "cluster": "distributed",
    "kubernetes": "dask_kubernetes",
    "train": "torch",
    "resenc": "dynamic_network_architectures",
    "export": "onnx",
    "review": "starlette",
    "realism": "sklearn",
    "nnunet": "nnunetv2",
    "torchio": "torchio",
}


def need(module: str, extra: str) -> Any:
    """The module, or a `MissingExtraError` that is the install line."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{module} is not installed", fix=f"pip install 'synthoma[{extra}]'") from error


def present_extras() -> dict[str, bool]:
    """Which extras are installed, without importing any of them."""
    return {extra: importlib.util.find_spec(module) is not None for extra, module in EXTRAS.items()}
