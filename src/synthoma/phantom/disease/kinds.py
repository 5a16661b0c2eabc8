"""The kinds of natural tumors, as a table.

HU are those of the tumor less its organ's, unenhanced, arterial and portal venous: what atlases of abdominal CT
describe (hypervascular with washout, hypovascular with a rim, desmoplastic, ...), in round numbers. docs/phantom.md
says what each kind was compared with. Nothing here is taken from, or known to, the tumors that `synthesis` makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Phases = tuple[float, float, float]


@dataclass(frozen=True)
class Home:
    """Where tumors of an organ begin: tissues, the one whose HU theirs are told from, and a box of the template.

    room: of the directions around the place, the share in which these tissues reach over half a tumor's radius.
    """

    tissues: tuple[str, ...]
    reference: str
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    room: float = 0.0


HOMES = {
    "liver": Home(("liver",), "liver", (-90, -100, 25), (140, 105, 225), 0.6),
    "pancreas": Home(("pancreas",), "pancreas", (-95, -50, 35), (50, 45, 150), 0.25),
    "kidney": Home(
        ("kidney_cortex_left", "kidney_cortex_right", "kidney_medulla_left", "kidney_medulla_right"),
        "kidney_cortex_left",
        (-110, -95, 10),
        (110, 15, 170),
        0.3,
    ),
    "colon": Home(("colon_wall",), "colon_wall", (-128, -60, -100), (118, 100, 136)),
    "esophagus": Home(("esophagus_wall",), "esophagus_wall", (-42, -55, 182), (18, 20, 335)),
    "uterus": Home(("uterus",), "uterus", (-45, -45, -150), (45, 30, -55)),
}


@dataclass(frozen=True)
class Kind:
    """One kind of tumor.

    starts: tissues that it begins in, those of the organ if there are none. reach: half the room it has to grow in, in
    its own radii: more for what grows along a wall. duct: share that dam the pancreatic duct.
    diameter_mm: median and factor of one SD, of volume-equal balls. count: least and most in a patient.
    paths: tissue -> speed of growth through it, beside the tissues of the organ itself (1).
    unrest: SD of ln speed within the tissue; stretch: ratio of speeds along and across its strands.
    founders: places it starts from at once; satellites: mean number of nodules around it.
    front_mm: SD of its border. rim: HU added at the perfused front, by phase, over rim_mm. reach_mm: depth to which
    blood reaches; beyond it lies `core_hu` in the share `core` of tumors. specks: share with calcified specks.
    """

    organ: str
    hu: Phases
    spread_hu: Phases
    diameter_mm: tuple[float, float]
    count: tuple[int, int]
    paths: Mapping[str, float] = field(default_factory=dict)
    unrest: float = 0.35
    stretch: tuple[float, float] = (1.0, 1.4)
    founders: tuple[int, int] = (1, 2)
    satellites: float = 0.0
    front_mm: tuple[float, float] = (0.3, 1.2)
    grain_hu: float = 7.0
    grain_mm: tuple[float, float] = (3.0, 9.0)
    rim: Phases = (0.0, 0.0, 0.0)
    rim_mm: float = 2.0
    reach_mm: float = 12.0
    core: float = 0.3
    core_hu: tuple[float, float] = (10.0, 32.0)
    specks: float = 0.0
    starts: tuple[str, ...] = ()
    reach: float = 2.1
    duct: float = 0.0


_LIVER_VESSELS = {"hepatic_vein": 0.10, "portal_vein_in_liver": 0.10}
_INVADED = {"hepatic_vein": 0.45, "portal_vein_in_liver": 0.6}

KINDS = {
    "hcc": Kind(
        "liver", (-9, 34, -33), (5, 13, 10), (26, 1.75), (1, 3), _INVADED, 0.32,
        founders=(1, 4), satellites=0.5, front_mm=(0.3, 1.0), grain_hu=11, grain_mm=(4, 10), rim=(0, 4, 20), rim_mm=1.2,
        reach_mm=13, core=0.45,
    ),
    "metastasis": Kind(
        "liver", (-14, -22, -52), (5, 7, 11), (15, 1.7), (1, 6), _LIVER_VESSELS, 0.38,
        founders=(1, 3), front_mm=(0.5, 1.9), grain_hu=7, rim=(2, 24, 20), rim_mm=2.2, reach_mm=7, core=0.5,
        core_hu=(20, 45), specks=0.06,
    ),
    "scattered_metastases": Kind(
        "liver", (-14, -22, -48), (5, 7, 10), (9, 1.5), (8, 24), _LIVER_VESSELS, 0.34,
        front_mm=(0.5, 1.5), grain_hu=7, rim=(2, 20, 16), rim_mm=1.8, reach_mm=7, core=0.3, core_hu=(20, 45),
    ),
    "mucinous_metastasis": Kind(
        "liver", (-24, -36, -66), (6, 8, 12), (20, 1.7), (1, 5), _LIVER_VESSELS, 0.42,
        founders=(2, 5), front_mm=(0.4, 1.4), grain_hu=9, rim=(0, 14, 14), rim_mm=1.8, reach_mm=6, core=0.7,
        core_hu=(12, 28), specks=0.35,
    ),
    "hypervascular_metastasis": Kind(
        "liver", (-9, 42, -20), (5, 14, 10), (13, 1.6), (1, 6), _LIVER_VESSELS, 0.34,
        front_mm=(0.4, 1.4), grain_hu=9, rim=(0, 12, 6), reach_mm=9, core=0.35,
    ),
    "cholangiocarcinoma": Kind(
        "liver", (-12, -16, -44), (4, 8, 10), (42, 1.6), (1, 1), {**_LIVER_VESSELS, "portal_vein_in_liver": 0.03}, 0.7,
        stretch=(1.2, 2.2), founders=(1, 3), satellites=1.6, front_mm=(1.5, 4.5), grain_hu=8, rim=(0, 24, 14),
        rim_mm=3.5, reach_mm=14, core=0.35, core_hu=(35, 60),
    ),
    "ductal_adenocarcinoma": Kind(
        "pancreas", (-2, -52, -36), (4, 22, 16), (27, 1.4), (1, 1), {"visceral_fat": 0.4, "duodenum_wall": 0.3},
        0.6, stretch=(1.3, 2.4), founders=(1, 2), satellites=0.2, front_mm=(1.2, 3.5), grain_hu=7, reach_mm=10,
        core=0.25, duct=0.6,
    ),
    "neuroendocrine": Kind(
        "pancreas", (1, 48, 24), (4, 20, 13), (17, 1.6), (1, 1), {"visceral_fat": 0.25}, 0.3,
        front_mm=(0.3, 1.0), grain_hu=9, rim=(0, 14, 6), reach_mm=10, core=0.25, specks=0.1,
    ),
    "clear_cell": Kind(
        "kidney", (1, -28, -92), (4, 32, 24), (36, 1.7), (1, 1),
        {"visceral_fat": 0.75, "renal_pelvis_left": 0.3, "renal_pelvis_right": 0.3}, 0.2,
        founders=(1, 3), front_mm=(0.2, 0.9), grain_hu=26, grain_mm=(4, 12), rim=(0, 10, 8), reach_mm=11, core=0.7,
        specks=0.1,
    ),
    "papillary": Kind(
        "kidney", (3, -104, -138), (4, 12, 14), (27, 1.6), (1, 2), {"visceral_fat": 0.75}, 0.14,
        front_mm=(0.2, 0.7), grain_hu=7, reach_mm=16, core=0.2,
    ),
    "colon_carcinoma": Kind(
        "colon", (2, 26, 16), (3, 12, 9), (34, 1.45), (1, 1),
        {"colon_stool": 0.22, "colon_gas": 0.18, "visceral_fat": 0.13}, 0.3,
        founders=(1, 3), front_mm=(0.2, 0.6), grain_hu=9, reach_mm=12, core=0.2, reach=2.7,
    ),
    "esophageal_carcinoma": Kind(
        "esophagus", (1, 18, 12), (3, 9, 8), (26, 1.35), (1, 1), {"esophagus_gas": 0.45, "visceral_fat": 0.2}, 0.3,
        stretch=(1.3, 2.2), front_mm=(0.2, 0.8), grain_hu=7, core=0.1, reach=2.5,
    ),
    "endometrial_carcinoma": Kind(
        "uterus", (-3, -16, -34), (3, 12, 11), (28, 1.5), (1, 1), {"endometrium": 1.8, "visceral_fat": 0.05}, 0.32,
        founders=(1, 3), front_mm=(0.5, 1.6), grain_hu=9, reach_mm=13, core=0.3, starts=("endometrium",),
    ),
    "leiomyoma": Kind(
        "uterus", (0, -8, -12), (4, 16, 16), (26, 1.5), (1, 4), {"visceral_fat": 1.0, "endometrium": 1.0}, 0.06,
        stretch=(1.0, 1.15), founders=(1, 1), front_mm=(0.2, 0.5), grain_hu=11, grain_mm=(4, 9), reach_mm=18, core=0.35,
        core_hu=(30, 55), specks=0.2,
    ),
}  # fmt: skip
