"""Which values a CT can hold: padding outside the field of view, and scans whose values cannot be HU.

Everything looks at a sample of voxels (100,000 are enough) and tells a value and the share of voxels that hold it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from synthoma.volume import Array

# What scanners, planning systems and converters write outside the round field of view, in HU.
PADDINGS_HU = (-1024, -2000, -2048, -3024, -32768)
# Numbers of bits whose unsigned reading turns a negative value into a large one.
_WRAPS = (2**16, 2**12)
_TISSUE_HU = (-150, 150)  # fat and soft tissue
_EDGE_SHARE = 0.02  # of one value at an end of the range, from which on the range was cut there
_SPIKE_SHARE = 0.01  # of one value amid others
_HIGHEST_HU = 30_800  # the extended scale of scanners that resolve metal ends at 30,710
_WRAPPED_SHARE = 0.001  # of values that no tissue and no metal has
_CEILING_HU = 2500  # scanners themselves end at 3071 or 4095, on metal
_DENSE_HU, _DENSE_SHARE = 900, 0.002  # a scan cut off below cortical bone has at least this share at its top

Kind = Literal["constant", "scaled", "wrapped", "shifted", "no_tissue", "saturated", "windowed"]


class Impossible(NamedTuple):
    """Why values cannot be HU. value: the one that tells it; share: of the voxels that hold it, or lie beyond it.

    told: value and share in words, and what they look like. expected: what HU look like there.
    """

    kind: Kind
    value: float
    share: float
    told: str
    expected: str


def padding_hu(values: Array) -> float | None:
    """The value that stands for "outside the field of view"; None if there is none below -1000 HU.

    values: finite voxels of a scan, one axis. It is the lowest value, and either one of `PADDINGS_HU` or one that at
    least 1 % of the voxels hold and that lies 100 HU or more below all others.
    """
    if values.size == 0 or (low := float(values.min())) > -1000:
        return None
    rest = values[values > low]
    share = 1 - rest.size / values.size
    alone = rest.size > 0 and float(rest.min()) - low >= 100
    return low if low in PADDINGS_HU or (share >= _SPIKE_SHARE and alone) else None


def impossible_hu(values: Array) -> Impossible | None:
    """The most telling reason why a scan's values cannot be HU; None if they may be, and for no values at all.

    values: finite voxels of the scan, or of an even sample of it, one axis. Known padding is left out first.

    - constant: one value everywhere
    - scaled: to 0-1, 0-255 or unit variance
    - wrapped: read with too few or unsigned bits, so that padding or air is brighter than bone (63536 for -2000)
    - shifted: soft tissue near +1024 or -1024: the rescale intercept was left out, or applied twice
    - no_tissue: less than 2 % between -150 and 150 HU
    - windowed: cut off at a low value above that of air
    - saturated: cut off at a high value below those that scanners end at
    """
    if values.size == 0:
        return None
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Impossible("constant", low, 1.0, f"{low:g} everywhere", "air at -1000, tissue near 0")
    padding = padding_hu(values)
    measured = values if padding is None else values[values > padding]
    low = float(measured.min())
    for look in (_scaled, _wrapped, _shifted, _windowed, _saturated):
        reason = look(measured, low, high)
        if reason is not None:
            return reason
    return None


def _scaled(values: Array, low: float, high: float) -> Impossible | None:
    if high - low <= 40 or (low >= 0 and high <= 255):
        return Impossible("scaled", high, 1.0, f"all values from {low:g} to {high:g}", "air at -1000, bone above 300")
    return None


def _wrapped(values: Array, low: float, high: float) -> Impossible | None:
    for beyond, expected in (
        (values > _HIGHEST_HU, "at most 3071 in bone and metal"),
        (values < min(PADDINGS_HU[:-1]) - 1024, "air at -1000"),
    ):
        if float(np.mean(beyond)) > _WRAPPED_SHARE:
            value = _commonest(values[beyond])
            return _reason("wrapped", value, beyond, " or near it", _unwrapped(value), expected)
    for padding in PADDINGS_HU[:-1]:
        same = values == padding + 2**12
        near = float(np.mean(np.abs(values - (padding + 2**12)) <= 3)) - float(np.mean(same))
        if float(np.mean(same)) > max(_SPIKE_SHARE, near):  # padding is one value; tissue at 1072 has neighbors
            return _reason("wrapped", padding + 4096.0, same, "", _unwrapped(padding + 4096.0), "padding below -1000")
    bright = values > 2800
    if min(_tissue(values, 0), float(np.mean(bright))) > _EDGE_SHARE and _share(values, -np.inf, -300) < 0.01:
        return _reason("wrapped", _commonest(values[bright]), bright, " or above 2800", " and no air", "air at -1000")
    return None


def _shifted(values: Array, low: float, high: float) -> Impossible | None:
    """Soft tissue where it cannot be, or nowhere."""
    for offset, fits in ((1024, -200 < low < 500), (-1024, low < -1500 and _tissue(values, 0) < _EDGE_SHARE)):
        if fits and _tissue(values, offset) > _EDGE_SHARE:
            near = np.abs(values - offset) < _TISSUE_HU[1]
            told = f", as of tissue moved by {offset:+d}"
            return _reason("shifted", float(np.median(values[near])), near, " or near it", told, "tissue near 0")
    share = _tissue(values, 0)
    if share < _EDGE_SHARE:
        told = f"{low:g} to {high:g}, and {share:.1%} of the voxels at -150 to 150"
        return Impossible("no_tissue", float(np.median(values)), share, told, "tissue near 0")
    return None


def _windowed(values: Array, low: float, high: float) -> Impossible | None:
    same = values == low
    if low > -900 and float(np.mean(same)) > _EDGE_SHARE:
        return _reason("windowed", low, same, ", the lowest value,", "", "air at -1000")
    return None


def _saturated(values: Array, low: float, high: float) -> Impossible | None:
    """A spike at the high end, where the values of a scan become ever fewer."""
    same = values == high
    share, below = float(np.mean(same)), float(np.mean((values < high) & (values >= high - 20)))
    enough = _DENSE_SHARE if high < _DENSE_HU else _EDGE_SHARE
    if high < _CEILING_HU and share > max(enough, below):
        return _reason(
            "saturated", high, same, ", the highest value,", "", "ever fewer voxels towards the highest value"
        )
    return None


def _reason(kind: Kind, value: float, where: Array, near: str, after: str, expected: str) -> Impossible:
    share = float(np.mean(where))
    return Impossible(kind, value, share, f"{value:g}{near} in {share:.1%} of the voxels{after}", expected)


def _unwrapped(value: float) -> str:
    """What a value would be with a sign, if that is a padding."""
    for wrap in _WRAPS:
        if value - wrap in PADDINGS_HU:
            return f", the padding {value - wrap:g} read as unsigned"
    return ""


def _commonest(values: Array) -> float:
    found, counts = np.unique(values, return_counts=True)
    return float(found[counts.argmax()])


def _tissue(values: Array, offset: float) -> float:
    """Share of fat and soft tissue, were HU shifted by this much."""
    return _share(values, offset + _TISSUE_HU[0], offset + _TISSUE_HU[1])


def _share(values: Array, low: float, high: float) -> float:
    return float(np.mean((values > low) & (values < high)))
