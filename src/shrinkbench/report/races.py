"""Sequential comparisons in words."""

from __future__ import annotations

from shrinkbench.report.statistics.metrics import Metric
from shrinkbench.report.statistics.sequential import Race
from shrinkbench.spec import UntilDecided

_SPENDING = {"obrien-fleming": "O'Brien and Fleming's", "kim-demets": "Kim and DeMets'", "pocock": "Pocock's"}


def describe_race(race: Race, rules: UntilDecided, metric: Metric) -> str:
    """How a comparison by ``metric`` stands, in one sentence."""
    seeds = len(race.seeds)
    state = {
        "waiting": f"the look after {race.needs} seeds waits for its runs",
        "decided": f"decided after {seeds} of at most {rules.max_seeds} seeds",
        "alike": f"after {seeds} seeds those left differ by less than {metric.share(rules.margin or 0)}",
        "futile": f"stopped after {seeds} of at most {rules.max_seeds} seeds, not decided",
        "exhausted": f"not decided with all {rules.max_seeds} seeds",
        "nothing": f"after {seeds} seeds no two methods can be compared",
    }[race.state]
    stopped = "; ".join(f"{stop.method} {stop.why}" for stop in race.stops)
    return f"{race.task}: {state}{f' ({stopped})' if stopped else ''}"


def describe_rules(rules: UntilDecided) -> str:
    """The design, as a reader has to know it to read the numbers."""
    alike = ""
    if rules.margin is not None:
        share = f"{100 * rules.margin:g}"
        alike = f" or differ by less than {share} points ({share} % of the control's value if no percentage)"
    return (
        "This is a sequential design: by the rules in its plan, seeds were added one by one from "
        f"{rules.first_look} to at most {rules.max_seeds}, until methods are told apart{alike}. Intervals "
        f"and p over the range hold over all looks ({_SPENDING[rules.spending]} boundaries, "
        f"{100 * rules.alpha:g} % over all looks and pairs); levels, and other metrics and axes, are shown "
        f"and not tested. The checklist judges the first {rules.first_look} seeds, which all methods have."
    )
