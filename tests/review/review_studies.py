"""Small studies for tests: a data set of two cases on an oblique grid, proposals, and a client of the application."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from synthoma import files
from synthoma.evaluation.pairing import open_predictions
from synthoma.reading import open_dataset
from synthoma.review.access import Doorkeeper
from synthoma.review.annotation import AnnotationKind, create_study
from synthoma.review.app import Review
from synthoma.review.recipes import AnnotateRecipe
from synthoma.review.store import Store
from synthoma.volume import Geometry, Volume

ORIGIN = "http://127.0.0.1:8000"
SHAPE = (32, 28, 12)


def grid() -> Geometry:
    """Oblique, flipped, anisotropic."""
    angle = np.radians(12)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    ) @ np.diag([-1.5, 1.5, 3.0])  # fmt: skip
    return Geometry(SHAPE, affine)


def balls(*centers: tuple[int, int, int]) -> Volume:
    """A mask of balls of three voxels radius."""
    ijk = np.moveaxis(np.indices(SHAPE), 0, -1)
    mask = np.zeros(SHAPE, np.uint8)
    for center in centers:
        mask |= (((ijk - center) * [1, 1, 2]) ** 2).sum(axis=-1) <= 9
    return Volume(mask, grid())


def write_data(root: Path) -> tuple[Path, Path]:
    """Two cases with a liver, and proposals of two lesions in the first and none in the second."""
    rng = np.random.default_rng(0)
    data, proposals = root / "data", root / "proposals"
    for name, centers in (("ann_smith", ((8, 8, 5), (22, 18, 7))), ("bob_jones", ())):
        scan = rng.normal(60, 10, SHAPE).astype(np.int16)
        files.write_volume(Volume(scan, grid()), data / name / "ct.nii.gz")
        liver = Volume(np.ones(SHAPE, np.uint8), grid())
        files.write_volume(liver, data / name / "segmentations" / "liver.nii.gz")
        files.write_volume(balls(*centers), proposals / name / "segmentations" / "liver_lesion.nii.gz")
    return data, proposals


def annotation(root: Path, **settings: Any) -> AnnotationKind:
    """An annotation study over `write_data`."""
    data, proposals = write_data(root)
    recipe = AnnotateRecipe(**settings)
    (root / "study").mkdir()
    store, dataset = Store(root / "study"), open_dataset(data)
    create_study(store, dataset, open_predictions(proposals, dataset), recipe, None)
    return AnnotationKind(store, dataset, recipe)


class Client:
    """A reader at the application, without a browser."""

    def __init__(self, kind: Any, reader: int = 0, enter: bool = True) -> None:
        self.kind = kind
        self.doors = Doorkeeper(kind.store, once=False)
        self.http = TestClient(
            Review(kind, self.doors).application((ORIGIN,)), base_url=ORIGIN, follow_redirects=False
        )  # fmt: skip
        if enter:
            token = self.doors.link_token(kind.store.readers()[reader])
            assert self.http.get(f"/enter?token={token}").status_code == 303

    def get(self, path: str) -> Any:
        return self.http.get(path)

    def post(self, path: str, body: bytes, **headers: str) -> Any:
        return self.http.post(
            path, content=body, headers={"origin": ORIGIN, "content-type": "application/json"} | headers
        )

    def work(self) -> list[dict[str, Any]]:
        return list(self.get("/api/work").json()["tasks"])

    def task(self, code: str) -> dict[str, Any]:
        return dict(self.get(f"/api/task/{code}").json())

    def answer(self, code: str, content: Mapping[str, Any], after: int, key: str = "", **more: Any) -> Any:
        body = {"key": key or f"key {code} {after}", "after": after, "content": content, **more}
        return self.post(f"/api/task/{code}/answer", json.dumps(body).encode())

    def send_mask(self, code: str, box: list[int], voxels: bytes) -> Any:
        body = json.dumps(box).encode() + b"\n" + zlib.compress(voxels)
        return self.post(f"/api/task/{code}/mask", body, **{"content-type": "application/octet-stream"})
