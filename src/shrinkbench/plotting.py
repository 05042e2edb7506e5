"""The look of every figure: sizes for papers, colours for everyone, files that repeat byte for byte.

A series is told apart three times over: by colour (safe for the common colour-vision deficiencies, contrast
of at least 3 : 1 on white), by marker and by line style, so figures stay readable in print without colour.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shrinkbench.files import write_atomically

if TYPE_CHECKING:  # matplotlib is loaded where something is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_WIDTH = 3.25
"""Width of one column of a two-column paper, inches."""
PAGE_WIDTH = 6.75
"""Width of both columns, inches."""

COLOURS = (
    *("#0072B2", "#D55E00", "#005F3C", "#7733CC", "#E7298A", "#6B4E16"),
    *("#332288", "#222222", "#A89060", "#3C0048", "#2424FC", "#A878FC"),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "h", "<", ">", "d")
LINES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
CONTROL_COLOUR = "#333333"
CONTROL_LINES = ((0, (2, 1.5)), (0, (6, 2)), (0, (6, 1.5, 1, 1.5)), (0, (1, 2.5)))
"""Line styles of the controls of a figure, all of one colour."""
STRIP = 0.13
"""Height of the strip beneath a panel in which points off the scale are marked, inches."""
FORMATS = ("svg", "pdf", "png")
PIXELS_PER_INCH = 200
"""Of the PNG."""

_RC: dict[Any, Any] = {
    "text.parse_math": False,  # a dollar sign in a name is one
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.bottom": False,  # the grid marks the values
    "ytick.left": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.8,
    "figure.dpi": 100,
    "pdf.fonttype": 42,  # editable text; journals refuse Type 3 fonts
    "svg.hashsalt": "shrinkbench",
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class SeriesStyle:
    """How one series is drawn."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]]

    @property
    def size(self) -> float:
        """Of the marker, in points, so that all look about as large."""
        return {"o": 3.8, "s": 3.6, "D": 3.6, "*": 6.5, "P": 5.0, "X": 5.0}.get(self.marker, 4.8)


def series_style(index: int) -> SeriesStyle:
    """The style of the ``index``-th series; the first 780 differ, twelve neighbours by colour and by marker."""
    return SeriesStyle(
        colour=COLOURS[index % len(COLOURS)],
        marker=MARKERS[index % len(MARKERS)],
        line=LINES[index % len(LINES)],
    )


def series_styles(names: Iterable[str]) -> dict[str, SeriesStyle]:
    """Styles by name, in the order given: keep one order through a document.

    >>> series_styles(["a", "b"])["b"].marker
    's'
    """
    return {name: series_style(index) for index, name in enumerate(names)}


def shortened(name: str, most: int) -> str:
    """``name`` in at most ``most`` characters, its middle left out.

    >>> shortened("uniform_channels[allocation=pattern:a.json]", 21)
    'uniform_ch…rn:a.json]'
    """
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - (most - 1 - most // 2) :]}"


def shortened_apart(names: Iterable[str], most: int) -> dict[str, str]:
    """Each of ``names`` in at most ``most`` characters, or in as many more as tell all of them apart.

    >>> shortened_apart(["layerwise_magnitude", "layerwise_gradient"], 5)
    {'layerwise_magnitude': 'la…de', 'layerwise_gradient': 'la…nt'}
    >>> shortened_apart(["number_1_of_many", "number_2_of_many"], 10)
    {'number_1_of_many': 'number_1…', 'number_2_of_many': 'number_2…'}
    """
    names = [*dict.fromkeys(names)]
    tries = (
        short
        for length in itertools.count(max(most, 1))
        for short in ([shortened(name, length) for name in names], _without_shared(names, length))
    )
    return dict(zip(names, next(short for short in tries if len(set(short)) == len(names)), strict=True))


def _without_shared(names: Sequence[str], most: int) -> list[str]:
    """The names, of which long ones lose what they share at their ends: first at the end, then at the start."""
    long = [name for name in names if len(name) > most]
    start = _common_start(long)
    end = _common_start([name[len(start) :][::-1] for name in long])
    short = dict(zip(names, names, strict=True))
    for name in long:
        own = name[len(start) : len(name) - len(end)] + "…" * bool(end)
        room = max(most - len(own), 1)
        short[name] = (start if len(start) <= room else f"{start[: room - 1]}…") + own
    return [*short.values()]


def _common_start(names: Sequence[str]) -> str:
    first, last = min(names, default=""), max(names, default="")  # all others begin as these two do
    equal = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return "".join(letter for letter, _ in equal)


def text_width(text: str, *, size: float = 7.0) -> float:
    """How wide ``text`` is drawn, in inches; ``size`` is that of the font, in points."""
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont(_RC["font.family"]))
    font.set_size(size, 72)
    font.set_text(text)
    return float(font.get_width_height()[0]) / 64 / 72


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw inside this context: it sets fonts, lines and sizes, and leaves no trace."""
    import matplotlib as mpl

    with mpl.rc_context(_RC):
        yield


def new_figure(*, width: float = COLUMN_WIDTH, height: float = 2.2) -> Figure:
    """An empty figure on the Agg canvas, sizes in inches; no window, no global state."""
    figure = fixed_figure(width=width, height=height)
    figure.set_layout_engine("constrained")
    return figure


def fixed_figure(*, width: float, height: float) -> Figure:
    """An empty figure whose axes are placed by hand; it draws several times faster than a laid-out one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def panel_grid(
    panels: int,
    *,
    columns: int,
    width: float = PAGE_WIDTH,
    panel_height: float = 1.45,
    head: float = 0.2,
    strips: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure with ``panels`` axes in rows of ``columns``, and ``head`` inches above for a legend.

    ``strips`` leaves room for one beneath each panel (see :func:`draw_strip`) and for a line at the bottom.

    Margins are fixed lengths, so nothing is solved for: a page of panels draws several times faster than
    under a layout engine.
    """
    rows = -(-panels // columns)
    left, right, title, gap = 0.52, 0.1, 0.2, 0.44
    strip, foot = (STRIP, 0.12) if strips else (0.0, 0.0)
    below = 0.4 + strip
    height = rows * (panel_height + below + title) + head + foot
    figure = fixed_figure(width=width, height=height)
    panel_width = (width - left - right - (columns - 1) * gap) / columns
    axes = []
    for index in range(panels):
        row, column = divmod(index, columns)
        bottom = height - head - (row + 1) * (panel_height + title) - row * below
        corner = ((left + column * (panel_width + gap)) / width, bottom / height)
        panel = figure.add_axes((*corner, panel_width / width, panel_height / height))
        panel.set_title("", y=1 + 0.05 / panel_height)
        panel.xaxis.set_label_coords(0.5, -(0.22 + strip) / panel_height)
        panel.yaxis.set_label_coords(-0.36 / panel_width, 0.5)
        axes.append(panel)
    return figure, axes


def legend_name(name: str) -> str:
    """``name`` as the label of what is drawn: matplotlib leaves those that begin with an underscore out.

    >>> legend_name("_mine"), legend_name("mine")
    (' _mine', 'mine')
    """
    return f" {name}" if name[:1] == "_" else name


def ratio_axis(axes: Axes, *, low: float = 1.0, high: float) -> None:
    """A logarithmic x axis for a ratio, with ticks at powers of two: 1, 2, 4, 8, ..."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log", base=2)
    ticks = [1.0]
    while ticks[-1] < high * 0.999:
        ticks.append(ticks[-1] * 2)
    every = 1 + len(ticks) // 9
    axes.xaxis.set_major_locator(FixedLocator(ticks[::every]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(low / 1.12, max(high, 2.0) * 1.12)


@dataclass(frozen=True)
class Mark:
    """A point that lies off a panel's scale: where it lies along the other axis, and its series' look."""

    x: float
    colour: str
    marker: str


def draw_strip(axes: Axes, marks: Sequence[Mark], *, range_text: str) -> None:
    """A grey strip outside ``axes``, beneath its lower edge, with hollow ``marks`` of points that lie below.

    ``range_text`` at the left says between which values they lie. Marks at one place stand side by side. Call
    it once limits and scales of both axes are set.
    """
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    inches: Any = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    whole: Any = axes.transAxes
    from_edge = inches + ScaledTranslation(0, 0, whole)
    across, along = (blended_transform_factory(x, from_edge) for x in (axes.transAxes, axes.transData))
    box = Rectangle((0, -STRIP), 1, STRIP, transform=across, clip_on=False, facecolor="#ECECEC", zorder=0)
    axes.add_artist(box)
    axes.text(
        0,
        -STRIP / 2,
        range_text,
        transform=across + ScaledTranslation(-3 / 72, 0, inches),
        ha="right",
        va="center",
        fontsize=5.5,
    )
    for mark, aside in zip(marks, _stand_aside(axes, [mark.x for mark in marks]), strict=True):
        axes.plot(
            mark.x,
            -STRIP / 2,
            marker=mark.marker,
            markersize=3.2,
            color=mark.colour,
            markerfacecolor="white",
            markeredgewidth=0.8,
            transform=along + ScaledTranslation(aside / 72, 0, inches),
            clip_on=False,
            scalex=False,
            scaley=False,
        )
    axes.tick_params(axis="x", pad=72 * STRIP + 2)
    (low, high), height = axes.get_ylim(), axes.bbox.height * 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    ticks = [tick for tick in axes.get_yticks() if (tick - low) / (high - low) * height > 7 and tick <= high]
    axes.set_yticks(ticks)  # without one that the text at the left would touch


def _stand_aside(axes: Axes, xs: Sequence[float]) -> list[float]:
    """How far each mark moves to the right, in points, so that those of about one x do not cover each other."""
    scale = 72 / axes.get_figure(root=True).dpi  # type: ignore[union-attr]
    left, right = axes.bbox.x0 * scale + 2.5, axes.bbox.x1 * scale - 2.5
    places = [float(axes.transData.transform((x, 1))[0]) * scale for x in xs]
    order = sorted(range(len(xs)), key=lambda i: places[i])
    together: list[list[int]] = []
    for index in order:
        if together and places[index] - places[together[-1][-1]] < 4.0:
            together[-1].append(index)
        else:
            together.append([index])
    aside = [0.0] * len(xs)
    for group in together:
        step = min(4.4, 30 / len(group))
        half, mean = (len(group) - 1) / 2 * step, sum(places[i] for i in group) / len(group)
        middle = max(min(mean, right - half), left + half)
        for rank, index in enumerate(group):
            aside[index] = middle + (rank - (len(group) - 1) / 2) * step - places[index]
    return aside


def load_backends() -> None:
    """Load what :func:`save` would load at its first file, for processes that are forked to draw."""
    for module in ("agg", "pdf", "svg"):
        import_module(f"matplotlib.backends.backend_{module}")
    for module in ("fontTools.subset", "pypdfium2"):
        import_module(module)


def save(figure: Figure, stem: Path, *, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Write ``stem.svg``, ``stem.pdf`` and ``stem.png``; the same figure gives the same bytes.

    The PNG is the PDF in pixels, which takes a third of the time of drawing it again. Raises
    ``ShrinkbenchError`` where the folder cannot be written.
    """
    paths = {extension: stem.with_name(f"{stem.name}.{extension}") for extension in formats}
    drawn = {}
    with figure_style():
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # settled: "none" would still cost a drawing per format
        if "svg" in paths:
            drawn["svg"] = _drawn(figure, "svg", {"Date": None, "Creator": None})
        if {"pdf", "png"} & paths.keys():
            drawn["pdf"] = _drawn(figure, "pdf", {"CreationDate": None, "Creator": None, "Producer": None})
        if "png" in paths:
            drawn["png"] = _pixels(drawn["pdf"])
    for extension, path in paths.items():
        write_atomically(path, drawn[extension], durable=False)
    return list(paths.values())


def _drawn(figure: Figure, extension: str, metadata: dict[str, None]) -> bytes:
    content = BytesIO()
    figure.savefig(content, format=extension, metadata=metadata)
    return content.getvalue()


def _pixels(pdf: bytes) -> bytes:
    """The page of ``pdf`` as PNG."""
    import pypdfium2

    document = pypdfium2.PdfDocument(pdf)
    image = document[0].render(scale=PIXELS_PER_INCH / 72).to_pil()
    document.close()
    # Thrice as fast as the default, a tenth larger.
    content = BytesIO()
    image.save(content, format="png", compress_level=2, dpi=(PIXELS_PER_INCH, PIXELS_PER_INCH))
    return content.getvalue()
