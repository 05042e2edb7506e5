"""Performance profiles: the share of a method's runs over tasks above each score (Agarwal et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shrinkbench.plotting import (
    PAGE_WIDTH,
    figure_style,
    legend_name,
    new_figure,
    save,
    series_styles,
    shortened,
)
from shrinkbench.report.statistics.aggregates import Scores, performance_profile

if TYPE_CHECKING:  # matplotlib is loaded where something is drawn
    from matplotlib.figure import Figure

PROFILES = "performance-profiles"
"""Name of the figure's files."""


def profile_figure(scores: Scores) -> Figure:
    """One step line per method: the share of runs (tasks x seeds) above each normalised score."""
    from matplotlib.ticker import PercentFormatter

    low, high = float(scores.values.min()), float(scores.values.max())
    margin = 0.03 * (high - low) or 0.01
    levels = np.unique(np.r_[low - margin, scores.values.ravel(), high + margin])
    with figure_style():
        figure = new_figure(width=PAGE_WIDTH, height=2.4)
        axes = figure.add_subplot()
        for (name, style), values in zip(series_styles(scores.methods).items(), scores.values, strict=True):
            shares = performance_profile(values, levels)
            axes.plot(
                levels,
                shares,
                drawstyle="steps-post",
                label=legend_name(shortened(name, 36)),
                color=style.colour,
                linestyle=style.line,
            )
        axes.set_xlim(levels[0], levels[-1])
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel(f"score: {scores.label}")
        axes.set_ylabel("runs above the score")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def write_profiles(scores: Scores, folder: Path) -> list[Path]:
    """Draw it into ``folder`` as SVG, PDF and PNG."""
    return save(profile_figure(scores), folder / PROFILES)
