"""The published results: the page says what the bundles beside it hold, which agree with themselves."""

import dataclasses
import importlib
import shutil
import subprocess
from pathlib import Path

import pytest
from scipy import stats

from shrinkbench.pruning import METHODS
from shrinkbench.results.bundle import read_source

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = sorted((ROOT / "docs" / "results").glob("*.zip"))


def test_the_page_is_what_the_bundles_say(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(ROOT / "reproduce")
    findings = importlib.import_module("findings")
    findings.write_page(tmp_path)
    assert (tmp_path / "README.md").read_text() == (ROOT / "docs" / "results" / "README.md").read_text()


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_a_bundle_is_whole_and_consistent(path):
    bundle = read_source(path)
    assert bundle.results
    assert not bundle.problems
    assert not bundle.missing


@pytest.fixture
def reproduce(monkeypatch):
    """The modules that write the page."""
    monkeypatch.syspath_prepend(ROOT / "reproduce")
    return importlib.import_module


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_methods_are_of_the_versions_of_today(path):
    earlier = {
        (method.base, axis)
        for method in {r.spec.method.name: r.spec.method for r in read_source(path).results}.values()
        for axis in ("structure", "score", "allocation", "schedule", "finetuning")
        if getattr(method, axis).version != getattr(METHODS.get(method.name).spec, axis).version
    }
    assert not earlier


def test_of_a_resumed_folder_the_runs_of_the_plan_count(monkeypatch, tmp_path, reproduce):
    """What an earlier version of a method gave lies beside the later one, under the same name."""
    asking = reproduce("asking")
    source = next(path for path in BUNDLES if path.stem == "rethinking-figure-3-small")
    bundle = read_source(source)
    left = bundle.plan.runs[0].key
    plan = bundle.plan.model_copy(update={"runs": bundle.plan.runs[1:]})
    monkeypatch.setattr(asking, "read_source", lambda path: dataclasses.replace(bundle, plan=plan))
    asking.bundle_of.cache_clear()
    found = asking.bundle_of(source.stem)
    asking.bundle_of.cache_clear()
    assert len(found.results) == len(bundle.results) - 1
    assert left not in {r.key for r in found.results}


def test_questions_of_changes_and_controls_are_paired_t_tests(reproduce):
    asking, findings = reproduce("asking"), reproduce("findings")
    asked = [q for f in findings.FINDINGS for q in f.questions if q.other or q.second == asking.CONTROL]
    assert {q.metric for q in asked} == {"headline", "headline_change"}
    for q in asked:
        results = read_source(ROOT / "docs" / "results" / f"{q.bundle}.zip").results
        first = top1(results, q.first, q.task, q.level)
        control = top1(results, "", q.task, 1)
        if q.second == asking.CONTROL:
            second = control
        else:
            second = top1(results, q.second, q.other, q.level)
            if q.metric == "headline_change":
                first = {seed: value - control[seed] for seed, value in first.items()}
                control = top1(results, "", q.other, 1)
                second = {seed: value - control[seed] for seed, value in second.items()}
        claim = asking.ask(q).claim
        seeds = sorted(first)
        test = stats.ttest_rel([first[s] for s in seeds], [second[s] for s in seeds])
        assert claim.p_raw == pytest.approx(test.pvalue)
        interval = test.confidence_interval()
        assert (claim.low, claim.high) == pytest.approx((interval.low, interval.high))


def top1(results, method, task, ratio):
    """Top-1 by seed of a method's runs, or of the controls, of a network or a recipe of pretraining."""
    return {
        r.spec.seed: r.after["top1"]
        for r in results
        if r.spec.amount.ratio == ratio
        and r.spec.method.base == (method or r.spec.method.base)
        and task in f"{r.spec.model.name} {r.spec.task.weights.recipe and r.spec.task.weights.recipe.name}"
    }


def test_the_differences_thresholds_have_the_intervals_of_their_deviations(reproduce):
    noise = reproduce("noise")
    one = [noise.Part(2.25, 7)]
    low, high = stats.chi2.ppf([0.975, 0.025], 7)
    assert noise.combined(one) == pytest.approx((1.5, (2.25 * 7 / low) ** 0.5, (2.25 * 7 / high) ** 0.5))
    (four,) = [line for line in noise.noise() if line.startswith("- At 4x")]
    assert four.count("[") == 3


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(
    "failing", ["sweep rethinking-table-9-small", "sweep cifar10-resnet20-noise-small", ""]
)
def test_bundles_and_page_are_written_when_all_has_been_run(failing, tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name in ("shrinkbench", "python"):
        stop = f'case "$*" in "{failing} "*) exit 1;; esac\n' if failing else ""
        (tools / name).write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/log\n{stop}')
        (tools / name).chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "reproduce", "RESUME=1"], cwd=tmp_path, capture_output=True, check=False, timeout=60
    )
    log = (tmp_path / "log").read_text().splitlines()
    assert bool(done.returncode) == bool(failing)
    written = [line for line in log if line.startswith(("bundle", "reproduce/findings.py"))]
    if failing:
        assert not written
        return
    merged = {line.split()[1] for line in log if line.startswith("merge")}
    assert merged == {line.split()[3] for line in written if line.startswith("bundle")}
    assert {"docs/results/cifar10-resnet20-noise-small-1-thread.zip"} < merged
    assert log[-1] == "reproduce/findings.py"
    assert log.index(written[0]) > max(i for i, line in enumerate(log) if line.startswith("sweep"))
