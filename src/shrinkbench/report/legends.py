"""Legends that leave the figure to the curves: a fifth of its height at most, whatever methods are called."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shrinkbench.plotting import COLUMN_WIDTH, PAGE_WIDTH, legend_name, shortened_apart, text_width

if TYPE_CHECKING:  # matplotlib is loaded where something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Legend:
    """Entries of a legend by name as they are shown, how many stand side by side, and its height in inches."""

    entries: Mapping[str, str]
    columns: int

    @property
    def height(self) -> float:
        """In inches, with the room beneath it."""
        return 0.12 + 0.15 * -(-len(self.entries) // self.columns)


def lay_out(names: Mapping[str, str], *, rows: int, alone: bool) -> tuple[Legend, float, float]:
    """The legend, the figure's width and the height of a panel: a legend takes a fifth of the figure at most.

    A panel that stands alone fills one column of a page or, where names would not fit in there, both.
    """
    small, large, several = (COLUMN_WIDTH, 1.7), (PAGE_WIDTH, 2.4), (PAGE_WIDTH, 1.45)
    for width, height in (small, large) if alone else (several,):
        body = rows * (height + 0.6)
        legend = _fit_legend(names, width=width, most=max(1, int((body / 4 - 0.12) / 0.15)))
        if legend.height <= body / 4 and legend.entries == names:
            break
    return legend, width, height


def _fit_legend(names: Mapping[str, str], *, width: float, most: int) -> Legend:
    """As many entries side by side as fit, or as many as ``most`` rows ask for, with shorter labels."""
    width, handle, least = width - 0.12, 0.42, 0.6  # inches; shorter labels tell nothing
    longest = max(map(text_width, names.values()), default=0.0)
    possible = max(1, int(width / (handle + least)))
    columns = max(1, int(width / (handle + longest)), min(possible, -(-len(names) // most)))
    tries = (
        shortened_apart(names.values(), length)
        for length in range(max(map(len, names.values()), default=0), 5, -1)
    )
    room = width / columns - handle
    fitting = (short for short in tries if max(map(text_width, short.values())) <= room)
    if longest > room:
        short = next(fitting, shortened_apart(names.values(), 6))
        widest = max(map(text_width, short.values()))
        columns = min(columns, max(1, int(width / (handle + widest))))  # what cannot be shorter takes more rows
    else:
        short = {}
    return Legend({name: short.get(label, label) for name, label in names.items()}, columns)


def add_legend(figure: Figure, panels: Iterable[Axes], legend: Legend) -> None:
    """Draw ``legend`` at the top of ``figure``, for those of its entries that some panel has."""
    handles = {
        label: handle for p in panels for handle, label in zip(*p.get_legend_handles_labels(), strict=True)
    }
    order = [name for name in legend.entries if legend_name(name) in handles]
    if order:
        labels = [legend_name(legend.entries[name]) for name in order]
        figure.legend(
            [handles[legend_name(name)] for name in order],
            labels,
            loc="upper center",
            ncols=legend.columns,
            columnspacing=1.0,
            handletextpad=0.5,
        )
