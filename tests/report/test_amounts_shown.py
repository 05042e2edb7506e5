"""What was not asked for as a compression is shown by what was asked and lies where it was achieved."""

import numpy as np
import pytest
from made_results import METHODS, make_result, make_results, make_spec, method, write_store

from shrinkbench.report.figures import tradeoff_figure
from shrinkbench.report.layer_figures import weight_figure
from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.report.page.payload import build_payload
from shrinkbench.report.pitfalls.noise import wide_seed_spread
from shrinkbench.report.result_tables import all_tables, latency_table, result_tables
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import at_equal_training, pairwise
from shrinkbench.report.statistics.curves import at_equal, curves, default_levels
from shrinkbench.report.statistics.fairness import common_set_ups
from shrinkbench.report.statistics.observations import observe
from shrinkbench.spec import (
    ChannelFraction,
    Compression,
    Constraints,
    FractionPerLayer,
    PublishedWidths,
    Speedup,
)
from shrinkbench.spec.measures import Latency, WallTime

TASK = "cifar10 / resnet20"
PAIR = [("cifar10", "resnet20")]
SLIMMING = method("network_slimming", "magnitude")
SIXTY = ChannelFraction(fraction=0.6)
PUBLISHED = PublishedWidths(target="li2017:resnet56-a")
SEEDS = (0, 1, 2)


def runs(method, *amounts, **fields):
    return [
        make_result(make_spec(method=method, amount=amount, seed=seed), **fields)
        for amount in amounts
        for seed in SEEDS
    ]


@pytest.fixture(scope="module")
def results():
    return [
        *make_results(pairs=PAIR, methods=["global_magnitude"], compressions=(1, 2, 4)),
        *runs(SLIMMING, SIXTY),
        *runs(METHODS["random"], FractionPerLayer(fraction=0.3), PUBLISHED),
    ]


@pytest.fixture(scope="module")
def observations(results):
    return observe(results)


def test_tables_have_columns_by_amount_with_what_was_achieved(observations):
    (table,) = result_tables(observations, "top1")
    assert table.columns == ("method", "1×", "2×", "4×", "30% per layer", "60% of channels", "as published")
    rows = {row[0].text: row for row in table.rows}
    assert rows["network_slimming"][5].text.endswith(" (2.5×)")
    assert rows["random"][4].text.endswith(" (1.43×)")
    assert rows["random"][6].text.endswith(" (3×)")
    assert not any(cell.best for row in table.rows for cell in row)  # of different sizes none is the best
    assert "In brackets: the compression that was achieved." in table.caption


def test_points_lie_where_the_network_is(observations):
    for curve in curves(observations, "compression", "top1"):
        if curve.method == "network_slimming":
            assert list(curve.x) == pytest.approx([1, 2.5], rel=1e-3)
    values = at_equal(observations, "compression")
    assert set(values["level"]) == {2.0, 4.0}
    reached = values.groupby("method")["level"].max().to_dict()
    assert reached == {"global_magnitude": 4.0, "network_slimming": 2.0, "random": 2.0}
    panel = tradeoff_figure(observations, metric="top1", axis="compression").axes[0]
    lines = {line.get_label(): line for line in panel.lines}
    assert lines["network_slimming"].get_xdata() == pytest.approx([1, 2.5], rel=1e-3)
    assert lines["random"].get_xdata() == pytest.approx([1, 1 / 0.7, 3], rel=1e-3)


def test_where_no_compression_was_asked_for_levels_are_powers_of_two():
    found = observe(runs(SLIMMING, SIXTY))
    assert default_levels(found, "compression") == [2.0]
    for table in all_tables(found):
        assert {len(row) for row in table.rows} <= {len(table.columns)}


def test_pairs_are_compared_where_they_are_not_where_they_were_to_be(observations):
    """Each amount is of one method; what they share is the range of compressions that they came to."""
    ends = {(r.first, r.second): r.end for r in pairwise(observations).itertuples()}
    shortest = observations.pruned.groupby(["method", "seed"])["compression"].max().groupby("method").min()
    assert ends
    for (first, second), end in ends.items():
        assert end == pytest.approx(min(shortest[first], shortest[second]), rel=0.3)
        assert end <= min(shortest[first], shortest[second]) * (1 + 1e-9)


def test_the_page_has_amounts_for_targets(results, observations):
    data = build_payload(results, observations, [])
    assert data["amounts"] == ["2×", "4×", "30% per layer", "60% of channels", "as published"]
    curve = data["curves"][TASK]["network_slimming"]
    assert (curve["amount"], curve["compression"]) == (["60% of channels"], [pytest.approx(2.5, rel=1e-3)])
    assert data["layers"][TASK]["densities"]["network_slimming"]["60% of channels"]["achieved"] == "(2.5×)"
    assert data["layers"][TASK]["densities"]["global_magnitude"]["4×"]["achieved"] == ""
    assert data["histograms"][TASK]["random"]["as published"]["achieved"] == "(3×)"
    assert set(data["ledger"]["amount"]["of"]) == {"1×", *data["amounts"]}


def test_figures_of_weights_say_what_was_achieved(results):
    slim = [r for r in results if r.spec.amount == SIXTY]
    assert weight_figure(*slim).axes[0].get_title().endswith("at 60% of channels (2.5×)")


def test_latency_shows_its_spread_and_marks_an_unsteady_one(results):
    def table_of(dense, pruned):
        timed = Latency(
            batch_size=1,
            form="small",
            dense_seconds=dense.median,
            seconds=pruned.median,
            threads=1,
            precision="float32",
            dense_time=dense,
            time=pruned,
            memory_format="channels_last",
        )
        provenance = results[0].provenance.model_copy(update={"latency": (timed,)})
        return latency_table([results[0].model_copy(update={"provenance": provenance})]).rows[0]

    steady = WallTime(median=0.02, lower=0.0199, upper=0.0201, rounds=5)
    shaken = WallTime(median=0.01, lower=0.009, upper=0.0105, rounds=5)
    texts = [cell.text for cell in table_of(steady, shaken)]
    assert texts[5:7] == ["20 (0.2)", "10 (1.5)*"]
    assert texts[-1].endswith("channels_last")


def test_latency_and_set_ups_go_by_amount(results):
    timed = []
    for result in results:
        latency = Latency(
            batch_size=1, form="small", dense_seconds=2.0, seconds=1.0, threads=1, precision="float32"
        )
        provenance = result.provenance.model_copy(update={"latency": (latency,)})
        timed.append(result.model_copy(update={"provenance": provenance}))
    amounts = {(row[1].text, row[2].text) for row in latency_table(timed).rows if row[1].text != "control"}
    assert ("network_slimming", "60% of channels (2.5×)") in amounts
    assert ("global_magnitude", "4×") in amounts
    assert common_set_ups(results) == {}  # no two methods were asked for the same
    both = [*results, *runs(METHODS["global_magnitude"], SIXTY)]
    assert common_set_ups(both) == {("global_magnitude", "network_slimming"): "finetuning"}


@pytest.mark.slow
def test_the_leaderboard_has_amounts(results, tmp_path):
    store = write_store(tmp_path / "store", results)
    text = write_leaderboard([store.root], tmp_path / "board").index.read_text(encoding="utf-8")
    assert '<th scope="col">60% of channels</th>' in text
    assert "(2.5×)</td>" in text


def test_seeds_that_disagree_are_told_by_amount():
    def accuracy(spec):
        return 0.9 - 0.1 * spec.seed

    (found,) = wide_seed_spread(observe(runs(SLIMMING, SIXTY, accuracy=accuracy)))
    assert found.finding.startswith("network_slimming at 60% of channels gives between")


def test_who_falls_short_of_a_compression_is_not_compared_at_it(results):
    short = [
        made.model_copy(update={"size": made.size.model_copy(update={"compression": 2.5})})
        for made in runs(method("masks of its own", "other"), Compression(ratio=4), accuracy=lambda _: 0.99)
    ]
    other = runs(METHODS["random"], Compression(ratio=4))
    observations = observe([*results, *short, *other])
    (table,) = result_tables(observations, "top1")
    column = table.columns.index("4×")
    cells = {row[0].text: row[column] for row in table.rows}
    assert cells["masks of its own"].text == "99.00 ± 0.00 (2.5×)"
    assert [name for name, cell in cells.items() if cell.best] == ["global_magnitude"]
    (task,) = judge(observations).tasks
    at_4 = next(level for level in task.levels if level.level == 4)
    assert [(o.method, o.why) for o in at_4.block.left_out if o.method == "masks of its own"] == [
        ("masks of its own", "ends at 2.5×")
    ]
    pairs = pairwise(observations).set_index(["first", "second"])["end"]
    assert pairs["global_magnitude", "masks of its own"] == pytest.approx(2.5)
    assert not (at_equal_training(observations)["method"] == "masks of its own").any()


def test_no_seed_is_lost_where_an_amount_comes_to_another_compression_by_seed(results):
    """Seeds of slimming end at other compressions: all of them count, up to where the shortest ends."""
    moved = [
        r.model_copy(update={"size": r.size.model_copy(update={"compression": 2.75 + r.spec.seed / 50})})
        if r.spec.amount == SIXTY
        else r
        for r in results
    ]
    (task,) = judge(observe(moved)).tasks
    assert task.block.methods == ("global_magnitude", "network_slimming", "random")
    assert task.block.units == ("0", "1", "2")
    assert task.block.high == pytest.approx(2.75)
    assert np.isfinite(task.block.values).all()


def test_a_speedup_and_bounds_are_shown_in_their_own_words(results):
    bound = Constraints(round_to=8)
    fast = [
        make_result(make_spec(method="random", amount=Speedup(ratio=2), seed=s, constraints=bound))
        for s in SEEDS
    ]
    found = observe([*results, *fast])
    (table,) = result_tables(found, "top1")
    assert "2x fewer multiply-adds" in table.columns
    rows = {row[0].text: row for row in table.rows}
    assert rows["random (multiples of 8)"][table.columns.index("2x fewer multiply-adds")].text.endswith("(3×)")
    assert rows["random"][table.columns.index("2x fewer multiply-adds")].text == "–"
