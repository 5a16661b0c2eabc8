"""The words of DICOM for structures: SNOMED CT codes, as tables, from our names and back."""

from __future__ import annotations

from typing import Any, NamedTuple

from synthoma.extras import need


class Code(NamedTuple):
    """A coded term: value, meaning, and the scheme that the value is of (SCT: SNOMED CT)."""

    value: str
    meaning: str
    scheme: str = "SCT"


class Terms(NamedTuple):
    """What a segment is, in codes. regions: where a finding lies; side: of a paired organ."""

    category: Code
    type: Code
    side: Code | None = None
    regions: tuple[Code, ...] = ()


STRUCTURE = Code("91723000", "Anatomical Structure")
ABNORMAL = Code("49755003", "Morphologically Abnormal Structure")
TISSUE = Code("85756007", "Tissue")
LEFT, RIGHT = Code("7771000", "Left"), Code("24028007", "Right")

_ADRENAL, _FEMUR = Code("23451007", "Adrenal gland"), Code("71341001", "Femur")
_KIDNEY, _LUNG = Code("64033007", "Kidney"), Code("39607008", "Lung")
# structure -> organ, and its side. Vessels that two codes name together have none: they are Blood Vessel.
ANATOMY: dict[str, tuple[Code, Code | None]] = {
    "adrenal_gland_left": (_ADRENAL, LEFT),
    "adrenal_gland_right": (_ADRENAL, RIGHT),
    "aorta": (Code("15825003", "Aorta"), None),
    "bladder": (Code("89837001", "Bladder"), None),
    "celiac_trunk": (Code("57850000", "Celiac Axis"), None),
    "colon": (Code("71854001", "Colon"), None),
    "duodenum": (Code("38848004", "Duodenum"), None),
    "esophagus": (Code("32849002", "Esophagus"), None),
    "femur_left": (_FEMUR, LEFT),
    "femur_right": (_FEMUR, RIGHT),
    "gall_bladder": (Code("28231008", "Gallbladder"), None),
    "intestine": (Code("30315005", "Small intestine"), None),
    "kidney": (_KIDNEY, None),
    "kidney_left": (_KIDNEY, LEFT),
    "kidney_right": (_KIDNEY, RIGHT),
    "liver": (Code("10200004", "Liver"), None),
    "lung": (_LUNG, None),
    "lung_left": (_LUNG, LEFT),
    "lung_right": (_LUNG, RIGHT),
    "pancreas": (Code("15776009", "Pancreas"), None),
    "postcava": (Code("64131007", "Inferior vena cava"), None),
    "prostate": (Code("41216001", "Prostate"), None),
    "rectum": (Code("34402009", "Rectum"), None),
    "spleen": (Code("78961009", "Spleen"), None),
    "stomach": (Code("69695003", "Stomach"), None),
    "uterus": (Code("35039007", "Uterus"), None),
}
VESSELS = ("hepatic_vessel", "portal_vein_and_splenic_vein")
_VESSEL = Code("59820001", "Blood Vessel")
# how a structure's name ends -> what was found in the organ before it
FINDINGS = {
    "_lesion": Code("108369006", "Neoplasm"),
    "_cyst": Code("367643001", "Cyst"),
}
# other codes that segments of the field carry for the same
_TUMORS = ("108369006", "52988006", "4147007", "372087000", "86049000", "14799000", "27925004")
_SIDED = {
    "18639004": (_KIDNEY, LEFT),
    "9846003": (_KIDNEY, RIGHT),
    "44029006": (_LUNG, LEFT),
    "3341006": (_LUNG, RIGHT),
}
_ABDOMINAL_AORTA = "7832008"

FAMILY = Code("123110", "Artificial Intelligence", "DCM")
MODIFYING = Code("109103", "Modifying Equipment", "DCM")


def finding_of(structure: str) -> str:
    """The ending by which a structure is a finding (`_lesion`, `_cyst`), each part of which counts; "" for an organ."""
    return next((ending for ending in FINDINGS if structure.endswith(ending)), "")


def terms_of(structure: str) -> Terms:
    """The codes of a structure in our spelling; a structure without one is Tissue."""
    ending = finding_of(structure)
    place = ANATOMY.get(structure.removesuffix(ending))
    if ending:
        return Terms(ABNORMAL, FINDINGS[ending], None, (place[0],) if place else ())
    if place is None:
        return Terms(STRUCTURE, _VESSEL) if structure in VESSELS else Terms(TISSUE, TISSUE)
    return Terms(STRUCTURE, place[0], place[1])


def structure_of(kind: str, side: str = "", regions: tuple[str, ...] = ()) -> str:
    """Our name for the codes of a segment; "" if they name nothing that we have a name for.

    kind, side, regions: values of the segmented property type, of its modifier, and of the anatomic regions. A tumor
    without a region is `tumor`, a cyst `cyst`: the rest of the data set tells the organ.
    """
    ending = "lesion" if kind in _TUMORS else "cyst" if kind == FINDINGS["_cyst"].value else ""
    if ending:
        organs = [name for name in (_organ(region, "") for region in regions) if name]
        return f"{organs[0]}_{ending}" if len(organs) == 1 else ending.replace("lesion", "tumor")
    return _organ(kind, side)


def _organ(value: str, side: str) -> str:
    if value == _ABDOMINAL_AORTA:
        return "aorta"
    place = _SIDED.get(value)
    known = {(code.value, where.value if where else ""): name for name, (code, where) in ANATOMY.items()}
    if place is not None:
        return known[place[0].value, place[1].value]
    return known.get((value, side), "")


def modern(value: str, scheme: str) -> str:
    """A code as SNOMED CT has it, where it is one of the older ones (`T-62000` of SRT) and we have a name for it."""
    if scheme in ("SCT", "DCM") or not value:
        return value
    need("pydicom", extra="dicom")
    from pydicom.sr.coding import Code as Coded  # whose comparison knows the older codes

    known = (
        code.value
        for codes in (*ANATOMY.values(), *[(one, None) for one in FINDINGS.values()])
        for code in codes
        if code
    )
    return next((one for one in known if Coded(value, scheme, "") == Coded(one, "SCT", "")), value)


def concept(code: Code) -> Any:
    """The code as highdicom writes it."""
    return need("highdicom", extra="dicom").sr.CodedConcept(code.value, code.scheme, code.meaning)
