"""The generator contract: a ball in ten lines, one instance each, no code from files, and a critic beside the judge."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from phantoms import GRIDS, LIVER, ellipsoid_case, fine, plan_of

from synthoma.errors import CaseError, RecipeError
from synthoma.synthesis.drawing import complete_plan
from synthoma.synthesis.generators.loading import open_generator
from synthoma.synthesis.generators.rules import Rules
from synthoma.synthesis.location import OrganModel, find_site
from synthoma.synthesis.pipeline import insert_tumors, replay_plans
from synthoma.synthesis.recipe import JudgeRecipe, SynthesisRecipe
from synthoma.synthesis.tumor import Generator, Request, Tumor, TumorPlan
from synthoma.volume import Volume

PAGE = Path(__file__).parents[3] / "docs" / "synthesis.md"
BALL = f"{__name__}:Ball"


class Ball(Generator):
    """Balls of even tissue."""

    def draw(self, organ: OrganModel, request: Request, rng: np.random.Generator) -> TumorPlan:
        radius = request.diameter_mm / 2
        site = find_site(organ, (radius, np.inf), radius, request.taken, request.recipe.gap_mm, rng)
        return complete_plan(organ, request, site.center_mm, (radius, radius, radius), rng)

    def reach(self, plan: TumorPlan) -> float:
        return plan.radius_mm + 3

    def render(self, ct: Volume, organ: Volume, plan: TumorPlan) -> Tumor:
        box = self.box(plan, ct.geometry)
        depth = plan.radius_mm - np.linalg.norm(ct.geometry.crop(box).points_mm() - plan.center_mm, axis=-1)
        alpha = np.clip(0.5 + depth / 2, 0, 1).astype(np.float32)
        return Tumor(plan, box, alpha, np.full_like(alpha, plan.base_hu + plan.contrast_hu))


@pytest.mark.parametrize("grid", GRIDS)
def test_a_ball_is_a_generator_in_ten_lines(grid: str) -> None:
    case = ellipsoid_case(GRIDS[grid](110), (48, 48, 48))
    recipe = SynthesisRecipe(lesions=(2, 3), diameter_mm=(14, 22), generator=BALL, contrast_hu=(-60, -50))
    result = insert_tumors(case, recipe, 3)
    assert len(result.inserted) >= 2
    for tumor in result.inserted:
        assert tumor.plan.generator == BALL
        assert tumor.verdict.scores["volume_ratio"] == pytest.approx(1, abs=0.1)  # its voxels are not divided
        assert tumor.verdict.scores["contrast_hu"] == pytest.approx(tumor.plan.contrast_hu, abs=4)
    plans = [TumorPlan.from_dict(tumor.plan.as_dict()) for tumor in result.inserted]
    again = replay_plans(case, plans, allow_modules=[BALL])
    assert np.array_equal(again.ct.data, result.ct.data)


def test_the_ball_of_the_docs_is_a_generator() -> None:
    block = next(
        text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "class Ball" in text
    )
    names: dict[str, type[Generator]] = {}
    exec(compile(block, "synthesis.md", "exec"), names)
    body = [line for line in block.split("class Ball")[1].splitlines()[1:] if line.startswith("    ") and line.strip()]
    assert sum(not line.strip().startswith("def ") for line in body) <= 10
    case = ellipsoid_case(fine(60), (28, 28, 28))
    plan = plan_of(20.0, center_mm=(3.0, 1.0, 0.0))
    tumor = names["Ball"]().render(case.read_image(), case.read_mask("liver"), plan)
    assert tumor.mask.sum() == pytest.approx(plan.volume_mm3, rel=0.05)


def test_there_is_one_instance_a_process_and_device() -> None:
    assert open_generator("rules") is open_generator("rules")
    assert isinstance(open_generator("rules"), Rules)
    assert open_generator("rules", "cuda") is not open_generator("rules")
    assert open_generator("rules", "cuda").device == "cuda"


def test_unknown_generators_are_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no generator 'nothing'; expected one of rules, .*or module:Class"):
        open_generator("nothing")
    for name in ("no.module:Class", f"{__name__}:Nobody"):
        with pytest.raises(RecipeError, match="cannot be loaded"):
            open_generator(name, allowed=[name])


def test_code_that_only_a_file_asks_for_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Bad: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    case = ellipsoid_case(fine(40), (18, 18, 18))
    with pytest.raises(RecipeError, match="--allow-module hostile:Bad"):
        replay_plans(case, [plan_of(10.0, generator="hostile:Bad")])
    assert not (tmp_path / "ran").exists()


def test_several_tumors_are_rendered_as_each_alone() -> None:
    case = ellipsoid_case(fine(60), (28, 28, 28))
    ct, liver = case.read_image(), case.read_mask("liver")
    plans = [plan_of(12.0, center_mm=(-8.0, 0, 0)), plan_of(16.0, center_mm=(8.0, 2.0, 0), seed=2)]
    for tumor, plan in zip(Rules().render_all([(ct, liver, plan) for plan in plans]), plans, strict=True):
        assert np.array_equal(tumor.alpha, Rules().render(ct, liver, plan).alpha)


def test_a_critic_sees_the_lesion_in_its_surroundings_and_may_reject_it() -> None:
    case = ellipsoid_case(fine(110), (50, 50, 50))
    recipe = SynthesisRecipe(lesions=(3, 3), diameter_mm=(12, 30), retries=0, contrast_hu=(-60, -60))
    seen: list[tuple[float, int]] = []

    def critic(ct: Volume, lesion: Volume) -> float:
        ct.require_same_grid(lesion)
        assert ct.data[~lesion.data & (ct.data > 60)].mean() == pytest.approx(LIVER, abs=3)
        seen.append((float(ct.data[lesion.data].mean()), int(lesion.data.sum())))
        return float(lesion.data.sum() > 3000)

    judged = insert_tumors(case, recipe.with_changes(judge=JudgeRecipe(critic=(0.5, 1.0))), 4, critic=critic)
    assert len(seen) == len(judged.inserted) + len(judged.rejected) == 3
    assert all(LIVER - 65 < mean < LIVER - 40 for mean, _ in seen), seen  # the soft border is in the mean
    assert [tumor.verdict.scores["critic"] for tumor in judged.inserted] == [1.0] * len(judged.inserted)
    assert {attempt.verdict.reason for attempt in judged.rejected} == {"the critic's score is 0.00"}
    assert judged.inserted
    assert judged.rejected
    with pytest.raises(CaseError, match="not annotated"):
        insert_tumors(case, SynthesisRecipe(organs=("colon",)), critic=critic)
