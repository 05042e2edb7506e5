"""The drawing of own results over published curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from shrinkbench.files import write_atomically
from shrinkbench.literature.curve_figures import legend_columns, powers_of_two
from shrinkbench.literature.curves import CHANGES, EFFICIENCIES, PublishedCurve, PublishedPoint
from shrinkbench.literature.overlay import Overlay, OverlayPanel
from shrinkbench.literature.tables import write_table
from shrinkbench.plotting import (
    LINES,
    MARKERS,
    PAGE_WIDTH,
    Mark,
    draw_strip,
    figure_style,
    legend_name,
    new_figure,
    save,
    series_style,
    shortened_apart,
    text_width,
)

_GREYS = ("#8A8A8A", "#A9A9A9", "#6E6E6E")


OFF_SCALE = "Grey strip: own points below the axis, which lie between the two values at its left."
CLOSE_UP = 0.4
"""Published points that fill less of the ratio axis than this share are also drawn by themselves."""


@dataclass(frozen=True)
class View:
    """What one set of axes shows: a panel, from ratio ``low`` to ``high`` and down to a change of ``floor``."""

    panel: OverlayPanel
    low: float
    high: float
    floor: float
    title: str = ""

    @property
    def beyond(self) -> tuple[tuple[PublishedCurve, PublishedPoint], ...]:
        """Own points of these ratios that lie below the floor."""
        points = ((curve, point) for curve in self.panel.own for point in curve.points)
        return tuple((c, p) for c, p in points if p.y < self.floor and self.low <= p.x <= self.high)

    @property
    def ceiling(self) -> float:
        """Highest change of these ratios, which is 0 at least."""
        points = [p for curve in (*self.panel.own, *self.panel.published) for p in curve.points]
        return max(0.0, *(p.y + (p.spread or 0) for p in points if self.low <= p.x <= self.high))


def views_of(panel: OverlayPanel) -> tuple[View, ...]:
    """The whole panel, after a close-up of the published ratios where they would be crushed into a corner."""
    low, high = _ratios((*panel.own, *panel.published))
    least, most = _ratios(panel.published)
    least = min(least, 1.0)
    if math.log(most / least) >= CLOSE_UP * math.log(high / low):
        return (View(panel, low, high, panel.floor),)
    ys = [point.y - (point.spread or 0) for curve in panel.published for point in curve.points]
    floor = min(ys) - max(0.3 * (max(ys) - min(ys)), 0.002)
    close = View(panel, least, most, floor, "close-up of the published range")
    return close, View(panel, low, high, panel.floor, "whole range")


def _ratios(curves: Iterable[PublishedCurve]) -> tuple[float, float]:
    xs = [point.x for curve in curves for point in curve.points]
    return min(xs), max(xs)


def draw_overlay(overlay: Overlay) -> Figure:
    """Published curves in grey with hollow markers, own curves in colour with filled ones, on the same axes.

    A panel in which the published ratios would be crushed has a row of two views.
    """
    seen = sorted((views_of(panel) for panel in overlay.panels), key=len, reverse=True)
    views = [view for of_panel in seen for view in of_panel]
    columns = min(len(views), 2)
    rows = -(-len(views) // columns)
    published = list(dict.fromkeys(c.label for panel in overlay.panels for c in panel.published))
    own = list(dict.fromkeys(c.label for panel in overlay.panels for c in panel.own))
    entries = max(2, legend_columns([*own, *published], width=PAGE_WIDTH, fontsize=6, most=4))
    legend_rows = -(-(len(published) + len(own)) // entries)
    with figure_style():
        figure = new_figure(width=PAGE_WIDTH, height=2.3 * rows + 0.15 * legend_rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, view in zip(grid, views, strict=False):
            _draw(axes, view, published, own)
        for axes in grid[len(views) :]:
            axes.remove()
        figure.suptitle(f"{overlay.task} beside published results", fontsize=8)
        handles = [_line(label, published, own) for label in (*own, *published)]
        shown = _fit([*own, *published], PAGE_WIDTH / entries - 0.5)
        told = OFF_SCALE if any(view.beyond for view in views) else None
        figure.legend(
            handles,
            [legend_name(shown[label]) for label in (*own, *published)],
            loc="outside lower center",
            ncols=entries,
            fontsize=6,
            title=told,
            title_fontsize=6,
        )
        figure.draw_without_rendering()  # strips are of fixed height, and know their axes only once laid out
        figure.set_layout_engine(None)
    return figure


def _fit(labels: Sequence[str], room: float) -> dict[str, str]:
    """Labels cut in the middle so that each fits into ``room`` inches of 6 pt text."""
    longest = max(map(len, labels))
    tries = (shortened_apart(labels, length) for length in range(longest, 19, -1))
    fitting = (short for short in tries if max(text_width(s, size=6) for s in short.values()) <= room)
    return next(fitting, shortened_apart(labels, 20))


def write_overlay(overlay: Overlay, folder: Path) -> list[Path]:
    """Write the figure (SVG, PDF, PNG), its points (CSV) and the notes (Markdown)."""
    stem = folder / overlay.stem
    paths = save(draw_overlay(overlay), stem)
    rows = [
        {
            "side": side,
            "method": curve.label,
            "paper": curve.paper,
            "x": panel.x,
            "x_value": point.x,
            "y": panel.y,
            "y_value": point.y,
            "spread": point.spread,
            "runs": point.results,
            "errata": point.errata,
        }
        for panel in overlay.panels
        for side, curves in (("own", panel.own), ("published", panel.published))
        for curve in curves
        for point in curve.points
    ]
    table = stem.with_name(f"{stem.name}.csv")
    write_table(table, list(rows[0]), rows)
    notes = stem.with_name(f"{stem.name}.md")
    listed = "\n".join(f"- {note}" for note in overlay.notes)
    text = f"# {overlay.task} beside published results\n\n{listed}\n"
    write_atomically(notes, text.encode(), durable=False)
    return [*paths, table, notes]


def _draw(axes: Axes, view: View, published: list[str], own: list[str]) -> None:
    panel = view.panel
    bars, colours = [], []
    for curve in (*panel.published, *panel.own):
        line = _line(curve.label, published, own)
        line.set_data([point.x for point in curve.points], [100 * point.y for point in curve.points])
        axes.add_line(line)
        for point in curve.points:
            if point.spread:
                y, spread = 100 * point.y, 100 * point.spread
                bars.append([(point.x, y - spread), (point.x, y + spread)])
                colours.append(line.get_color())
    # One artist for all: an error bar for each takes several times as long to draw.
    axes.add_collection(LineCollection(bars, colors=colours, linewidths=0.7, zorder=2))
    axes.axhline(0, color="#333333", linewidth=0.6)
    axes.autoscale_view()
    if view.high / view.low > 4:
        powers_of_two(axes, view.low, view.high)
    margin = (view.high / view.low) ** 0.05
    axes.set_xlim(view.low / margin, view.high * margin)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel(EFFICIENCIES[panel.x])
    axes.set_ylabel(f"{CHANGES[panel.y]} (%)")
    axes.set_title(view.title, fontsize=7)
    if view.beyond or view.title:
        top, floor = 100 * view.ceiling, 100 * view.floor
        axes.set_ylim(floor, top + 0.05 * (top - floor))
    if view.beyond:
        lowest = min(point.y for _, point in view.beyond)
        text = f"{math.floor(100 * lowest)} to {math.ceil(1000 * view.floor) / 10:g} %"
        styles = [(series_style(own.index(curve.label)), point.x) for curve, point in view.beyond]
        marks = [Mark(x, style.colour, style.marker) for style, x in styles]
        draw_strip(axes, marks, range_text=text.replace("-", "−"))


def _line(label: str, published: list[str], own: list[str]) -> Line2D:
    """Own methods in colour and on top; published ones in greys that marker and line style tell apart."""
    if label in own:
        style = series_style(own.index(label))
        line = Line2D(
            [], [], label=label, color=style.colour, marker=style.marker, markersize=style.size, zorder=5
        )
        line.set(linestyle=style.line)
        return line
    index = published.index(label)
    line = Line2D(
        [],
        [],
        label=label,
        color=_GREYS[index % len(_GREYS)],
        marker=MARKERS[index % len(MARKERS)],
        markerfacecolor="white",
        markeredgewidth=0.7,
        linewidth=0.8,
        zorder=2,
    )
    line.set(linestyle=LINES[index % len(LINES)])
    return line
