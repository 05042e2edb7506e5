"""Words of the page for what is compared, chosen and led by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from shrinkbench.report.checklist.causes import joined
from shrinkbench.report.recommendation import POINTS
from shrinkbench.report.statistics.metrics import Metric
from shrinkbench.report.statistics.observations import Observations, Scale
from shrinkbench.report.verdict import Win
from shrinkbench.results.record import RunResult

_NAMED = 3


def label(observations: Observations, scale: Scale, metric: str) -> str:
    """What an axis with ``metric`` of the tasks of ``scale`` is called."""
    task = next(task for task in scale.tasks if observations.has(task, metric))
    return observations.metric(task, metric).label


def describe_scales(observations: Observations) -> dict[str, str]:
    """Words of the page for what is compared: the metric of all tasks, or that each has its own.

    ``best_mean`` is what the best method has, ``lead_unit`` what leads are in, ``measured`` what is looked at.
    """
    metrics = [scale.metric for scale in observations.scales] or [POINTS]
    if len(metrics) > 1:
        return {
            "best_mean": "best mean of the metric that its task leads with",
            "metric_name": "metric",
            "lead_unit": "points or the metric’s unit",
            "measured": "quality",
            "half_point": "half a point, or half a percent of the control’s value, on",
        }
    (metric,) = metrics
    return {
        "best_mean": f"{metric.best} mean {metric.short}",
        "metric_name": metric.short,
        "lead_unit": "points" if metric.percent else metric.unit or metric.short,
        "measured": "accuracy" if metric.is_accuracy else metric.short,
        "half_point": (
            f"half a point of {'accuracy' if metric.is_accuracy else metric.short} on"
            if metric.percent
            else f"half a percent of the control’s {metric.short} on"
        ),
    }


def selection_rule(results: Sequence[RunResult], observations: Observations) -> str:
    """Which epoch is reported, and what chose it."""
    words = describe_scales(observations)
    name = words["metric_name"]
    rules = {
        "last": "that of the last epoch",
        "best-validation": f"that of the epoch with the best validation {name}",
        "best-test": f"that of the epoch with the best test {name}, an upper bound",
    }
    used = sorted({r.spec.recipe.selection for r in results})
    return f"Reported {words['measured']} is {' or '.join(rules[u] for u in used)}." if used else ""


def make_breakable(text: str) -> Markup:
    """Text that may wrap after an underscore, as long method names need on a phone."""
    return Markup("_<wbr>").join(text.split("_"))


def _size(win: Win) -> float:
    """The larger end of a lead's interval, whose digits the lead has; 0 without one."""
    return max(abs(win.low), abs(win.high)) if math.isfinite(win.low) else 0.0


def lead_text(win: Win, metric: Metric) -> str:
    """A lead, with its interval where there is one; it is positive where the metric is better."""
    if win.n == 0:
        return "no shared seed"
    lead = f"{'+' if win.difference >= 0 else '−'}{metric.number(abs(win.difference), like=_size(win))}"
    if win.n > 1 and not math.isfinite(win.low):
        return f"{lead} (no spread)"
    if win.n < 2:
        return f"{lead} (one seed)"
    places = f", places may make {metric.number(win.slack)}," if win.slack else ""
    return f"{lead} {metric.interval(win.low, win.high)}{places}"


def title_of(experiments: Sequence[str], *, otherwise: str) -> str:
    """What results are called: by all of their experiments, where there are several.

    >>> title_of(["study-a", "study-b"], otherwise="study-a"), title_of(list("abcde"), otherwise="a")
    ('study-a and study-b', 'a and 4 other experiments')
    """
    if len(experiments) < 2:
        return otherwise
    others = f"{len(experiments) - 1} other experiments"
    return joined(experiments if len(experiments) <= _NAMED else [experiments[0], others])
