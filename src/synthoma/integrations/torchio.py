"""Tumors as TorchIO transforms: `RandomTumor` on subjects, and `Tumors`, what their history replays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthoma.errors import CaseError, RecipeError
from synthoma.extras import need
from synthoma.integrations.images import one_channel
from synthoma.integrations.labels import Labels, LabelScheme, label_scheme
from synthoma.integrations.sources import Bank, Plans, Source, fitted, modules_of, open_source
from synthoma.integrations.tumors import CASE, WithTumors, add_tumors
from synthoma.synthesis.tumor import TumorPlan

need("torchio", extra="torchio")

import torch  # noqa: E402
import torchio as tio  # noqa: E402
from torchio.transforms.augmentation import RandomTransform  # noqa: E402
from torchio.transforms.transform import Transform  # noqa: E402

Schemes = Mapping[str, Labels | Path | str | LabelScheme]


class RandomTumor(RandomTransform):
    """Puts synthetic tumors into the CT of a subject, and into its label maps; new ones in every call.

    tumors: what to put in: a recipe's name (`liver`, see `synthoma recipes`), its TOML file, a `SynthesisRecipe` or its
    keys; or the folder or manifest of a synthesis, whose tumors are put in again. labels: name of each `LabelMap` in
    the subject -> its label scheme, as `label_scheme` reads it: `{"seg": {"liver": 1, "liver_tumor": 2}}`. Together the
    maps show the organs; each map with a value for an organ's tumors gets them. image: name of the CT, the only
    `ScalarImage` unless told. case_key: of the case's id in the subject, which a manifest needs and errors name.
    allow_modules: generators of the form `module:Class` that a manifest may name. p, copy, keep: as in every transform
    of TorchIO.

    The image is (1, I, J, K) HU, the label maps lie on its grid; all keep their types. It draws from torch's generator,
    as all random transforms of TorchIO. The subject's history holds `Tumors`, the plans of what was put in, so
    `subject.get_composed_history()` makes the same voxels again. There is no inverse: what a tumor replaced is gone.

    Raises `RecipeError` when it is made, for a recipe or labels that do not fit each other; when it is called,
    `GeometryError` without an affine, `CaseError` for what is no HU, for labels without a meaning, and for a subject
    that lacks an image.
    """

    def __init__(
        self,
        tumors: Source | Mapping[str, Any] | Path | str,
        labels: Schemes,
        image: str | None = None,
        case_key: str = CASE,
        allow_modules: Sequence[str] = (),
        p: float = 1,
        copy: bool = True,
        keep: dict[str, str] | None = None,
    ) -> None:
        super().__init__(p=p, copy=copy, keep=keep)
        self.schemes = _schemes(labels)
        self.source = fitted(open_source(tumors, allow_modules), self.schemes.values())
        self.image, self.case_key = image, case_key
        self.args_names = ["image", "case_key"]

    def apply_transform(self, subject: Any) -> Any:
        """The subject with tumors; TorchIO calls it."""
        if isinstance(self.source, Bank) and self.case_key not in subject:
            raise CaseError(
                "a manifest's tumors belong to cases, and this one has no name",
                found=f"the keys {', '.join(subject)}",
                fix=f'give its id: tio.Subject({self.case_key}="liver_001", ct=...)',
            )
        done = _put_in(subject, self.image, self.schemes, self.source, self._get_random_seed(), self.case_key)
        if done.plans:
            plans = [plan.as_dict() for plan in done.plans]
            made = Tumors(plans, self.schemes, self.image, self.case_key, modules_of(self.source), copy=self.copy)
            subject.add_transform(made, made._get_reproducing_arguments())
        return subject


class Tumors(Transform):
    """Puts the tumors of plans into a subject: what `RandomTumor` leaves in the history; nothing is drawn.

    plans: as `TumorPlan.as_dict` gives them, JSON data. labels, image, case_key, allow_modules: as in `RandomTumor`.
    On the subject that the plans were made on, the voxels are the same.
    """

    def __init__(
        self,
        plans: Sequence[Mapping[str, Any]],
        labels: Schemes,
        image: str | None = None,
        case_key: str = CASE,
        allow_modules: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plans, self.labels = list(plans), _schemes(labels)
        self.image, self.case_key, self.allow_modules = image, case_key, tuple(allow_modules)
        self.args_names = ["plans", "labels", "image", "case_key", "allow_modules"]

    def apply_transform(self, subject: Any) -> Any:
        """The subject with these tumors; TorchIO calls it."""
        source = Plans(tuple(TumorPlan.from_dict(plan) for plan in self.plans), self.allow_modules)
        _put_in(subject, self.image, self.labels, source, 0, self.case_key)
        return subject


def _put_in(
    subject: Any, image: str | None, schemes: Mapping[str, LabelScheme], source: Source, seed: int, case_key: str
) -> WithTumors:
    """Tumors into the images of a subject."""
    case = str(subject.get(case_key, CASE))
    ct = subject[_image_name(subject, image, case)]
    for name in schemes:
        if not isinstance(subject.get(name), tio.LabelMap):
            raise CaseError(
                f"the subject has no LabelMap {name!r}", case=case, found=", ".join(map(str, subject)),
                expected=f"one named as in labels: {', '.join(schemes)}",
            )  # fmt: skip
    maps = {name: one_channel(subject[name].data.numpy(), name, case) for name in schemes}
    # TorchIO turns every warning of numpy into an error, also where an infinity is wanted
    with np.errstate(all="warn", under="ignore"):
        done = add_tumors(one_channel(ct.data.numpy(), "the image", case), ct.affine, maps, schemes, source, seed, case)
    if done.plans:
        ct.set_data(torch.from_numpy(np.ascontiguousarray(done.image)[None]))
        for name, data in done.labels.items():
            subject[name].set_data(torch.from_numpy(np.ascontiguousarray(data)[None]))
    return done


def _image_name(subject: Any, image: str | None, case: str) -> str:
    names = list(subject.get_images_dict(intensity_only=True))
    if image is None and len(names) == 1:
        return str(names[0])
    if image not in names:
        raise CaseError(
            "it is not clear which image is the CT", case=case, found=", ".join(names) or "no ScalarImage",
            expected=f"image={image!r}" if image else "one ScalarImage", fix="say image=, the name in the subject",
        )  # fmt: skip
    return str(image)


def _schemes(labels: Schemes) -> dict[str, LabelScheme]:
    if not isinstance(labels, Mapping) or not all(
        isinstance(own, Mapping | Path | str | LabelScheme) for own in labels.values()
    ):
        raise RecipeError(
            "labels name each label map of the subject", found=labels,
            expected='{"seg": {"liver": 1, "liver_tumor": 2}}',
        )  # fmt: skip
    return {str(name): label_scheme(own) for name, own in labels.items()}
