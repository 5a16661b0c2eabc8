"""The tissue of one lesion beside that of its organ: contrast, border, noise, heterogeneity, rim and core."""

from __future__ import annotations

import edt
import numpy as np
from scipy.optimize import curve_fit
from scipy.special import erf

from synthoma import anatomy
from synthoma.realism.samples import Sample
from synthoma.realism.shape import signed_distance_mm
from synthoma.volume import Array, Geometry

RING_MM = (5.0, 10.0)  # from the lesion: the organ that it is compared with
CORE_MM = 2.0  # inside the border: what no partial volume reaches
PROFILE_MM = 6.0  # on either side of the border
WALL_MM = 4.0  # of hollow organs: what is compared lies so deep
EVEN_HU = 25.0  # from the wall's median: what lies further has something else beside it
FEWEST = 20  # voxels for a mean, a quarter of them for noise to be told

NAMES = (
    "contrast_hu", "contrast_to_noise", "edge_width_mm", "edge_ratio", "edge_shift_mm", "noise_ratio",
    "noise_correlation", "heterogeneity_hu", "skewness", "rim_hu", "core_hu", "depth_ratio",
)  # fmt: skip


def tissue_features(sample: Sample) -> dict[str, float]:
    """The features of `NAMES`; nan where the organ is not annotated or the lesion is too small to tell.

    contrast_hu: mean of the lesion's core minus that of the ring of its organ 5-10 mm away, of hollow organs that of
    the wall there, without what the lumen holds; contrast_to_noise: over the ring's noise. edge_width_mm: 10-90 % width
    of the mean HU across the border; edge_ratio: over the width that the scanner's blur alone gives. edge_shift_mm: how
    far inside the drawn border the HU are half way. noise_ratio: SD of the fine noise in the core over that in the
    ring. noise_correlation: correlation of in-plane neighbors of it, core minus ring. heterogeneity_hu: SD of the 3 mm-
    smooth tissue of the core, beyond that of the ring. skewness: of the core's HU. rim_hu: outer 1-3 mm minus inside.
    core_hu: innermost part minus the part around it. depth_ratio: depth of the center below the common surface of organ
    and lesions, over the lesion's radius.
    """
    found = dict.fromkeys(NAMES, float("nan"))
    hu: Array = np.asarray(sample.ct.data, np.float32)
    geometry = sample.ct.geometry
    distance = signed_distance_mm(sample.mask, geometry)
    core = _core(distance, sample.mask)
    if sample.organ is None or core.sum() < FEWEST:
        return found
    ring = sample.organ & (distance < -RING_MM[0]) & (distance > -RING_MM[1]) & ~sample.others
    found |= {"depth_ratio": _depth_ratio(sample), "skewness": _skewness(hu[core])} | _layers(hu, distance, sample.mask)
    fine, smooth = _split(hu, geometry)
    if anatomy.SITES[sample.lesion.organ].form == "wall":
        ring = _wall(sample, ring, hu - fine)
    if ring.sum() < FEWEST:
        return found
    ring_noise = float(fine[ring].std())
    contrast = float(hu[core].mean() - hu[ring].mean())
    found |= {
        "contrast_hu": contrast,
        "contrast_to_noise": contrast / max(ring_noise, 1e-3),
        "noise_ratio": float(fine[core].std()) / max(ring_noise, 1e-3),
        "noise_correlation": _correlation(fine, core) - _correlation(fine, ring),
        "heterogeneity_hu": float(np.sqrt(max(0.0, smooth[core].var() - smooth[ring].var()))),
    }
    return found | _border(hu, distance, sample, contrast)


def _wall(sample: Sample, ring: Array, smooth: Array) -> Array:
    """The part of the ring that is wall of a hollow organ, and mixed with neither gas nor fat nor what the lumen holds.

    smooth: HU over 1.5 mm, so that noise is not mistaken for tissue.
    """
    together = np.ascontiguousarray(sample.organ | sample.mask | sample.others)
    depth = edt.edt(together, anisotropy=sample.ct.geometry.spacing_mm, black_border=False)
    wall = ring & (depth < WALL_MM) & (smooth > anatomy.WALL_HU[0]) & (smooth < anatomy.WALL_HU[1])
    return np.asarray(wall & (np.abs(smooth - np.median(smooth[wall])) < EVEN_HU)) if wall.any() else wall


def _core(distance: Array, mask: Array) -> Array:
    """What lies 2 mm or more inside; of a small lesion the deeper half of its voxels."""
    core = distance > CORE_MM
    if core.sum() < FEWEST and mask.any():
        core = mask & (distance >= np.median(distance[mask]))
    return np.asarray(core)


def _split(hu: Array, geometry: Geometry) -> tuple[Array, Array]:
    """The fine part of the HU in each axial slice (the scan minus its 1.5 mm blur), and the 3 mm-smooth part."""
    import cv2

    first, second = geometry.spacing_mm[:2]
    fine, smooth = np.empty_like(hu), np.empty_like(hu)
    for k in range(hu.shape[2]):
        plane = np.ascontiguousarray(hu[:, :, k])
        fine[:, :, k] = plane - cv2.GaussianBlur(plane, (0, 0), sigmaX=1.5 / second, sigmaY=1.5 / first)
        smooth[:, :, k] = cv2.GaussianBlur(plane, (0, 0), sigmaX=3.0 / second, sigmaY=3.0 / first)
    return fine, smooth


def _correlation(fine: Array, where: Array) -> float:
    """Of in-plane neighbors that both lie in a region, both directions together; nan for too few."""
    pairs = []
    for axis in (0, 1):
        near = [slice(None)] * 3
        far = [slice(None)] * 3
        near[axis], far[axis] = slice(None, -1), slice(1, None)
        both = where[tuple(near)] & where[tuple(far)]
        pairs.append((fine[tuple(near)][both], fine[tuple(far)][both]))
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    if first.size < FEWEST or not first.std() > 0 or not second.std() > 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _skewness(values: Array) -> float:
    spread = float(values.std())
    return float(((values - values.mean()) ** 3).mean() / spread**3) if spread > 0 else float("nan")


def _border(hu: Array, distance: Array, sample: Sample, contrast: float) -> dict[str, float]:
    """Width and place of the step of HU across the border, from a Gaussian-blurred step fitted to its mean profile."""
    assert sample.organ is not None
    near = (np.abs(distance) < PROFILE_MM) & (sample.mask | sample.organ) & ~sample.others
    step = max(0.5, min(sample.ct.geometry.spacing_mm))
    bins = np.rint(distance[near] / step).astype(int)
    bins -= bins.min()
    counts = np.bincount(bins)
    enough = counts >= 8
    if enough.sum() < 6 or abs(contrast) < 8.0:
        return {}
    depth = (np.bincount(bins, distance[near]) / np.maximum(counts, 1))[enough]
    mean = (np.bincount(bins, hu[near]) / np.maximum(counts, 1))[enough]
    inside, outside = float(mean[-1]), float(mean[0])

    def blurred_step(x: Array, low: float, high: float, place: float, sigma: float) -> Array:
        return np.asarray(low + (high - low) * 0.5 * (1 + erf((x - place) / (np.sqrt(2) * sigma))))

    limits = ([-2000, -2000, -PROFILE_MM, 0.1], [5000, 5000, PROFILE_MM, PROFILE_MM])
    try:
        fit, _ = curve_fit(
            blurred_step, depth, mean, (outside, inside, 0.5, 1.0), 1 / np.sqrt(counts[enough]), bounds=limits,
            max_nfev=200,
        )  # fmt: skip
    except RuntimeError:
        return {}
    width = 2.563 * float(fit[3])
    return {
        "edge_width_mm": width,
        "edge_ratio": width / (2.563 * sample.blur_mm),
        "edge_shift_mm": float(fit[2]),
    }


def _layers(hu: Array, distance: Array, mask: Array) -> dict[str, float]:
    """Rim and core of a lesion that is deep enough to have them (10 mm across or more)."""
    deepest = float(distance.max())
    if deepest < 5.0:
        return {}
    rim = mask & (distance > 1.0) & (distance < 3.0)
    middle = mask & (distance >= 3.0) & (distance < 3.0 + (deepest - 3.0) / 2)
    core = mask & (distance >= 3.0 + (deepest - 3.0) / 2)
    if min(rim.sum(), middle.sum(), core.sum()) < FEWEST:
        return {}
    inside = mask & (distance >= 3.0)
    return {
        "rim_hu": float(hu[rim].mean() - hu[inside].mean()),
        "core_hu": float(hu[core].mean() - hu[middle].mean()),
    }


def _depth_ratio(sample: Sample) -> float:
    """Depth of the center below the common surface of organ and lesions, over the radius of the ball of its volume."""
    assert sample.organ is not None
    together = np.ascontiguousarray(sample.organ | sample.mask | sample.others)
    center = np.rint(np.argwhere(sample.mask).mean(axis=0)).astype(int)
    depth = edt.edt(together, anisotropy=sample.ct.geometry.spacing_mm)[tuple(center)]
    return float(depth) / (sample.lesion.equivalent_diameter_mm / 2)
