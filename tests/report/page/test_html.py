"""The report as files: complete, offline, repeatable, tolerant of damage, fast enough."""

import base64
import itertools
import json
import re
import subprocess
import sys
import time

import pandas as pd
import pytest
from made_results import FIGURE_6, make_result, make_results, make_spec, plain_accuracy, quality, write_store
from places import SHARED

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.report.page.html import write_report
from shrinkbench.results.merging import merge
from shrinkbench.spec import ExtraSpec

ONE_PAIR = [("cifar10", "resnet20")]


def payload(index):
    text = index.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    store = write_store(
        root / "store",
        make_results(tilts=FIGURE_6, pairs=[*ONE_PAIR, ("cifar10", "resnet56"), ("digits", "digits-cnn")]),
    )
    return store, write_report(store.root, root / "out", figures="all")


def test_every_promised_file_is_there(written):
    _, report = written
    out = report.index.parent
    for metric in ("top1", "top5"):
        for axis in ("compression", "theoretical-speedup"):
            for extension in ("svg", "pdf", "png"):
                assert (out / "figures" / f"{metric}-{axis}.{extension}").stat().st_size > 1000
    for extension in ("tex", "md", "csv"):
        assert (out / "tables" / f"curve-summary.{extension}").is_file()
    assert all(path.is_file() for path in report.files)
    assert (out / "references.bib").read_text().startswith("% ")


def test_tables_hold_every_run(written):
    store, report = written
    out = report.index.parent
    results = store.results()[0]
    csv, parquet = pd.read_csv(out / "results.csv"), pd.read_parquet(out / "results.parquet")
    assert len(csv) == len(parquet) == len(results) == report.runs
    assert list(csv["key"]) == list(parquet["key"])
    assert csv["top1"].tolist() == parquet["top1"].tolist()


def test_the_page_needs_nothing_but_itself(written):
    text = written[1].index.read_text(encoding="utf-8")
    outside = re.findall(r'(?:src|href)="(?!#)([^"]*)"', text)
    assert all(not re.match(r"(?:https?:)?//", address) for address in outside)
    local = [a for a in outside if not a.startswith("data:")]
    assert local
    assert all((written[1].index.parent / address).is_file() for address in local)
    assert "default-src 'none'" in text


def test_the_page_is_marked_up_for_everyone(written):
    text = written[1].index.read_text(encoding="utf-8")
    assert '<html lang="en">' in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for control in re.findall(r"<(?:select|input)[^>]*>", text):
        before = text[: text.index(control)]
        assert before.rfind("<label") > before.rfind("</label>"), control
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for drawing in re.findall(r"<svg[^>]*>", text):
        assert "aria-label" in drawing or "aria-hidden" in drawing


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_texts_have_contrast(written):
    text = written[1].index.read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text)) | {"page": "#ffffff"}
    for ink, back in [
        ("ink", "page"),
        ("soft", "page"),
        ("soft", "panel"),
        ("accent", "page"),
        ("good", "good-back"),
        ("bad", "bad-back"),
        ("open", "open-back"),
    ]:
        assert contrast(colours[ink], colours[back]) >= 4.5, (ink, back)


def test_the_control_is_drawn_once_per_seed_not_per_method(written):
    data = payload(written[1].index)
    assert data["controls"]["cifar10 / resnet20"]["control"]["top1"]["n"] == 3
    assert "control" not in data["curves"]["cifar10 / resnet20"]


def test_curves_stand_at_what_was_achieved(written):
    store, report = written
    data = payload(report.index)
    runs = [
        r
        for r in store.results()[0]
        if (r.spec.model.name, r.spec.method.name, r.spec.target) == ("resnet20", "random", 8)
    ]
    curve = data["curves"]["cifar10 / resnet20"]["random"]
    at = curve["amount"].index("8×")
    tops = pd.Series([r.after["top1"] for r in runs])
    assert curve["compression"][at] == pytest.approx(runs[0].size.compression, rel=1e-5)
    assert curve["top1"]["mean"][at] == pytest.approx(tops.mean(), rel=1e-5)
    assert curve["top1"]["std"][at] == pytest.approx(tops.std(ddof=1), rel=1e-5)
    assert (curve["n"][at], sorted(curve["top1"]["seeds"][at])) == (3, sorted(tops))


def test_the_same_store_gives_the_same_bytes(tmp_path):
    store = write_store(
        tmp_path / "store", make_results(pairs=ONE_PAIR, methods=["random", "global_magnitude"])
    )
    first = write_report(store.root, tmp_path / "a")
    assert not [path for path in first.files if path.name.startswith("top5-") and path.suffix == ".svg"]
    second = write_report(store.root, tmp_path / "b")
    assert len(first.files) == len(second.files) > 20
    for path in first.files:
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


@pytest.mark.slow
def test_a_second_report_replaces_its_own_files_and_no_others(tmp_path):
    out = tmp_path / "out"
    big = write_store(tmp_path / "big", make_results(methods=["random"], seeds=(0, 1)))
    first = write_report(big.root, out, figures="none")
    (out / "tables" / "mine.tex").write_text("kept")
    (out / "figures").mkdir(exist_ok=True)
    (out / "figures" / "mine.pdf").write_text("kept")
    (out / "files.json").write_text(
        json.dumps([*json.loads((out / "files.json").read_text()), "../big/plan.json"])
    )
    small = write_store(tmp_path / "small", make_results(pairs=ONE_PAIR, methods=["random"], seeds=(0, 1)))
    second = write_report(small.root, out, figures="none")
    gone = set(first.files) - set(second.files)
    assert len(gone) > 5
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in second.files)
    assert (out / "tables" / "mine.tex").exists()
    assert (out / "figures" / "mine.pdf").exists()
    assert (tmp_path / "big" / "plan.json").exists()


def test_results_stand_beside_published_ones(written):
    report = written[1]
    text = report.index.read_text(encoding="utf-8")
    section = text[text.index('id="published"') : text.index('id="pitfalls"')]
    assert "<h3>cifar10 / resnet56</h3>" in section
    assert "Own network: resnet56" in section  # the notes
    assert "digits / digits-cnn: the corpus has no curve" in section
    drawing = re.search(r'src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', section)
    stem = report.index.parent / "published" / "overlay-cifar10-resnet56"
    assert base64.b64decode(drawing[1]) == stem.with_suffix(".svg").read_bytes()
    assert "own methods in colour" in drawing[2]
    points = pd.read_csv(stem.with_suffix(".csv"))
    assert set(points["side"]) == {"own", "published"}
    assert stem.with_suffix(".csv") in report.files


@pytest.mark.slow
def test_another_corpus_is_laid_beside(tmp_path):
    exported = SHARED / "data" / "corpus"
    if not exported.is_dir():
        pytest.skip(f"{exported} is absent")
    store = write_store(
        tmp_path / "store", make_results(pairs=[("cifar10", "resnet20")], methods=["random"], seeds=(0, 1))
    )
    text = write_report(store.root, tmp_path / "out", corpus=exported).index.read_text(encoding="utf-8")
    assert "<h3>cifar10 / resnet20</h3>" in text
    assert f"published ones (the corpus in {exported})" in text
    with pytest.raises(ShrinkbenchError, match="there is no folder"):
        write_report(store.root, tmp_path / "no", corpus=tmp_path / "nowhere")
    assert not (tmp_path / "no").exists()


def test_a_store_of_failures_alone_has_nothing_to_lay_beside(tmp_path):
    result = make_result(make_spec(), failed="out of memory")
    text = write_report(write_store(tmp_path / "store", [result]).root, tmp_path / "out").index.read_text()
    assert "No task here has a published counterpart" in text


def test_damaged_files_are_named_and_counted_and_nothing_else_is_lost(tmp_path):
    store = write_store(
        tmp_path / "store", make_results(pairs=ONE_PAIR, methods=["random", "global_magnitude"])
    )
    paths = sorted(store.root.glob("runs/*/result.json"))
    paths[0].write_text(paths[0].read_text()[:200])
    paths[1].write_text('{"loss": 1}')
    paths[2].write_text(json.dumps(json.loads(paths[2].read_text()) | {"schema_version": 3}))
    (store.root / "plan.json").write_text("{")
    report = write_report(store.root, tmp_path / "out", figures="none")
    assert report.runs == len(paths) - 3
    assert len(report.problems) == 4
    text = report.index.read_text(encoding="utf-8")
    assert "4 files skipped" in text
    assert "<b>unknown</b> how many runs were planned" in text
    for path in paths[:3]:
        assert path.parent.name in text
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == len(paths) - 3


def test_conflicts_of_results_are_listed(tmp_path):
    made = make_results(pairs=ONE_PAIR, methods=["random"], seeds=(0,))
    other = [*made[:-1], make_result(made[-1].spec, accuracy=lambda _: 0.42)]
    sources = [write_store(tmp_path / name, runs).root for name, runs in (("a", made), ("b", other))]
    merge(sources, tmp_path / "both")
    text = write_report(tmp_path / "both", tmp_path / "out", figures="none").index.read_text(encoding="utf-8")
    assert "<b>1</b> conflict</a>" in text
    assert "another source has 0.42" in text


def test_nothing_to_report_is_one_sentence(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(ShrinkbenchError, match="holds no results; run a sweep"):
        write_report(tmp_path, tmp_path / "out")
    with pytest.raises(ShrinkbenchError, match="there is no bundle or results folder"):
        write_report(tmp_path / "nowhere", tmp_path / "out")


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path):
    store = write_store(tmp_path / "store", make_results(pairs=ONE_PAIR, methods=["random"], seeds=(0,)))
    (tmp_path / "file").write_text("")
    with pytest.raises(ShrinkbenchError, match="choose a folder that can be written"):
        write_report(store.root, tmp_path / "file")


MEAGRE = {
    "one run": lambda: make_results(pairs=ONE_PAIR, methods=["random"], seeds=(0,), compressions=(4,)),
    "control only": lambda: make_results(pairs=ONE_PAIR, methods=["random"], compressions=(1,)),
    "no control": lambda: make_results(
        pairs=ONE_PAIR, methods=["random", "global_magnitude"], compressions=(4, 8)
    ),
    "failures only": lambda: [
        make_result(make_spec(seed=s), failed="no memory <b>& none</b>") for s in range(2)
    ],
    "no layers": lambda: [
        r.model_copy(
            update={
                "layers": {},
                "weight_histogram": None,
                "epochs": (),
                "epochs_run": None,
                "selected_epoch": None,
            }
        )
        for r in make_results(pairs=ONE_PAIR, methods=["random", "global_magnitude"])
    ],
    "disjoint seeds": lambda: (
        make_results(pairs=ONE_PAIR, methods=["random"], seeds=(0, 1))
        + make_results(pairs=ONE_PAIR, methods=["global_magnitude"], seeds=(2, 3))
    ),
    "all wrong": lambda: make_results(pairs=ONE_PAIR, accuracy=lambda spec: 0.1),
}


@pytest.mark.parametrize("kind", MEAGRE)
def test_meagre_results_still_give_a_report(tmp_path, kind):
    store = write_store(tmp_path / "store", MEAGRE[kind]())
    report = write_report(store.root, tmp_path / "out", figures="none")
    text = report.index.read_text(encoding="utf-8")
    assert "nan" not in re.sub(
        r"[\w-]*nan[\w-]+|[\w-]+nan\b", "", text.split("<main")[1].lower().split("<script")[0]
    )
    assert "<b>& none</b>" not in text


def test_two_recipes_and_two_weights_make_tasks_of_their_own(tmp_path):
    def accuracy(spec):
        return plain_accuracy(spec) - (0.01 if spec.weights.name == "B" else 0.0)

    results = make_results(pairs=ONE_PAIR, methods=["random"], weights=("A", "B"), accuracy=accuracy)
    store = write_store(tmp_path / "store", results)
    data = payload(write_report(store.root, tmp_path / "out", figures="none").index)
    assert [task["label"] for task in data["tasks"]] == ["cifar10 / resnet20 / A", "cifar10 / resnet20 / B"]
    assert [task["variant"] for task in data["tasks"]] == ["A", "B"]


def test_extra_evaluation_splits_are_columns_metrics_and_tables(tmp_path):
    extra = (ExtraSpec(name="cifar10.1", revision="1"),)
    results = []
    for r in make_results(pairs=ONE_PAIR, methods=["random", "global_magnitude"]):
        spec = r.spec.model_copy(update={"extra": extra})
        further = {"cifar10.1": quality(r.after["top1"] - 0.05, 2000)}
        results.append(r.model_copy(update={"key": spec.key, "spec": spec, "further": further}))
    store = write_store(tmp_path / "store", results)
    report = write_report(store.root, tmp_path / "out", figures="none")
    assert "cifar10.1_top1" in [metric["key"] for metric in payload(report.index)["tasks"][0]["metrics"]]
    assert (tmp_path / "out" / "tables" / "cifar10.1_top1-cifar10-resnet20.csv").is_file()
    assert "cifar10.1_top1" in pd.read_csv(tmp_path / "out" / "results.csv").columns


def test_reporting_needs_no_torch():
    program = (
        "import sys, shrinkbench.report.page.html, shrinkbench.report.leaderboard, shrinkbench.report.gaps;"
        "sys.exit(int('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_two_thousand_runs_take_seconds_and_megabytes(tmp_path):
    pairs = [(d, m) for d in ("cifar10", "cifar100", "imagenet") for m in ("resnet20", "resnet56", "resnet18")]
    results = make_results(pairs=pairs, seeds=range(6))
    assert len(results) > 2000
    store = write_store(tmp_path / "store", results)
    program = "import sys; from pathlib import Path; from shrinkbench.report.page.html import write_report; "
    program += "write_report(Path(sys.argv[1]), Path(sys.argv[2]))"
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, store.root, tmp_path / "out"], check=True)
    assert time.perf_counter() - start < 10
    assert (tmp_path / "out" / "index.html").stat().st_size < 4e6


@pytest.mark.slow
def test_of_many_tasks_the_first_screen_says_once_what_holds_for_all(tmp_path):
    pairs = [("cifar10", f"resnet{depth}") for depth in (20, 32, 44, 56)]
    made = make_results(pairs=pairs, methods=["random", "global_magnitude"], seeds=(0, 1))
    short = [r for r in made if r.spec.method.name != "random" or r.spec.seed == 0]
    for folder, results, tasks in (("few", made[: len(made) // 2], 2), ("many", short, 4)):
        store = write_store(tmp_path / folder, results)
        text = write_report(store.root, tmp_path / "out", figures="none").index.read_text(encoding="utf-8")
        details = text[text.index('<details class="by-task"') : text.index('<dl class="recommended"')]
        assert (" open>" in details) == (tasks <= 3)
        assert f"({tasks} tasks)" in details
    answers = text[text.index('<details class="by-task"') : text.index("</dl>")]
    said = "Other seeds, which too few methods share, were left out: 1."
    assert answers.count(said) == 1
    assert answers.index(said) < answers.index("<dl")


def test_a_page_is_called_by_all_of_its_experiments(tmp_path):
    """One of several parts is not what the results are of."""
    results = make_results(pairs=ONE_PAIR, methods=["random", "global_magnitude"], compressions=(1, 2, 4))
    store = write_store(tmp_path / "store", results[:9], name="study-a")
    write_store(store.root, results[9:], name="study-b")
    page = write_report(store.root, tmp_path / "out", figures="none").index.read_text()
    assert "<h1>study-a and study-b</h1>" in page
    assert page.count('<p class="soft">Made results.</p>') == 1


def test_an_exact_tie_is_called_one(tmp_path):
    results = make_results(
        pairs=ONE_PAIR,
        methods=["random", "global_magnitude"],
        seeds=(0, 1),
        accuracy=lambda spec: 0.9 if spec.is_control else 0.8,
    )
    store = write_store(tmp_path / "store", results)
    text = write_report(store.root, tmp_path / "out", figures="none").index.read_text(encoding="utf-8")
    wins = re.findall(r'<td class="wins[^>]*>(.*?)</td>', text)
    cells = [re.sub("<[^>]*>", " ", cell) for cell in wins if "–" not in cell]
    assert cells
    names = [c.replace("_ ", "_") for c in cells]
    assert all("random = global_magnitude" in c or "global_magnitude = random" in c for c in names)
    assert all("tie" in c and " over " not in c for c in cells)


def test_what_turns_text_around_is_written_out(tmp_path):
    made = make_result(make_spec())
    provenance = made.provenance.model_copy(update={"host": "a\u202eb\x1b\x9bc"})
    write_store(tmp_path / "store", [made.model_copy(update={"provenance": provenance})])
    text = write_report(tmp_path / "store", tmp_path / "out", figures="none").index.read_text(encoding="utf-8")
    assert not {"\u202e", "\x1b", "\x9b"} & set(text)
    assert r"a\u202eb\u001b\u009bc" in text
