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
    "liver_cancer": "liver_lesion",
    "pancreas_cancer": "pancreas_lesion",
    "colon_cancer": "colon_lesion",
    "colon_cancer_primaries": "colon_lesion",
    "gallbladder": "gall_bladder",
    "inferior_vena_cava": "postcava",
    "portal_and_splenic_vein": "portal_vein_and_splenic_vein",
    "urinary_bladder": "bladder",
    "small_bowel": "intestine",
    "left_kidney": "kidney_left",
    "right_kidney": "kidney_right",
    "left_lung": "lung_left",
    "right_lung": "lung_right",
}


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


def canonical_name(name: str) -> str:
    """Our spelling of a structure's name: lower case, underscores, `*_tumor` as `*_lesion`.

    Unknown names are kept (in that spelling), so nothing in a data set is lost. `*_cyst` stays a structure
    of its own: a cyst is not a tumor.
    """
    plain = name.strip().lower().replace(" ", "_").replace("-", "_")
    if plain in ALIASES:
        return ALIASES[plain]
    for ending in ("_tumor", "_tumour", "_cancer"):
        if plain.endswith(ending):
            stem = plain.removesuffix(ending)
            return ALIASES.get(f"{stem}_lesion", f"{stem}_lesion")
    return plain


def is_lesion(structure: str) -> bool:
    """Whether a structure (in our spelling) holds tumors."""
    return structure.endswith("_lesion")
