"""A run is compared with its own control, whatever other controls its task has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_results import FINETUNE, METHODS, SNIP, make_result, make_spec, write_store

from shrinkbench.report.figures import tradeoff_figure
from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.report.page.payload import build_payload
from shrinkbench.report.result_tables import result_tables, summary_tables
from shrinkbench.report.statistics.compare import curve_summaries, references
from shrinkbench.report.statistics.curves import at_equal, curves
from shrinkbench.report.statistics.observations import aggregate, observe
from shrinkbench.spec import FinetuningSpec

TASK = "cifar10 / resnet20"
FINETUNED, SCRATCH = "control, fine-tuned", "control, from scratch"
MAGNITUDE = METHODS["global_magnitude"]


def runs(method, by_compression, *, recipe=FINETUNE, seeds=(0, 1)):
    """Runs of ``method`` with the accuracy that is given for each compression."""
    return [
        make_result(
            make_spec(method=method, compression=float(compression), seed=seed, recipe=recipe),
            accuracy=lambda _, top1=top1: top1,
        )
        for compression, top1 in by_compression.items()
        for seed in seeds
    ]


RESULTS = runs(MAGNITUDE, {1: 0.833, 2: 0.826, 4: 0.759}) + runs(SNIP, {1: 0.167, 2: 0.160, 4: 0.093})


@pytest.fixture(scope="module")
def observations():
    return observe(RESULTS)


def test_both_controls_are_cells_and_changes_are_from_the_own_one(observations):
    controls = aggregate(observations.control, ["top1"]).set_index("method")["top1"]
    assert controls.to_dict() == pytest.approx({FINETUNED: 0.833, SCRATCH: 0.167})
    cells = aggregate(observations.pruned, ["top1_change"]).set_index(["method", "amount"])["top1_change"]
    for method in ("global_magnitude", "snip"):
        assert cells[method, "4x"] == pytest.approx(-0.074)
        assert cells[method, "2x"] == pytest.approx(-0.007)


def test_tables_name_both_controls_and_give_each_method_its_own(observations):
    (table,) = result_tables(observations, "top1")
    first = {row[0].text: row[1].text for row in table.rows}
    assert first == {
        FINETUNED: "83.30 ± 0.00",
        SCRATCH: "16.70 ± 0.00",
        "global_magnitude": "83.30 ± 0.00",
        "snip": "16.70 ± 0.00",
    }
    assert "At 1× each method has its own control." in table.caption


def test_within_one_point_is_of_the_own_control(observations):
    kept = curve_summaries(observations).set_index("method")["largest_within"]
    assert kept.round(3).to_dict() == {"global_magnitude": 2.0, "snip": 2.0}
    assert {row[1].text: row[2].text for row in summary_tables(observations)[0].rows} == {
        "global_magnitude": "2×",
        "snip": "2×",
    }


def test_curves_and_areas_start_at_the_own_control(observations):
    for curve in curves(observations, "compression", "top1"):
        assert (curve.x[0], curve.y[0]) == (1, pytest.approx({"snip": 0.167}.get(curve.method, 0.833)))
    areas = curve_summaries(observations).set_index("method")["area"]
    for method, y in (("global_magnitude", (0.833, 0.826, 0.759)), ("snip", (0.167, 0.160, 0.093))):
        by_hand = (y[0] + 2 * y[1] + y[2]) / 4  # trapezoids over log 1, log 2, log 4
        assert areas[method] == pytest.approx(by_hand, abs=1e-4)
    between = at_equal(observations, "compression", levels=(2**0.5,)).groupby("method")["value"].mean()
    assert between.to_dict() == pytest.approx({"global_magnitude": 0.8295, "snip": 0.1635}, abs=1e-4)


def test_figures_draw_a_line_for_every_control(observations):
    figure = tradeoff_figure(observations, metric="top1", axis="compression")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {FINETUNED, SCRATCH, "global_magnitude", "snip"}
    assert lines[FINETUNED]._dash_pattern != lines[SCRATCH]._dash_pattern
    for method, control in (("global_magnitude", FINETUNED), ("snip", SCRATCH)):
        assert lines[method].get_ydata()[0] == pytest.approx(lines[control].get_ydata()[0])
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == [FINETUNED, SCRATCH]


def test_the_page_draws_every_control_and_starts_curves_at_their_own(observations):
    data = build_payload(RESULTS, observations, [])
    assert {name: c["top1"]["mean"] for name, c in data["controls"][TASK].items()} == {
        FINETUNED: 0.833,
        SCRATCH: 0.167,
    }
    starts = {method: curve["top1"]["start"] for method, curve in data["curves"][TASK].items()}
    assert starts == {"global_magnitude": 0.833, "snip": 0.167}


def test_the_page_tells_changes_run_by_run():
    """Of three seeds that differ much, one has no control: it has no change either."""
    made = [
        make_result(
            make_spec(compression=float(c), seed=seed),
            accuracy=lambda spec, top1=top1: top1 + spec.seed / 10,
        )
        for c, top1 in ((1, 0.5), (4, 0.4))
        for seed in (0, 1, 2)
        if (c, seed) != (1, 2)
    ]
    curve = build_payload(made, observe(made), [])["curves"][TASK]["global_magnitude"]["top1"]
    assert (curve["start"], curve["mean"], curve["change"]) == (0.55, [0.5], [-0.1])


@pytest.mark.usefixtures("without_figures")
def test_the_leaderboard_judges_by_the_own_control(tmp_path):
    store = write_store(tmp_path / "store", RESULTS)
    text = write_leaderboard([store.root], tmp_path / "board").index.read_text(encoding="utf-8")
    assert text.count("<td>2×</td>") == 2


def test_a_recipe_of_the_same_name_is_another_control():
    idle = MAGNITUDE.finetuned_by(FinetuningSpec(name="none", recipe="none"))
    untrained = FINETUNE.model_copy(update={"epochs": 0})
    found = observe(runs(MAGNITUDE, {1: 0.9, 4: 0.88}) + runs(idle, {1: 0.8, 4: 0.3}, recipe=untrained))
    assert len(found.controls_of(TASK)) == 2
    changes = found.pruned.groupby("method")["top1_change"].mean()
    assert sorted(changes) == pytest.approx([-0.5, -0.02])


def test_a_method_that_lacks_a_seed_is_compared_with_the_controls_that_it_has():
    results = runs(MAGNITUDE, {1: 0.9}, seeds=(0,)) + runs(MAGNITUDE, {1: 0.8}, seeds=(1,))
    found = observe([*results, *runs(METHODS["random"], {4: 0.795}, seeds=(1,))])
    assert references(found, "top1")[TASK, "random"].mean == pytest.approx(0.8)
    assert curve_summaries(found).set_index("method").loc["random", "largest_within"] == pytest.approx(4)


def test_without_a_control_nothing_is_within_a_point_of_it():
    found = observe(runs(MAGNITUDE, {1: 0.9, 4: 0.89}) + runs(SNIP, {4: 0.2}))
    kept = curve_summaries(found).set_index("method")["largest_within"]
    assert kept["global_magnitude"] == pytest.approx(4)
    assert np.isnan(kept["snip"])
    assert found.pruned.set_index("method")["top1_change"].notna().to_dict() == {
        "global_magnitude": True,
        "snip": False,
    }


def numbers(observations, methods):
    """Cells, changes, controls and largest compressions of ``methods``, by what does not depend on labels."""
    pruned = observations.pruned[observations.pruned["method"].isin(methods)]
    cells = aggregate(pruned, ["top1", "top1_change", "compression"]).round(12)
    controls = observations.control[observations.control["control_key"].isin(pruned["control_key"])]
    summaries = curve_summaries(observations)
    own = {pair: summary for pair, summary in references(observations, "top1").items() if pair[1] in methods}
    return (
        cells.to_csv(index=False),
        controls.set_index("control_key")["top1"].to_dict(),
        summaries[summaries["method"].isin(methods)].set_index("method")["largest_within"].to_dict(),
        {pair: (summary.mean, summary.n) for pair, summary in own.items()},
    )


accuracies = st.fixed_dictionaries({c: st.integers(0, 10_000).map(lambda n: n / 10_000) for c in (1, 2, 4)})


@settings(max_examples=8, deadline=None)
@given(one=accuracies, two=accuracies, other=accuracies)
def test_a_method_with_another_control_changes_no_number_of_those_that_were_there(one, two, other):
    two = two | {1: one[1]}  # one control, shared
    there = runs(MAGNITUDE, one) + runs(METHODS["random"], two)
    methods = {"global_magnitude", "random"}
    alone, together = observe(there), observe([*there, *runs(SNIP, other)])
    assert numbers(alone, methods) == numbers(together, methods)
