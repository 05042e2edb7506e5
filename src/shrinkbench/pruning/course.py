"""The course of a method: how much is left on the way through its rounds, or through a training.

It is what a schedule asks for, by its own numbers; nothing is trained to draw it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.plotting import COLOURS, FORMATS, figure_style, new_figure, save
from shrinkbench.pruning.method import METHODS, PruningMethod
from shrinkbench.spec import Compression

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = 40
"""Parts of a training at whose ends a course is told."""


@dataclass(frozen=True)
class Course:
    """How much a method named ``method`` leaves on its way, in words (``when``) and numbers.

    ``ratios`` are all / kept, of prunable weights in rounds and of the network in a training. Along ``rounds``
    they are those before the first round and after each, along the ``training`` those at equal shares of it,
    both ends included; there are none where code from outside does not say. ``label`` is what the last one is
    called: the target, or the amount that a method brings, for which ratios are drawn as if it were the target.
    """

    method: str
    when: str
    along: Literal["rounds", "training"]
    ratios: tuple[float, ...]
    label: str

    @property
    def places(self) -> tuple[float, ...]:
        """Where each of the ``ratios`` begins: the number of the round, or the share of the training."""
        last = len(self.ratios) - 1
        return tuple(n if self.along == "rounds" else n / last for n in range(last + 1))


def course_of(method: str | PruningMethod, *, target: float = 4.0) -> Course:
    """The course of ``method`` to ``target``, original / kept.

    >>> course_of("iterative_magnitude").ratios
    (1.0, 2.0, 4.0)
    >>> course_of("gradual_magnitude").when
    'in one training from trained weights: from the start to 50% of it, every 100 steps, or at least 20 times'
    """
    if isinstance(target, bool) or not isinstance(target, int | float) or not 1 < target < math.inf:
        shown = f"{target:g}" if isinstance(target, float) else one_line(repr(target), 40)
        raise ShrinkbenchError(f"a course to compression {shown} has no steps; name a target above 1")
    chosen = METHODS.get(method) if isinstance(method, str) else method
    label = f"{target:g}x" if isinstance(chosen.amount, Compression | None) else chosen.amount.label
    schedule = chosen.schedule
    if schedule.during is None:
        steps = schedule(target)
        ratios = (1.0, *map(float, steps))
        return Course(chosen.name, _rounds_in_words(chosen, steps, label), "rounds", ratios, label)
    hook: Any = schedule.hook  # what somebody's function makes need not be a class with a course
    course, when = getattr(hook, "course", None), getattr(hook, "when", None)
    found = [None if course is None else course(target, n / PARTS) for n in range(PARTS + 1)]
    ratios = tuple(ratio for ratio in found if ratio is not None)
    said = when() if when is not None else ""
    before = "trained" if schedule.start == "trained" else "initial"
    words = f"in one training from {before} weights: {said}" if said else schedule.description
    return Course(chosen.name, words, "training", ratios, label)


def _rounds_in_words(method: PruningMethod, steps: tuple[float, ...], label: str) -> str:
    schedule = method.schedule
    before = "from trained weights" if schedule.start == "trained" else "before any training"
    if len(steps) == 1:
        own = getattr(method.score, "rounds", None)
        inner = "" if own is None else f"; the score goes there in {own} rounds of its own, without training"
        return f"once, {before}{inner}"
    between = "a training after each" if schedule.train_between else "no training between them"
    return f"in {len(steps)} rounds at {label}, {before}, {between}"


def draw_course(course: Course) -> Figure:
    """``course`` as a figure: the ratio of weights over rounds or training, on a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if not course.ratios:
        raise ShrinkbenchError(
            f"the schedule of '{course.method}' does not say what is left on the way; give its hook a course()"
        )
    with figure_style():
        figure = new_figure(height=1.8)
        axes = figure.add_subplot()
        places, ratios = [*course.places], [*course.ratios]
        width = places[-1] / 8 if course.along == "training" else 1.0
        axes.step([*places, places[-1] + width], [*ratios, ratios[-1]], where="post", color=COLOURS[0])
        axes.set_yscale("log", base=2)
        axes.set_ylim(0.9, max(ratios) * 1.15)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("weights, all / kept")
        if course.along == "training":
            axes.margins(x=0)
            axes.set_xlabel("share of the training that it prunes in")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        else:
            axes.set_xlabel("round (0: before the first)")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        brought = "" if course.label.endswith("x") else f" ({course.label}: drawn as if it were 4x)"
        axes.set_title(f"{course.method}{brought}")
    return figure


def save_course(course: Course, path: Path | str) -> Path:
    """Write :func:`draw_course` to ``path``, whose ending says the format; one of ``FORMATS``."""
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        known = ", .".join(FORMATS)
        raise ShrinkbenchError(f"'{path.name}' is no figure of a known format; end it in .{known}")
    return save(draw_course(course), path.with_suffix(""), formats=(kind,))[0]
