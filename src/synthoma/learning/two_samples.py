"""Two sets of crops: how well a small network tells one from the other, on crops it has not seen.

A classifier two-sample test (Lopez-Paz and Oquab 2017) whose classifier looks at voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from synthoma.learning.turns import Turn
from synthoma.seeds import rng_for, seed_for
from synthoma.volume import Array, Floats

STEPS, BATCH, RATE = 80, 16, 6e-3  # of each fold: the time does not grow with the number of crops
_WIDTHS = (8, 16, 32)
_HU, _LIMIT = 50.0, 3.0  # HU of one unit, and how many units are looked at
_MIRRORED = ((), (2,), (3,), (2, 3))  # axes; the score is the mean over these

Fold = tuple[Array, Array]  # places of the crops that are learned from, and of those that are scored


def held_out_scores(crops: Array, truth: Array, folds: Sequence[Fold], seed: int = 0) -> Floats:
    """(N,) the score of every crop by a network that was trained without its fold; higher is more like truth 1.

    crops: (N, S, S, S) HU, 0 being the tissue that all are compared with. truth: (N,) 0 or 1, both among the crops of
    each fold that are learned from. One thread works, so that the same arguments give the same scores on the same
    version of torch; its random numbers and its threads are left as they were. A crop in no fold gets nan.
    """
    scores = np.full(len(crops), np.nan, np.float32)
    shown = np.clip(np.asarray(crops, np.float32) / _HU, -_LIMIT, _LIMIT)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for number, (train, test) in enumerate(folds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_for(seed, "two samples", number) % 2**63)
                net = _Net()
                _learn(net, shown[train], np.asarray(truth)[train], rng_for(seed, "two samples", number))
            scores[test] = _score(net, shown[test])
    finally:
        torch.set_num_threads(threads)
    return scores


class _Net(nn.Module):
    """Three convolutions, the first two to grids half as fine, then mean and maximum over the crop.

    Batch norm, not instance norm: what a crop's mean and spread are must stay to be seen.
    """

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in zip((1, *_WIDTHS), _WIDTHS, strict=False):
            kernel, stride = (3, 1) if after == _WIDTHS[-1] else (4, 2)
            blocks += [nn.Conv3d(before, after, kernel, stride, 1, bias=False), nn.BatchNorm3d(after), nn.ReLU()]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * _WIDTHS[-1], 1))

    def forward(self, crops_bcijk: torch.Tensor) -> torch.Tensor:
        """(B,) logits."""
        features = self.blocks(crops_bcijk).flatten(2)
        out: torch.Tensor = self.last(torch.cat([features.mean(2), features.amax(2)], 1))
        return out[:, 0]


def _learn(net: _Net, crops: Floats, truth: Array, rng: np.random.Generator) -> None:
    """As many of either side in each batch, mirrored and turned in the axial plane."""
    sides = [np.flatnonzero(truth == side) for side in (0, 1)]
    wanted = torch.tensor([0.0] * (BATCH // 2) + [1.0] * (BATCH // 2))
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    net.train()
    for _ in range(STEPS):
        chosen = np.concatenate([rng.choice(side, BATCH // 2) for side in sides])
        batch = np.stack([Turn.draw(rng)(crops[place]) for place in chosen])
        loss = nn.functional.binary_cross_entropy_with_logits(net(torch.from_numpy(batch)[:, None]), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _score(net: _Net, crops: Floats) -> Floats:
    """The mean over mirrored crops."""
    net.eval()
    scores = []
    with torch.no_grad():
        for part in np.array_split(crops, max(1, -(-len(crops) // BATCH))):
            batch = torch.from_numpy(np.ascontiguousarray(part))[:, None]
            scores.append(torch.stack([net(batch.flip(axes) if axes else batch) for axes in _MIRRORED]).mean(0))
    return np.asarray(torch.cat(scores).numpy(), np.float32)
