"""What an in-silico abdomen is made of: HU by contrast phase, fine texture, and the structure each tissue counts to.

HU are medians of healthy adults at 120 kV, rounded; the portal-venous column was compared with the real
scans named in docs/datasets.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthoma.anatomy import PHASES, STRUCTURES


@dataclass(frozen=True)
class Tissue:
    """HU in the phases of `anatomy.PHASES`; SD of the fine texture in HU; the structures it is part of.

    The first structure is the one a label map shows; annotators' masks of the others include the tissue too
    (a liver mask includes its veins).
    """

    hu: tuple[float, float, float]
    texture_hu: float = 0.0
    structures: tuple[str, ...] = ()


def _same(hu: float, texture_hu: float = 0.0, *structures: str) -> Tissue:
    return Tissue((hu, hu, hu), texture_hu, structures)


# The order gives the ids in a tissue map; 0 is air.
TISSUES = {
    "air": _same(-1000),
    "table_shell": _same(60),
    "table_foam": _same(-920),
    "skin": Tissue((35, 45, 50), 8),
    "fat": _same(-108, 7),
    "visceral_fat": _same(-102, 8),
    "muscle": Tissue((52, 58, 64), 9),
    "bone_cortex": _same(520, 60),
    "bone_marrow": _same(160, 28),
    "cartilage": _same(95, 14),
    "disc": _same(88, 7),
    "thecal_sac": _same(28, 5),
    "lung_left": _same(-850, 22, "lung_left"),
    "lung_right": _same(-850, 22, "lung_right"),
    "lung_vessel_left": Tissue((40, 180, 130), 0, ("lung_left",)),
    "lung_vessel_right": Tissue((40, 180, 130), 0, ("lung_right",)),
    "heart_muscle": Tissue((45, 100, 112), 6),
    "heart_blood": Tissue((42, 300, 150), 4),
    "aorta": Tissue((42, 320, 155), 3, ("aorta",)),
    "artery": Tissue((42, 300, 150)),
    "celiac_trunk": Tissue((42, 310, 152), 0, ("celiac_trunk",)),
    "postcava": Tissue((40, 60, 142), 5, ("postcava",)),
    "vein": Tissue((40, 70, 145)),
    "portal_vein": Tissue((40, 90, 168), 2, ("portal_vein_and_splenic_vein",)),
    "portal_vein_in_liver": Tissue((40, 90, 172), 2, ("portal_vein_and_splenic_vein", "liver")),
    "hepatic_vein": Tissue((40, 55, 170), 2, ("hepatic_vessel", "liver")),
    "liver": Tissue((58, 72, 112), 7, ("liver",)),
    "gall_bladder": _same(8, 3, "gall_bladder"),
    "gall_bladder_wall": Tissue((35, 50, 70), 3, ("gall_bladder",)),
    "spleen": Tissue((48, 120, 122), 6, ("spleen",)),
    "kidney_cortex_left": Tissue((33, 165, 212), 8, ("kidney_left",)),
    "kidney_medulla_left": Tissue((31, 70, 152), 9, ("kidney_left",)),
    "renal_pelvis_left": Tissue((8, 8, 14), 4, ("kidney_left",)),
    "kidney_cortex_right": Tissue((33, 165, 212), 8, ("kidney_right",)),
    "kidney_medulla_right": Tissue((31, 70, 152), 9, ("kidney_right",)),
    "renal_pelvis_right": Tissue((8, 8, 14), 4, ("kidney_right",)),
    "pancreas": Tissue((42, 105, 96), 12, ("pancreas",)),
    "adrenal_left": Tissue((20, 60, 68), 6, ("adrenal_gland_left",)),
    "adrenal_right": Tissue((20, 60, 68), 6, ("adrenal_gland_right",)),
    "esophagus_wall": Tissue((38, 55, 72), 7, ("esophagus",)),
    "esophagus_gas": _same(-600, 60, "esophagus"),
    "stomach_wall": Tissue((40, 75, 88), 9, ("stomach",)),
    "stomach_contents": _same(28, 14, "stomach"),
    "stomach_gas": _same(-960, 8, "stomach"),
    "duodenum_wall": Tissue((38, 80, 90), 9, ("duodenum",)),
    "duodenum_contents": _same(30, 12, "duodenum"),
    "colon_wall": Tissue((38, 62, 80), 8, ("colon",)),
    "colon_stool": _same(18, 38, "colon"),
    "colon_gas": _same(-970, 6, "colon"),
    "rectum_wall": Tissue((38, 58, 74), 8, ("rectum",)),
    "rectum_stool": _same(15, 35, "rectum"),
    "rectum_gas": _same(-950, 6, "rectum"),
    "intestine_wall": Tissue((38, 85, 90), 12, ("intestine",)),
    "intestine_contents": _same(34, 15, "intestine"),
    "intestine_gas": _same(-850, 30, "intestine"),
    "bladder_wall": Tissue((36, 45, 58), 5, ("bladder",)),
    "bladder_urine": _same(6, 3, "bladder"),
    "uterus": Tissue((45, 80, 108), 9, ("uterus",)),
    "endometrium": Tissue((38, 50, 72), 6, ("uterus",)),
    "prostate": Tissue((40, 60, 78), 9, ("prostate",)),
    "ovary": Tissue((32, 45, 52), 14),
    "vagina": Tissue((40, 60, 80), 7),
    "seminal_vesicle": Tissue((30, 45, 60), 7),
    "femur_cortex_left": _same(620, 60, "femur_left"),
    "femur_marrow_left": _same(200, 25, "femur_left"),
    "femur_cortex_right": _same(620, 60, "femur_right"),
    "femur_marrow_right": _same(200, 25, "femur_right"),
    "ascites": _same(9, 4),
}

TISSUE_ID = {name: number for number, name in enumerate(TISSUES)}


def weights_of(phase: str) -> tuple[float, float, float]:
    """The weights of the phases' HU in a scan that meets one of them exactly."""
    first, second, third = (float(phase == one) for one in PHASES)
    return first, second, third


def hu_by_id(contrast: Sequence[float] | NDArray[Any]) -> NDArray[np.float32]:
    """HU of each tissue id; contrast: weights of the HU in the phases of `anatomy.PHASES`."""
    by_phase = np.array([tissue.hu for tissue in TISSUES.values()])
    hu: NDArray[np.float32] = (by_phase @ np.asarray(contrast)).astype(np.float32)
    return hu


def shift_by_id(shift_hu: Mapping[str, float]) -> NDArray[np.float32]:
    """HU that a patient's tissues differ from the table, by tissue id."""
    return np.array([shift_hu.get(name, 0.0) for name in TISSUES], np.float32)


def structure_of(number: int) -> str:
    """The first structure that a tissue id is part of; empty if there is none."""
    structures = list(TISSUES.values())[number].structures
    return structures[0] if structures else ""


def texture_by_id() -> NDArray[np.float32]:
    """SD in HU of each tissue id's fine texture."""
    return np.array([tissue.texture_hu for tissue in TISSUES.values()], np.float32)


def label_by_id() -> NDArray[np.uint8]:
    """Label of each tissue id: the class id of its first structure, 0 where it has none."""
    return np.array([STRUCTURES[t.structures[0]] if t.structures else 0 for t in TISSUES.values()], np.uint8)


def members(structure: str) -> NDArray[Any]:
    """Whether each tissue id is part of the structure, as a table of bool."""
    return np.array([structure in tissue.structures for tissue in TISSUES.values()])
