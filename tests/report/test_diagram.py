"""Numbers on the axis of mean ranks never touch, however many methods there are."""

import itertools
import re

import numpy as np
import pytest

from shrinkbench.report.diagram import NUMBER, mean_ranks_svg
from shrinkbench.report.statistics.ranks import rank_methods


@pytest.mark.parametrize("count", [2, 5, 12, 16, 17, 21, 60])
def test_numbers_have_room(count):
    values = np.arange(3 * count, dtype=float).reshape(3, count)
    drawn = mean_ranks_svg([f"m{i}" for i in range(count)], rank_methods(values))
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="32[^"]*"[^>]*>\d+<', drawn)]
    assert len(places) >= 2
    assert min(b - a for a, b in itertools.pairwise(places)) > NUMBER - 5
