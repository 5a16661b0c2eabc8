"""The medical numbers, as tables: structures, organs, HU by phase, and the statistics of real tumors.

Sources, by key:
  AA2  AbdomenAtlas 2.0 class ids (Chen et al., ICCV 2025)
"""

from __future__ import annotations

from dataclasses import dataclass

from synthoma.errors import CaseError

# AA2: structure -> class id. The order is that of the ids.
STRUCTURES = {
    "aorta": 1,
    "gall_bladder": 2,
    "kidney_left": 3,
    "kidney_right": 4,
    "liver": 5,
    "pancreas": 6,
    "postcava": 7,
    "spleen": 8,
    "stomach": 9,
    "adrenal_gland_left": 10,
    "adrenal_gland_right": 11,
    "bladder": 12,
    "celiac_trunk": 13,
    "colon": 14,
    "duodenum": 15,
    "esophagus": 16,
    "femur_left": 17,
    "femur_right": 18,
    "hepatic_vessel": 19,
    "intestine": 20,
    "lung_left": 21,
    "lung_right": 22,
    "portal_vein_and_splenic_vein": 23,
    "prostate": 24,
    "rectum": 25,
    "uterus": 26,
    "liver_lesion": 27,
    "pancreas_lesion": 28,
    "kidney_lesion": 29,
    "colon_lesion": 30,
    "uterus_lesion": 31,
    "esophagus_lesion": 32,
}

# Names that AbdomenAtlas 2.0 spells otherwise; used when writing its layout.
ABDOMENATLAS_NAMES = {
    "pancreas_lesion": "pancreatic_lesion",
    "uterus_lesion": "endometrioma_tumor",
    "esophagus_lesion": "esophagus_tumor",
}

# Other spellings met in public data -> ours.
ALIASES = {
    "pancreatic_lesion": "pancreas_lesion",
    "pancreatic_tumor": "pancreas_lesion",
    "endometrioma_tumor": "uterus_lesion",
    "endometrioma": "uterus_lesion",
    "hepatic_lesion": "liver_lesion",
    "hepatic_tumor": "liver_lesion",
    "renal_lesion": "kidney_lesion",
    "liver_cancer": "liver_lesion",
    "pancreas_cancer": "pancreas_lesion",
    "colon_cancer": "colon_lesion",
    "colon_cancer_primaries": "colon_lesion",
    "pancreatic_cyst": "pancreas_cyst",
    "hepatic_cyst": "liver_cyst",
    "renal_cyst": "kidney_cyst",
    "gallbladder": "gall_bladder",
    "inferior_vena_cava": "postcava",
    "portal_and_splenic_vein": "portal_vein_and_splenic_vein",
    "urinary_bladder": "bladder",
    "small_bowel": "intestine",
    "left_kidney": "kidney_left",
    "right_kidney": "kidney_right",
    "left_lung": "lung_left",
    "right_lung": "lung_right",
    # radiotherapy writes the side last and the kind of vessel or gland first (AAPM TG-263)
    "kidney_l": "kidney_left",
    "kidney_r": "kidney_right",
    "lung_l": "lung_left",
    "lung_r": "lung_right",
    "femur_l": "femur_left",
    "femur_r": "femur_right",
    "glnd_adrenal_l": "adrenal_gland_left",
    "glnd_adrenal_r": "adrenal_gland_right",
    "a_aorta": "aorta",
    "v_venacava_i": "postcava",
    "bowel_small": "intestine",
}


# A mask of this name is no anatomy: voxels that nobody annotated (nnU-Net's `ignore`). They take part in no score, no
# loss and no choice of where to put a tumor.
IGNORE = "ignore"


@dataclass(frozen=True)
class Organ:
    """One organ that can bear tumors: the structures it is made of, and what its tumor is called."""

    name: str
    parts: tuple[str, ...]

    @property
    def structures(self) -> tuple[str, ...]:
        """The masks that may stand for it: itself as a whole (`kidney` in KiTS), and its parts."""
        return tuple(dict.fromkeys((self.name, *self.parts)))

    @property
    def lesion(self) -> str:
        """The structure that holds its tumors."""
        return f"{self.name}_lesion"


ORGANS = {
    organ.name: organ
    for organ in (
        Organ("liver", ("liver",)),
        Organ("pancreas", ("pancreas",)),
        Organ("kidney", ("kidney_left", "kidney_right")),
        Organ("colon", ("colon",)),
        Organ("esophagus", ("esophagus",)),
        Organ("uterus", ("uterus",)),
    )
}


def organ(name: str) -> Organ:
    """The organ of this name; `CaseError` listing the known ones if there is none."""
    if name not in ORGANS:
        raise CaseError(f"no organ {name!r}", expected=f"one of {', '.join(ORGANS)}")
    return ORGANS[name]


# Words for a tumor and for a cyst at the end of a structure's name, or before it; and adjectives of organs.
TUMOR_WORDS = (
    "lesion", "lesions", "tumor", "tumors", "tumour", "tumours", "cancer", "cancers", "carcinoma", "carcinomas",
    "metastasis", "metastases", "neoplasm", "neoplasms", "malignancy", "adenocarcinoma",
    "gtv",
)  # fmt: skip
CYST_WORDS = ("cyst", "cysts")
ORGAN_WORDS = {
    "hepatic": "liver",
    "pancreatic": "pancreas",
    "renal": "kidney",
    "kidneys": "kidney",
    "colonic": "colon",
    "colorectal": "colon",
    "oesophagus": "esophagus",
    "oesophageal": "esophagus",
    "esophageal": "esophagus",
    "uterine": "uterus",
    "endometrial": "uterus",
}


def canonical_name(name: str) -> str:
    """Our spelling of a structure's name: lower case, underscores, `*_tumors`, `*_mass`, ... as `*_lesion`.

    Unknown names are kept (in that spelling), so nothing in a data set is lost. `*_cyst` stays a structure
    of its own: a cyst is not a tumor.
    """
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    if plain in ALIASES:
        return ALIASES[plain]
    for words, ending in ((TUMOR_WORDS, "lesion"), (CYST_WORDS, "cyst")):
        stem = _without_word(plain, words)
        if stem:
            whole = f"{ORGAN_WORDS.get(stem, stem)}_{ending}"
            return ALIASES.get(whole, whole)
    whole = plain.removeprefix("whole_")
    return ORGAN_WORDS.get(plain, whole if whole in ORGANS else plain)


def _without_word(plain: str, words: tuple[str, ...]) -> str:
    """What is left of a name that ends in one of the words, or begins with one before an organ; empty if none does."""
    for word in words:
        if plain.endswith(f"_{word}"):
            return plain.removesuffix(f"_{word}")
        joined, turned = plain.removesuffix(word), plain.removeprefix(f"{word}_").removeprefix("of_")
        for stem in (joined, turned):
            if stem != plain and ORGAN_WORDS.get(stem, stem) in ORGANS:
                return stem
    return ""


def is_known(structure: str) -> bool:
    """Whether a structure (in our spelling) is one that any command knows: an organ, its part, tumor or cyst."""
    ours = {*STRUCTURES, IGNORE, *(name for organ in ORGANS.values() for name in (*organ.structures, organ.lesion))}
    return (
        structure in ours or structure.endswith("_cyst") or structure.startswith(tuple(f"{name}_" for name in ORGANS))
    )


def canonical_phase(name: str) -> str:
    """Our spelling of a contrast phase; unknown ones are kept in it."""
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    return PHASE_ALIASES.get(plain, plain)


def is_lesion(structure: str) -> bool:
    """Whether a structure (in our spelling) holds tumors."""
    return structure.endswith("_lesion")


PHASES = ("unenhanced", "arterial", "portal")
PHASE_ALIASES = {
    "none": "unenhanced",
    "native": "unenhanced",
    "plain": "unenhanced",
    "non_contrast": "unenhanced",
    "noncontrast": "unenhanced",
    "late_arterial": "arterial",
    "portal_venous": "portal",
    "venous": "portal",
    "pv": "portal",
}


@dataclass(frozen=True)
class ShapePrior:
    """Surface and size statistics of an organ's real tumors; the model is in docs/priors.md.

    roughness_20, roughness_growth, roughness_spread: the amplitude a = r20 (d / 20 mm)^growth exp(spread N).
    spectrum: p. b_over_a, c_over_b: mean and SD of the half-axes' ratios. log_diameter: mean and SD of ln mm.
    within_case: SD of ln mm between lesions of one case. lesions: median and 95 % of the count per case.
    """

    roughness_20: float
    roughness_growth: float
    roughness_spread: float
    spectrum: float
    b_over_a: tuple[float, float]
    c_over_b: tuple[float, float]
    log_diameter: tuple[float, float]
    within_case: float = 0.0
    lesions: tuple[float, float] = (1.0, 1.0)
    source: str = ""


# roughness_spread etc.: fitted to KiTS19, LiTS, MSD pancreas and MSD colon masks (docs/priors.md).
# Esophagus and uterus have no public masks to measure: their rows are assumptions, marked so.
SHAPES = {
    "liver": ShapePrior(
        0.122, 0.36, 0.41, 2.59, (0.763, 0.141), (0.810, 0.110), (2.41, 0.68), 0.56, (4, 23), "LiTS, 434 lesions"
    ),
    "pancreas": ShapePrior(
        0.074, 0.32, 0.37, 4.35, (0.774, 0.126), (0.812, 0.093), (3.09, 0.35), source="MSD pancreas, 264 tumors"
    ),
    "kidney": ShapePrior(
        0.067, 0.02, 0.56, 3.34, (0.858, 0.083), (0.864, 0.085), (3.61, 0.57), source="KiTS19, 227 tumors"
    ),
    "colon": ShapePrior(
        0.308, -0.41, 0.85, 2.93, (0.696, 0.152), (0.772, 0.130), (3.51, 0.38), source="MSD colon, 120 tumors"
    ),
    "esophagus": ShapePrior(
        0.20, 0.0, 0.4, 2.93, (0.70, 0.15), (0.77, 0.13), (3.30, 0.35), source="assumed, after the colon's"
    ),
    "uterus": ShapePrior(
        0.070, 0.0, 0.5, 3.34, (0.84, 0.09), (0.85, 0.09), (3.30, 0.45), source="assumed, after the kidney's"
    ),
}
ROUGHNESS_LIMIT = 0.6
SPECTRUM_SPREAD = 0.35
SKEW = (0.10, 0.07)
AXIS_RATIO_RANGE = (0.25, 1.0)
DIAMETER_RANGE_MM = (3.0, 130.0)


@dataclass(frozen=True)
class SitePrior:
    """Where an organ's tumors sit.

    form: `mass` in tissue or `wall` of a hollow organ. depth_share: how far under the surface the center lies at
    least, in mean radii (negative: outside). free_surface: share of the tumor's surface without organ contact for
    diameters < 20, 20-40, > 40 mm, if the site is drawn from it.
    outside_mm: how far out that fat is looked at when a site is chosen. coarse_mm: of the tables that sites come from.
    even: its tissue shows the scan's noise and little else (no cortex and medulla, no lobules in fat).
    """

    form: str
    depth_share: float = 1.0
    free_surface: tuple[float, float, float] | None = None
    outside_mm: float = 0.0
    coarse_mm: float = 2.5
    even: bool = False


WALL_HU = (0.0, 200.0)  # what of a hollow organ's mask is its wall: neither gas nor fat nor contrast medium
SITES = {
    "liver": SitePrior("mass", 0.8, coarse_mm=4.0, even=True),
    "pancreas": SitePrior("mass", 0.3, outside_mm=15.0),
    "kidney": SitePrior("mass", free_surface=(0.33, 0.45, 0.69), outside_mm=25.0),  # KiTS19
    "colon": SitePrior("wall"),
    "esophagus": SitePrior("wall"),
    "uterus": SitePrior("mass", 0.5, outside_mm=10.0, even=True),
}
FREE_SURFACE_SPREAD = 0.2  # SD, so that 5-95 % is about what KiTS19 shows (.16-.83 over all sizes)

# Tumor minus organ, HU: mean, SD, lowest, highest. Portal and arterial liver bracket real HCC (-11, -98...+61 and
# +26, -44...+146) and hypodense metastases (-31...-61); the other rows are what radiology textbooks describe, kept
# wide, and are to be replaced by measurements. For hollow organs the reference is the wall.
CONTRASTS = {
    ("liver", "unenhanced"): (-15.0, 10.0, -40.0, 5.0),
    ("liver", "arterial"): (8.0, 42.0, -60.0, 146.0),
    ("liver", "portal"): (-35.0, 25.0, -98.0, 61.0),
    ("pancreas", "unenhanced"): (-4.0, 6.0, -20.0, 10.0),
    ("pancreas", "arterial"): (-45.0, 28.0, -100.0, 80.0),
    ("pancreas", "portal"): (-32.0, 20.0, -80.0, 40.0),
    ("kidney", "unenhanced"): (2.0, 8.0, -20.0, 30.0),
    ("kidney", "arterial"): (-45.0, 50.0, -140.0, 60.0),
    ("kidney", "portal"): (-85.0, 35.0, -170.0, -10.0),
    ("colon", "unenhanced"): (2.0, 6.0, -10.0, 15.0),
    ("colon", "arterial"): (25.0, 15.0, -10.0, 60.0),
    ("colon", "portal"): (20.0, 14.0, -10.0, 55.0),
    ("esophagus", "unenhanced"): (1.0, 5.0, -10.0, 12.0),
    ("esophagus", "arterial"): (18.0, 14.0, -10.0, 50.0),
    ("esophagus", "portal"): (15.0, 12.0, -10.0, 45.0),
    ("uterus", "unenhanced"): (-2.0, 6.0, -15.0, 12.0),
    ("uterus", "arterial"): (-20.0, 28.0, -80.0, 60.0),
    ("uterus", "portal"): (-28.0, 24.0, -80.0, 40.0),
}


@dataclass(frozen=True)
class TissuePrior:
    """What an organ's tumors look like inside. Ranges are uniform; shares are probabilities.

    edge_mm: SD of the tumor's own border: 10-90 % widths of 1.8-4.2 mm less the scanner's 1.7-2.2 (docs/priors.md).
    drift_hu: the middle less the border, both without noise, where the organ is enhanced; drift_share: of the radius,
    how deep the HU drift. Liver: 2-13 HU from the outer to the inner core (docs/priors.md), which begins 2 mm inside.
    core_from_mm: cores appear in tumors larger than this.
    """

    edge_mm: tuple[float, float] = (0.2, 1.4)
    texture_hu: tuple[float, float] = (2.0, 7.0)
    texture_mm: tuple[float, float] = (2.5, 8.0)
    drift_hu: tuple[float, float] = (0.0, 0.0)
    drift_share: tuple[float, float] = (0.5, 1.0)
    rim_share: float = 0.1
    rim_hu: tuple[float, float] = (15.0, 45.0)
    core_share: float = 0.3
    core_from_mm: float = 30.0
    core_hu: tuple[float, float] = (-35.0, -12.0)
    speck_share: float = 0.05


# The drift is measured in the liver only; pancreas, kidney and uterus are assumed, after the liver's. Of walls, which
# are thin, nothing is known: they stay even.
TISSUES = {
    "liver": TissuePrior(rim_share=0.15, core_share=0.35, drift_hu=(-20.0, -3.0)),
    "pancreas": TissuePrior(rim_share=0.03, core_share=0.2, drift_hu=(-20.0, -3.0)),
    "kidney": TissuePrior(
        rim_share=0.05, core_share=0.45, texture_hu=(4.0, 14.0), speck_share=0.08, drift_hu=(-20.0, -3.0)
    ),
    "colon": TissuePrior(rim_share=0.0, core_share=0.1, speck_share=0.02),
    "esophagus": TissuePrior(rim_share=0.0, core_share=0.1, speck_share=0.0),
    "uterus": TissuePrior(rim_share=0.05, core_share=0.25, speck_share=0.1, drift_hu=(-20.0, -3.0)),
}
