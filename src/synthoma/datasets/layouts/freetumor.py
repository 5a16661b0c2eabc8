"""FreeTumor: `imagesTr/X` and `labelsTr/X`, odd values an organ, even ones its tumor; read only if named."""

from __future__ import annotations

from collections.abc import Iterator

from synthoma.cases import Case
from synthoma.datasets.labels import FREETUMOR, PresentLabels
from synthoma.datasets.layouts.listing import Listing, case_id
from synthoma.errors import LayoutError, SynthomaError


def fits(root: Listing, samples: tuple[Listing, ...]) -> bool:
    """Never: nothing in its folders tells it from others."""
    return False


def read(root: Listing) -> Iterator[Case | SynthomaError]:
    """`imagesTr/X` and `labelsTr/X` with FreeTumor's label map; classes without voxels are not annotated."""
    images, labels = root.within("imagesTr"), root.within("labelsTr")
    maps = {stem: labels.path / file for file, stem in labels.images().items()}
    for file, stem in images.images().items():
        classes = {name: (value,) for name, value in FREETUMOR.items()}
        masks = PresentLabels(maps[stem], classes) if stem in maps else {}
        yield Case(case_id(stem), images.path / file, masks, dataset=root.path.name)
    for stem in sorted(maps.keys() - set(images.images().values())):
        yield LayoutError("a label map without a scan", case=case_id(stem), found=str(maps[stem]))
