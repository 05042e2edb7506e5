"""The drawing of own results over published curves."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from shrinkbench.files import write_atomically
from shrinkbench.literature.curve_figures import legend_columns, powers_of_two
from shrinkbench.literature.curves import CHANGES, EFFICIENCIES
from shrinkbench.literature.overlay import Overlay, OverlayPanel
from shrinkbench.literature.tables import write_table
from shrinkbench.plotting import LINES, MARKERS, PAGE_WIDTH, figure_style, new_figure, save, series_style

_GREYS = ("#8A8A8A", "#A9A9A9", "#6E6E6E")


def draw_overlay(overlay: Overlay) -> Figure:
    """Published curves in grey with hollow markers, own curves in colour with filled ones, on the same axes."""
    columns = min(len(overlay.panels), 2)
    rows = -(-len(overlay.panels) // columns)
    published = list(dict.fromkeys(c.label for panel in overlay.panels for c in panel.published))
    own = list(dict.fromkeys(c.label for panel in overlay.panels for c in panel.own))
    entries = legend_columns([*own, *published], width=PAGE_WIDTH, fontsize=6, most=4)
    legend_rows = -(-(len(published) + len(own)) // entries)
    with figure_style():
        figure = new_figure(width=PAGE_WIDTH, height=2.3 * rows + 0.15 * legend_rows + 0.5)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, panel in zip(grid, overlay.panels, strict=False):
            _draw(axes, panel, published, own)
        for axes in grid[len(overlay.panels) :]:
            axes.remove()
        figure.suptitle(f"{overlay.task} beside published results", fontsize=8)
        handles = [_line(label, published, own) for label in (*own, *published)]
        figure.legend(handles=handles, loc="outside lower center", ncols=entries, fontsize=6)
    return figure


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


def _draw(axes: Axes, panel: OverlayPanel, published: list[str], own: list[str]) -> None:
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
    xs = [point.x for curve in (*panel.published, *panel.own) for point in curve.points]
    axes.axhline(0, color="#333333", linewidth=0.6)
    axes.autoscale_view()
    if panel.beyond:
        top = max(100 * point.y for curve in (*panel.published, *panel.own) for point in curve.points)
        axes.set_ylim(100 * panel.floor, top + 0.05 * (top - 100 * panel.floor))
        for curve, point in panel.beyond:
            index = own.index(curve.label)
            axes.plot(
                point.x,
                0.03 + 0.04 * (index % 8),  # methods at one ratio stand above each other
                marker="v",
                color=series_style(index).colour,
                transform=axes.get_xaxis_transform(),
                zorder=6,
            )
    if max(xs) / min(xs) > 4:
        powers_of_two(axes, min(xs), max(xs))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.set_xlabel(EFFICIENCIES[panel.x])
    axes.set_ylabel(f"{CHANGES[panel.y]} (%)")


def _line(label: str, published: list[str], own: list[str]) -> Line2D:
    """Own methods in colour and on top; published ones in greys that marker and line style tell apart."""
    if label in own:
        style = series_style(own.index(label))
        line = Line2D([], [], label=label, color=style.colour, marker=style.marker, zorder=5)
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
