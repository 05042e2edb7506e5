"""Tables for pages and papers: one value, four formats."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from shrinkbench.report.statistics import tests as stats
from shrinkbench.report.statistics.compare import curve_summaries, pairwise, records
from shrinkbench.report.statistics.observations import CONTROL, METRICS, Observations, aggregate
from shrinkbench.results.record import Latency, RunResult


@dataclass(frozen=True)
class Cell:
    """One entry: its text, and whether it is the best of its column."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A named table; every row has one cell per column, the first ``stubs`` columns are row headings."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    stubs: int = 1

    def as_html(self) -> str:
        """A table element with scoped headings; the caption is left to the page, which must not clip it."""
        kinds = (' class="text"' if i < self.stubs else "" for i in range(len(self.columns)))
        head = "".join(
            f'<th scope="col"{kind}>{html.escape(c)}</th>' for kind, c in zip(kinds, self.columns, strict=True)
        )
        body = "".join(f"<tr>{''.join(map(self._html_cell, range(len(row)), row))}</tr>" for row in self.rows)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _html_cell(self, index: int, cell: Cell) -> str:
        text = html.escape(cell.text)
        if index < self.stubs:
            return f'<th scope="row">{text.replace("_", "_<wbr>")}</th>'
        return f"<td><strong>{text}</strong></td>" if cell.best else f"<td>{text}</td>"

    def as_markdown(self) -> str:
        """A pipe table; the best entries are bold."""
        lines = [self.columns, tuple("---" if i < self.stubs else "---:" for i in range(len(self.columns)))]
        lines += [tuple(f"**{c.text}**" if c.best else c.text for c in row) for row in self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

    def as_latex(self) -> str:
        """A booktabs table; the best entries are bold."""
        alignment = "l" * self.stubs + "r" * (len(self.columns) - self.stubs)
        rows = [
            " & ".join(f"\\textbf{{{latex(c.text)}}}" if c.best else latex(c.text) for c in row)
            for row in self.rows
        ]
        return "\n".join(
            [
                "\\begin{table}",
                f"\\caption{{{latex(self.caption)}}}",
                f"\\begin{{tabular}}{{{alignment}}}",
                "\\toprule",
                " & ".join(latex(c) for c in self.columns) + " \\\\",
                "\\midrule",
                *(f"{row} \\\\" for row in rows),
                "\\bottomrule",
                "\\end{tabular}",
                "\\end{table}",
            ]
        )

    def as_csv(self) -> str:
        """Comma-separated values, as shown."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([cell.text for cell in row] for row in self.rows)
        return text.getvalue()


TEXTS: dict[str, Callable[[Table], str]] = {
    "tex": Table.as_latex,
    "md": Table.as_markdown,
    "csv": Table.as_csv,
}
_LATEX = {
    "\\": "\\textbackslash{}",
    "&": "\\&",
    "%": "\\%",
    "$": "\\$",
    "#": "\\#",
    "_": "\\_",
    "{": "\\{",
    "}": "\\}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "×": "$\\times$",
    "–": "--",
    "−": "$-$",
    "<": "$<$",
    ">": "$>$",
}


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped.

    >>> latex("50 % of w_1")
    '50 \\\\% of w\\\\_1'
    """
    return "".join(_LATEX.get(character, character) for character in text)


def plus_minus(mean: float, std: float, *, percent: bool) -> str:
    """Mean and sample standard deviation with fitting digits; a single run has no deviation.

    >>> plus_minus(0.91234, 0.0031, percent=True), plus_minus(0.5, float("nan"), percent=False)
    ('91.23 ± 0.31', '0.500')
    """
    if not math.isfinite(mean):
        return "–"
    scale, digits = (100, 2) if percent else (1, 3)
    text = f"{scale * mean:.{digits}f}"
    return f"{text} ± {scale * std:.{digits}f}" if math.isfinite(std) else text


def p_value(p: float) -> str:
    """A p-value to print.

    >>> p_value(0.0001), p_value(0.034), p_value(float("nan"))
    ('< 0.001', '0.034', '–')
    """
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def result_tables(observations: Observations, metric: str) -> list[Table]:
    """One table per task: methods by compression target, mean ± sample standard deviation, best in bold."""
    kind = observations.metrics[metric]
    means = aggregate(observations.pruned, [metric]).rename(
        columns={metric: "value", f"{metric}_std": "spread"}
    )
    tables = []
    for task in observations.tasks:
        here = means[means["task"] == task]
        targets = sorted(here["compression_target"].unique())
        best = (
            here.groupby("compression_target")["value"].agg("max" if kind.higher_is_better else "min").to_dict()
        )
        entries = {
            (r.method, r.compression_target): Cell(
                plus_minus(r.value, r.spread, percent=kind.percent),
                best=bool(r.value == best[r.compression_target]),
            )
            for r in records(here)
        }
        control = observations.control.loc[observations.control["task"] == task, metric]
        reference = plus_minus(control.mean(), control.std(ddof=1), percent=kind.percent)
        rows: list[tuple[Cell, ...]] = [(Cell(CONTROL), Cell(reference), *(Cell("") for _ in targets))]
        for method in observations.methods:
            if any((method, target) in entries for target in targets):
                cells = tuple(entries.get((method, target), Cell("–")) for target in targets)
                rows.append((Cell(method), Cell(""), *cells))
        counts = sorted(here["n"].unique())
        seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
        unit = " in %" if kind.percent else ""
        tables.append(
            Table(
                name=f"{metric}-{slug(task)}",
                caption=f"{task}: {kind.label}{unit}, mean ± sample standard deviation over {seeds} seeds.",
                columns=("method", "1×", *(f"{t:g}×" for t in targets)),
                rows=tuple(rows),
            )
        )
    return tables


def summary_table(observations: Observations) -> Table:
    """Largest compression within 1 % of the control, and mean accuracy over log compression."""
    frame = curve_summaries(observations)
    best = frame.groupby("task")[["largest_within", "area"]].transform("max")
    rows = tuple(
        (
            Cell(row.task),
            Cell(row.method),
            Cell(
                f"{row.largest_within:.3g}×" if math.isfinite(row.largest_within) else "–",
                best=bool(row.largest_within == widest),
            ),
            Cell(plus_minus(row.area, row.area_std, percent=True), best=bool(row.area == area)),
            Cell(str(row.n)),
        )
        for row, widest, area in zip(records(frame), best["largest_within"], best["area"], strict=True)
    )
    return Table(
        name="curve-summary",
        caption="Curves in two numbers: the largest measured compression within one point of the control's "
        "top-1, and mean top-1 in % over log compression on the range that all methods of the task share.",
        columns=("task", "method", "within 1 point", "mean over log compression", "n"),
        rows=rows,
        stubs=2,
    )


def pairwise_table(observations: Observations, *, task: str | None = None) -> Table:
    """Every pair of methods: difference, interval, effect, superiority and corrected p-values."""
    rows = tuple(_pair(r) for r in records(pairwise(observations, task=task)))
    where = task or "all tasks"
    return Table(
        name=f"pairs-{slug(where)}",
        caption=f"Pairs of methods on {where}, paired by dataset, network, weights, compression and seed: "
        "first minus second in points of top-1 with 95 % interval, effect size d_z, probability of "
        "superiority, p after Holm's correction (paired t-test, Wilcoxon's signed-rank test), n independent "
        "units (cells).",
        columns=("first", "second", "points", "95 % interval", "d_z", "superiority", "p (t)", "p (rank)", "n"),
        rows=rows,
        stubs=2,
    )


def _pair(r: Any) -> tuple[Cell, ...]:
    superior = interval(100 * r.superiority_low, 100 * r.superiority_high, 0)
    return (
        Cell(r.first),
        Cell(r.second),
        Cell(f"{100 * r.difference:+.2f}".replace("-", "−"), best=bool(r.p_t_holm < stats.ALPHA)),
        Cell(interval(100 * r.low, 100 * r.high)),
        Cell(effect(r.effect, r.effect_low, r.effect_high)),
        Cell(f"{100 * r.superiority:.0f} % {superior}"),
        Cell(p_value(r.p_t_holm)),
        Cell(p_value(r.p_wilcoxon_holm)),
        Cell(f"{r.n} ({r.pairs})"),
    )


def effect(value: float, low: float, high: float) -> str:
    """An effect size with its interval; beyond 10 the number says nothing more.

    >>> effect(1.23, 0.4, 2.2), effect(-42.0, -80.0, -9.0), effect(float("nan"), 0, 0)
    ('1.2 [0.4, 2.2]', '< −10 [< −10, −9.0]', '–')
    """
    if not math.isfinite(value):
        return "–"
    if not (math.isfinite(low) and math.isfinite(high)):
        return _cap(value)
    return f"{_cap(value)} [{_cap(low)}, {_cap(high)}]"


def _cap(value: float) -> str:
    if abs(value) > 10:
        return "> 10" if value > 0 else "< −10"
    return f"{value:.1f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 2) -> str:
    """An interval in brackets, or nothing where it is undefined."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{low:.{digits}f}, {high:.{digits}f}]".replace("-", "−")


def slug(text: str) -> str:
    """A name for files: letters, digits and hyphens.

    >>> slug("cifar10 / ResNet-20")
    'cifar10-resnet-20'
    """
    words = "".join(c if c.isalnum() or c == "." else " " for c in text.lower()).split()
    return "-".join(words)


def latency_table(results: Iterable[RunResult]) -> Table | None:
    """Measured wall times beside theoretical speedups, mean over seeds; ``None`` where none were taken."""
    cells: dict[tuple[Any, ...], list[tuple[Latency, float]]] = {}
    for run in results:
        for timed in run.provenance.latency if run.size else ():
            how = (timed.batch_size, timed.form, timed.threads, timed.precision, run.provenance.device)
            cell = (run.spec.data.name, run.spec.model, run.spec.method.name, run.spec.compression, *how)
            speedup = run.size.theoretical_speedup if run.size else math.nan
            cells.setdefault(cell, []).append((timed, speedup))
    rows = []
    for cell, found in sorted(cells.items()):
        dataset, model, method, target, batch, form, threads, precision, device = cell
        ratios = [timed.dense_seconds / timed.seconds for timed, _ in found]
        spread = stdev(ratios) if len(ratios) > 1 else math.nan
        rows.append(
            (
                Cell(f"{dataset} / {model}"),
                Cell(method),
                Cell(f"{target:g}×"),
                Cell(str(batch)),
                Cell(form),
                Cell(f"{1e3 * fmean(timed.dense_seconds for timed, _ in found):.3g}"),
                Cell(f"{1e3 * fmean(timed.seconds for timed, _ in found):.3g}"),
                Cell(plus_minus(fmean(ratios), spread, percent=False)),
                Cell(f"{fmean(speedup for _, speedup in found):.3g}"),
                Cell(f"{device}, {threads} threads, {precision}"),
            )
        )
    if not rows:
        return None
    return Table(
        name="latency",
        caption="Measured latency: milliseconds of a forward pass of one batch, dense and pruned (timed in "
        "turn), and how many times faster that is, beside the theoretical speedup. Small: masked channels were "
        "cut out; masked: the network is as large as before.",
        columns=(
            *("task", "method", "target", "batch", "form", "dense ms", "pruned ms"),
            *("measured speedup", "theoretical", "measured on"),
        ),
        rows=tuple(rows),
        stubs=2,
    )


def all_tables(observations: Observations) -> list[Table]:
    """Every table of the report: top-1, top-5 and top-1 on extra splits, summaries, pairs."""
    metrics = ["top1", "top5", *(name for name in observations.metrics if name not in METRICS)]
    tables = [table for metric in metrics for table in result_tables(observations, metric)]
    return [*tables, summary_table(observations), pairwise_table(observations)]
