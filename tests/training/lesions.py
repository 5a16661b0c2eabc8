"""Small patients with liver tumors on disk, and the settings of a tiny training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_cases import patient

from synthoma.datasets.writing import write_case

TINY: dict[str, Any] = {
    "crops": {"size": 16, "spacing_mm": 3.0},
    "network": {"features": [8, 8]},
    "steps": 4, "batch": 2, "validation": 0.0, "checkpoint_every": 2, "pictures_every": 2, "log_every": 1,
    "tensorboard": False, "sampling_steps": 10,
}  # fmt: skip


def write_patients(folder: Path) -> Path:
    """Two patients with liver tumors and one without."""
    for name, tumors in {"anna": [((-10.0, 0.0, 0.0), 9.0)], "bert": [((-20.0, 8.0, 0.0), 7.0)], "carl": []}.items():
        write_case(patient(name, tumors=tumors), folder / name)
    return folder
