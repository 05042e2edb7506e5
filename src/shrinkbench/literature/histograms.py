"""Drawings of counts: the histograms of Figures 2 and 4, and the graph of comparisons by date."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Arc
from matplotlib.ticker import MaxNLocator

from shrinkbench.literature.graph import ComparisonGraph
from shrinkbench.literature.schema import Paper
from shrinkbench.literature.summary import CorpusSummary, Histogram
from shrinkbench.plotting import COLOURS, COLUMN_WIDTH, PAGE_WIDTH, new_figure

# Blue and hatched orange differ in hue, in lightness and in texture.
_SIDES = (
    ("peer_reviewed", "Peer-reviewed", COLOURS[1], ""),
    ("other", "Other", COLOURS[0], "////"),
)

_LATER = "#B3001B"


def draw_comparisons(summary: CorpusSummary) -> Figure:
    """Figure 2: how often papers are compared to, and to how many others they compare."""
    return _two_histograms(
        (
            (
                summary.figure2["compared_to_by"],
                "Number of papers comparing to a given paper",
                "Compared to by this many other papers",
                "Number of papers\ncompared to this many times",
            ),
            (
                summary.figure2["compares_to"],
                "Number of papers a given paper compares to",
                "Compares to this many other papers",
                "Number of papers that\ncompare to this many others",
            ),
        ),
        first=0,
    )


def draw_breadth(summary: CorpusSummary) -> Figure:
    """Figure 4: pairs per paper without toy datasets, and points per trade-off curve on the four pairs."""
    return _two_histograms(
        (
            (
                summary.figure4["pairs_per_paper"],
                "Number of (dataset, architecture) pairs used",
                "Number of pairs",
                "Number of papers\nusing this many pairs",
            ),
            (
                summary.figure4["points_per_curve"],
                "Number of points per trade-off curve",
                "Number of points",
                "Number of curves\nusing this many points",
            ),
        ),
        first=1,
    )


def _two_histograms(parts: Sequence[tuple[Histogram, str, str, str]], *, first: int) -> Figure:
    figure = new_figure(width=COLUMN_WIDTH, height=4.1)
    for axes, (histogram, title, x_label, y_label) in zip(figure.subplots(2, 1), parts, strict=True):
        _stack(axes, histogram, first)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _stack(axes: Axes, histogram: Histogram, first: int) -> None:
    """Bars for every whole value from ``first`` up, peer-reviewed below others."""
    last = max((value for counts in histogram.values() for value in counts), default=first)
    values = list(range(first, last + 1))
    below = [0] * len(values)
    for side, label, colour, hatch in _SIDES:
        heights = [histogram[side].get(value, 0) for value in values]
        axes.bar(
            values,
            heights,
            0.9,
            bottom=below,
            label=label,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.4,
        )
        below = [low + height for low, height in zip(below, heights, strict=True)]
    axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")


def draw_graph(graph: ComparisonGraph) -> Figure:
    """Papers by date, an arc from each to every paper that it compares to; never compared to: hollow.

    Arcs above the line lead back in time, as they must; arcs below it lead to a paper of a later date. A mark
    grows with the number of papers that compare to it, and the most compared-to are named.
    """
    papers = sorted(graph.papers, key=lambda paper: (paper.date, paper.key))
    place = {paper.key: float(index) for index, paper in enumerate(papers)}
    figure = new_figure(width=PAGE_WIDTH, height=3.5)
    axes = figure.subplots()
    impossible = {(source.key, target.key) for source, target in graph.impossible}
    for source, target in graph.edges:
        _arc(axes, place[source], place[target], later=(source, target) in impossible)
    degrees = graph.compared_to_by
    for paper in papers:
        degree = degrees[paper.key]
        colour = COLOURS[1] if paper.peer_reviewed else COLOURS[0]
        axes.plot(
            place[paper.key],
            0,
            marker="o" if paper.peer_reviewed else "s",
            markersize=2.6 + 1.1 * degree**0.5,
            color=colour,
            markerfacecolor=colour if degree else "white",
            zorder=3,
        )
    _name_the_most_compared(axes, papers, degrees, place)
    _years(axes, papers, place)
    height = max((abs(place[a] - place[b]) for a, b in graph.edges), default=1.0) / 2
    axes.set_ylim(-0.45 * height, 1.04 * height)
    axes.set_xlim(-1.5, len(papers) + 0.5)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    figure.legend(
        handles=_graph_legend(later=bool(impossible)), loc="outside lower center", ncols=5, fontsize=6
    )
    return figure


def _arc(axes: Axes, source: float, target: float, *, later: bool) -> None:
    """Half an ellipse from ``source`` to ``target``, above the line for comparisons back in time."""
    width = abs(source - target)
    axes.add_patch(
        Arc(
            ((source + target) / 2, 0),
            width,
            0.5 * width if later else width,
            theta1=180 if later else 0,
            theta2=360 if later else 180,
            color=_LATER if later else "#777777",
            linewidth=1.0 if later else 0.5,
            linestyle="--" if later else "-",
            alpha=1.0 if later else 0.55,
            zorder=2 if later else 1,
        )
    )


def _name_the_most_compared(
    axes: Axes, papers: Sequence[Paper], degrees: dict[str, int], place: dict[str, float], named: int = 10
) -> None:
    """Names below the line for the papers that most others compare to, each on the first level with room."""
    most = sorted((p for p in papers if degrees[p.key]), key=lambda p: -degrees[p.key])[:named]
    ends: list[float] = []
    for paper in sorted(most, key=lambda p: place[p.key]):
        text, at = f"{paper.label} ({degrees[paper.key]})", place[paper.key]
        half = 0.0037 * len(text) * len(papers)  # half the width of the text in units of the axis
        level = next((i for i, end in enumerate(ends) if end < at - half), len(ends))
        ends[level : level + 1] = [at + half]
        offset = (0, -26 - 9 * level)
        line = {"arrowstyle": "-", "linewidth": 0.4, "color": "#777777", "shrinkB": 3, "shrinkA": 0}
        axes.annotate("", (at, 0), offset, textcoords="offset points", arrowprops=line, zorder=1)
        axes.annotate(
            text,
            (at, 0),
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=6,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            zorder=4,
        )


def _years(axes: Axes, papers: Sequence[Paper], place: dict[str, float]) -> None:
    """A tick at the first paper of each year, unless it would touch the one before."""
    ticks: list[tuple[float, str]] = []
    seen: set[int] = set()
    for paper in papers:
        if paper.year not in seen and (not ticks or place[paper.key] - ticks[-1][0] >= 3.5):
            ticks.append((place[paper.key], str(paper.year)))
        seen.add(paper.year)
    axes.set_xticks([at for at, _ in ticks], [year for _, year in ticks])
    axes.set_xlabel("Papers in order of date")


def _graph_legend(*, later: bool) -> list[Line2D]:
    def dot(label: str, marker: str, colour: str, face: str) -> Line2D:
        return Line2D([], [], marker=marker, color=colour, markerfacecolor=face, linestyle="", label=label)

    handles = [
        dot("peer-reviewed", "o", COLOURS[1], COLOURS[1]),
        dot("other", "s", COLOURS[0], COLOURS[0]),
        dot("never compared to", "o", "#333333", "white"),
        Line2D([], [], color="#777777", linewidth=0.8, label="compares to an earlier paper"),
    ]
    if later:
        handles.append(Line2D([], [], color=_LATER, linestyle="--", label="compares to a later paper"))
    return handles
