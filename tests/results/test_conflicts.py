"""Other numbers under one key are kept, told, carried and ranked by nobody."""

import itertools
import json
import re

import pytest
from made_results import changed, make_result, make_results, make_spec, plain_accuracy, quality, write_store
from typer.testing import CliRunner

from shrinkbench.cli.exchange import app as exchange
from shrinkbench.cli.report import app
from shrinkbench.report.boards import rank_entries
from shrinkbench.report.leaderboard import find_disputed, write_leaderboard
from shrinkbench.report.page.html import write_report
from shrinkbench.report.statistics.observations import observe, observe_bundle
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.bundle import read_source, write_bundle
from shrinkbench.results.conflicts import describe_conflict, numbers_of, say_conflict
from shrinkbench.results.failures import is_scientific
from shrinkbench.results.merging import merge
from shrinkbench.results.store import ResultStore
from shrinkbench.results.verification import verify
from shrinkbench.spec import ExtraSpec

PAIR = [("cifar10", "resnet20")]


def shifted(by):
    return lambda spec: plain_accuracy(spec) + (0.0 if spec.is_control or spec.seed else by)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Three labs with the same runs: those of seed 0 come to other numbers in each."""
    root = tmp_path_factory.mktemp("labs")
    found = []
    for name, by in (("one", 0.0), ("two", 0.01), ("three", -0.02)):
        results = make_results(
            pairs=PAIR, methods=["random"], compressions=(1, 2, 4), seeds=(0, 1), accuracy=shifted(by)
        )
        found.append(write_store(root / name, results, name=name).root)
    return found


def kept(root):
    """Every set of numbers that a source holds, by key."""
    bundle = read_source(root)
    return {(result.key, numbers_of(result)) for result in (*bundle.results, *bundle.others)}


def test_every_order_and_any_repetition_of_merging_keeps_the_same_results(stores, tmp_path):
    found = []
    for number, order in enumerate(itertools.permutations(stores)):
        out = tmp_path / str(number)
        merge(order, out)
        first = read_source(order[0])
        used = {r.key: r.after for r in read_source(out).results}
        assert used == {r.key: r.after for r in first.results}  # the first is never replaced
        before = {p.relative_to(out): p.read_bytes() for p in out.glob("runs/**/*.json")}
        merge([out, *reversed(order)], out)
        assert {p.relative_to(out): p.read_bytes() for p in out.glob("runs/**/*.json")} == before
        found.append(kept(out))
    assert all(each == found[0] for each in found)
    assert len(found[0]) == 6 + 2 * 2  # two runs of seed 0, each with two other outcomes


def test_step_by_step_is_as_all_at_once_and_bundles_carry_it(stores, tmp_path):
    merge(stores, tmp_path / "at-once")
    merge(stores[1:], tmp_path / "two")
    write_bundle(tmp_path / "two", tmp_path / "two.zip")
    assert kept(tmp_path / "two.zip") == kept(tmp_path / "two")
    merge([stores[0], tmp_path / "two.zip"], tmp_path / "step")
    assert kept(tmp_path / "step") == kept(tmp_path / "at-once")


def test_a_merge_tells_them_and_verification_finds_them(stores, tmp_path):
    merged = merge(stores[:2], tmp_path / "out")
    assert merged.differing == len(merged.conflicts) == 2
    assert merged.largest_difference == pytest.approx(0.01)
    told = verify(read_source(tmp_path / "out"))
    assert len(told) == 2
    assert all("another source has other numbers" in sentence for sentence in told)


def test_a_conflict_in_loss_alone_names_loss_and_both_values(tmp_path):
    result = make_result(make_spec())
    other = result.model_copy(update={"after": changed(result.after, loss=2 * result.after["loss"])})
    for name, each in (("a", result), ("b", other)):
        ResultStore(tmp_path / name).write(each)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    conflicts = read_source(tmp_path / "out").conflicts
    loss = result.after["loss"]
    (_, told) = describe_conflict(*conflicts)
    assert told == f"after.loss {loss:.5g} is used, another source has {2 * loss:.5g}"
    assert f"not in top1 but in after.loss: {loss:.5g} and {2 * loss:.5g}" in say_conflict(conflicts)


def measured_further(result, by):
    """The same run, measured on another split beside, with accuracies ``by`` lower."""
    spec = result.spec.model_copy(update={"extra": (ExtraSpec(name="shifted", revision="ef" * 32),)})
    after = quality(result.after["top1"] - by)
    told = {"spec": spec, "key": spec.key, "after": after, "further": {"shifted": quality(0.5)}}
    return result.model_copy(update=told)


def apart(result):
    """The run from two more sources, which measured another split beside and have other numbers."""
    return measured_further(result, 0.1), measured_further(result, 0.2)


def test_a_run_that_was_measured_further_has_the_numbers_that_it_has_without(tmp_path):
    """What else is measured changes the key and not the training: so other numbers are a conflict too."""
    results = make_results(pairs=PAIR, methods=["random", "global_magnitude"], compressions=(1, 2, 4))
    alike = [measured_further(r, 0.0) for r in results if not r.spec.is_control]
    agreeing = write_store(tmp_path / "agreeing", [*results, *alike]).root
    assert read_source(agreeing).conflicts == ()
    other = next(r for r in results if r.spec.method.name == "random" and not r.spec.is_control)
    root = write_store(tmp_path / "apart", [*results, apart(other)[0]], name="apart").root
    bundle = read_source(root)
    assert bundle.disputed == {other.key, apart(other)[0].key}
    (said,) = [sentence for sentence in verify(bundle) if "measured on other splits" in sentence]
    assert f"{other.after['top1']:.4g}" in said
    assert "measured on other splits" in say_conflict(bundle.conflicts)
    assert "the same one measured on other splits beside, has" in describe_conflict(bundle.conflicts[0])[1]
    gaps = observe_bundle(bundle).gaps
    assert list(zip(gaps["method"], gaps["kind"], strict=True)) == [("random", "disputed")]
    merge([root, write_store(tmp_path / "third", apart(other)[1:]).root], tmp_path / "m")
    merge([tmp_path / "m", agreeing], tmp_path / "merged")
    assert kept(tmp_path / "merged") >= {(r.key, numbers_of(r)) for r in (other, *apart(other))}


def test_two_labs_of_which_one_measured_further_are_one_run_each(tmp_path):
    results = make_results(pairs=PAIR, methods=["random", "global_magnitude"], compressions=(1, 2, 4))
    bundles = [
        read_source(write_store(tmp_path / "one", results, name="one").root),
        read_source(
            write_store(tmp_path / "two", [measured_further(r, 0.2) for r in results], name="two").root
        ),
    ]
    (board,) = rank_entries(bundles, find_disputed(bundles)).boards
    assert {entry.rank for entry in board.entries} == {None}


def test_a_conflict_in_several_fields_counts_them():
    result = make_result(make_spec())
    after = changed(result.after, top1=result.after["top1"] / 2, loss=9.0)
    (_, told) = describe_conflict((result, result.model_copy(update={"after": after})))
    assert told.startswith(f"after.top1 {result.after['top1']} is used")
    assert told.endswith("(and 1 other field)")


def test_the_checklist_of_the_command_line_knows_disputed_and_missing_runs(stores, tmp_path):
    for source, words in ((stores[0], None), (_merged(stores[:2], tmp_path / "out"), "another accuracy")):
        assert (words is None) == (_raw_accuracy(source)["status"] == "satisfied")
    told = _raw_accuracy(tmp_path / "out")
    assert "Points with another accuracy, or none, in another source" in told["evidence"][0]
    assert len(told["runs"]) == 2
    store = ResultStore(tmp_path / "out")
    key = next(r.key for r in store.results()[0] if r.key not in told["runs"] and not r.spec.is_control)
    (store.run_dir(key) / "result.json").unlink()
    assert _raw_accuracy(tmp_path / "out")["evidence"][0].startswith("Planned points without a run: ")


def _merged(sources, out):
    merge(sources, out)
    return out


def _raw_accuracy(source):
    done = CliRunner().invoke(app, ["checklist", str(source), "--json"])
    assert done.exit_code == 0, done.output
    return next(line for line in json.loads(done.stdout)["lines"] if line["id"] == "raw-accuracy")


def test_noise_of_floating_point_is_no_conflict_and_one_image_is():
    result = make_result(make_spec())
    near = result.model_copy(update={"after": changed(result.after, loss=result.after["loss"] * (1 + 1e-8))})
    image = result.model_copy(update={"after": changed(result.after, top1=result.after["top1"] + 1e-4)})
    elsewhere = {"provenance": result.provenance.model_copy(update={"host": "elsewhere", "seconds": 1.0})}
    assert numbers_of(near) == numbers_of(result.model_copy(update=elsewhere)) == numbers_of(result)
    assert numbers_of(image) != numbers_of(result)


def test_a_conflict_that_is_not_what_its_name_says_is_a_problem(stores, tmp_path):
    merge(stores[:2], tmp_path / "out")
    first, second = sorted((tmp_path / "out").glob("runs/*/conflicts/*.json"))
    fields = json.loads(first.read_text())
    fields["after"]["metrics"]["top1"] -= 1e-4
    first.write_text(json.dumps(fields))
    second.write_text("{")
    found = read_source(tmp_path / "out")
    assert found.others == ()
    assert ["named by other numbers" in p.sentence or "whole JSON" in p.sentence for p in found.problems] == [
        True
    ] * 2


OF_THE_MACHINE = [
    *("killed", "OutOfMemoryError: CUDA out of memory.", "MemoryError: ", "OSError: No space left on device"),
    *("NotADirectoryError: [Errno 20] Not a directory: 'x'", "IsADirectoryError: [Errno 21] Is a directory"),
    *("BrokenProcessPool: a worker ended", "worker was killed by signal 9", "RuntimeError: NCCL error"),
]


@pytest.mark.parametrize("error", OF_THE_MACHINE)
def test_a_failure_of_the_machine_says_nothing_about_a_finished_run(error, tmp_path):
    spec = make_spec()
    ResultStore(tmp_path / "one").write(make_result(spec, failed=error))
    ResultStore(tmp_path / "two").write(make_result(spec))
    assert merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out").conflicts == ()
    assert not list((tmp_path / "out").glob("runs/*/conflicts"))


@pytest.mark.parametrize(
    "error",
    [
        "global_magnitude killed every unit of layer conv1",
        "the score killed all filters",
        "unable to write 3 bytes of mask file: score is NaN",
        "ValueError: CUDA driver",
        "Pruning was killed off: no channel left",
    ],
)
def test_a_failure_of_the_method_is_one_whatever_its_words(error):
    assert is_scientific(make_result(make_spec(), failed=error))


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """Two labs with the same runs, of which one failed in the second lab; the key of that run."""
    root = tmp_path_factory.mktemp("failing")
    results = make_results(pairs=PAIR, methods=["random", "global_magnitude"], compressions=(1, 2, 4))
    (victim,) = (r for r in results if (r.spec.method.name, r.spec.target, r.spec.seed) == ("random", 4, 1))
    broken = [make_result(r.spec, failed="the loss is not finite") if r is victim else r for r in results]
    return (
        write_store(root / "one", results, name="one").root,
        write_store(root / "two", broken, name="two").root,
        victim.key,
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_run_that_failed_elsewhere_is_a_conflict_whatever_the_order(failing, order, tmp_path):
    merged = merge([failing[n] for n in order], tmp_path / "out")
    assert [(a.status, b.status, a.key) for a, b in merged.conflicts] == [("done", "failed", failing[2])]
    for source in (tmp_path / "out", write_bundle(tmp_path / "out", tmp_path / "a.zip").source):
        bundle = read_source(source)
        assert not bundle.problems
        assert bundle.disputed == {failing[2]}
        assert "another source, or a later attempt, says that it failed" in " ".join(verify(bundle))
        assert "1 run has failed in another source" in say_conflict(bundle.conflicts)
        assert "the loss is not finite" in describe_conflict(*bundle.conflicts)[1]
        assert _raw_accuracy(source)["status"] == "violated"
    merge([tmp_path / "out", *failing[:2]], tmp_path / "out")  # once more: nothing is added or lost
    assert len(list((tmp_path / "out").glob("runs/*/conflicts/*.json"))) == 1


def test_the_merged_verdict_and_the_command_line_tell_of_a_failure_elsewhere(failing, tmp_path):
    done = CliRunner().invoke(exchange, ["merge", *map(str, failing[:2]), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "failed (the loss is not finite)" in done.stderr
    verdict = reach_verdict(observe_bundle(read_source(tmp_path / "out")))
    assert "Not compared: random (1 disputed run (4x; seed 1))" in verdict.headline
    assert "1 run has two outcomes, or its control has (random 1)" in " ".join(verdict.warnings)


def test_a_method_whose_run_failed_elsewhere_has_no_rank(failing):
    bundles = [read_source(source) for source in failing[:2]]
    (board,) = rank_entries(bundles, find_disputed(bundles)).boards
    ranks = [(entry.rank, entry.method) for entry in board.entries]
    assert ranks == [(1, "global_magnitude"), (None, "random (one)"), (None, "random (two)")]


def test_the_first_screen_of_the_report_says_so(stores, tmp_path):
    merge(stores[:2], tmp_path / "out")
    for source, count in ((tmp_path / "out", 1), (stores[0], 0)):
        text = write_report(source, tmp_path / "report", figures="none").index.read_text(encoding="utf-8")
        verdict = text[text.index('id="verdict"') : text.index("</ul>", text.index('id="verdict"'))]
        assert (
            verdict.count("2 runs have other numbers in another source under the same key, by up to 0.01")
            == count
        )
    write_bundle(tmp_path / "out", tmp_path / "a.zip")
    assert "2 runs have other numbers" in write_report(
        tmp_path / "a.zip", tmp_path / "report", figures="none"
    ).index.read_text(encoding="utf-8")


@pytest.mark.usefixtures("without_figures")
def test_entries_of_disputed_runs_have_no_rank(stores, tmp_path):
    undisputed = make_results(pairs=PAIR, methods=["global_magnitude"], compressions=(1, 2, 4), seeds=(0, 1))
    three = write_store(tmp_path / "three", undisputed, name="third").root
    page = write_leaderboard([*stores[:2], three], tmp_path / "board").index.read_text(encoding="utf-8")
    rows = re.findall(r"<tr><td>(.*?)</td><th scope=\"row\">(.*?)</th>", page)
    ranks = [(re.sub("<[^>]*>", "", rank), re.sub("<wbr>", "", name)) for rank, name in rows]
    assert ranks == [("1", "global_magnitude"), ("no rank", "random (one)"), ("no rank", "random (two)")]
    assert page.count("2 runs have other numbers under the same key in another source") == 2


def with_other_control(results, method, by):
    """The same results, where a method stored controls of its own with other numbers."""
    return [
        r.model_copy(update={"after": quality(r.after["top1"] + by)})
        if r.spec.is_control and r.spec.method.name == method
        else r
        for r in results
    ]


TWO = ["global_magnitude", "layerwise_magnitude", "random"]
CONTROLS = with_other_control(make_results(pairs=PAIR, methods=TWO, compressions=(1, 2, 4)), "random", -0.05)


def test_a_control_with_two_sets_of_numbers_is_a_conflict_and_neither_is_used(tmp_path):
    root = write_store(tmp_path / "store", CONTROLS).root
    observations = observe_bundle(read_source(root))
    assert observations.control.empty  # of two numbers none is picked
    assert observations.pruned["headline_change"].isna().all()
    assert set(observations.gaps["kind"]) == {"disputed"}
    assert len(observations.gaps) == 3 * 2 * 3
    verdict = reach_verdict(observations)
    assert "its control" not in verdict.headline
    assert any(w.startswith("18 runs have two outcomes, or their control has") for w in verdict.warnings)
    told = say_conflict(read_source(root).differing_controls)
    assert told.startswith("3 controls have other numbers under the keys of two methods")
    assert "by up to 0.05 of top1" in told
    page = write_report(root, tmp_path / "report", figures="none").index.read_text()
    assert "3 controls have other numbers" in page
    found = CliRunner().invoke(app, ["status", str(root)])
    assert "conflict: 3 controls have other numbers" in found.stderr


def test_order_does_not_decide_which_control_is_used():
    for results in (CONTROLS, CONTROLS[::-1]):
        assert observe(results).control.empty


def test_controls_of_two_labs_that_differ_are_told_by_merge_and_block_ranks(tmp_path):
    labs = [
        write_store(
            tmp_path / name, [r for r in CONTROLS if (r.spec.method.name == "random") == own], name=name
        )
        for name, own in (("one", False), ("two", True))
    ]
    assert not merge([lab.root for lab in labs], tmp_path / "merged").conflicts
    again = ["merge", *(str(lab.root) for lab in labs), "--out", str(tmp_path / "again")]
    assert "conflict: 3 controls have other numbers" in CliRunner().invoke(exchange, again).stderr
    bundles = [read_source(lab.root) for lab in labs]
    (board,) = rank_entries(bundles, find_disputed(bundles)).boards
    assert {entry.rank for entry in board.entries} == {None}


def test_what_only_one_copy_of_a_control_measured_is_no_conflict():
    results = [
        r.model_copy(update={"before": None, "layers": {}})
        if r.spec.is_control and r.spec.method.name == "random"
        else r
        for r in make_results(pairs=PAIR, methods=TWO, compressions=(1, 2))
    ]
    assert len(observe(results).control) == 3
    assert observe(results).gaps.empty


def test_a_control_that_failed_for_one_method_alone_says_nothing_of_the_others():
    results = [
        make_result(r.spec, failed="ValueError: loss is not finite")
        if r.spec.is_control and r.spec.method.name == "random" and r.spec.seed == 1
        else r
        for r in make_results(pairs=PAIR, methods=TWO, compressions=(1, 2))
    ]
    assert sorted(observe(results).control["seed"]) == [0, 1, 2]
    assert observe(results).gaps.empty


def failing_later(root, *, error="ValueError: loss is not finite", name="made"):
    """A store whose first run that prunes failed when it was tried again."""
    store = write_store(root, make_results(pairs=PAIR, methods=["random"], compressions=(1, 2, 4)), name=name)
    (victim,) = [
        r for r in store.results()[0] if (r.spec.target, r.spec.seed) == (2, 0) and not r.spec.is_control
    ]
    assert store.write(make_result(victim.spec, failed=error)).name == "failure.json"
    return store, victim


def test_a_later_failure_of_a_run_that_is_done_is_a_second_outcome(tmp_path):
    store, victim = failing_later(tmp_path / "store")
    bundle = read_source(store.root)
    assert bundle.disputed == {victim.key}
    assert "1 run has failed in another source, or later," in say_conflict(bundle.conflicts)
    assert "a later attempt" in " ".join(verify(bundle))
    assert "conflict: 1 run has failed" in CliRunner().invoke(app, ["status", str(store.root)]).stderr
    page = write_report(store.root, tmp_path / "report", figures="none").index.read_text()
    assert "1 run has failed in another source, or later," in page
    (board,) = rank_entries([bundle], find_disputed([bundle])).boards
    assert {entry.rank for entry in board.entries} == {None}
    write_bundle(store.root, tmp_path / "made.zip")
    carried = read_source(tmp_path / "made.zip")
    assert carried.disputed == {victim.key}
    assert carried.digest == bundle.digest


def test_a_later_failure_of_the_machine_says_nothing(tmp_path):
    store, _ = failing_later(tmp_path / "store", error="MemoryError")
    assert not read_source(store.root).conflicts


def test_two_folders_of_one_content_stand_under_both_names(tmp_path):
    results = make_results(pairs=PAIR, methods=["random"], compressions=(1, 2, 4))
    roots = [write_store(tmp_path / name, results, name=name).root for name in ("one", "two")]
    page = write_leaderboard(roots, tmp_path / "board").index.read_text()
    assert "one and two" in page


def test_other_training_losses_under_one_key_are_a_conflict(tmp_path):
    first = make_result(make_spec())
    epochs = tuple(e.model_copy(update={"train_loss": 1.5 * e.train_loss}) for e in first.epochs)
    for name, result in (("one", first), ("two", first.model_copy(update={"epochs": epochs}))):
        ResultStore(tmp_path / name).write(result)
    merged = merge([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    assert len(merged.conflicts) == 1
    assert read_source(tmp_path / "out").disputed == {first.key}
    assert "epochs.1.train_loss" in say_conflict(merged.conflicts)


def test_an_empty_folder_is_not_consistent_with_itself(tmp_path):
    (tmp_path / "runs").mkdir()
    found = CliRunner().invoke(exchange, ["bundle", str(tmp_path), "--verify"])
    assert found.exit_code != 0
    assert "consistent" not in found.stdout
