"""What a comparison is by: a metric's name, direction and unit, and words for its values and differences."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from shrinkbench.results.frame import column_of
from shrinkbench.spec import MetricSpec, Objective

HEADLINE = "headline"
"""The column of the metric that each run's task leads with, whatever it is called."""
CHANGE = "headline_change"
"""The column of its change from the run's own control."""
LOSS = "loss"
"""The metric that every task has, and which no table or figure shows beside another."""
OTHERS_SHOWN = 3
"""Metrics beside the headline that are drawn and tabulated; of more, cells.csv tells."""


@dataclass(frozen=True)
class Metric:
    """One column that can be drawn or compared: ``short`` in sentences, ``label`` on axes."""

    column: str
    label: str
    short: str = ""
    percent: bool = False
    higher_is_better: bool = True
    unit: str = ""

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.higher_is_better else -1

    @property
    def best(self) -> str:
        """``highest`` or ``lowest``."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def is_accuracy(self) -> bool:
        """Whether more of it may be called more accurate."""
        return self.percent and self.higher_is_better and "accuracy" in self.label

    def number(self, value: float, *, like: float = 0.0) -> str:
        """A value without its unit: two digits of a percentage, about four digits of others (or of ``like``).

        >>> Metric("top1", "top-1 accuracy", percent=True).number(0.91234), Metric("p", "p").number(12.3456)
        ('91.23', '12.35')
        """
        return _written(100 * value, ".2f") if self.percent else _written(value, _form(max(abs(value), like)))

    def text(self, value: float) -> str:
        """A value in a sentence, with its unit.

        >>> Metric("top1", "top-1 accuracy", percent=True).text(0.912), Metric("e", "e", unit="m").text(4.0)
        ('91.2 %', '4.000 m')
        """
        if self.percent:
            return f"{_written(100 * value, '.1f')} %"
        return f"{self.number(value)} {self.unit}".rstrip()

    def said(self, value: float) -> str:
        """The same with the metric's name, which accuracies go without.

        >>> Metric("perplexity", "perplexity", short="perplexity", higher_is_better=False).said(12.3)
        'perplexity 12.30'
        """
        return self.text(value) if self.is_accuracy else f"{self.short} {self.text(value)}".lstrip()

    def named(self, value: float) -> str:
        """One value as progress and logs tell it: short name, digits of a table, unit.

        >>> Metric("top1", "top-1 accuracy", "top-1", percent=True).named(0.91234)
        'top-1 91.23 %'
        >>> Metric("angle", "", "angle", unit="degrees").named(12.3456)
        'angle 12.35 degrees'
        """
        return f"{self.short} {self.number(value)} {'%' if self.percent else self.unit}".strip()

    def difference(self, value: float, *, like: float = 0.0) -> str:
        """The size of a difference, with its unit; with the digits of ``like`` where that is larger.

        >>> Metric("top1", "", percent=True).difference(0.0042), Metric("p", "p").difference(0.1234)
        ('0.42 points', '0.1234')
        """
        return f"{self.number(value, like=like)} {'points' if self.percent else self.unit}".rstrip()

    def bounds(self, low: float, high: float) -> tuple[str, str]:
        """The ends of an interval of differences, with the digits of its width."""
        return self.number(low, like=abs(high)), self.number(high, like=abs(low))

    def interval(self, low: float, high: float) -> str:
        """An interval of differences in brackets, or nothing where it is undefined."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return ""
        return "[{}, {}]".format(*self.bounds(low, high))

    def plus_minus(self, mean: float, deviation: float) -> str:
        """Mean and sample standard deviation; a single run has no deviation.

        >>> Metric("top1", "", percent=True).plus_minus(0.91234, 0.0031), Metric("p", "").plus_minus(12.3, 0.04)
        ('91.23 ± 0.31', '12.30 ± 0.04')
        """
        if not math.isfinite(mean):
            return "–"
        scale, form = (100, ".2f") if self.percent else (1, _form(mean))
        text = _written(scale * mean, form)
        return f"{text} ± {scale * deviation:{form}}" if math.isfinite(deviation) else text

    def share(self, gap: float) -> str:
        """A difference that counts in shares: points, or percent of the control's value where it is no share.

        >>> Metric("top1", "", percent=True).share(0.021), Metric("p", "").share(-0.05)
        ('2.1 points', '5.0 %')
        """
        return f"{100 * abs(gap):.1f} {'points' if self.percent else '%'}"

    def better(self, gap: float) -> str:
        """By how much one is better.

        >>> Metric("top1", "top-1 accuracy", "top-1", percent=True).better(0.021)
        '2.1 points more accurate'
        """
        return f"{self.share(gap)} {'more accurate' if self.is_accuracy else f'better in {self.short}'}"

    def worse(self, gap: float) -> str:
        """By how much one is worse."""
        return f"{self.share(gap)} {'less accurate' if self.is_accuracy else f'worse in {self.short}'}"

    @property
    def margin(self) -> str:
        """The margin within which a metric counts as kept: one point, or one percent of the control's value."""
        return "1 point" if self.percent else "1 %"

    @property
    def in_unit(self) -> str:
        """The unit of tables, as it follows a name."""
        return " in %" if self.percent else f" in {self.unit}" if self.unit else ""


def _written(value: float, form: str) -> str:
    """A number with a true minus, which stands in sentences, tables and figures alike.

    >>> _written(-0.5, ".3f")
    '−0.500'
    """
    return f"{value:{form}}".replace("-", "−")


def _form(value: float) -> str:
    """How a number that is no percentage is written: four digits, with an exponent where it is very large."""
    size = abs(value)
    if not math.isfinite(size) or size == 0:
        return ".3f"
    if size >= 1e6 or size < 1e-4:
        return ".3g"
    return f".{max(0, 3 - math.floor(math.log10(size)))}f"


_KNOWN = {
    ("top1", "higher", "fraction"): ("top-1", "top-1 accuracy"),
    ("top5", "higher", "fraction"): ("top-5", "top-5 accuracy"),
    ("loss", "lower", "nats"): ("loss", "test loss (nats)"),
    ("map50", "higher", "fraction"): ("mAP", "mean average precision at overlap 0.5"),
    ("miou", "higher", "fraction"): ("mIoU", "mean intersection over union"),
    ("r2", "higher", ""): ("R²", "R² (coefficient of determination)"),
    ("rmse", "lower", ""): ("RMSE", "root mean squared error"),
    ("mae", "lower", ""): ("MAE", "mean absolute error"),
}
"""Names as people write them; a metric of one's own that is called alike and is another keeps its own."""


def metric_of(spec: MetricSpec) -> Metric:
    """A task's metric as a report shows it."""
    percent = spec.unit == "fraction"
    unit = "" if percent else spec.unit
    plain = spec.name.replace("_", " ")
    own = (plain, f"{plain} ({unit})" if unit else plain)
    short, label = _KNOWN.get((spec.name, spec.direction, spec.unit), own)
    return Metric(
        column_of(spec.name),
        label,
        short,
        percent=percent,
        higher_is_better=spec.direction == "higher",
        unit=unit,
    )


def metrics_of(objective: Objective, splits: tuple[str, ...]) -> dict[str, Metric]:
    """All columns of a task that can be drawn or compared, by name, the headline first."""
    headline = metric_of(objective.metric(objective.headline))
    others = [metric_of(metric) for metric in objective.metrics if metric.name != objective.headline]
    found = [headline, *others]
    found.append(
        replace(
            headline,
            column=f"{headline.column}_before_finetuning",
            label=f"{headline.short} before fine-tuning",
        )
    )
    found.append(
        replace(
            headline,
            column=f"{headline.column}_change",
            label=f"change in {headline.short} from the control",
        )
    )
    found += [
        replace(headline, column=f"{split}_{headline.column}", label=f"{headline.label} on {split}")
        for split in splits
    ]
    return {metric.column: metric for metric in found}
