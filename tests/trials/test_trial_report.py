"""A planted detector is recovered; what was left out, missing or compared is said."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hosts import detect, write_hosts

from browsing import look
from synthoma.commands.trials import trial, trial_report
from synthoma.errors import CaseError, FileError
from synthoma.trials.curves import Counts, fit_curve, threshold_gap
from synthoma.trials.design import Design, read_design, write_design
from synthoma.trials.outputs import finish_report
from synthoma.trials.recipe import ReportRecipe, TrialRecipe
from synthoma.trials.scores import Scores

RECIPE = TrialRecipe(
    levels={"diameter_mm": (6, 9, 12, 16, 24), "contrast_hu": (-60, -40, -20)}, base={"contrast_hu": -60}
)


def rows(d0: float, c0: float = 0.0, spread: float = 0.0, patients: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    """Lesions of a grid and whether a detector with these thresholds finds them; spread: of its logistic, in ln mm."""
    rng = np.random.default_rng(seed)
    made = []
    for patient in range(patients):
        for site in range(2):
            for number, cell in enumerate(RECIPE.cells()):
                away = np.log(cell["diameter_mm"] / d0)
                seen = away >= 0 if spread == 0 else rng.random() < 1 / (1 + np.exp(-away / spread))
                found = int(seen and abs(cell["contrast_hu"]) >= c0)
                made.append({
                    "case": f"h{patient}_{number}", "host": f"h{patient}", "patient": f"p{patient}", "site": site,
                    "phase": "portal", "center_mm": [0.0, 0.0, 0.0], "radius_mm": 5.0, "found": found,
                    "dsc": 0.8 * found, **cell,
                })  # fmt: skip
    return made


def scores(name: str, lesions: list[dict[str, Any]], false: int = 0, missing: tuple[str, ...] = ()) -> Scores:
    return Scores(name, lesions, [{**row, "false": false} for row in bare(lesions)], missing)


def bare(lesions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    hosts = dict.fromkeys(row["host"] for row in lesions)
    return [{"case": host, "host": host, "patient": f"p{host[1:]}"} for host in hosts]


def design(lesions: list[dict[str, Any]], **more: Any) -> Design:
    return Design(RECIPE, bare(lesions), lesions, more.pop("left_out", []), **more)


@pytest.mark.parametrize(("spread", "most"), [(0.0, 1.5), (0.06, 1.5), (0.2, 1.4)], ids=["sharp", "middle", "gradual"])
def test_the_threshold_of_a_planted_detector_lies_in_its_interval_in_19_of_20_trials(
    spread: float, most: float
) -> None:
    covered, trials = 0, 60
    for seed in range(trials):
        d0 = float(np.exp(np.random.default_rng(seed).uniform(np.log(8), np.log(20))))
        base = [row for row in rows(d0, spread=spread, seed=seed) if row["contrast_hu"] == -60]
        curve = fit_curve(Counts.of("diameter_mm", base), 100, seed)
        assert curve is not None
        covered += curve.half.low <= d0 <= curve.half.high
        assert curve.half.high / curve.half.low < most
    assert covered >= 0.87 * trials  # 1 in 40 of trials whose true coverage is 95 % have fewer


def test_patients_who_differ_make_the_interval_wider() -> None:
    levels = np.array([6.0, 9.0, 12.0, 16.0, 24.0])
    alike, unlike = np.tile([0, 1, 2, 3, 4.0], (20, 1)), np.tile([0, 1, 2, 3, 4.0], (20, 1))
    unlike[::2], unlike[1::2] = (0, 0, 0, 2, 4), (0, 2, 4, 4, 4)
    widths = []
    for found in (alike, unlike):
        curve = fit_curve(Counts("diameter_mm", levels, found, np.full((20, 5), 4.0)), 100)
        assert curve is not None
        widths.append(curve.half.high - curve.half.low)
    assert widths[1] > 1.3 * widths[0]


def test_a_detector_of_contrast_is_told_in_hu_without_the_sign() -> None:
    lesions = [row for row in rows(1.0, c0=30) if row["diameter_mm"] == 12]
    curve = fit_curve(Counts.of("contrast_hu", lesions), 300)
    assert curve is not None
    assert 20 < curve.half.low < 30 < curve.half.high < 40
    assert curve.rising


def test_the_curve_that_is_drawn_follows_the_shares_and_is_one_half_at_the_threshold() -> None:
    found = np.tile([0, 1, 2, 3, 4.0], (20, 1))
    curve = fit_curve(Counts("diameter_mm", np.array([6.0, 9.0, 12.0, 16.0, 24.0]), found, np.full((20, 5), 4.0)), 100)
    assert curve is not None
    assert curve.share(np.array([curve.half.value])) == pytest.approx(0.5, abs=1e-6)
    assert curve.share(curve.levels) == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.12)


def test_a_threshold_beyond_all_levels_is_said_to_be_so() -> None:
    for d0, expected in ((1.0, -np.inf), (100.0, np.inf)):
        curve = fit_curve(Counts.of("diameter_mm", rows(d0)), 200)
        assert curve is not None
        assert curve.half.value == curve.half.low == curve.half.high == expected


def test_few_patients_have_a_curve_without_an_interval() -> None:
    curve = fit_curve(Counts.of("diameter_mm", rows(10, patients=4)), 200)
    assert curve is not None
    assert np.isfinite(curve.half.value)
    assert np.isnan(curve.half.low)


def test_what_is_harder_with_more_has_a_threshold_that_falls() -> None:
    lesions = [{"patient": f"p{n}", "edge_mm": e, "found": int(e < 2.5)} for n in range(8) for e in (1, 2, 3, 4)]
    curve = fit_curve(Counts.of("edge_mm", lesions), 200)
    assert curve is not None
    assert not curve.rising
    assert 2 <= curve.half.low < curve.half.value < curve.half.high <= 3


def test_the_gap_of_two_thresholds_holds_what_lies_between_their_levels() -> None:
    curves = [fit_curve(Counts.of("diameter_mm", rows(d0)), 400, model=n) for n, d0 in enumerate((10, 14))]
    assert curves[0] is not None
    assert curves[1] is not None
    gap = threshold_gap(curves[0], curves[1])
    assert gap.low < 1
    assert gap.high > 6  # 9 to 12 mm against 12 to 16 mm


def test_the_report_says_what_was_found_left_out_and_missing(tmp_path: Path) -> None:
    lesions = rows(10.5, c0=30)
    left_out = [{"host": "h3", "patient": "p3", "site": 0, **RECIPE.base_cell, "reason": "the organ has no room"}]
    recipe = ReportRecipe(resamples=200)
    summary = finish_report(
        design(lesions, left_out=left_out, in_silico=True), [scores("model", lesions, 1, ("h0_3",))], tmp_path,
        recipe, 0, {},
    )  # fmt: skip
    told = summary["verdict"]
    assert "Half of the lesions are found from 10.4 mm on" in told
    assert "1 planned lesion had no room" in told
    assert "h0_3" in told
    assert "in-silico patients" in told
    assert "1.00 false lesions on an untouched scan (20 scans)" in told
    half = summary["models"]["model"]["half"]
    assert half["diameter_mm"]["value_low"] < 10.5 < half["diameter_mm"]["value_high"]
    assert half["contrast_hu"]["value_low"] < 30 < half["contrast_hu"]["value_high"]
    page = (tmp_path / "report.html").read_text()
    assert f"<h1>Trial {tmp_path.name}</h1>" in page
    assert "the organ has no room (1)" in page
    assert "less than half at every level" in page  # of 20 HU
    assert page.count("<svg") == 5
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons", ""
    )


def test_shares_that_follow_no_curve_are_said_so(tmp_path: Path) -> None:
    lesions = rows(10.5)
    recipe = ReportRecipe(resamples=200)
    plain = finish_report(design(lesions), [scores("model", lesions)], tmp_path / "plain", recipe, 0, {})
    assert "do not follow" not in plain["verdict"]
    levels = sorted({each["diameter_mm"] for each in lesions})
    odd = [each | {"found": int(each["diameter_mm"] in levels[1:3])} for each in lesions]  # larger ones are lost
    told = finish_report(design(odd), [scores("model", odd)], tmp_path / "odd", recipe, 0, {})["verdict"]
    said = r"at \d+ mm (0|100) % were found \(95 % interval [\d to]+\), and it says \d\d %"
    assert re.search(f"the shares do not follow the curve: {said}", told)


def test_of_few_patients_no_interval_is_promised(tmp_path: Path) -> None:
    few, enough = (rows(10.5, patients=count) for count in (4, 5))
    told = finish_report(design(few), [scores("m", few)], tmp_path / "few", ReportRecipe(resamples=100), 0, {})
    assert "from 10.4 mm on (too few patients for an interval; 40 lesions in 4 patients)" in told["verdict"]
    assert "Of fewer than 5 patients, intervals are rough and often too narrow." in told["verdict"]
    more = finish_report(design(enough), [scores("m", enough)], tmp_path / "more", ReportRecipe(resamples=100), 0, {})
    assert "fewer than 5 patients" not in more["verdict"]


def test_of_two_models_the_better_one_is_named_and_equal_ones_are_not(tmp_path: Path) -> None:
    first, second = rows(10.5, spread=0.2, seed=1), rows(7.5, spread=0.2, seed=2)
    both = [scores("A", first), scores("B", second)]
    told = finish_report(design(first), both, tmp_path, ReportRecipe(resamples=200), 0, {})
    assert "B finds more lesions than A" in told["verdict"]
    same = [scores("A", first), scores("B", rows(10.5, spread=0.2, seed=3))]
    told = finish_report(design(first), same, tmp_path, ReportRecipe(resamples=200), 0, {})
    assert "No difference between A and B is shown" in told["verdict"]


def test_from_hosts_to_the_page(tmp_path: Path) -> None:
    recipe = TrialRecipe(levels={"diameter_mm": (8, 14), "contrast_hu": (-60,)})
    trial(recipe, write_hosts(tmp_path / "data", 3), tmp_path / "trial")
    pred = detect(tmp_path / "trial", tmp_path / "pred", 10, false=True)
    done = trial_report(tmp_path / "trial", pred, tmp_path / "report")
    model = done.summary["models"]["pred"]
    assert (model["lesions"], model["found"]["value"], model["missing"]) == (6, 0.5, [])
    assert model["false_per_untouched_scan"]["value"] == 1
    assert 8 < model["half"]["diameter_mm"]["value"] < 14
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3  # the small one of each host
    assert "diameter 8 mm, contrast -60 HU" in page

    shutil.rmtree(pred / "h1_trial001")
    shutil.rmtree(pred / "h2")
    fewer = trial_report(tmp_path / "trial", pred, tmp_path / "fewer").summary
    assert fewer["models"]["pred"]["missing"] == ["h2", "h1_trial001"]
    assert fewer["models"]["pred"]["lesions"] == 5
    assert "2 of 9 scans have no prediction of pred" in fewer["verdict"]
    recipe_empty = ReportRecipe(missing="empty")
    counted = trial_report(tmp_path / "trial", pred, tmp_path / "empty", recipe=recipe_empty).summary
    assert counted["models"]["pred"]["lesions"] == 6


def test_a_scan_made_worse_is_compared_with_itself_and_phases_are_apart(tmp_path: Path) -> None:
    recipe = TrialRecipe(
        levels={"diameter_mm": (6, 12, 20), "noise_hu": (0, 10, 40), "shift_hu": (0, 30)}, base={"contrast_hu": -40}
    )
    lesions, untouched = [], []
    for patient in range(12):
        who = {"host": f"h{patient}", "patient": f"p{patient}"}
        for number, cell in enumerate(recipe.cells()):
            found = int(cell["diameter_mm"] > (8 if cell["noise_hu"] < 40 else 15))
            place = {"site": 0, "center_mm": [0.0] * 3, "radius_mm": 5.0, "phase": ("portal", "arterial")[patient % 2]}
            lesions.append({"case": f"h{patient}_{number}", **who, **place, "found": found, "dsc": 0.8 * found, **cell})
        for number, state in enumerate(recipe.states()):
            case = f"h{patient}_bare{number}" if number else f"h{patient}"
            untouched.append({"case": case, **who, **state, "false": 1 + (state["noise_hu"] == 40)})
    scored = Scores("model", lesions, untouched, ())
    made = finish_report(Design(recipe, untouched, lesions, []), [scored], tmp_path, ReportRecipe(resamples=200), 0, {})
    rows = {(row["what"], row["quantity"]): row for row in made["models"]["model"]["robustness"]}
    worst = rows["noise added 40 HU", "lesions found"]
    assert (worst["pairs"], worst["first"], worst["second"]) == (36, pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert worst["holm"] < 0.05
    assert rows["noise added 10 HU", "lesions found"]["difference"] == 0
    assert rows["noise added 40 HU", "false lesions a scan"]["difference"] == 1
    assert made["models"]["model"]["false_per_untouched_scan"]["value"] == 1  # of the scans as they are
    assert "noise added 40 HU costs most: 33 % of the lesions are found instead of 67 % (36 pairs" in made["verdict"]
    assert "shift" not in made["models"]["model"]["half"]
    assert set(made["models"]["model"]["phases"]) == {"arterial", "portal"}
    page = (tmp_path / "report.html").read_text()
    assert "The scan made worse" in page
    assert (
        "over noise added, at diameter 12 mm, contrast -40 HU; points with 95 % intervals by patient, and the" in page
    )
    assert "over shift of all HU, at diameter 12 mm, contrast -40 HU; points with 95 % intervals by patient.<" in page
    assert "By phase of the hosts" in page
    assert f"<h1>Trial {tmp_path.name}</h1>" in page
    phases = page.split("By phase of the hosts")[1].split("</table>")[0]
    assert ">arterial</td><td class=n>6</td><td class=n>" in phases  # patients
    assert look(tmp_path / "report.html", 1300, 400) == [(0, 0), (0, 0)]


def test_a_folder_that_is_no_trial_and_a_design_that_was_changed_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is no finished trial"):
        trial_report(tmp_path, tmp_path, tmp_path / "report")
    (tmp_path / "design.json").write_text('{"format": 1, "recipe": {}}')
    with pytest.raises(FileError, match="damaged, or was changed by hand"):
        trial_report(tmp_path, tmp_path, tmp_path / "report")
    lesion = {name: value for name, value in rows(10)[0].items() if name != "contrast_hu"}
    write_design(design([{**lesion, "contrast_hu": -60}]), tmp_path)
    assert read_design(tmp_path).recipe == RECIPE
    write_design(design([lesion]), tmp_path)
    with pytest.raises(FileError, match=r"lesions without .*contrast_hu"):
        read_design(tmp_path)
    with pytest.raises(CaseError, match="no lesion of the trial could be scored for A"):
        finish_report(design(rows(10)), [scores("A", [])], tmp_path, ReportRecipe(), 0, {})
