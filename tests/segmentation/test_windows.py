"""Windows: what they cover, how they blend, and that slabs come out as the whole would."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from synthoma.segmentation.windows import Windows, blend
from synthoma.volume import Box, Triple

SHAPES = [(40, 23, 31), (17, 16, 50), (9, 40, 16), (5, 4, 3), (16, 16, 16)]


def windows_of(whole: torch.Tensor, corners: Sequence[Triple], size: Triple) -> list[torch.Tensor]:
    """What a network would say that answers voxel by voxel with `whole` (C, I, J, K)."""
    found = []
    for corner in corners:
        box = Box(corner, tuple(c + s for c, s in zip(corner, size, strict=True)))
        inside = box.clip(whole.shape[1:])
        said = torch.full((len(whole), *size), 7.0)  # outside the grid: must not show
        said[(slice(None), *inside.shift([-c for c in corner]).slices)] = whole[(slice(None), *inside.slices)]
        found.append(said)
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.75])
def test_windows_that_agree_give_what_they_say_at_every_voxel_once(shape: Triple, overlap: float) -> None:
    whole = torch.rand(2, *shape)
    windows = Windows(shape, (16, 8, 12), overlap)
    result, given = torch.zeros_like(whole), torch.zeros(shape)
    for box, slab in blend(windows, lambda corners: windows_of(whole, corners, windows.size), batch=3):
        assert slab.shape[1:] == box.shape
        result[(slice(None), *box.slices)] = slab
        given[box.slices] += 1
    assert (given == 1).all()
    torch.testing.assert_close(result, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_slabs_equal_the_whole_volume_accumulated_at_once(shape: Triple) -> None:
    windows = Windows(shape, (16, 8, 12), 0.5)

    def look(corners: Sequence[Triple]) -> list[torch.Tensor]:
        return [torch.rand(2, *windows.size, generator=torch.Generator().manual_seed(hash(c) % 2**31)) for c in corners]

    bell = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in windows.size]
    weight = torch.from_numpy(np.einsum("i,j,k->ijk", *bell))
    total, weights = torch.zeros(2, *shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)
    for corner in itertools.product(*windows.starts):
        box = Box(corner, tuple(c + s for c, s in zip(corner, windows.size, strict=True)))
        inside = box.clip(shape)
        part = inside.shift([-c for c in corner]).slices
        total[(slice(None), *inside.slices)] += (look([corner])[0].double() * weight)[(slice(None), *part)]
        weights[inside.slices] += weight[part]
    for batch in (1, 5):
        for box, slab in blend(windows, look, batch):
            expected = (total / weights)[(slice(None), *box.slices)].float()
            torch.testing.assert_close(slab, expected, rtol=1e-4, atol=1e-5)


def test_the_result_is_that_of_monai_with_the_same_weights() -> None:
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, 2, 3, padding=1))
    windows = Windows((32, 24, 40), (16, 16, 16), 0.5)
    image = torch.rand(1, 1, *windows.shape)
    bell = torch.exp(-0.5 * ((torch.arange(16) - 7.5) / 2) ** 2)
    weight = bell[:, None, None] * bell[:, None] * bell

    def look(corners: Sequence[Triple]) -> torch.Tensor:
        boxes = [Box(c, tuple(n + 16 for n in c)) for c in corners]
        return net(torch.stack([image[(0, slice(None), *box.slices)] for box in boxes]))

    with torch.inference_mode():
        theirs = sliding_window_inference(image, windows.size, 1, net, 0.5, roi_weight_map=weight)
        for box, slab in blend(windows, look, 2):
            torch.testing.assert_close(slab, theirs[(0, slice(None), *box.slices)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_windows_are_evenly_spread_and_share_at_least_the_overlap(overlap: float) -> None:
    for n in range(16, 120):
        (starts, _, _) = Windows((n, 16, 16), (16, 16, 16), overlap).starts
        steps = np.diff(starts)
        assert starts[0] == 0
        assert starts[-1] == n - 16
        assert (steps <= 16 * (1 - overlap)).all()
        assert len(steps) == 0 or steps.max() - steps.min() <= 1


def test_only_one_layer_of_windows_is_open_whatever_the_length() -> None:
    for length in (64, 640):
        windows = Windows((20, length, 20), (16, 16, 16), 0.5)
        assert windows.axis == 1
        assert windows.slab == (20, 16, 20)
