"""Tasks of another metric than top-1 stand beside a comparison, not in it."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest
from made_results import make_results, write_store

from shrinkbench.report.checklist import gather
from shrinkbench.report.compared import split_by_metric
from shrinkbench.report.page.html import write_report
from shrinkbench.results.record import Quality
from shrinkbench.spec import DETECTION

CLASSIFIED = make_results(pairs=[("cifar10", "resnet20")])


def detected(result):
    """The same run of a detector: its metrics are other numbers."""
    data = result.spec.task.data.model_copy(update={"name": "boxes"})
    task = result.spec.task.model_copy(update={"objective": DETECTION, "data": data})
    spec = result.spec.model_copy(update={"task": task})
    found = {"after": Quality(metrics={"map50": 0.25}, examples=9), "before": None, "validation": None}
    return result.model_copy(update={"key": spec.key, "spec": spec, "epochs": (), "further": {}, **found})


DETECTED = [detected(result) for result in CLASSIFIED]


def words_of(index):
    text = re.sub(r"<(script|style).*?</\1>", "", index.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_a_comparison_is_the_same_with_and_without_them():
    split = split_by_metric([*DETECTED, *CLASSIFIED])
    assert sorted(r.key for r in split.compared) == sorted(r.key for r in CLASSIFIED)
    assert split_by_metric(CLASSIFIED).sentence == ""
    alone, mixed = gather(CLASSIFIED), gather([*CLASSIFIED, *DETECTED])
    assert mixed.observations.tasks == alone.observations.tasks
    pd.testing.assert_frame_equal(mixed.observations.pruned, alone.observations.pruned)


@pytest.mark.parametrize("results", [DETECTED, [*CLASSIFIED, *DETECTED]], ids=["alone", "beside others"])
def test_the_page_says_what_it_leaves_out_and_the_table_has_it(results, tmp_path):
    store = write_store(tmp_path / "store", results)
    report = write_report(store.root, tmp_path / "out", figures="none")
    sentence = (
        r"Not drawn, ranked or judged here, but in results.csv, are tasks of another metric: boxes / \S+ "
    )
    assert re.search(sentence + r"\(map50\)\.", words_of(report.index))
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(frame) == len(results)
    assert frame.loc[frame["dataset"] == "boxes", "map50"].dropna().eq(0.25).all()
    assert frame.loc[frame["dataset"] == "boxes", "top1"].isna().all()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', report.index.read_text())[1]
    assert len(json.loads(data)["ledger"]["key"]) == len(results)
