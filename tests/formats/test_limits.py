"""A file of a few kilobytes cannot make us take gigabytes: the header is compared with a limit before reading."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from grids import ANISOTROPIC, hu
from synthoma import files
from synthoma.cases import Case
from synthoma.errors import FileError, GeometryError
from synthoma.formats import limits
from synthoma.volume import Box, Volume


def bomb(path: Path, shape: tuple[int, int, int]) -> Path:
    """A packed scan of zeros as large as it says, a thousandth of that on disk."""
    files.write_volume(hu(ANISOTROPIC), path)
    header = bytearray(zlib.decompress(path.read_bytes(), 31)[:352])
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    squeeze = zlib.compressobj(9, wbits=31)
    zeros = bytes(2 * int(np.prod(shape)))
    path.write_bytes(squeeze.compress(bytes(header)) + squeeze.compress(zeros) + squeeze.flush())
    return path


def test_a_scan_above_the_limit_is_refused_with_its_size_and_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "ct.nii.gz", (200, 200, 100))
    monkeypatch.setenv(limits.VARIABLE, "0.005")
    told = r"found 0\.0 GB \(200x200x100 voxels\), expected at most 0\.005 GB; .* set SYNTHOMA_VOLUME_GB=1"
    with pytest.raises(FileError, match=told):
        files.read_image(path)
    assert files.read_image(path, Box((0, 0, 0), (200, 200, 5))).data.shape == (200, 200, 5)
    assert files.read_geometry(path).shape == (200, 200, 100)
    monkeypatch.setenv(limits.VARIABLE, "1")
    assert files.read_image(path).data.shape == (200, 200, 100)


@pytest.mark.parametrize("name", ["m.nii", "m.nii.gz", "m.nrrd", "m.mha"])
def test_the_limit_holds_for_masks_in_every_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    files.write_volume(Volume(np.zeros(ANISOTROPIC.shape, np.uint8), ANISOTROPIC), tmp_path / name)
    monkeypatch.setenv(limits.VARIABLE, "0.000000314")  # a voxel less
    with pytest.raises(FileError, match=f"{name} is too large to read"):
        files.read_labels(tmp_path / name)


def test_a_large_mask_on_another_grid_is_refused_for_its_grid(tmp_path: Path) -> None:
    files.write_volume(hu(ANISOTROPIC), tmp_path / "ct.nii.gz")
    case = Case("c", tmp_path / "ct.nii.gz", {"liver": bomb(tmp_path / "liver.nii.gz", (300, 300, 300))})
    with pytest.raises(GeometryError, match="c: the liver mask's grid differs; found 300x300x300"):
        case.read_mask("liver")


@pytest.mark.parametrize("told", ["much", "0", "-3", "nan", "inf"])
def test_a_limit_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv(limits.VARIABLE, told)
    with pytest.raises(FileError, match=f"SYNTHOMA_VOLUME_GB is no number of gigabytes; found '{told}'"):
        limits.limit_bytes()


def test_a_scan_of_two_gibibytes_is_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(limits.VARIABLE, raising=False)
    limits.require_room(Path("ct.nii"), (1024, 1024, 1024), 2)
    with pytest.raises(FileError, match=r"found 3\.0 GB"):
        limits.require_room(Path("ct.nii"), (1000, 1000, 1500), 2)
