"""A leaderboard says what a report says, and compares only what answers one question, by value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_results import FINETUNE, METHODS, make_result, make_results, make_spec, plain_accuracy, write_store

from shrinkbench.report import leaderboard
from shrinkbench.report.boards import rank_entries
from shrinkbench.report.leaderboard import find_disputed, write_leaderboard
from shrinkbench.report.recommendation import between
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.bundle import Bundle, read_source
from shrinkbench.spec import CLASSIFICATION, ModelSpec, WeightsSpec

PAIR = [("cifar10", "resnet20")]
MAGNITUDE, RANDOM = METHODS["global_magnitude"], METHODS["random"]
OTHER_CODE = MAGNITUDE.model_copy(update={"score": MAGNITUDE.score.model_copy(update={"source": "f" * 64})})


def grid(method="global_magnitude", **changes):
    """A method at two compressions with its control; ``changes`` are of the task."""
    specs = [make_spec(method=method, compression=c) for c in (1, 2, 4)]
    return [s.model_copy(update={"task": s.task.model_copy(update=changes)}) for s in specs]


def made(methods, *, seeds=(0, 1, 2), compressions=(1, 2, 4, 8), accuracy=plain_accuracy, pairs=PAIR):
    return make_results(pairs=pairs, methods=methods, seeds=seeds, compressions=compressions, accuracy=accuracy)


def failing(results, method, compression, seed):
    """The same results, where one run failed."""
    return [
        make_result(r.spec, failed="out of memory")
        if (r.spec.method.name, r.spec.target, r.spec.seed) == (method, compression, seed)
        else r
        for r in results
    ]


def ranked(*labs, names=()):
    """The boards of bundles with the results of each lab."""
    bundles = [
        Bundle(
            name=names[n] if names else f"lab-{n}",
            source=Path(f"{n}.zip"),
            plan=None,
            results=tuple(lab),
            problems=(),
        )
        for n, lab in enumerate(labs)
    ]
    return rank_entries(bundles, find_disputed(bundles)).boards


def order(board):
    return [(entry.rank, entry.method) for entry in board.entries]


DATA = make_spec().data
DIFFERENT = {
    "subsets": [grid(), grid(data=DATA.model_copy(update={"train_images": 100}))],
    "versions of the data": [grid(), grid(data=DATA.model_copy(update={"revision": "cd" * 32}))],
    "code of the network": [grid(), grid(model=ModelSpec(name="resnet20", source="a" * 64))],
    "files of weights of one name": [
        grid(weights=WeightsSpec(kind="file", name="w", digest=digit * 64)) for digit in "12"
    ],
    "recipes of one name": [
        grid(),
        [s.model_copy(update={"recipe": FINETUNE.model_copy(update={"epochs": 3})}) for s in grid()],
    ],
    "objectives": [grid(), grid(objective=CLASSIFICATION.model_copy(update={"source": "a" * 64}))],
}


@pytest.mark.parametrize("labs", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_by_value_has_a_board_and_a_title_of_its_own(labs):
    boards = ranked(*(list(map(make_result, specs)) for specs in labs))
    assert [order(board) for board in boards] == [[(1, "global_magnitude")]] * 2
    assert len({board.title for board in boards}) == 2
    assert all(len(board.controls) == 1 for board in boards)


def test_methods_of_one_name_are_told_apart():
    other = [s.model_copy(update={"method": OTHER_CODE}) for s in grid()]
    (board,) = ranked(list(map(make_result, grid())), list(map(make_result, other)))
    assert len({entry.method for entry in board.entries}) == 2


FOUR = ("global_magnitude", "layerwise_magnitude", "global_gradient", "random")
STORES = {
    "clean": made(FOUR),
    "a failed seed of the best": failing(made(FOUR), "global_gradient", 4.0, 1),
    "a failure at the end": failing(made(FOUR), "global_magnitude", 8.0, 0),
    "a method at 2x only": [*made(FOUR[:3]), *made(("random",), compressions=(1, 2))],
    "other seeds": [*made(FOUR[:3]), *made(("random",), seeds=(5, 6, 7))],
    "one seed": made(FOUR, seeds=(0,)),
    "tasks": made(FOUR, pairs=[*PAIR, ("imagenet", "resnet18"), ("cifar10", "resnet56")]),
    "one method": made(("random",)),
    "two methods without a common seed": [*made(FOUR[:1]), *made(("random",), seeds=(7, 8))],
}


@pytest.mark.parametrize("results", STORES.values(), ids=STORES)
def test_the_report_and_the_leaderboard_say_the_same(results):
    observations = observe(results)
    claims, verdict = judge(observations), reach_verdict(observations)
    boards = ranked(results)
    assert [board.title for board in boards] == list(observations.tasks)
    for board, said in zip(boards, verdict.tasks, strict=True):
        assert board.sentences == said.sentences
        task = claims.of(board.title)
        means = dict(zip(task.block.methods, task.block.means, strict=True))
        first = sorted(means, key=lambda method: -means[method])
        assert [e.method for e in board.entries if e.rank is not None] == first
        assert {e.method: e.why for e in board.entries if e.rank is None} == {
            one.method: one.why for one in task.block.left_out
        }
        for entry in board.entries[1 : len(first)]:
            assert entry.mean.mean == means[entry.method]
            lead = between(task.pairs, first[0], entry.method)
            found, expected = ((c.difference, c.low, c.high, c.p) for c in (entry.lead, lead))
            assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("intruder", "why"),
    [
        (made(("random",), seeds=(5, 6, 7)), "no finished run of seed 0, 1, 2"),
        (made(("random",), compressions=(1, 2)), "ends at 2×"),
        (failing(made(("random",)), "random", 4.0, 1), "1 failed run (4x; seed 1)"),
        (
            [make_result(r.spec, failed="no") for r in made(("random",))],
            "9 failed runs (2x, 4x, 8x; seed 0, 1, 2)",
        ),
    ],
)
def test_who_is_left_out_has_no_rank_and_changes_nobody_elses(intruder, why):
    (alone,) = ranked(made(FOUR[:3]))
    (board,) = ranked(made(FOUR[:3]), intruder)
    *others, last = board.entries
    assert (last.rank, last.method, last.why) == (None, "random", why)
    assert [(e.rank, e.method, e.mean) for e in others] == [(e.rank, e.method, e.mean) for e in alone.entries]
    assert board.reach == alone.reach


def test_seeds_of_two_labs_are_paired():
    (board,) = ranked(made(("global_magnitude",)), made(("random",)))
    first, second = board.entries
    assert (first.method, second.method) == ("global_magnitude", "random")
    assert second.lead.n == second.seeds == 3
    assert second.lead.difference == pytest.approx(first.mean.mean - second.mean.mean)


def test_runs_that_two_labs_share_are_one_entry():
    both = made(("global_magnitude", "random"))
    (board,) = ranked(both, [*made(("random",), seeds=(0, 1, 2, 3)), *made(("global_gradient",))])
    shared = next(entry for entry in board.entries if entry.method == "random")
    assert len(shared.sources) == 2
    assert shared.rank == 3


def test_one_method_without_common_seeds_is_an_entry_of_each_lab():
    labs = [made(("global_magnitude", "random")), made(("random",), seeds=(7, 8))]
    (board,) = ranked(*labs)
    assert order(board) == [(1, "global_magnitude"), (2, "random (lab-0)"), (None, "random (lab-1)")]
    (board,) = ranked(*labs, names=("lab", "lab"))
    assert len({entry.method for entry in board.entries}) == 3
    assert re.fullmatch(r"random \(lab [0-9a-f]{6}\)", board.entries[-1].method)


def shifted(name, by):
    def accuracy(spec):
        chosen = spec.is_control if name == "control" else spec.method.name == name and not spec.is_control
        return plain_accuracy(spec) + by * chosen

    return accuracy


def test_who_is_contradicted_has_no_rank_and_does_not_count():
    (alone,) = ranked(made(("global_magnitude", "layerwise_magnitude")))
    labs = [made(FOUR[:2]), made(("random",)), made(("random",), accuracy=shifted("random", -0.02))]
    (board,) = ranked(*labs)
    assert order(board)[:2] == order(alone)
    assert order(board)[2:] == [(None, "random (lab-1)"), (None, "random (lab-2)")]
    assert [entry.disputed for entry in board.entries] == [False, False, True, True]
    assert [e.lead.p for e in board.entries[1:2]] == [e.lead.p for e in alone.entries[1:2]]


def test_a_control_with_other_numbers_takes_the_rank_of_all_that_start_from_it():
    labs = [made(("random", "global_magnitude")), made(("random",), accuracy=shifted("control", 0.01))]
    (board,) = ranked(*labs)
    assert {entry.rank for entry in board.entries} == {None}
    assert board.sentences == (
        "No run that prunes is finished and undisputed: sources contradict each other on 18 finished runs, "
        "or on their control.",
    )


def test_a_control_that_two_labs_measured_otherwise_is_told_and_nobody_is_ranked_by_it():
    """They stored it under keys of two methods; it is one run all the same."""
    other = made(("random",), accuracy=lambda spec: plain_accuracy(spec) - (0.06 if spec.is_control else 0))
    (board,) = ranked(made(("global_magnitude",)), other)
    assert [row.name for row in board.controls] == ["control (lab-0)", "control (lab-1)"]
    first, second = (row.value.mean for row in board.controls)
    assert first - second == pytest.approx(0.06)
    assert board.note == "Sources have other numbers of the same control, by up to 6.00 points"
    assert {entry.rank for entry in board.entries} == {None}
    assert {entry.disputed for entry in board.entries} == {True}


def test_the_control_has_a_row_with_mean_deviation_and_n():
    (board,) = ranked(made(("random",)))
    (row,) = board.controls
    values = [plain_accuracy(make_spec(compression=1, seed=seed)) for seed in range(3)]
    assert (row.name, row.value.n) == ("control", 3)
    assert row.value.mean == pytest.approx(sum(values) / 3)
    (board,) = ranked(made(("random",), compressions=(2, 4)))
    assert board.controls == ()


def test_the_control_is_that_of_the_seeds_that_are_ranked():
    """A lab with seeds of its own is not ranked, and its controls do not count."""
    (alone,) = ranked(made(FOUR))
    (board,) = ranked(made(FOUR), made(("random",), seeds=(3, 4, 5)))
    assert board.reach.endswith("seeds 0, 1, 2")
    assert board.controls == alone.controls
    assert board.controls[0].value.n == 3
    more = made(("random",), seeds=(0, 1, 2, 7))
    assert ranked(made(FOUR), more)[0].controls == alone.controls


def test_missing_runs_of_the_plan_are_gaps_until_another_lab_has_them(tmp_path):
    results = made(FOUR[:3])
    cell = ("global_gradient", 4.0, 1)
    lost = [r for r in results if (r.spec.method.name, r.spec.target, r.spec.seed) == cell]
    store = write_store(tmp_path / "one", results)
    store.result_path(lost[0].key).unlink()
    bundles = [read_source(store.root), read_source(write_store(tmp_path / "two", lost, name="two").root)]
    (alone,) = rank_entries(bundles[:1], frozenset()).boards
    assert alone.entries[-1].why == "1 missing run (4x; seed 1)"
    (both,) = rank_entries(bundles, frozenset()).boards
    assert both.entries[0].method == "global_gradient"
    assert both.entries[0].rank == 1


def test_the_page_shows_boards_by_data_and_network_with_all_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "_write_evidence", lambda *_: None)
    results = made(FOUR[2:], pairs=[*PAIR, ("imagenet", "resnet18")], seeds=(0, 1), compressions=(1, 2, 4))
    one = write_store(tmp_path / "one", failing(results, "random", 4.0, 1))
    two = write_store(tmp_path / "two", made(("random",), seeds=(0, 1), compressions=(1, 2, 4, 8)), name="two")
    page = write_leaderboard([one.root, two.root], tmp_path / "out").index.read_text(encoding="utf-8")
    plain = re.sub(r"<wbr>", "", page)
    assert set(re.findall(r'href="#(board-\d)"', plain)) == set(re.findall(r'<section id="(board-\d)"', plain))
    assert plain.count('<tr class="control">') == 2
    assert "global_gradient averages" in plain
    assert "1 failed run (4x; seed 1)" in plain
