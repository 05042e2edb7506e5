"""The Pareto front: which networks are worth having, by what they are worth and what they cost."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from shrinkbench.plotting import (
    CONTROL_COLOUR,
    SeriesStyle,
    figure_style,
    legend_name,
    panel_grid,
    save,
    series_styles,
)
from shrinkbench.report.figures import (
    Point,
    count_axis,
    cut_axis,
    number_axis,
    percent_axis,
    readable_floor,
    say_off_scale,
)
from shrinkbench.report.legends import add_legend, lay_out
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.metrics import HEADLINE, Metric
from shrinkbench.report.statistics.observations import Observations, Scale, aggregate
from shrinkbench.report.tables import Cell, Table, achieved_text, amount_text, slugs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CostAxis:
    """What a network costs: a column of :func:`find_points`, what it is called, and its unit."""

    column: str
    label: str
    heading: str

    @property
    def figure(self) -> str:
        """Name of the files of its figure."""
        return f"pareto-{self.column.replace('_kept', '').replace('_', '-')}"

    def text(self, value: float) -> str:
        """A value to print.

        >>> COSTS[0].text(12_345), COSTS[1].text(4.1e9), COSTS[2].text(0.523)
        ('12,345', '4,100 M', '0.52')
        """
        if self.column == "latency":
            return f"{value:.2f}"
        return f"{value:,.0f}" if value < 1e6 else f"{value / 1e6:,.4g} M"


COSTS = (
    CostAxis("parameters_kept", "parameters kept", "parameters"),
    CostAxis("multiply_adds_kept", "multiply-adds", "multiply-adds"),
    CostAxis("latency", "measured latency, unpruned network = 1", "latency"),
)
_CELL = ["task", "method", "amount"]
DOMINATED = "not on the front"
CONTROL, OTHER = SeriesStyle(CONTROL_COLOUR, "o", "solid"), SeriesStyle("#B5B5B5", ".", "solid")


def find_front(points: Iterable[tuple[float, float]]) -> list[bool]:
    """Which of ``points`` (cost, quality) are on the Pareto front: no other dominates them.

    A point dominates another if it costs no more and is no worse, and one of the two is strict. Equal points do
    not dominate each other: both are on the front, or neither.

    >>> find_front([(1, 0.7), (2, 0.9), (2, 0.8), (3, 0.9), (1, 0.7)])
    [True, True, False, False, True]
    """
    points = list(points)
    on_front = [False] * len(points)
    best, best_cost = float("-inf"), float("nan")
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        cost, quality = points[index]
        if quality > best or (quality == best and cost == best_cost):
            on_front[index], best, best_cost = True, quality, cost
    return on_front


def find_points(observations: Observations, *, metric: str = HEADLINE) -> pd.DataFrame:
    """Every cell and every control as a point: means over seeds, and on which fronts of its task it lies.

    Columns are those of :func:`aggregate`, ``latency`` (measured, as a share of the unpruned network's) and
    ``on_<cost>`` for each of ``COSTS``. Cells that lack a cost are on no front of it; those that lack one of
    the seeds that are compared on the task are on none, and no other is off it for them: the mean of what is
    left says nothing of the seeds that failed.
    """
    costs = [cost.column for cost in COSTS]
    pruned = observations.pruned.assign(latency=1 / observations.pruned["measured_speedup"])
    control = observations.control.assign(latency=1.0)
    parts = [
        aggregate(rows, [metric, *costs]).assign(is_control=rows is control)
        for rows in (pruned, control)
        if len(rows)
    ]
    points = pd.concat(parts, ignore_index=True).dropna(subset=[metric])
    timed = points.loc[~points["is_control"]].groupby("task")["latency"].count()
    untimed = ~points["task"].map(timed > 0).fillna(value=False).astype(bool)
    points.loc[untimed, "latency"] = float("nan")
    for cost in costs:
        points[f"on_{cost}"] = False
        known = points[_have_seeds(observations, points, metric)].dropna(subset=[cost])
        for task, here in known.groupby("task"):
            sign = observations.direction(str(task), metric)
            pairs = zip(here[cost].astype(float), sign * here[metric].astype(float), strict=True)
            points.loc[here.index, f"on_{cost}"] = find_front(pairs)
    return points


def _have_seeds(observations: Observations, points: pd.DataFrame, metric: str) -> list[bool]:
    """Whether each point is of all seeds that are compared on its task."""
    compared = {task.task: {*map(int, task.block.units)} for task in judge(observations).tasks}
    rows = pd.concat([part[[*_CELL, "seed", metric]] for part in (observations.pruned, observations.control)])
    seeds = rows.dropna(subset=[metric]).groupby(_CELL)["seed"].agg(set).to_dict()
    cells = points[_CELL].itertuples(index=False, name=None)
    return [compared.get(cell[0], set()) <= seeds[cell] for cell in cells]


def drawn_costs(observations: Observations) -> list[CostAxis]:
    """The costs that some pruned network has, each of which has a figure."""
    rows = observations.pruned
    columns = {"latency": "measured_speedup"}
    return [cost for cost in COSTS if rows[columns.get(cost.column, cost.column)].notna().any()]


def front_tables(observations: Observations) -> list[Table]:
    """For every task the networks on some front, the largest first."""
    if observations.pruned.empty:
        return []
    points = find_points(observations)
    costs = drawn_costs(observations)
    tables = []
    for task in observations.tasks:
        here = points[(points["task"] == task) & points[[f"on_{c.column}" for c in COSTS]].any(axis=1)]
        if here.empty:
            continue
        metric = observations.metric(task)
        here = here.assign(order=metric.sign * here[HEADLINE])
        tables.append(
            Table(
                name=f"pareto-{slugs(observations.tasks)[task]}",
                caption=f"{task}: networks on a Pareto front, by mean {metric.short}{metric.in_unit} "
                "(± sample standard deviation over n seeds). In bold: none is both at least as "
                f"{'accurate' if metric.is_accuracy else 'good'} and at most as costly by this "
                "column, and better in one of the two. Means are compared, whatever their spread, "
                "of cells with all seeds that are compared on the task."
                + (" Latency: measured, as a share of the unpruned network's." if len(costs) > 2 else ""),
                columns=("method", "amount", metric.short, *(cost.heading for cost in costs), "n"),
                rows=tuple(
                    _front_row(row, costs, metric)
                    for row in here.sort_values(
                        ["parameters_kept", "order", "method"], ascending=[False, False, True]
                    ).to_dict("records")
                ),
                stubs=2,
                group="Pareto fronts",
            )
        )
    return tables


def _front_row(row: Mapping[Hashable, Any], costs: Sequence[CostAxis], metric: Metric) -> tuple[Cell, ...]:
    target, compression = float(row["compression_target"]), float(row["compression"])
    amount = amount_text(str(row["amount"]), target) + achieved_text(target, compression)
    return (
        Cell(str(row["method"])),
        Cell("1×" if row["is_control"] else amount),
        Cell(metric.plus_minus(float(row[HEADLINE]), float(row[f"{HEADLINE}_std"]))),
        *(
            Cell(cost.text(value) if value == value else "–", best=bool(row[f"on_{cost.column}"]))
            for cost in costs
            for value in (float(row[cost.column]),)
        ),
        Cell(str(row["n"])),
    )


def write_fronts(observations: Observations, folder: Path) -> list[Path]:
    """Draw the front against every cost that was measured; SVG, PDF and PNG of each."""
    return [
        path
        for cost in drawn_costs(observations)
        for scale, stem, _ in front_figures(observations, cost)
        for path in save(front_figure(observations.only(scale.tasks), cost), folder / stem)
    ]


def front_figures(observations: Observations, cost: CostAxis) -> list[tuple[Scale, str, str]]:
    """Scales with the stems and titles of their figures; a scale of several is named in the stem."""
    several = len(observations.scales) > 1
    return [
        (
            scale,
            f"{cost.figure}-{observations.stem(scale.metric)}" if several else cost.figure,
            f"Pareto front of {scale.metric.short} against {cost.label}",
        )
        for scale in observations.scales
    ]


def front_figure(observations: Observations, cost: CostAxis, *, metric: str = HEADLINE) -> Figure:
    """One panel per task: the Pareto front as a step line, its networks by method, all others in grey.

    The line is the best mean that a network of at most this cost has. Where a few networks collapsed, the axis
    ends at :func:`readable_floor`, and they are marked in a strip beneath.
    """
    points = find_points(observations, metric=metric).dropna(subset=[cost.column])
    on_front = points[points[f"on_{cost.column}"]]
    tasks = [task for task in observations.tasks if (points["task"] == task).any()]
    styles = series_styles(observations.methods)
    controls = dict.fromkeys(on_front.loc[on_front["is_control"], "method"], CONTROL)
    found = set(on_front["method"])
    looks = controls | {name: style for name, style in styles.items() if name in found}
    names = {name: name for name in (*looks, DOMINATED)}
    count = max(len(tasks), 1)
    columns = min(count, 3)
    legend, width, height = lay_out(names, rows=-(-count // columns), alone=columns == 1)
    of_task = {task: points[points["task"] == task] for task in tasks}
    kinds = {task: observations.metric(task, metric) for task in tasks}
    floors = {task: _floor(here, metric, kinds[task]) for task, here in of_task.items()}
    strips = any(floor is not None for floor in floors.values())
    with figure_style():
        figure, panels = panel_grid(
            count, columns=columns, width=width, panel_height=height, head=legend.height, strips=strips
        )
        for index, (panel, (task, here)) in enumerate(zip(panels, of_task.items(), strict=False)):
            drawn = _draw_front(panel, here, cost, (metric, kinds[task]), looks)
            panel.title.set_text(task)
            panel.set_xlabel(f"{cost.label} (log scale)")
            floor = floors[task]
            if floor is not None:
                cut_axis(panel, drawn, floor=floor)
            if index % columns == 0:
                panel.set_ylabel(kinds[task].label)
        if strips:
            say_off_scale(figure)
        add_legend(figure, panels, legend)
    return figure


def _floor(points: pd.DataFrame, metric: str, kind: Metric) -> float | None:
    """Where the vertical axis of one task ends."""
    if not (kind.percent and kind.higher_is_better):
        return None
    pruned, controls = (points.loc[points["is_control"] == own, ["method", metric]] for own in (False, True))
    curves = [part[metric].to_numpy(dtype=float) for _, part in pruned.groupby("method")]
    return readable_floor(curves, controls[metric])


def _draw_front(
    panel: Axes,
    points: pd.DataFrame,
    cost: CostAxis,
    shown: tuple[str, Metric],
    looks: Mapping[str, SeriesStyle],
) -> list[Point]:
    """The points of one task and the line over those on the front; returns how each was drawn."""
    metric, kind = shown
    count_axis(panel)
    drawn = []
    for on_front, rows in points.groupby(f"on_{cost.column}"):
        for method, part in rows.groupby("method"):
            x, y = part[cost.column].to_numpy(dtype=float), part[metric].to_numpy(dtype=float)
            style = looks[str(method)] if on_front else OTHER
            panel.plot(
                x,
                y,
                label=legend_name(str(method)) if on_front else DOMINATED,
                color=style.colour,
                marker=style.marker,
                markersize=style.size + (1.0 if on_front else 0.0),
                markeredgecolor="white",
                markeredgewidth=0.4,
                linestyle="none",
                zorder=4 if on_front else 2,
            )
            drawn += [Point(a, b, style) for a, b in zip(x, y, strict=True)]
    front = points[points[f"on_{cost.column}"]].sort_values([cost.column, metric])
    x, y = front[cost.column].to_numpy(dtype=float), front[metric].to_numpy(dtype=float)
    panel.step(x, y, where="post", color=CONTROL_COLOUR, linewidth=0.9, zorder=3)
    if kind.percent:
        percent_axis(panel)
    else:
        number_axis(panel, points[metric])
    return drawn
