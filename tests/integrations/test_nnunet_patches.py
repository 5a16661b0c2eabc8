"""Patches of nnU-Net's preprocessed cases: the very tumors of the whole scan, however the array lies in it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from integrations.preprocessed import WIDE, Memory, turned
from learning.small_cases import FLAT, TILTED, UPRIGHT, patient
from synthoma.cases import Case
from synthoma.errors import FailedCasesError
from synthoma.files import write_volume
from synthoma.integrations.nnunet.dataset import LOCATIONS, CasesWithTumors
from synthoma.integrations.nnunet.normalization import CtNormalization
from synthoma.integrations.nnunet.preparation import prepare
from synthoma.synthesis.online.online import Fixed, Online
from synthoma.synthesis.pipeline import replay_plans
from synthoma.synthesis.recipe import SynthesisRecipe
from synthoma.synthesis.store.manifest import MANIFEST, read_manifest, write_manifest
from synthoma.synthesis.store.outputs import synthesize_case
from synthoma.volume import Geometry, Volume

RECIPE = SynthesisRecipe(lesions=(2, 3), diameter_mm=(8, 16), gap_mm=0.0, mass_effect_share=1.0, phase="portal")
GRIDS = {
    "upright": (UPRIGHT, (0, 1, 2)),
    "flat, mirrored, transposed": (FLAT, (2, 0, 1)),
    "tilted, transposed": (TILTED.reoriented("SLP"), (1, 2, 0)),
}


def with_tumors(memory: Memory, recipe: SynthesisRecipe = RECIPE, probability: float = 1.0) -> CasesWithTumors:
    """The data set of these cases, the healthy ones with tumors."""
    tumors = Online(recipe, probability, kept=1)
    return CasesWithTumors(memory, tumors, prepare(memory.preparation(tumors), "healthy", 0)[0])


@pytest.mark.parametrize(("geometry", "transpose"), GRIDS.values(), ids=GRIDS)
def test_patches_show_the_tumors_of_the_whole_scan(
    geometry: Geometry, transpose: tuple[int, ...], tmp_path: Path
) -> None:
    case = patient("anna", geometry)
    memory = Memory({"anna": case}, str(tmp_path), transpose)
    cases = with_tumors(memory)
    np.random.seed(3)
    image, labels, _, _ = cases.load_case("anna")
    np.random.seed(3)
    host = cases.hosts["anna"]
    plain = memory.load_case("anna")
    with host.reading(*plain[:2]):
        plans = [tumor.plan for tumor in cases.tumors.draw(host, int(np.random.randint(2**31)))]
    assert len(plans) >= 2
    offline = replay_plans(case, plans)
    start = tuple(slice(n, None) for n in memory.cut)
    expected = turned(offline.ct.data, transpose)[start]
    made = turned(offline.tumors("liver").data, transpose)[start]
    whole = image[:]
    assert np.array_equal(WIDE.to_hu(whole[0]), expected)
    assert np.array_equal(labels[:][0] == 2, made)
    assert made.sum() > 50
    untouched = expected == turned(case.read_image().data, transpose)[start]
    assert np.array_equal(whole[0][untouched], plain[0][0][untouched])
    box = (slice(None), slice(5, 20), slice(8, 31), slice(3, 12))
    assert np.array_equal(image[box], whole[box])
    assert np.array_equal(labels[box], labels[:][box])


def test_only_cases_without_real_tumors_get_new_ones_unless_told(tmp_path: Path) -> None:
    memory = Memory(
        {"anna": patient("anna"), "bert": patient("bert", tumors=[((-10.0, 0.0, 0.0), 8.0)])}, str(tmp_path)
    )
    tumors = Online(RECIPE, 1.0, kept=1)
    able, reasons = prepare(memory.preparation(tumors), "healthy", 0)
    assert list(able) == ["anna"]
    assert reasons == {"bert": "liver: real tumors"}
    assert list(prepare(memory.preparation(tumors), "all", 0)[0]) == ["anna", "bert"]
    cases = CasesWithTumors(memory, tumors, able)
    assert cases.load_case("bert") is memory.load_case("bert"), "the very arrays of nnU-Net's own data set"
    crowded = CasesWithTumors(memory, tumors, prepare(memory.preparation(tumors), "all", 0)[0])
    np.random.seed(0)
    _, labels, _, properties = crowded["bert"]
    before = memory.load_case("bert")[1][0] == 2
    after = labels[:][0] == 2
    assert (after & ~before).sum() > 30
    assert (before & ~after).sum() < 0.5 * before.sum(), "real tumors stay, if moved"
    assert len(properties[LOCATIONS][2]) > before.sum()


def test_an_organ_that_is_measured_once_is_read_from_then_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory({"anna": patient("anna"), "carl": patient("carl", FLAT)}, str(tmp_path))
    tumors = Online(RECIPE, 1.0)
    first, _ = prepare(memory.preparation(tumors), "healthy", 0)
    calls: list[str] = []
    monkeypatch.setattr(Online, "prepare", lambda *_: calls.append("measured"))
    second, _ = prepare(memory.preparation(tumors), "healthy", 0)
    assert not calls
    assert [host.stored for host in second.values()] == [host.stored for host in first.values()]
    first["anna"].path.write_bytes(b"cut off")
    monkeypatch.undo()
    prepare(memory.preparation(tumors), "healthy", 0)
    assert len(first["anna"].path.read_bytes()) > 1000, "what is damaged is measured again"
    other = memory.preparation(Online(RECIPE.with_changes(phase="arterial"), 1.0))
    assert other.path("anna") != first["anna"].path


def test_a_case_that_shows_no_organ_gets_no_tumors_and_the_reason_is_told(tmp_path: Path) -> None:
    empty = patient("eve")
    nothing = Volume(np.zeros(UPRIGHT.shape, bool, order="F"), UPRIGHT)
    empty = Case("eve", empty.image, {"liver": nothing, "liver_lesion": nothing})
    memory = Memory({"eve": empty}, str(tmp_path))
    able, reasons = prepare(memory.preparation(Online(RECIPE, 1.0)), "healthy", 0)
    assert not able
    assert "liver" in reasons["eve"]


def test_probability_and_numbers_of_numpy_decide_and_no_two_loads_are_alike(tmp_path: Path) -> None:
    memory = Memory({"anna": patient("anna")}, str(tmp_path))
    cases = with_tumors(memory, probability=0.5)
    np.random.seed(1)
    plain = memory.load_case("anna")
    loads = [cases.load_case("anna") for _ in range(24)]
    having = [load for load in loads if load[0] is not plain[0]]
    assert 5 <= len(having) <= 19
    assert len({load[1][:].tobytes() for load in having}) == len(having)
    np.random.seed(1)
    again = [cases.load_case("anna") for _ in range(3)]
    assert all(np.array_equal(a[0][:], b[0][:]) for a, b in zip(again, loads, strict=False))


def test_the_data_set_travels_to_another_process(tmp_path: Path) -> None:
    cases = with_tumors(Memory({"anna": patient("anna")}, str(tmp_path)))
    copy = pickle.loads(pickle.dumps(cases))
    loads = []
    for each in (cases, copy):
        np.random.seed(5)
        loads.append(each.load_case("anna")[0][:])
    assert np.array_equal(*loads)


def test_tumors_are_cut_off_where_nnunet_clips(tmp_path: Path) -> None:
    narrow = CtNormalization(mean_hu=100.0, sd_hu=15.0, lower_hu=70.0, upper_hu=160.0)
    memory = Memory({"anna": patient("anna")}, str(tmp_path), normalization=narrow)
    np.random.seed(2)
    image, labels, _, _ = with_tumors(memory, RECIPE.with_changes(contrast_hu=(-50, -45))).load_case("anna")
    hu = narrow.to_hu(image[:][0])
    assert hu.min() >= 70
    assert hu.max() <= 160
    inside = hu[labels[:][0] == 2]
    assert inside.size > 50
    assert np.median(inside) < 85


def test_tumors_of_a_bank_go_into_the_scans_they_were_made_on(tmp_path: Path) -> None:
    raw, cases = {}, {}
    for name in ("anna", "carl", "dora"):
        raw[name], case = tmp_path / f"{name}.nii.gz", patient(name, FLAT)
        write_volume(case.read_image(), raw[name])
        cases[name] = replace(case, image=raw[name])
    rows = [
        row
        for case in (cases["anna"], cases["carl"])
        for row in synthesize_case(case, RECIPE, 0, tmp_path / "out", "plans")["rows"]
    ]
    write_manifest(rows, tmp_path / "out" / MANIFEST)
    memory = Memory(cases, str(tmp_path), (2, 0, 1))
    tumors = Fixed(tmp_path / "out")
    able, reasons = prepare(memory.preparation(tumors, raw), "healthy", 0)
    assert sorted(able) == ["anna", "carl"]
    assert reasons == {"dora": "the bank has no tumors for it"}
    image, labels, _, _ = CasesWithTumors(memory, tumors, able).load_case("anna")
    manifest = read_manifest(tmp_path / "out" / MANIFEST)
    offline = replay_plans(cases["anna"], manifest.plans(manifest.copies("anna")[0]))
    start = tuple(slice(n, None) for n in memory.cut)
    assert np.array_equal(labels[:][0] == 2, turned(offline.tumors("liver").data, (2, 0, 1))[start])
    assert np.array_equal(WIDE.to_hu(image[:][0]), turned(offline.ct.data, (2, 0, 1))[start])
    write_volume(cases["carl"].read_image(), raw["anna"])
    memory.held["anna"] = memory.load_case("carl")
    able["anna"].path.unlink()
    with pytest.raises(FailedCasesError, match="anna"):
        prepare(memory.preparation(tumors, raw), "healthy", 0)
