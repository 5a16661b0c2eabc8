"""What the loops of generators share: a look at the loss, pictures of the same lesions, and the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthoma import pictures
from synthoma.disk import write_json
from synthoma.errors import RunError
from synthoma.learning.crops import LesionCrops
from synthoma.learning.loop import write_tensors
from synthoma.learning.tissue import GeneratorSpec, leveled, surroundings, tissue_field
from synthoma.training.batches import Batch, collate, noise_like
from synthoma.volume import Geometry, Volume

PICTURES, BAD_BATCH = "pictures", "bad_batch"
SHOWN = 12
_SHOWN_SEED = 7


def require_finite(
    losses: Mapping[str, torch.Tensor], step: int, batch: Batch, folder: Path | None
) -> dict[str, float]:
    """The losses as numbers; `RunError` if one is not finite, with the batch in the run folder."""
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    wrong = [name for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return values
    place = ""
    if folder:
        tensors = {name: data for name, data in batch.items() if isinstance(data, torch.Tensor)}
        write_tensors(folder / f"{BAD_BATCH}.safetensors", tensors, {"step": str(step)})
        write_json(folder / f"{BAD_BATCH}.json", {"step": step, "cases": list(batch["case"])})
        place = f"its crops are in {folder / BAD_BATCH}.safetensors; "
    raise RunError(
        f"the {wrong[0]} of step {step} is {values[wrong[0]]}",
        found=f"crops of {', '.join(sorted(set(batch['case'])))}",
        fix=f"{place}lower the learning rate, or try precision = 'fp32'",
    )


def show_lesions(
    net: torch.nn.Module, spec: GeneratorSpec, crops: LesionCrops, chosen: Sequence[int], path: Path, device: Any
) -> None:
    """The same lesions every time, real above and with tissue by the network below, as a PNG."""
    picked = [chosen[int(at)] for at in np.linspace(0, len(chosen) - 1, min(SHOWN, len(chosen)))]
    batch = collate([crops.crop(index) for index in picked], picked)
    made = made_scans(net, spec, batch, device)
    items = []
    for number, index in enumerate(picked):
        grid = Geometry.of(batch["hu"].shape[2:], spec.spacing_mm)
        mask = Volume(batch["mask"][number, 0].numpy(), grid)
        if not mask.data.any():
            continue
        look = crops.lesions[index][1].look
        real = Volume(batch["hu"][number, 0].numpy(), grid)
        title = f"{look.organ} {look.diameter_mm:.0f} mm {look.contrast_hu:+.0f} HU"
        items.append((title, real, Volume(made[number], grid), mask))
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.show_gallery(items, path, "above the real lesion, below its tissue by the network")


def made_scans(net: torch.nn.Module, spec: GeneratorSpec, batch: Batch, device: Any) -> list[np.ndarray[Any, Any]]:
    """The scans of a batch with their lesions' tissue made anew: their own noise kept, HU float32."""
    training = net.training
    net.eval()
    with torch.inference_mode():
        hu, alpha = batch["hu"].to(device), batch["alpha"].to(device)
        around = surroundings(hu, alpha, batch["base"].to(device))
        noise = noise_like(alpha, _SHOWN_SEED, "shown")
        made = tissue_field(net, spec, noise, alpha, around, batch["condition"].to(device))
        made = leveled(made, alpha, batch["trend"].to(device)).cpu()
    net.train(training)
    scans = []
    for number, field in enumerate(made[:, 0].numpy()):
        hu, mask, alpha = (batch[name][number, 0].numpy() for name in ("hu", "mask", "alpha"))
        if mask.any():
            smooth = batch["tissue_hu"][number, 0].numpy()
            mean = smooth[mask].mean()
            hu = hu + alpha * (field - field[mask].mean() + mean - smooth)
        scans.append(hu)
    return scans
