"""A sweep with a report for each of six kinds of task, as docs/tasks.md shows: short, and whole if slow."""

import re

import pytest
from places import ROOT
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.runner import sweep
from shrinkbench.spec import read_experiments

PAGE = (ROOT / "docs" / "tasks.md").read_text()
BLOCKS = re.findall(r"```(?:python|toml)\n(# (\S+)\n.*?)```", PAGE, flags=re.DOTALL)
SHORT = {
    "method": ("global_magnitude", "random"),
    "compression": (1.0, 2.0),
    "seed": (0, 1),
    "train_images": 64,
    "validation_images": 8,
    "test_images": 32,
}
TOLD = {
    "quickstart": r"averages \d+\.\d % \(",
    "diabetes": r"averages RMSE [\d.]+ \(.* (below|level with) ",
    "shapes": r"averages mIoU \d+\.\d % \(",
    "boxes": r"averages mAP \d+\.\d % \(",
    "language-small": r"averages perplexity [\d.]+ \(.* (below|level with) ",
    "order": r"averages \d+\.\d % \(",
}


def experiment_of(name, folder):
    """The experiment of that name, with its parts beside it."""
    for text, file in BLOCKS:
        (folder / file).write_text(text)
    shipped = ROOT / "experiments" / f"{name}.toml"
    return shipped if shipped.exists() else folder / f"{name}.toml"


def shortened(spec):
    """The same with few runs, each of one epoch."""
    return spec.model_copy(update={**SHORT, "finetune": {"epochs": 1}, "pretrain": {"epochs": 1}})


def headline_of(report):
    page = (report / "index.html").read_text()
    found = re.search(r'<p class="headline">(.*?)</p>', page, flags=re.DOTALL)[1]
    return re.sub(r"<[^>]+>", "", found)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n == "language-small" else n for n in TOLD]
)
def test_a_short_sweep_of_each_task_has_a_report_that_leads_with_its_metric(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiments = [shortened(spec) for spec in read_experiments(experiment_of(name, tmp_path))]
    status = sweep(experiments, tmp_path / "out", device="cpu")
    assert (status.done, status.failed, status.missing) == (8, 0, 0)
    told = CliRunner().invoke(app, ["report", "out", "--figures", "none"])
    assert told.exit_code == 0, told.output
    assert re.search(TOLD[name], headline_of(tmp_path / "out" / "report"))


@pytest.mark.parametrize("method", ["global_gradient", "wanda", "random@snip"])
def test_methods_that_score_on_data_are_refused_for_detectors_before_anything_runs(
    method, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (spec,) = read_experiments(experiment_of("boxes", tmp_path))
    asked = shortened(spec).model_copy(update={"method": (method,)})
    with pytest.raises(ShrinkbenchError, match=f"'{method}' scores on data, and the batches of 'detection'"):
        sweep([asked], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TOLD if name != "quickstart"])
def test_the_whole_sweep_of_each_task_from_the_command_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["sweep", str(experiment_of(name, tmp_path)), "--out", "out"])
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(app, ["report", "out"]).exit_code == 0
    assert re.search(TOLD[name], headline_of(tmp_path / "out" / "report"))
