"""Short labels of methods: given in an experiment or by a method, shown in figures and tables, in no key."""

import json
import re

import pytest
from made_results import make_results, write_store

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, pruning_method
from shrinkbench.report.page.html import write_report
from shrinkbench.report.page.origin import as_toml
from shrinkbench.report.short_labels import labels_table, short_labels
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.tables import Cell, Table
from shrinkbench.results.labels import label_runs
from shrinkbench.results.store import ResultStore
from shrinkbench.runner.planning import label_methods, plan
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import ExperimentSpec, read_experiments

LABELS = {"global_magnitude": "GM", "layerwise_magnitude": "LM"}
PAIR = [("cifar10", "resnet20")]


def experiment(**fields):
    return ExperimentSpec(
        **{
            "name": "e",
            "dataset": "digits",
            "model": "digits-cnn",
            "method": ["global_magnitude", "layerwise_magnitude"],
            "compression": [1, 2],
            **fields,
        }
    )


@pytest.mark.parametrize(
    "labels",
    [
        {"global_magnitude": "M", "layerwise_magnitude": "M"},
        {"global_magnitude": "layerwise_magnitude"},
        {"global_magnitude": ""},
        {"global_magnitude": " M"},
        {"global_magnitude": "M" * 25},
    ],
)
def test_labels_that_do_not_tell_are_refused(labels, tmp_path):
    text = as_toml(experiment()) + "\n[labels]\n" + "\n".join(f'{k} = "{v}"' for k, v in labels.items())
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(ShrinkbenchError, match="labels"):
        read_experiments(tmp_path / "e.toml")


def test_a_label_of_no_method_is_refused_and_parts_share_labels(tmp_path):
    path = tmp_path / "e.toml"
    base = 'name = "e"\ndataset = "digits"\nmodel = "m"\ncompression = [1, 2]\n'
    parts = '[[part]]\nname = "a"\nmethod = "one"\n[[part]]\nname = "b"\nmethod = ["two", "three"]\n'
    path.write_text(f'{base}labels = {{ one = "1", "two" = "2" }}\n{parts}')
    assert [grid.labels for grid in read_experiments(path)] == [{"one": "1"}, {"two": "2"}]
    path.write_text(f'{base}labels = {{ four = "4" }}\n{parts}')
    with pytest.raises(ShrinkbenchError, match="'four'"):
        read_experiments(path)


def test_labels_stand_in_the_file_that_gives_the_grid(tmp_path):
    odd = experiment(method=["random@global_gradient"], labels={"random@global_gradient": 'r "at" g'})
    (tmp_path / "e.toml").write_text(as_toml(odd))
    assert read_experiments(tmp_path / "e.toml") == (odd,)


def test_no_key_knows_a_label(tmp_path):
    workspace = Workspace(root=tmp_path)
    plain, labelled = (plan(experiment(labels=labels), workspace).runs for labels in ({}, LABELS))
    assert [run.key for run in plain] == [run.key for run in labelled]
    assert "GM" not in json.dumps([run.model_dump(mode="json") for run in labelled])


def test_a_method_brings_its_label_and_the_file_wins():
    if "labelled_for_a_test" not in METHODS:

        @pruning_method("labelled_for_a_test", label="LT")
        def labelled_for_a_test(ctx):
            """Weights as they are."""
            return dict(ctx.weights)

    name = "labelled_for_a_test"
    varied = f"{name}[allocation=layerwise]"
    assert label_methods(experiment(method=name)).labels == {name: "LT"}
    assert label_methods(experiment(method=name, labels={name: "mine"})).labels == {name: "mine"}
    assert label_methods(experiment(method=[name, varied])).labels == {name: "LT"}
    with pytest.raises(ShrinkbenchError, match="'LT'"):
        label_methods(experiment(method=[name, "random"], labels={"random": "LT"}))
    plain = experiment()
    assert label_methods(plain) is plain


def test_short_labels_keep_what_tells_methods_apart():
    results = make_results(pairs=PAIR, seeds=(0,))
    specs = [result.spec for result in results]
    classifier = [spec.model_copy(update={"prune_classifier": True}) for spec in specs]
    long, short = (label_runs([*specs, *classifier], names=names) for names in ({}, LABELS))
    for a, b in zip(long, short, strict=True):
        known = next((name for name in LABELS if a.method.split(" + ")[0] == name), None)
        assert b.method == (a.method.replace(known, LABELS[known]) if known else a.method)
        assert (a.task, a.control_key, a.amount) == (b.task, b.control_key, b.amount)


def test_two_experiments_may_not_call_two_methods_one_name(tmp_path):
    results = make_results(pairs=PAIR, seeds=(0,))
    store = write_store(tmp_path, results)
    first = store.read_plan().experiments[0]
    for index, labels in enumerate(({"random": "X"}, {"global_gradient": "X"})):
        store.write_plan(first.model_copy(update={"name": f"e{index}", "labels": labels}), [])
    assert short_labels(observe(results), results, store.read_plan()) == {}


def test_a_table_is_relabelled_in_its_headings_only():
    table = Table("t", "", ("method", "x"), ((Cell("a"), Cell("a")), (Cell("b"), Cell("a"))))
    texts = [[cell.text for cell in row] for row in table.relabelled({"a": "A"}).rows]
    assert texts == [["A", "a"], ["b", "a"]]


def test_the_report_uses_labels_and_says_which_is_which(tmp_path):
    results = make_results(pairs=PAIR, seeds=(0, 1), methods=["global_magnitude", "layerwise_magnitude"])
    store = write_store(tmp_path / "s", results)
    labelled = store.read_plan().experiments[0].model_copy(update={"labels": LABELS})
    ResultStore(tmp_path / "s").write_plan(labelled, [r.spec for r in results])
    write_report(tmp_path / "s", tmp_path / "r", figures="none")
    tables = {path.stem: path.read_text() for path in (tmp_path / "r" / "tables").glob("*.csv")}
    assert tables["labels"].splitlines() == ["label,method", "GM,global_magnitude", "LM,layerwise_magnitude"]
    for name, text in tables.items():
        if name != "labels":
            assert "_magnitude" not in text, name
    assert re.search(r"^GM,", tables["top1-cifar10-resnet20"], re.M)
    assert "global_magnitude" in (tmp_path / "r" / "results.csv").read_text()  # data keep the full names
    assert labels_table(LABELS).columns == ("label", "method")
    page = (tmp_path / "r" / "index.html").read_text(encoding="utf-8")
    verdict = page[page.index('id="verdict"') : page.index('id="curves"')]
    assert "GM" in verdict
    assert "magnitude" not in verdict.replace("<wbr>", "")
    chart = json.loads(re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])
    assert {m["name"] for m in chart["methods"]} == {"GM", "LM"}
    assert all(set(methods) == {"GM", "LM"} for methods in chart["curves"].values())
