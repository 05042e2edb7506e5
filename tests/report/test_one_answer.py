"""Every table and sentence that names a winner, a lead or an order tells the answer of the table of pairs."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from made_results import METHODS, make_result, make_results, make_spec
from places import ROOT

from shrinkbench.literature.overlay import overlay
from shrinkbench.report.boards import rank_entries
from shrinkbench.report.leaderboard import find_disputed
from shrinkbench.report.pareto import COSTS, find_points
from shrinkbench.report.patterns import series_of_runs
from shrinkbench.report.power import power_tables
from shrinkbench.report.recommendation import recommend
from shrinkbench.report.result_tables import pairwise_table, result_tables, summary_tables
from shrinkbench.report.scratch import scratch_tables
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import ranking
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.bundle import Bundle
from shrinkbench.results.frame import to_frame
from shrinkbench.spec import SCRATCH_E

NAMES = ("global_gradient", "global_magnitude", "layerwise_gradient", "layerwise_magnitude", "random")
PAIRS = [("cifar10", "resnet20"), ("cifar10", "resnet56"), ("imagenet", "resnet18")]
AMOUNTS = [(1, 2, 4, 8, 16), (1, 2, 3, 4, 6, 8), (1, 4), (1, 2, 4, 8, 12, 16)]


def made(store):
    """Methods that differ or do not, some with amounts of their own, with runs that fail or are absent."""
    random = np.random.default_rng(store)
    skills = random.choice([0.0, 0.0, 0.002, 0.02]) * random.standard_normal(len(NAMES))
    noise = random.choice([0.0005, 0.004, 0.02])

    def accuracy(spec):
        own = np.random.default_rng([store, int(spec.key[:8], 16)])
        whole = 0.9 + 0.003 * spec.seed
        if spec.is_control:
            return whole
        fall = 0.01 * np.log2(spec.target) + (0.2 if spec.target > 9 else 0.0)
        return whole - fall + skills[NAMES.index(spec.method.name)] + noise * own.standard_normal()

    grid = AMOUNTS[store % len(AMOUNTS)]
    results = []
    for name in NAMES[: random.integers(2, 6)]:
        amounts = grid if random.random() < 0.7 else AMOUNTS[random.integers(len(AMOUNTS))]
        results += make_results(
            pairs=PAIRS[: 1 + store % 3], methods=[name], accuracy=accuracy, compressions=amounts
        )
    fate = random.random(len(results))
    kept = [(r, f) for r, f in zip(results, fate, strict=True) if f > 0.01 or r.spec.is_control]
    return [make_result(r.spec, failed="x") if f < 0.02 and not r.spec.is_control else r for r, f in kept]


def bold(table, column):
    return {row[0].text for row in table.rows if row[column].best}


@pytest.mark.parametrize("store", range(16))
def test_tables_and_sentences_have_one_answer(store):
    observations = observe(made(store))
    claims, verdict = judge(observations), reach_verdict(observations)
    tables = {table.caption.partition(":")[0]: table for table in result_tables(observations, "top1")}
    powers = list(power_tables(observations, margin=0.01))
    for task in claims.tasks:
        block, said = task.block, next(t for t in verdict.tasks if t.task == task.task)
        means = dict(zip(block.methods, block.means, strict=True))
        (levels,) = [basis.wins for basis in said.bases if basis.axis == "compression"] or [()]
        told = {win.level: win for win in levels}
        for level in task.levels:
            number = tables[task.task].columns.index(f"{level.level:g}×")
            winners = bold(tables[task.task], number)
            best = level.block.methods[int(level.block.means.argmax())]
            (cell,) = (row[number] for row in tables[task.task].rows if row[0].text == best)
            assert (best in winners) == (bool(level.leads) and cell.text != "–")  # a line is in no cell
            assert winners <= {*level.block.methods}
            if level.claim:
                win = told[level.level]
                assert (win.best, win.decided) == (level.claim.first, level.claim.decided)
                assert not win.decided or winners <= {win.best}
        rows = [row for table in summary_tables(observations) for row in table.rows if row[0].text == task.task]
        assert {row[1].text for row in rows if row[3].best} == {
            m for m, mean in means.items() if mean == max(means.values())
        }
        shown = {
            (row[0].text, row[1].text): row[2] for row in pairwise_table(observations, task=task.task).rows
        }
        power = {
            (r[0].text, r[1].text): r[3] for t in powers if f" on {task.task}," in t.caption for r in t.rows
        }
        for claim in task.pairs:
            for cell in (shown[claim.first, claim.second], power[claim.first, claim.second]):
                assert cell.best == claim.decided
                assert cell.text.startswith("−") == (claim.difference < 0) or not claim.difference
            if claim.decided and {claim.first, claim.second} <= means.keys():
                assert (means[claim.first] > means[claim.second]) == (claim.difference > 0)
        if len(means) > 1:
            first = max(means, key=means.get)
            assert any(f" {first} averages " in sentence for sentence in said.sentences)
            for segment in recommend(task):
                if segment.method != first and not segment.alone:
                    level = next(x for x in task.levels if x.block.high == segment.to)
                    assert first not in level.block.methods or level.leads[0].first == segment.method
    blocks = [task.block for task in claims.tasks] + [claims.over_tasks] * (claims.over_tasks is not None)
    assert all(pair <= {*block.methods} for block in blocks for pair in block.slack)
    methods, ranks = ranking(observations)
    shown = claims.pairs_over_tasks or (claims.tasks[0].pairs if len(claims.tasks) == 1 else ())
    for claim in shown:
        if claim.decided and {claim.first, claim.second} <= {*methods}:
            places = {methods.index(claim.first), methods.index(claim.second)}
            assert not any(places <= {*group} for group in ranks.joined)


@pytest.mark.parametrize("store", range(12))
def test_a_leaderboard_has_the_answer_of_the_pairs(store):
    results = made(store)
    observations = observe(results)
    claims, verdict = judge(observations), reach_verdict(observations)
    bundle = Bundle(name="lab", source=Path("lab.zip"), plan=None, results=tuple(results), problems=())
    ranked = rank_entries([bundle], find_disputed([bundle]))
    assert ranked.comparisons == claims.comparisons
    for board in ranked.boards:
        task = claims.of(board.title)
        assert board.sentences == next(t.sentences for t in verdict.tasks if t.task == board.title)
        means = dict(zip(task.block.methods, task.block.means, strict=True))
        places = [entry for entry in board.entries if entry.rank]
        if places:
            assert {entry.method for entry in places} == {*means}
            assert [means[entry.method] for entry in places] == sorted(means.values(), reverse=True)
        for entry in places[1:]:
            pair = next(c for c in task.pairs if c.involves(places[0].method) and c.involves(entry.method))
            own = pair if pair.first == places[0].method else pair.reversed
            assert (entry.lead.difference, entry.lead.p, entry.lead.decided) == (
                own.difference,
                own.p,
                own.decided,
            )
            assert entry.lead.difference >= 0


@pytest.mark.parametrize("store", range(0, 12, 3))
def test_on_a_front_is_what_no_other_network_is_better_than(store):
    points = find_points(observe(made(store)))
    for cost in (cost.column for cost in COSTS):
        for row in points[points[f"on_{cost}"]].itertuples():
            rivals = points[points[f"on_{cost}"] & (points["task"] == row.task)]
            better = (rivals["headline"] > row.headline) & (rivals[cost] <= getattr(row, cost))
            assert not better.any()


@pytest.mark.parametrize("store", range(12))
def test_a_network_from_scratch_is_not_better_where_the_pairs_say_that_it_is_worse(store):
    random = np.random.default_rng(store)
    anew = METHODS["global_magnitude"].finetuned_by(SCRATCH_E)
    lead, noise = random.choice([0.0, -0.01, 0.01]), random.choice([0.0005, 0.004])
    names = ("global_magnitude", anew)

    def accuracy(spec):
        own = np.random.default_rng([store, int(spec.key[:8], 16)]).standard_normal()
        better = lead * (spec.method.finetuning == SCRATCH_E)
        return 0.9 if spec.is_control else 0.9 + better - 0.01 * np.log2(spec.target) + noise * own

    results = [
        make_result(make_spec(method=name, compression=ratio, seed=seed), accuracy=accuracy)
        for name in names
        for ratio in (1, 2, 4, 8)
        for seed in range(4)
    ]
    (task,) = judge(observe(results)).tasks
    rows = [row for t in scratch_tables(results) if t.name == "scratch-conclusion" for row in t.rows]
    assert len(rows) == 3
    said = {row[-1].text for row in rows}
    decided = [c for c in (*task.pairs, *(level.claim for level in task.levels)) if c.decided]
    for claim in decided:
        scratch_leads = (claim.difference > 0) == ("scratch" in claim.first)
        assert not said & ({"worse"} if scratch_leads else {"better"})
    assert decided or lead == 0 or noise > 0.001


def test_what_lies_beside_published_curves_and_in_patterns_is_what_tables_have():
    results = make_results(pairs=[("cifar10", "resnet56")], methods=NAMES[:3])
    rows = observe(results).pruned
    means = rows.groupby(["method", "compression_target"])[["compression", "top1", "top1_change"]].mean()
    for series in series_of_runs(results):
        method = series.title.rpartition(", ")[2]
        assert [c.compression for c in series.columns] == pytest.approx([*means.loc[method]["compression"]])
    panels = [panel for found in overlay(to_frame(results)).found for panel in found.panels]
    (panel,) = (panel for panel in panels if (panel.x, panel.y) == ("compression", "top1_change"))
    assert len(panel.own) == 3
    for curve in panel.own:
        of_method = means.loc[curve.label.removesuffix(" (own)")]
        shown = [(point.x, point.y) for point in curve.points if point.x > 1]
        assert np.allclose(shown, of_method[["compression", "top1_change"]])


def test_published_findings_are_the_answers_of_the_report(monkeypatch):
    """The page of findings asks what a report compares, and corrects for its own questions."""
    monkeypatch.syspath_prepend(ROOT / "reproduce")
    asking = importlib.import_module("asking")
    bundle = asking.bundle_of("quickstart")
    (task,) = judge(observe(bundle.results)).tasks
    assert len(task.pairs) == 10
    for claim in task.pairs:
        asked = asking.ask(asking.Question("quickstart", claim.first, claim.second)).claim
        assert (asked.difference, asked.slack) == (claim.difference, claim.slack)
        assert (asked.low, asked.p_raw) == pytest.approx((claim.low, claim.p_raw))


@pytest.mark.parametrize("more", [(1.5, 3, 5, 6, 7), (3,), (6,)])
def test_amounts_that_a_method_alone_has_bring_it_no_bold_curve(more):
    """Of equal methods each keeps its control up to 4x of what all have, whoever was run at 6x too."""

    def accuracy(spec):
        return 0.9 if spec.is_control else 0.9 - 0.012 * max(0.0, np.log2(spec.target) - 1.9)

    pair = [("cifar10", "resnet20")]
    usual = make_results(pairs=pair, methods=NAMES[:3], accuracy=accuracy, compressions=(1, 2, 4, 8))
    results = usual + make_results(pairs=pair, methods=NAMES[:1], accuracy=accuracy, compressions=more)
    (table,) = summary_tables(observe(results))
    shown = {row[1].text: row[2] for row in table.rows}
    assert shown[NAMES[0]].text == f"{max(4, *(x for x in (*more, 4) if x < 7)):g}×"
    assert all(cell.best for cell in shown.values())
