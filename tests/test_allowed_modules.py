"""Code that a manifest names is run by no command, unless the user names it too."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_training import tiny_training
from synthesis.patients import RECIPE, write_patients
from synthoma import synthesize
from synthoma.cli.main import run
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.tumor import Tumor, TumorPlan
from synthoma.volume import Volume

MODULE = f"{__name__}:Told"
RENDERED: list[str] = []
TINY = tiny_training(steps=1, spacing_mm=4.0, per_epoch=2)


class Told(Rules):
    """The generator of rules, which tells that it was run."""

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        RENDERED.append(plan.organ)
        return super().render(ct, organ, plan)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`data`, `plans` of it by a generator from elsewhere, the same written in full, and a recipe to train."""
    folder = tmp_path_factory.mktemp("modules")
    write_patients(folder / "data", "plain")
    recipe = RECIPE.with_changes(organs=("liver",), lesions=(1, 1), generator=MODULE)
    synthesize(recipe, folder / "data", folder / "plans", write="plans")
    synthesize(recipe, folder / "data", folder / "made")
    (folder / "tiny.toml").write_text(TINY)
    return folder


COMMANDS = {
    "show a case": "show plans/plain --out OUT.png",
    "show a tumor": "show plans/plain#1 --out OUT.png",
    "show a synthesis": "show plans --out OUT.png",
    "validate": "validate plans --out OUT",
    "convert": "convert plans --to abdomenatlas --out OUT",
    "evaluate": "evaluate plans made --out OUT",
    "measure": "measure plans --out OUT",
    "replay": "replay plans/manifest.parquet --data data --out OUT",
    "synthesize": "synthesize mine.toml --data plans --out OUT --write plans",
    "train on it": "train tiny.toml --data plans --out OUT --set synthesis=none --device cpu",
    "train on its tumors": "train tiny.toml --data data --out OUT --set synthesis.manifest=plans --device cpu",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_manifests_module_is_run_only_if_the_user_names_it(
    name: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(work)
    (work / "mine.toml").write_text('organs = ["liver"]\nlesions = [1, 1]\ndiameter_mm = [6.0, 16.0]\n')
    for allowed in (False, True):
        out = tmp_path / f"out{allowed}"
        words = COMMANDS[name].replace("OUT", str(out)).split()
        RENDERED.clear()
        with pytest.raises(SystemExit) as end:
            run([*words, *(("--allow-module", MODULE) if allowed else ())])
        told = capsys.readouterr()
        assert bool(RENDERED) == allowed, told
        assert (f"--allow-module {MODULE}" in told.out + told.err) == (not allowed), told
        assert bool(end.value.code) == (not allowed), told
