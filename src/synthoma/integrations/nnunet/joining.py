"""A trainer's training data, its cases with tumors: what has to fit, what is told, and what is kept of it."""

from __future__ import annotations

import importlib.metadata
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthoma import __version__, disk
from synthoma.errors import CaseError, RecipeError, RunError, listed
from synthoma.integrations.labels import label_scheme
from synthoma.integrations.nnunet.dataset import CasesWithTumors
from synthoma.integrations.nnunet.finding import how_to_change
from synthoma.integrations.nnunet.normalization import CtNormalization
from synthoma.integrations.nnunet.preparation import Preparation, Preprocessed, prepare
from synthoma.integrations.nnunet.settings import TrainerRecipe, open_tumors, read_settings
from synthoma.names import file_name
from synthoma.reading import open_dataset
from synthoma.synthesis.online.online import Fixed, Online

RECORD = "synthoma.json"  # in the folder of a fold: which tumors its patches got
TABLES = "synthoma"  # the folder of what was measured, beside the preprocessed arrays
# what is asked of a trainer beside nnU-Net's own calls
_NEEDED = (
    "plans_manager", "configuration_manager", "configuration_name", "dataset_json", "preprocessed_dataset_folder_base",
    "output_folder", "is_cascaded", "local_rank", "print_to_log_file",
)  # fmt: skip


def with_tumors(trainer: Any, cases: Preprocessed) -> CasesWithTumors:
    """The training cases of one of nnU-Net's trainers, those that can get tumors with tumors.

    Which, and why others get none, goes to the training's log and, with the recipe, into `RECORD`. Raises
    `RecipeError` for a training that can have no tumors, and for what `settings` refuses; `RunError` for an nnU-Net
    whose parts are others than expected; `CaseError` if no case can get tumors.
    """
    _require_interface(trainer, cases)
    _refuse_configuration(trainer)
    configuration, plans = trainer.configuration_manager, trainer.plans_manager
    normalization = CtNormalization.of_plans(
        configuration.normalization_schemes, plans.foreground_intensity_properties_per_channel
    )
    scheme = label_scheme(trainer.dataset_json["labels"], plans.dataset_name)
    settings = read_settings(trainer.dataset_json, os.environ)
    tumors = open_tumors(settings, scheme)
    preparation = Preparation(
        cases=cases,
        tumors=tumors,
        scheme=scheme,
        normalization=normalization,
        transpose_forward=tuple(plans.transpose_forward),
        folder=Path(trainer.preprocessed_dataset_folder_base) / TABLES / configuration.data_identifier,
        raw=_raw_scans(plans.dataset_name) if isinstance(tumors, Fixed) else {},
    )
    hosts, reasons = prepare(preparation, settings.hosts, _workers())
    if not hosts:
        raise CaseError(
            "no training case can get synthetic tumors",
            found=_counted(reasons),
            fix="let cases with real tumors get new ones as well: export SYNTHOMA_HOSTS=all",
        )
    _tell(trainer, settings, tumors, hosts, reasons)
    return CasesWithTumors(cases, tumors, hosts)


def _require_interface(trainer: Any, cases: Preprocessed) -> None:
    """`RunError` if nnU-Net hands over other things than it did in the versions that are known."""
    missing = [name for name in _NEEDED if not hasattr(trainer, name)]
    found = f"no {', '.join(missing)}" if missing else ""
    if not found:
        loaded = cases.load_case(cases.identifiers[0]) if hasattr(cases, "load_case") else ()
        if len(loaded) != 4 or "class_locations" not in loaded[3]:
            found = f"{len(loaded)} parts of a loaded case, of {', '.join(type(part).__name__ for part in loaded)}"
    if found:
        told = how_to_change(importlib.metadata.version("nnunetv2"))
        raise RunError(f"this nnU-Net works otherwise than SynthomaTrainer expects: {found}", **told)


def _refuse_configuration(trainer: Any) -> None:
    name, fix = trainer.configuration_name, "train 3d_fullres or 3d_lowres"
    if len(trainer.configuration_manager.patch_size) != 3:
        raise RecipeError(
            "a 2-D configuration trains on single slices, and for each one the tumors of a whole case would be drawn",
            found=name,
            fix=f"{fix}, or write cases with tumors: synthoma synthesize, synthoma convert --to nnunet",
        )
    if trainer.is_cascaded:
        raise RecipeError(
            "the earlier stage of a cascade has not seen the new tumors, so its masks are wrong around them",
            found=name,
            fix=fix,
        )


def _raw_scans(dataset: str) -> dict[str, Path]:
    """The scans that a bank's tumors were made on, by identifier."""
    raw = os.environ.get("nnUNet_raw")  # noqa: SIM112  # nnU-Net's own spelling
    folder = Path(raw or ".") / dataset
    if raw is None or not folder.is_dir():
        raise RecipeError(
            "finished tumors are put into the scans that they were made on only",
            found=f"no {folder}" if raw else "nnUNet_raw is not set",
            fix="export nnUNet_raw, the folder of the data set's scans; it is read once",
        )
    return {file_name(case.id): case.image for case in open_dataset(folder) if isinstance(case.image, Path)}


def _workers() -> int:
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    return int(get_allowed_n_proc_DA())


def _counted(reasons: Mapping[str, str]) -> str:
    """How many cases get no tumors for which reason."""
    counts = Counter(reasons.values()).most_common()
    return listed([f"{count} cases: {reason}" for reason, count in counts], 3)


def _tell(
    trainer: Any, settings: TrainerRecipe, tumors: Online | Fixed, hosts: Mapping[str, Any], reasons: Mapping[str, str]
) -> None:
    if isinstance(tumors, Online):
        made_by: dict[str, Any] = {"recipe": tumors.recipe.as_dict() | {"probability": tumors.probability}}
        what = f"{', '.join(tumors.recipe.organs)}, in {tumors.probability:.0%} of their patches"
    else:
        made_by = {"manifest": str(tumors.path), "digest": disk.digest(tumors.path)}
        what = f"of {tumors.path}"
    others = f"; {_counted(reasons)}" if reasons else ""
    trainer.print_to_log_file(
        f"synthoma: {len(hosts)} of {len(hosts) + len(reasons)} training cases get tumors {what}{others}"
    )
    if trainer.local_rank == 0:
        record = {
            "synthoma": __version__,
            "hosts_rule": settings.hosts,
            **made_by,
            "hosts": sorted(hosts),
            "others": dict(sorted(reasons.items())),
        }
        disk.write_json(Path(trainer.output_folder) / RECORD, record)
