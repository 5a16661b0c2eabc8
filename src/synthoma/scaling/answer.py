"""What a study found, in sentences that claim no more than its intervals do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from synthoma.scaling.results import ArmFit, Level, StudyFit
from synthoma.statistics.intervals import Interval

NOTHING = "no difference was shown"


def answer(fits: Mapping[str, StudyFit], arm: str, metric: str) -> str:
    """Two sentences: what synthetic tumors are worth on the first test set, and what they change on the others.

    fits: test set -> findings, the one of the training hospitals first. arm: the one the study is about; its smallest
    number of real cases is what is told, whatever the others say. metric: in words.
    """
    first, *others = fits
    fit = fits[first]
    level = headline(fit, arm)
    if level is None:
        return f"No point of {arm} was scored on {first}, so nothing can be said."
    if all(one.score.value == 0 for each in fits.values() for one in each.levels):
        return (
            f"No network scored {metric} above 0, with or without synthetic tumors. So the study says nothing about "
            "them: train longer, or with tumors more like those of the test."
        )
    sentences = [f"{_gain(fit, level, metric, first)}{_worth(level)}."]
    rest = [
        _gain(fits[name], found, metric, name, short=True)
        for name in others
        if (found := fits[name].level(arm, level.cases)) is not None
    ]
    if rest:
        joined = "; ".join(rest)
        sentences.append(joined[0].upper() + joined[1:] + ".")
    else:
        sentences.append(doubling(fit.arm(fit.real), fit.largest, "without synthetic tumors"))
    return " ".join(sentences)


def headline(fit: StudyFit, arm: str) -> Level | None:
    """The smallest number of real cases that an arm and the real-only arm were both trained with."""
    levels = [one for one in fit.levels if one.arm == arm]
    return next((one for one in levels if one.gain is not None), levels[0] if levels else None)


def _gain(fit: StudyFit, level: Level, metric: str, test: str, short: bool = False) -> str:
    """What synthetic tumors changed at one number of cases."""
    real = fit.level(fit.real, level.cases)
    start = f"on {test}," if short else f"With {cases(level.cases)}, on {test},"
    if real is None or level.gain is None:
        return f"{start} {level.arm} scored {metric} {score(level.score.value)}; without synthetic tumors nothing did"
    change = f"{score(real.score.value)} to {score(level.score.value)}"
    gain = f"difference {signed(level.gain, 0.0 if short else fit.confidence)}"
    if not math.isfinite(level.gain.low):
        return f"{start} {metric} was {change.replace(' to ', ' without and ')} with synthetic tumors ({gain})"
    if level.gain.spans_zero:
        both = change.replace(" to ", " without and ")
        return f"{start} {NOTHING}: {metric} {both} with synthetic tumors ({gain})"
    verb = "raised" if level.gain.value > 0 else "lowered"
    return f"{start} synthetic tumors {verb} {metric} from {change} ({gain})"


def _worth(level: Level) -> str:
    """How many real cases that equals."""
    found = level.equivalent
    if found is None or (level.gain is not None and level.gain.spans_zero and math.isfinite(level.gain.low)):
        return ""  # what no difference equals is nothing to count
    if math.isnan(found.value):
        return f"; how many real cases that equals {found.note}"
    times = ""
    if level.factor is not None and math.isfinite(level.factor.value):
        times = f", {level.factor.value:.1f} times as many"
        if math.isfinite(level.factor.low) and math.isfinite(level.factor.high):
            times += f" ({level.factor.low:.1f} to {level.factor.high:.1f})"
    note = f" ({found.note})" if found.note else ""
    return f"; {reach(found)} without them would score the same{times}{note}"


def reach(found: Interval) -> str:
    """A number of real cases with its interval, whose ends may be open."""
    if math.isinf(found.value):
        return f"more than {count(found.low)} real cases" if math.isfinite(found.low) else "no number of real cases"
    if not math.isfinite(found.low):
        return f"{count(found.value)} real cases"
    end = f"to {count(found.high)}" if math.isfinite(found.high) else "or more"
    return f"{count(found.value)} real cases ({count(found.low)} {end})"


def saturation(fit: ArmFit, largest: int, worthwhile: float) -> str:
    """From where on annotating more adds little."""
    found = fit.saturation
    if found is None or fit.problem.startswith("cannot be identified"):
        return f"{fit.arm}: where more cases stop helping {fit.problem or 'cannot be identified'}."
    if found.value > 2 * largest:  # what lies beyond is the law's word, not the data's
        still = f"{fit.arm}: doubling real cases still adds {score(worthwhile)} or more at twice the {largest} measured"
        least = f", and at least up to {count(found.low)} cases" if found.low > 0 else ""
        return f"{still}{least}; where that ends cannot be told from so few."
    ends = ""
    if math.isfinite(found.low):
        ends = f" ({count(found.low)} {f'to {count(found.high)}' if math.isfinite(found.high) else 'or more'})"
    return f"{fit.arm}: doubling real cases adds {score(worthwhile)} or more up to {count(found.value)} cases{ends}."


def doubling(fit: ArmFit, largest: int, who: str = "") -> str:
    """What the next doubling of real cases would add."""
    who = who or fit.arm
    if fit.doubling is None or fit.problem.startswith("cannot be identified: the score"):
        return f"What more real cases would add, {who}: {fit.problem or 'cannot be identified'}."
    ends = ""
    if math.isfinite(fit.doubling.low):
        ends = f" (interval {score(fit.doubling.low)} to {score(fit.doubling.high)})"
    return f"Going from {largest} to {2 * largest} real cases would add {score(fit.doubling.value)}{ends}, {who}."


def best_arm(fit: StudyFit, number: int) -> str:
    """Which share or generator is best at a number of real cases."""
    name, often, alike = fit.best[number]
    told = f"{cases(number)}: {name} scored highest"
    if math.isfinite(often):
        told += f" (in {100 * often:.0f} % of resamples)"
    mixed = [arm for arm in fit.mixed if arm != name]
    those = "any other arm with synthetic tumors" if len(mixed) > 2 and {*alike} == {*mixed} else ", ".join(alike)
    return told + (f"; not told from {those}." if alike else ", above all others.")


def doubt(fit: StudyFit) -> str:
    """What would narrow the intervals most."""
    if fit.note:
        return f"{fit.note[0].upper()}{fit.note[1:]}."
    share = fit.patient_share
    if math.isnan(share):
        return ""
    if share > 0.6:
        return f"{100 * share:.0f} % of the uncertainty of gains comes from having {fit.patients} test patients."
    if share < 0.4:
        return f"{100 * (1 - share):.0f} % of the uncertainty of gains comes from having {fit.seeds} training seeds."
    return f"Test patients ({fit.patients}) and training seeds ({fit.seeds}) limit the intervals alike."


def warnings(fit: StudyFit) -> Sequence[str]:
    """What cannot be identified, a sentence for all arms of which the same is to be said."""
    alike: dict[str, list[str]] = {}
    for one in fit.arms:
        if one.problem:
            alike.setdefault(one.problem, []).append(one.arm)
    return [
        f"curves of all {len(arms)} arms: {problem}."
        if len(arms) == len(fit.arms) > 2
        else f"curve{'s' * (len(arms) > 1)} of {'; '.join(arms)}: {problem}."
        for problem, arms in alike.items()
    ]


def cases(number: int) -> str:
    """`1 real case`, `4 real cases`."""
    return f"{number} real case" + ("" if number == 1 else "s")


def count(value: float) -> str:
    """A number of cases: two digits below 10, whole above."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def score(value: float) -> str:
    """A score of 0 to 1 with two digits, three if it is small; one of 0 to 100 with one."""
    return f"{value:.1f}" if abs(value) >= 2 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def signed(interval: Interval, confidence: float = 0.0) -> str:
    """A difference with its interval, which is called by its confidence unless that is 0."""
    value = f"{'+' if interval.value >= 0 else ''}{score(interval.value)}"
    if not math.isfinite(interval.low):
        return f"{value}, no interval"
    named = f"{100 * confidence:g} % interval " if confidence else ""
    return f"{value}, {named}{score(interval.low)} to {score(interval.high)}"
