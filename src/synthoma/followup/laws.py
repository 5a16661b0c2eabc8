"""How a tumor's volume changes in time: growth laws, and doubling times by organ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST_MM3 = 1.0e6  # at which Gompertz growth ends: a ball of 124 mm


@dataclass(frozen=True)
class Doubling:
    """Volume doubling time of untreated tumors in days: median, and what nineteen of twenty exceed and fall below."""

    median: float
    low: float
    high: float
    source: str


# Rounded; the spread between patients is far wider than that between sources.
DOUBLING_DAYS = {
    "liver": Doubling(140, 40, 500, "HCC: pooled 4.6 months, Nathani et al., Gut 70:401, 2021"),
    "pancreas": Doubling(150, 60, 300, "adenocarcinoma: about 160 days, after Furukawa et al., 2001; to be checked"),
    "kidney": Doubling(
        500, 150, 1800, "renal cell cancer: 372-579 days, Observations on the growth rate of RCC; widened"
    ),
    "colon": Doubling(
        210, 70, 650, "adenocarcinoma: median 211, quartiles 112-404, Burke et al., BJS Open 4:1200, 2020"
    ),
    "esophagus": Doubling(150, 50, 500, "assumed, after the colon's"),
    "uterus": Doubling(900, 300, 3000, "leiomyoma: 9 % in six months, Peddada et al., PNAS 105:19887, 2008, widened"),
}


def draw_doubling_days(organ: str, limits: tuple[float, float] | None, rng: np.random.Generator) -> float:
    """A doubling time: uniform within limits if told, else log-normal around the organ's median."""
    if limits is not None:
        return float(rng.uniform(min(limits), max(limits)))
    row = DOUBLING_DAYS[organ]
    spread = np.log(row.high / row.low) / (2 * 1.645)
    drawn = row.median * np.exp(spread * rng.standard_normal())
    return float(np.clip(drawn, row.low / 2, 2 * row.high))


def exponential(volume_mm3: float, doubling_days: float, day: float) -> float:
    """V0 2^(t / Td)."""
    return float(volume_mm3 * 2 ** (day / doubling_days))


def gompertz(volume_mm3: float, doubling_days: float, day: float, largest_mm3: float = LARGEST_MM3) -> float:
    """K (V0 / K)^exp(-b t): doubles in `doubling_days` at first, ever more slowly towards K.

    b = ln 2 / (Td ln(K / V0)). A tumor of K or more stays as it is.
    """
    if volume_mm3 >= largest_mm3:
        return volume_mm3
    ratio = np.log(largest_mm3 / volume_mm3)
    pace = np.log(2) / (doubling_days * ratio)
    return float(largest_mm3 * np.exp(-ratio * np.exp(-pace * day)))


LAWS = {"exponential": exponential, "gompertz": gompertz}
