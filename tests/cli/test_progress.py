"""A line of progress tells the metric that the task leads with, as the report words it."""

from types import SimpleNamespace

import pytest

from shrinkbench.cli.progress import Display
from shrinkbench.spec import CLASSIFICATION, MetricSpec, Objective
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
    Display().advance(SimpleNamespace(done=1, total=1, kind="run", label="of mine", result=run))
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
