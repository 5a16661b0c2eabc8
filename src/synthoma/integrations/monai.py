"""Tumors as MONAI transforms: `RandTumord` on dictionaries, `RandTumor` on an image and its label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import CaseError, GeometryError, RecipeError
from synthoma.extras import need
from synthoma.integrations.images import one_channel
from synthoma.integrations.labels import Labels, LabelScheme, label_scheme
from synthoma.integrations.sources import Bank, Source, fitted, open_source
from synthoma.integrations.tumors import CASE, WithTumors, add_tumors
from synthoma.seeds import rng_for, seed_for

need("monai", extra="monai")

import torch  # noqa: E402
from monai.data.meta_tensor import MetaTensor  # noqa: E402
from monai.transforms.lazy.functional import apply_pending_transforms  # noqa: E402
from monai.transforms.transform import MapTransform, RandomizableTransform  # noqa: E402
from monai.utils.enums import SpaceKeys  # noqa: E402
from monai.utils.type_conversion import convert_to_dst_type  # noqa: E402

_IMAGE, _LABEL = "image", "label"


class _Tumors(RandomizableTransform):
    """What both forms share: a source of tumors, label schemes, and a seed drawn for each call."""

    def __init__(self, source: Source, schemes: Mapping[Hashable, LabelScheme], prob: float) -> None:
        if not 0 <= prob <= 1:
            raise RecipeError("prob is no probability", found=prob, expected="0 to 1")
        super().__init__(prob)
        self.schemes = dict(schemes)
        self.source = fitted(source, self.schemes.values())
        self.seed = 0

    def randomize(self, data: Any = None) -> None:
        """Draw the seed of the next tumors, and whether there are any.

        In a worker of a loader that does not tell its workers apart (a plain `torch.utils.data.DataLoader`), the
        worker's own seed takes part, so that no two workers and no two epochs draw the same.
        """
        del data
        drawn = int(self.R.randint(2**31))
        worker = torch.utils.data.get_worker_info()
        self.seed = drawn if worker is None else seed_for(drawn, "worker", int(worker.seed))
        self._do_transform = bool(rng_for(self.seed, "prob").random() < self.prob)

    def _put_in(self, image: Any, labels: Mapping[Hashable, Any], case: str) -> tuple[Any, dict[Hashable, Any]]:
        """Image and label maps, channel first, with the tumors of `self.seed`; as they are if there are none."""
        affine = _affine(image, case)
        arrays = {key: one_channel(_array(data), str(key), case) for key, data in labels.items()}
        names = {str(key): key for key in labels}
        schemes = {name: self.schemes[key] for name, key in names.items()}
        done: WithTumors = add_tumors(
            one_channel(_array(image), _IMAGE, case), affine, {name: arrays[key] for name, key in names.items()},
            schemes, self.source, self.seed, case,
        )  # fmt: skip
        if not done.plans:
            return image, dict(labels)
        return _like(done.image, image), {key: _like(done.labels[name], labels[key]) for name, key in names.items()}


class RandTumord(_Tumors, MapTransform):
    """Puts synthetic tumors into the CT of a dictionary, and into its label maps; new ones in every call.

    tumors: what to put in: a recipe's name (`liver`, see `synthoma recipes`), its TOML file, a `SynthesisRecipe` or its
    keys; or the folder or manifest of a synthesis, whose tumors are put in again. labels: key of each label map -> its
    label scheme, as `label_scheme` reads it: `{"label": {"liver": 1, "liver_tumor": 2}}`. Together the maps show the
    organs; each map with a value for an organ's tumors gets them. prob: that an image gets tumors. case_key: of the
    case's id, which a manifest needs and errors name. allow_modules: generators of the form `module:Class` that a
    manifest may name.

    The image is a MetaTensor (1, I, J, K) of HU with its affine in mm, the label maps (1, I, J, K) lie on its grid; all
    keep their types. Place it after `Spacingd` and before intensities are scaled; before or after random crops. It is
    seeded by `set_random_state`, as all random transforms of MONAI; `seed` is that of the last tumors. Pending
    operations of lazy transforms are carried out first. There is no inverse: what a tumor replaced is gone.

    Raises `RecipeError` when it is made, for a recipe or labels that do not fit each other; when it is called,
    `GeometryError` without an affine, `CaseError` for what is no HU and for labels without a meaning, `KeyError` for a
    key that is not there.
    """

    def __init__(
        self,
        tumors: Source | Mapping[str, Any] | Path | str,
        labels: Mapping[Hashable, Labels | Path | str | LabelScheme],
        image_key: Hashable = _IMAGE,
        prob: float = 0.5,
        case_key: Hashable = CASE,
        allow_modules: Sequence[str] = (),
    ) -> None:
        if not isinstance(labels, Mapping) or not all(isinstance(own, _SCHEMES) for own in labels.values()):
            raise RecipeError(
                "labels name the key of each label map", found=labels,
                expected='{"label": {"liver": 1, "liver_tumor": 2}}',
            )  # fmt: skip
        schemes = {key: label_scheme(own) for key, own in labels.items()}
        MapTransform.__init__(self, (image_key, *schemes))
        _Tumors.__init__(self, open_source(tumors, allow_modules), schemes, prob)
        self.image_key, self.case_key = image_key, case_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with tumors; what is under other keys stays."""
        found: dict[Hashable, Any] = dict(apply_pending_transforms(dict(data), self.keys))
        self.randomize()
        keys = list(self.key_iterator(found))  # says which one is missing
        if not self._do_transform:
            return found
        labels = {key: found[key] for key in keys if key != self.image_key}
        case = str(found.get(self.case_key, CASE))
        if self.case_key not in found and isinstance(self.source, Bank):
            raise CaseError(
                "a manifest's tumors belong to cases, and this one has no name",
                found=f"the keys {', '.join(map(str, found))}",
                fix=f'give its id: {{"{self.case_key}": "liver_001", "{self.image_key}": ...}}',
            )
        image, labels = self._put_in(found[self.image_key], labels, case)
        return {**found, self.image_key: image, **labels}


class RandTumor(_Tumors):
    """The array form of `RandTumord`: `image, label = transform(image, label)`.

    labels: the label scheme of the one label map. tumors, prob, allow_modules, errors: as there.
    """

    def __init__(
        self,
        tumors: Source | Mapping[str, Any] | Path | str,
        labels: Labels | Path | str | LabelScheme,
        prob: float = 0.5,
        allow_modules: Sequence[str] = (),
    ) -> None:
        super().__init__(open_source(tumors, allow_modules), {_LABEL: label_scheme(labels)}, prob)

    def __call__(self, image: Any, label: Any, case: str = "", randomize: bool = True) -> tuple[Any, Any]:
        """Image and label map, (1, I, J, K) both, with tumors.

        case: its id, for a manifest. randomize: False puts in those of the last seed again.
        """
        image, label = apply_pending_transforms((image, label), None)
        if randomize:
            self.randomize()
        if not self._do_transform:
            return image, label
        image, labels = self._put_in(image, {_LABEL: label}, case or CASE)
        return image, labels[_LABEL]


RandTumorD = RandTumorDict = RandTumord  # MONAI's own spellings of dictionary transforms
_SCHEMES = (Mapping, Path, str, LabelScheme)


def _affine(image: Any, case: str) -> Any:
    """The affine of a MetaTensor, to RAS+ mm; `GeometryError` for a tensor or array, which has none."""
    if not isinstance(image, MetaTensor):
        raise GeometryError(
            "the voxels' size in mm is not known", case=case, found=f"a {type(image).__name__} without an affine",
            expected="a MetaTensor", fix="load with LoadImaged and keep its header: PersistentDataset does so with "
            "track_meta=True, weights_only=False",
        )  # fmt: skip
    affine = image.affine.cpu().numpy()
    if image.meta.get("space") == SpaceKeys.LPS:
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return affine


def _array(data: Any) -> np.ndarray[Any, Any]:
    """The voxels, of a tensor on any device or of an array."""
    if isinstance(data, MetaTensor):
        data = data.as_tensor()
    return data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else np.asarray(data)


def _like(data: np.ndarray[Any, Any], before: Any) -> Any:
    """Voxels (I, J, K) as what they were made from: channel, type, device and what is known of them."""
    return convert_to_dst_type(np.ascontiguousarray(data)[None], before)[0]
