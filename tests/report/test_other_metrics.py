"""Reports by the metric that each task leads with: named, with its unit, and better where it is better."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
from made_results import make_results, write_store
from sampling import sampled

from shrinkbench.report.checklist import judge as judge_lines
from shrinkbench.report.page.html import write_report
from shrinkbench.report.pareto import find_points
from shrinkbench.report.pitfalls import find_pitfalls
from shrinkbench.report.result_tables import all_tables
from shrinkbench.report.statistics.claims import judge
from shrinkbench.report.statistics.compare import curve_summaries
from shrinkbench.report.statistics.metrics import Metric
from shrinkbench.report.statistics.observations import observe
from shrinkbench.report.verdict import reach_verdict
from shrinkbench.results.record import Quality
from shrinkbench.spec import MetricSpec, Objective
from shrinkbench.tasks.language_modelling import LANGUAGE_MODELLING

METHODS = ("global_magnitude", "layerwise_magnitude", "random")
PLAIN = make_results(pairs=[("cifar10", "resnet20")], methods=METHODS)


def objective(name, direction="lower", unit="", lower=None, upper=None):
    metric = MetricSpec(name=name, direction=direction, unit=unit, lower=lower, upper=upper)
    return Objective(name=f"learn_{name}", loss="made", metrics=(metric,), headline=name)


def of_another(results, other, value, *, data="elsewhere"):
    """The same runs of another task, whose headline is ``value`` of their top-1."""

    def quality(found):
        made = value(found["top1"])
        rest = {metric.name: found["loss" if metric.name == "loss" else "top1"] for metric in other.metrics}
        return None if made is None else Quality(metrics=rest | {other.headline: made}, examples=9)

    changed = []
    for result in results:
        where = result.spec.task.data.model_copy(update={"name": data})
        task = result.spec.task.model_copy(update={"objective": other, "data": where})
        spec = result.spec.model_copy(update={"task": task})
        epochs = tuple(
            e.model_copy(update={"validation": {other.headline: value(e.validation["top1"])}})
            for e in result.epochs
        )
        fields = {name: quality(getattr(result, name)) for name in ("before", "after", "validation")}
        changed.append(result.model_copy(update={"key": spec.key, "spec": spec, "epochs": epochs, **fields}))
    return changed


def perplexity(top1):
    return math.exp(4 * (1 - top1))


LOWER = of_another(PLAIN, LANGUAGE_MODELLING, perplexity, data="text")


def headline_of(results):
    return reach_verdict(observe(results)).headline


def words_of(index):
    page = index.read_text(encoding="utf-8").replace("<wbr>", "")
    text = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_perplexity_leads_with_the_lowest():
    text = headline_of(LOWER)
    assert "global_magnitude averages perplexity " in text
    assert re.search(r"\(its control 1\.\d+\), 0\.\d+ \(95 % interval 0\.\d+ to 0\.\d+\) below layer", text)
    assert "%" not in re.sub(r"95 % interval|difference of 1 %", "", text)
    assert "top-1" not in text
    assert "point" not in text


def test_the_order_is_that_of_the_same_runs_by_accuracy():
    high, low = observe(PLAIN), observe(LOWER)
    levels = (judge(found).tasks[0].levels for found in (high, low))
    for one, two in zip(*levels, strict=True):
        assert one.claim.first == two.claim.first
    assert find_points(high)["on_parameters_kept"].tolist() == find_points(low)["on_parameters_kept"].tolist()
    within = curve_summaries(low).set_index("method")["largest_within"]
    rows = low.pruned.assign(
        ratio=low.pruned["headline"] / (low.pruned["headline"] - low.pruned["headline_change"])
    )
    means = rows.groupby(["method", "compression"])["ratio"].mean()
    for method, kept in within.items():
        beyond = [c for c, ratio in means[method].items() if ratio > 1.01]
        assert kept == max([1.0, *(c for c in means[method].index if c < min(beyond, default=math.inf))])
    assert (low.pruned["perplexity_change"].dropna() == low.pruned["headline_change"]).all()


def test_tables_checklist_and_pitfalls_name_it():
    observations = observe(LOWER)
    tables = {table.name: table for table in all_tables(observations)}
    captions = " ".join(table.caption for table in tables.values())
    assert "top-1" not in captions
    assert "within 1 % of the perplexity" in captions
    (pairs,) = (table for name, table in tables.items() if name.startswith("pairs"))
    assert pairs.columns[2] == "better by"
    assert "second minus first (positive: first is better)" in pairs.caption
    first = {row[0].text: row[2].text for row in pairs.rows if row[1].text == "random"}
    assert first["global_magnitude"].startswith("+")
    lines = {line.id: line for line in judge_lines(LOWER)}
    assert lines["range"].figure == "figures/perplexity-compression.svg"
    assert "accuracy" not in " ".join(lines["range"].evidence)
    assert lines["both-accuracies"].status == "inapplicable"
    assert all("accura" not in p.finding for p in find_pitfalls(LOWER, observations))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A page of three tasks: two by top-1, one by perplexity."""
    results = [*make_results(methods=METHODS)[: len(PLAIN) * 2], *LOWER]
    folder = tmp_path_factory.mktemp("mixed")
    store = write_store(folder / "store", results)
    return results, write_report(store.root, folder / "report", figures="none").index


def test_tasks_of_another_metric_have_their_answers_and_no_part_in_claims_over_tasks(mixed):
    results, index = mixed
    claims = judge(observe(results))
    assert len(claims.over_tasks.units) == 2
    text = words_of(index)
    assert (
        "Over 2 tasks on 1 dataset and 2 networks, each over its own range, global_magnitude has the highest"
        in text
    )
    assert "Not part of it: text / resnet20 (perplexity)." in text
    assert "perplexity 1." in text
    frame = pd.read_csv(index.parent / "results.csv")
    own = frame["dataset"] == "text"
    assert frame.loc[own, "perplexity"].notna().all()
    assert frame.loc[own, "top1"].isna().all()
    data = json.loads(re.search(r'id="data">(.*?)</script>', index.read_text(), flags=re.DOTALL)[1])
    leading = {task["dataset"]: task["metrics"][0]["key"] for task in data["tasks"]}
    assert leading == {"cifar10": "top1", "text": "perplexity"}
    for name in ("curve-summary-top1", "curve-summary-perplexity"):
        assert (index.parent / "tables" / f"{name}.tex").exists()


HOSTILE = {
    "no bounds, lower, negative": (objective("energy"), lambda a: -10 * a),
    "a lower top1": (objective("top1", unit="fraction", lower=0, upper=1), lambda a: 1 - a),
    "huge": (LANGUAGE_MODELLING, lambda a: 1e9 * math.exp(4 * (1 - a))),
    "tiny": (objective("error", lower=0), lambda a: 1e-9 * (1 - a)),
    "a column's name": (objective("seed", "higher", upper=1), lambda a: a),
    "a derived column's name": (objective("loss_std", "higher"), lambda a: a),
    "no headline": (LANGUAGE_MODELLING, lambda a: None if a < 0.85 else perplexity(a)),
    "zero": (objective("gap", "lower"), lambda a: max(0.0, 0.9 - a)),
    "markup": (objective("<b>&_%", "higher", unit="<i>"), lambda a: a),
    "one value": (objective("flat", "lower"), lambda a: 3.0),
    "crossing zero": (objective("score", "higher"), lambda a: a - 0.8),
    "infinite": (objective("big", "higher"), lambda a: 3e38 * a),
}


@pytest.mark.parametrize("name", sampled(list(HOSTILE), every=4))
def test_hostile_metrics_have_a_report(name, tmp_path):
    other, value = HOSTILE[name]
    kept = PLAIN if name != "no headline" else [r for r in PLAIN if r.spec.amount.ratio < 16]
    changed = of_another(kept, other, value if name != "no headline" else perplexity)
    if name == "no headline":
        lost = Quality(metrics={"loss": 1.0}, examples=9)
        changed = [r.model_copy(update={"after": lost}) if r.spec.seed == 2 else r for r in changed]
    with np.errstate(all="raise", under="ignore"):
        report = write_report(
            write_store(tmp_path / "store", [*changed, *PLAIN]).root, tmp_path / "report", figures="none"
        )
    text = report.index.read_text()
    assert "<b>&_%" not in text
    assert "nan" not in words_of(report.index).lower().split()
    best = {t.task: t for t in judge(observe(changed)).tasks}
    assert len(best) == 1


def test_two_tasks_with_one_name_and_other_directions_are_not_averaged():
    error = objective("top1", unit="fraction", lower=0, upper=1)
    results = [*make_results(methods=METHODS)[: len(PLAIN) * 2], *of_another(PLAIN, error, lambda a: 1 - a)]
    observations = observe(results)
    assert len(observations.scales) == 2
    assert len(judge(observations).over_tasks.units) == 2
    assert "(top1)" in reach_verdict(observations).headline
    assert len({table.name for table in all_tables(observations)}) == len(all_tables(observations))


@pytest.mark.parametrize("percent", [True, False])
def test_negative_values_are_written_in_one_way(percent):
    metric = Metric("r2", "R²", "R²", percent=percent)
    said = [say(-0.1234) for say in (metric.number, metric.text, metric.said, metric.named, metric.difference)]
    said += [*metric.bounds(-0.5, -0.1), metric.interval(-0.5, 0.1), metric.plus_minus(-0.3, 0.1)]
    assert all("−" in text and "-" not in text for text in said)


def test_an_objective_without_its_headline_is_none():
    with pytest.raises(ValueError, match="the headline 'x' is none of the metrics y"):
        Objective(name="n", loss="l", metrics=(MetricSpec(name="y", direction="lower", unit=""),), headline="x")
