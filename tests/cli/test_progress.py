"""A line of progress tells the metric that the task leads with, as the report words it."""

import os
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest

from shrinkbench.cli.progress import Display
from shrinkbench.runner import sweep
from shrinkbench.spec import CLASSIFICATION, ExperimentSpec, MetricSpec, Objective, parse_value
from shrinkbench.tasks import TASKS


def line(capsys, objective, value):
    run = SimpleNamespace(
        spec=SimpleNamespace(task=SimpleNamespace(objective=objective)),
        headline=value,
        after={},
        error=None,
        status="done",
        provenance=SimpleNamespace(seconds=3.21),
    )
    Display().advance(SimpleNamespace(done=1, total=1, kind="run", label="of mine", share=1.0, result=run))
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("objective", "value", "told"),
    [
        (CLASSIFICATION, 0.91234, "top-1 91.23 %"),
        (TASKS.get("language_modelling")().objective, 12.3456, "perplexity 12.35"),
        (TASKS.get("regression")().objective, 0.51234, "RMSE 0.5123"),
        (TASKS.get("semantic_segmentation")().objective, 0.5, "mIoU 50.00 %"),
        (
            Objective(
                name="own",
                loss="mine",
                metrics=(MetricSpec(name="worst_angle", direction="lower", unit="degrees"),),
                headline="worst_angle",
            ),
            12.3456,
            "worst angle 12.35 degrees",
        ),
    ],
    ids=["classification", "language", "regression", "segmentation", "own"],
)
def test_a_finished_run_is_told_with_its_metric_and_unit(capsys, objective, value, told):
    assert line(capsys, objective, value) == f"[1/1] run of mine: {told}, 3.2 s"


def test_copies_of_controls_tell_nothing_of_the_time_that_is_left(tmp_path):
    """Each method's run of the control takes no time once the control is trained."""
    fields = {
        "name": "left",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["global_magnitude", "random", "layerwise_magnitude"],
        "compression": [1, 2],
        "seed": 0,
        "train_images": 64,
        "pretrain": {"epochs": 3},
        "finetune": {"epochs": 1},
    }
    told = []
    sweep(parse_value(ExperimentSpec, fields, where="test"), tmp_path, on_progress=told.append)
    assert [progress.done for progress in told] == [*range(1, 9)]
    steps = [b.share - a.share for a, b in pairwise(told)]
    whole = 4 + 2 + 3 * 2 + 3 * 0.02  # pretraining, the control, three pruned runs, three copies
    copies = [progress.result is not None and progress.result.spec.is_control for progress in told[1:]]
    expected = [0.02 / whole if copy else 2 / whole for copy in copies]
    assert steps == pytest.approx(expected)
    assert told[-1].share == pytest.approx(1.0)


SWEEP = """
import os, time
from shrinkbench.cli.progress import Display
with Display() as display:
    display.note("begun")
    time.sleep(1.0)
    for number in range(3):
        display.note("of nobody's interest")
print("nor is this")
os.write(int(os.environ["TOLD"]), b"ended")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such terminals")
def test_a_sweep_outlives_its_terminal(tmp_path):
    """Its output goes nowhere then: what it finds is stored."""
    ours, theirs = os.openpty()
    told, tell = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        pass_fds=[tell],
        env={**os.environ, "TOLD": str(tell), "TERM": "xterm"},
    )
    os.close(tell)
    seen = b""
    while b"begun" not in seen:
        seen += os.read(ours, 1000)
    os.close(theirs)
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert os.read(told, 100) == b"ended"
    os.close(told)
