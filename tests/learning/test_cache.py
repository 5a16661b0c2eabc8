"""The cache: what it holds on any grid, when it is used again, and what happens to damaged entries."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from learning.small_cases import FLAT, GRIDS, LIVER, TILTED, Balls, ball, cached, patient
from synthoma import disk, files
from synthoma.anatomy import IGNORE, STRUCTURES
from synthoma.cases import Case, Label, find_lesions
from synthoma.disk import host_key
from synthoma.errors import FailedCasesError, FileError, GeometryError
from synthoma.learning import cache
from synthoma.learning.entry import HU, LABELS, POINTS, RECORD, Entry, read_tables
from synthoma.learning.gridding import IGNORED, GridMasks, resample_mask, training_grid
from synthoma.learning.storing import CacheError, as_npy, as_store
from synthoma.volume import Box, Geometry, Volume

TUMORS = [((-20.0, 5.0, 5.0), 9.0), ((5.0, -10.0, -8.0), 4.0)]


def whole(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    box = Box.whole(entry.geometry.shape)
    return entry.read_hu(box), entry.read_labels(box)


def stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_hu_are_those_of_the_scan_resampled_to_the_training_grid(tmp_path: Path, name: str, kind: type) -> None:
    case = patient(geometry=GRIDS[name], kind=kind)
    (entry,) = cached(tmp_path, case, spacing_mm=1.5)
    ct = case.read_image()
    expected = ct.reorient("RAS").to(ct.geometry.reoriented("RAS").resampled(1.5))
    assert entry.geometry == expected.geometry
    assert entry.geometry.axes == "RAS"
    hu, _ = whole(entry)
    assert (hu.dtype, hu.flags.f_contiguous) == (np.int16, True)
    np.testing.assert_array_equal(hu, np.rint(expected.data))


@pytest.mark.parametrize("name", GRIDS)
def test_organs_and_tumors_keep_place_and_volume_on_any_grid(tmp_path: Path, name: str) -> None:
    (entry,) = cached(tmp_path, patient(geometry=GRIDS[name], tumors=TUMORS), spacing_mm=1.5)
    _, labels = whole(entry)
    inside = np.isin(labels, [STRUCTURES["liver"], STRUCTURES["liver_lesion"]])
    center = entry.geometry.to_mm(np.argwhere(inside)).mean(axis=0)
    np.testing.assert_allclose(center, LIVER[0], atol=0.6)
    assert inside.sum() * entry.geometry.voxel_mm3 == pytest.approx(4 / 3 * np.pi * LIVER[1] ** 3, rel=0.03)
    big, small = entry.lesions
    np.testing.assert_allclose([big.center_mm, small.center_mm], [TUMORS[0][0], TUMORS[1][0]], atol=0.8)
    assert big.equivalent_diameter_mm == pytest.approx(18, rel=0.06)
    assert small.equivalent_diameter_mm == pytest.approx(8, rel=0.12)


def test_masks_resampled_as_crops_are_those_resampled_whole() -> None:
    for geometry in (FLAT, TILTED):
        case = patient(geometry=geometry, tumors=TUMORS)
        grid = training_grid(geometry, 1.5)
        masks = GridMasks(case, geometry, grid)
        for name, mask in case.each_mask():
            np.testing.assert_array_equal(masks[name].data, resample_mask(mask.reorient("RAS"), grid).data)


def test_thick_slices_do_not_shave_off_small_tumors() -> None:
    mask = patient(geometry=FLAT, tumors=[((5.0, -10.0, -8.0), 4.0)]).read_mask("liver_lesion")  # in two slices
    for spacing_mm in (1.0, 1.5, 2.0):
        resampled = resample_mask(mask.reorient("RAS"), training_grid(FLAT, spacing_mm))
        before, after = (find_lesions(volume, "liver")[0].equivalent_diameter_mm for volume in (mask, resampled))
        assert after == pytest.approx(before, rel=0.05)


def test_spacing_0_keeps_the_voxels_of_the_scan(tmp_path: Path) -> None:
    case = patient(geometry=FLAT, tumors=TUMORS)
    (entry,) = cached(tmp_path, case, spacing_mm=0)
    hu, labels = whole(entry)
    np.testing.assert_array_equal(hu, case.read_image().reorient("RAS").data)
    lesion = case.read_mask("liver_lesion").reorient("RAS").data
    np.testing.assert_array_equal(labels == STRUCTURES["liver_lesion"], lesion)


def test_tumors_lie_over_organs_organs_over_the_rest_and_vessels_are_left_out(tmp_path: Path) -> None:
    case = patient(tumors=[LIVER_MIDDLE])
    everywhere = Volume(np.ones(case.read_geometry().shape, bool), case.read_geometry())
    masks = {**case.masks, "stomach": everywhere, "hepatic_vessel": everywhere}
    (entry,) = cached(tmp_path, replace(case, masks=masks))
    _, labels = whole(entry)
    found = {name for name, value in STRUCTURES.items() if (labels == value).any()}
    assert found == {"liver", "liver_lesion", "stomach"}
    assert (labels == STRUCTURES["liver_lesion"]).sum() == case.read_mask("liver_lesion").data.sum()
    assert "hepatic_vessel" in entry.annotated


LIVER_MIDDLE = (LIVER[0], 10.0)


def test_a_kidney_annotated_as_a_whole_is_a_kidney(tmp_path: Path) -> None:
    case = patient()
    kidneys = ball(case.read_geometry(), (30, -20, 0), 12)
    case = replace(case, masks={"kidney": Volume(kidneys, case.read_geometry())})
    (entry,) = cached(tmp_path, case)
    assert entry.annotates("kidney")
    assert len(entry.points("kidney")) == kidneys.sum()


def test_a_box_may_reach_outside(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient())
    hu, _ = whole(entry)
    box = Box((-3, 40, 10), (20, 60, 30))
    inside = np.pad(hu, 20, constant_values=-1024)[box.shift((20, 20, 20)).slices]
    np.testing.assert_array_equal(entry.read_hu(box), inside)
    assert (entry.read_labels(box)[:3] == 0).all()
    far = Box((500, 500, 500), (510, 510, 510))
    assert (entry.read_hu(far) == -1024).all()
    assert (entry.read_labels(far) == 0).all()


def test_what_is_read_may_be_written_to(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient())
    before, _ = whole(entry)
    changed, _ = whole(entry)
    changed[:] = 7
    np.testing.assert_array_equal(whole(entry)[0], before)


def test_points_lie_in_what_they_are_named_after(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient(tumors=TUMORS, geometry=FLAT), spacing_mm=1.5)
    hu, labels = whole(entry)
    assert set(labels[tuple(entry.points("liver").T)]) == {STRUCTURES["liver"]}
    assert hu[tuple(entry.points("body").T)].min() > -200
    for lesion, (center, radius) in zip(entry.lesions, TUMORS, strict=True):
        points = entry.geometry.to_mm(entry.points(f"liver_lesion {lesion.index}"))
        assert len(points) > 5
        assert np.linalg.norm(points - center, axis=1).max() <= radius + 1.5
    assert len(entry.points("pancreas")) == 0


def test_a_missing_mask_is_not_annotated_and_an_empty_or_healthy_one_is(tmp_path: Path) -> None:
    unknown, absent, healthy = cached(
        tmp_path, patient("a", tumors=None), patient("b"), patient("c", tumors=None, healthy=True)
    )
    assert [entry.annotates("liver_lesion") for entry in (unknown, absent, healthy)] == [False, True, True]
    assert [unknown.annotates(name) for name in ("liver", "pancreas", "kidney")] == [True, False, False]


def test_an_entry_travels_as_paths(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient(tumors=TUMORS))
    whole(entry)
    sent = pickle.dumps(entry)
    assert len(sent) < 3000
    np.testing.assert_array_equal(whole(pickle.loads(sent))[0], whole(entry)[0])


def test_every_kind_of_source_gives_the_same_entry(tmp_path: Path) -> None:
    case = patient(geometry=FLAT, tumors=TUMORS)
    scan = tmp_path / "ct.nii.gz"
    files.write_volume(case.read_image(), scan)
    ct = files.read_image(scan)  # NIfTI keeps positions in single precision
    masks = {name: Volume(mask.data, ct.geometry) for name, mask in case.read_masks().items()}
    for name, mask in masks.items():
        files.write_volume(mask, tmp_path / f"{name}.nii.gz")
    labels = sum(masks[name].data * np.uint8(value) for value, name in enumerate(("liver", "spleen"), 1))
    labels[masks["liver_lesion"].data] = 3
    files.write_volume(Volume(labels, ct.geometry), tmp_path / "labels.nii.gz")
    cases = [
        Case("anna", ct, masks),
        Case("anna", scan, {name: tmp_path / f"{name}.nii.gz" for name in masks}),
        Case("anna", scan, {"liver": Label(tmp_path / "labels.nii.gz", (1, 3)), **_labels(tmp_path)}),
        Case("anna", partial(_same, ct), {name: partial(_same, mask) for name, mask in masks.items()}),
    ]
    found = [whole(cached(tmp_path / f"cache{n}", kind, spacing_mm=1.5)[0]) for n, kind in enumerate(cases)]
    for hu, label in found[1:]:
        np.testing.assert_array_equal(hu, found[0][0])
        np.testing.assert_array_equal(label, found[0][1])


def _labels(folder: Path) -> dict[str, Label]:
    path = folder / "labels.nii.gz"
    return {"spleen": Label(path, (2,)), "liver_lesion": Label(path, (3,))}


def _same(volume: Volume) -> Volume:
    return volume


def test_an_entry_is_used_again_by_any_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = cached(tmp_path, patient("a"), patient("b"))
    before = stamps(tmp_path)
    again = cached(tmp_path, patient("b"), patient("a"))
    assert [entry.folder for entry in again] == [entry.folder for entry in first[::-1]]
    assert stamps(tmp_path) == before
    assert caplog.records == []


def test_another_scan_mask_or_spacing_is_another_entry(tmp_path: Path) -> None:
    case = patient(tumors=TUMORS)
    path = tmp_path / "ct.nii.gz"
    files.write_volume(case.read_image(), path)
    other = Volume(case.read_image().data + np.int16(1), case.read_geometry())
    variants = [case, replace(case, image=other), patient(tumors=TUMORS[:1]), replace(case, image=path)]
    folders = [cached(tmp_path / "cache", variant)[0].folder for variant in variants]
    folders.append(cached(tmp_path / "cache", case, spacing_mm=(2, 2, 3))[0].folder)
    os.utime(path, (1, 1))
    folders.append(cached(tmp_path / "cache", replace(case, image=path))[0].folder)
    assert len(set(folders)) == 6


def damage(folder: Path, how: str) -> None:
    if how == "truncated":
        os.truncate(folder / HU, 1000)
    elif how == "other bytes":
        data = bytearray((folder / LABELS).read_bytes())
        data[len(data) // 2] ^= 255
        (folder / LABELS).write_bytes(data)
    elif how == "lost":
        (folder / POINTS).unlink()
    else:
        (folder / RECORD).write_text("{")


@pytest.mark.parametrize("how", ["truncated", "other bytes", "lost", "no record"])
def test_a_damaged_entry_is_rebuilt_and_said(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    (entry,) = cached(tmp_path, patient(tumors=TUMORS))
    hu, labels = whole(entry)
    damage(entry.folder, how)
    (again,) = cached(tmp_path, patient(tumors=TUMORS))
    assert "anna: the cache was damaged and is rebuilt" in caplog.text
    np.testing.assert_array_equal(whole(again)[0], hu)
    np.testing.assert_array_equal(whole(again)[1], labels)
    caplog.clear()
    cached(tmp_path, patient(tumors=TUMORS))
    assert caplog.text == ""


def test_an_entry_that_is_damaged_while_in_use_names_the_case(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient())
    damage(entry.folder, "truncated")
    with pytest.raises(FileError, match=r"anna: the cache is damaged or gone.*run the same command again"):
        whole(entry)


def test_what_a_killed_process_left_never_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, content: bytes) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(cache, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            cached(tmp_path, patient())
    name = cache.entry_name(patient(), 2.0)
    assert not list(tmp_path.glob(f"*{name}*"))
    dead = subprocess.Popen(["true"])
    dead.wait()
    others = [tmp_path / f".{name}.{host_key()}-{process}.part" for process in (dead.pid, 1)]
    for left in others:  # kill -9 leaves this; here, by a dead process, and by one that still works
        left.mkdir()
        (left / HU).write_bytes(b"half")
    disk._swept.clear()
    (entry,) = cached(tmp_path, patient())
    assert whole(entry)[0].shape == entry.geometry.shape
    assert [left.exists() for left in others] == [False, True]


def test_a_case_that_fails_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = Case("gone", tmp_path / "gone.nii.gz")
    odd = replace(patient("odd"), masks={"liver": patient(geometry=FLAT).masks["liver"]})
    holes = patient("holes", kind=np.float32)
    data = holes.read_image().data.copy()
    data[0, 0, 0] = np.nan
    holes = replace(holes, image=Volume(data, holes.read_geometry()))
    entries = cached(tmp_path, gone, odd, patient(), holes, allow_failures=3)
    assert [entry.case for entry in entries] == ["anna"]
    for case, error in (("gone", "no file"), ("odd", "the liver mask's grid differs"), ("holes", "NaN")):
        assert any(case in line and error in line for line in caplog.messages), case
    assert len(caplog.messages) == 3
    with pytest.raises(FailedCasesError, match=r"3 of 4 cases.*gone.*no file.*odd.*holes.*NaN.*--allow-failures 3"):
        cached(tmp_path, gone, odd, patient(), holes, allow_failures=2)
    with pytest.raises(FailedCasesError, match=r"2 of 2 cases cannot be used: gone"):
        cached(tmp_path, gone, holes, allow_failures=9)


def test_any_number_of_workers_writes_the_same(tmp_path: Path) -> None:
    cases = [patient(name, geometry, TUMORS) for name, geometry in GRIDS.items()]
    here = cached(tmp_path / "here", *cases, augment=Balls())
    there = cached(tmp_path / "there", *cases, augment=Balls(), workers=2)
    for mine, theirs in zip(here, there, strict=True):
        assert mine.folder.name == theirs.folder.name
        for name in (HU, LABELS, POINTS):
            assert (mine.folder / name).read_bytes() == (theirs.folder / name).read_bytes()
        np.testing.assert_array_equal(mine.tables("balls")["mean"], theirs.tables("balls")["mean"])


def test_tables_are_added_without_writing_voxels_again(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient(tumors=TUMORS))
    before = stamps(entry.folder)
    with pytest.raises(FileError, match="anna"):
        entry.tables("balls")
    (entry,) = cached(tmp_path, patient(tumors=TUMORS), augment=Balls())
    tables = entry.tables("balls")
    np.testing.assert_array_equal(tables["grid"], entry.geometry.shape)
    hu, labels = whole(entry)
    assert tables["mean"] == pytest.approx(hu[labels == STRUCTURES["liver"]].mean(), abs=5)
    cached(tmp_path, patient(tumors=TUMORS), augment=Balls(name="other"))
    after = stamps(entry.folder)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2


def test_damaged_tables_are_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (entry,) = cached(tmp_path, patient(), augment=Balls())
    (path,) = entry.folder.glob("tables-*")
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[:-30])
    cached(tmp_path, patient(), augment=Balls())
    assert "rebuilt" in caplog.text
    assert path.read_bytes() == whole_file


def test_attributes_belong_to_the_tables_not_to_the_voxels(tmp_path: Path) -> None:
    case = patient(tumors=None)
    (unknown,) = cached(tmp_path, case, augment=Balls())
    (healthy,) = cached(tmp_path, replace(case, attributes={"healthy": True}), augment=Balls())
    assert healthy.folder == unknown.folder
    assert len(list(healthy.folder.glob("tables-*"))) == 2
    assert healthy.annotates("liver_lesion")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot write"):
        cached(tmp_path / "file", patient())


def test_a_full_disk_ends_the_run_at_once_and_leaves_no_half_entry(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: no case is left out because there was no room for it."""
    from resource import RLIMIT_FSIZE, getrlimit, setrlimit

    cases = [patient(name, tumors=TUMORS) for name in ("a", "b", "c")]
    cached(tmp_path, cases[0])
    limits = getrlimit(RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    setrlimit(RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(CacheError, match=r"cannot write .*b-.*File too large.*--cache"):
            cached(tmp_path, *cases, allow_failures=3)
    finally:
        setrlimit(RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    left = {path.name.split("-")[0] for path in tmp_path.iterdir() if not path.name.startswith(".lock")}
    assert left == {"a"}


def test_two_processes_without_locks_do_the_work_twice_and_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*words: object) -> None:
        raise OSError(95, "Operation not supported")

    case = patient(tumors=TUMORS)
    (expected,) = cached(tmp_path / "alone", case)
    monkeypatch.setattr(cache.fcntl, "flock", no_locks)
    real = cache.find_places

    def meanwhile(*words: Any) -> Any:
        monkeypatch.setattr(cache, "find_places", real)
        monkeypatch.setattr(disk, "host_key", lambda: "89abcdef")
        cached(tmp_path / "both", case)  # another process places the same entry
        monkeypatch.undo()
        return real(*words)

    monkeypatch.setattr(cache, "find_places", meanwhile)
    (entry,) = cached(tmp_path / "both", case)
    assert [path.name for path in (tmp_path / "both").iterdir() if not path.name.startswith(".lock")] == [
        entry.folder.name
    ]
    for mine, theirs in zip(whole(entry), whole(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_bit_that_flipped_on_the_disk_is_noticed_though_size_and_time_are_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (entry,) = cached(tmp_path, patient(tumors=TUMORS))
    for name in (HU, POINTS, RECORD):
        path = entry.folder / name
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        data = path.read_bytes()
        path.write_bytes(data.replace(b'"annotated"', b'"annotatod"') if name == RECORD else data[:-1] + b"\x7f")
        os.utime(path, ns=times)
        cached(tmp_path, patient(tumors=TUMORS))
        assert f"{name} has other content" in caplog.text
        assert path.read_bytes() == data
        caplog.clear()


def test_a_store_of_another_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (entry,) = cached(tmp_path, patient())
    for bomb in (np.zeros((300, 300, 300), np.int16), np.zeros(entry.geometry.shape, np.float64)):
        (entry.folder / HU).write_bytes(as_store(bomb))
        with pytest.raises(FileError, match=r"damaged or gone.*a store of"):
            entry.read_hu(Box((0, 0, 0), (4, 4, 4)))


@pytest.mark.parametrize("how", ["objects", "size", "compressed"])
def test_tables_that_tell_other_sizes_or_hold_objects_are_refused(tmp_path: Path, how: str) -> None:
    path = tmp_path / "tables.npz"
    if how == "compressed":
        np.savez_compressed(path, a=np.zeros(10**6))
    elif how == "objects":
        np.savez(path, a=np.array([{}], object))
    else:
        npy = as_npy(np.zeros(8)).replace(b"(8,)", b"(8000000000,)".ljust(4))
        header = len(npy) - 64
        npy = npy[:8] + (header - 10).to_bytes(2, "little") + npy[10:]
        with zipfile.ZipFile(path, "w") as members:
            members.writestr("a.npy", npy)
    words = {"objects": "an array of", "size": r"an array of \(8000000000,\)", "compressed": "compressed members"}
    with pytest.raises(FileError, match=f"is damaged; found {words[how]}"):
        read_tables(path)


def test_what_nobody_annotated_is_a_label_of_its_own_and_no_place_for_a_patch(tmp_path: Path) -> None:
    case = patient(tumors=TUMORS)
    unknown = ball(case.read_geometry(), TUMORS[0][0], 14.0)
    (entry,) = cached(tmp_path, replace(case, masks={**case.masks, IGNORE: Volume(unknown, case.read_geometry())}))
    _, labels = whole(entry)
    np.testing.assert_array_equal(labels == IGNORED, unknown)
    assert IGNORE not in entry.annotated
    assert [lesion.equivalent_diameter_mm > 10 for lesion in entry.lesions] == [False]  # the larger one is ignored
    for place in ("liver", "body"):
        assert not (labels[tuple(entry.points(place).T)] == IGNORED).any()


def test_a_mask_on_another_grid_names_both(tmp_path: Path) -> None:
    case = patient()
    shifted = Geometry(case.read_geometry().shape, np.diag([2.0, 2.0, 2.0, 1.0]))
    masks = {"liver": Volume(case.read_mask("liver").data, shifted)}
    with pytest.raises(GeometryError, match="anna: the liver mask's grid differs"):
        GridMasks(replace(case, masks=masks), case.read_geometry(), case.read_geometry())


@pytest.mark.parametrize(("kind", "sorted_bytes"), [(np.uint8, False), (np.int16, True)])
def test_only_numbers_of_several_bytes_have_them_sorted(kind: type, sorted_bytes: bool) -> None:
    data = np.asfortranarray(np.random.default_rng(0).integers(0, 30, (70, 33, 20)).astype(kind))
    store = blosc2.ndarray_from_cframe(as_store(data))
    assert (blosc2.Filter.SHUFFLE in store.cparams.filters) == sorted_bytes
    assert np.array_equal(store[:].T, data)
