"""At equal speed a method is left out for amounts that were not run, never for how far apart its speeds lie."""

from __future__ import annotations

import html
import re

import pytest
from made_results import MULTIPLY_ADDS, make_results, write_store

from shrinkbench.report.page.html import write_report
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict

PAIR = (("cifar10", "resnet20"),)
FAST, UNEVEN, THIRD = "global_magnitude", "layerwise_magnitude", "global_gradient"
SPEEDS = {2: 1.5, 4: 2, 8: 3, 16: 4, 32: 6}
FAR_APART = {2: 1.2, 4: 1.4, 8: 1.6, 16: 1.8, 32: 6}
SPEED = "theoretical_speedup"


def sped(result, speeds):
    if result.spec.is_control:
        return result
    adds = round(MULTIPLY_ADDS / speeds[int(result.spec.target)])
    size = {"multiply_adds_kept": adds, "theoretical_speedup": MULTIPLY_ADDS / adds}
    return result.model_copy(update={"size": result.size.model_copy(update=size)})


def store(methods, *, uneven=FAR_APART, others=SPEEDS):
    return [
        sped(r, uneven if r.spec.method.name == UNEVEN else others)
        for r in make_results(pairs=PAIR, methods=methods)
    ]


@pytest.mark.parametrize("methods", [(FAST, UNEVEN), (FAST, UNEVEN, THIRD)])
def test_speeds_that_lie_far_apart_are_no_missing_runs(methods):
    (task,) = judge(observe(store(methods)), axis=SPEED).tasks
    assert set(task.block.methods) == set(methods)
    assert [(level.level, set(level.block.methods)) for level in task.levels] == [
        (level, set(methods)) for level in (2, 4)
    ]


@pytest.mark.parametrize("speeds", [SPEEDS, FAR_APART])
def test_amounts_that_were_not_run_are_asked_for_along_speed_too(speeds):
    """Wherever 4x to 16x would lie, between 2x and 32x its line would be made up."""
    results = [
        r
        for r in store((FAST, UNEVEN, THIRD), uneven=speeds)
        if r.spec.method.name != UNEVEN or r.spec.target not in (4, 8, 16)
    ]
    for axis, why in (("compression", "2× and 32×"), (SPEED, "compressions 2× and 32×")):
        (task,) = judge(observe(results), axis=axis).tasks
        assert {one.method: one.why for one in task.block.left_out} == {UNEVEN: f"no run between {why}"}


def page_of(results, folder):
    write_store(folder / "store", results)
    text = write_report(folder / "store", folder / "page", figures="none").index.read_text()
    return " ".join(html.unescape(re.sub(r"<script.*?</script>|<[^>]+>", "", text, flags=re.DOTALL)).split())


def test_whoever_is_left_out_of_a_level_is_named_with_the_reason(tmp_path):
    slow = {2: 1.2, 4: 1.4, 8: 1.6, 16: 2, 32: 2.5}
    results = store((FAST, UNEVEN, THIRD), uneven=slow)
    (task,) = reach_verdict(observe(results)).tasks
    by_axis = {basis.axis: basis for basis in task.bases}
    assert by_axis[SPEED].left_out == (f"{UNEVEN} at 4×: ends at 2.5×",)
    assert by_axis["compression"].left_out == ()
    assert f"Not compared at a level, 1 case{UNEVEN} at 4×: ends at 2.5×" in page_of(results, tmp_path)


def test_where_no_level_has_two_methods_the_page_says_so(tmp_path):
    results = store((FAST, UNEVEN), uneven={amount: 1 + amount / 100 for amount in SPEEDS})
    page = page_of(results, tmp_path)
    said = "Best at equal theoretical speedup No two methods can be compared at any level:"
    assert said in page
    assert f"{UNEVEN} at 2×, 4×: ends at 1.32×" in page
    clean = page_of(make_results(pairs=PAIR, methods=(FAST, UNEVEN)), tmp_path / "clean")
    assert "No two methods can be compared" not in clean
    assert "Best at equal measured speedup" not in clean
