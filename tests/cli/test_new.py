"""Templates run as they are written, and no file is overwritten unasked; every command takes plug-ins."""

import contextlib
import inspect

import pytest
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.cli.new import TEMPLATES
from shrinkbench.results.store import ResultStore

KINDS = ("experiment", "method", "network", "dataset", "task", "recipe")


def call(*arguments, cwd):
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, [*map(str, arguments)])
    return done.exit_code, done.output + str(done.exception or "")


def test_there_is_a_template_of_each_kind():
    assert {path.name.partition(".")[0] for path in TEMPLATES.iterdir()} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_is_overwritten_unasked(tmp_path, kind):
    name = f"there_{kind}" + (".toml" if kind == "experiment" else ".py")
    (tmp_path / name).write_text("mine")
    code, told = call("new", kind, "--out", name, cwd=tmp_path)
    assert code
    assert "is there already" in told
    assert (tmp_path / name).read_text() == "mine"
    assert call("new", kind, "--out", name, "--force", cwd=tmp_path)[0] == 0
    assert (tmp_path / name).read_text() != "mine"


SMALL = ("--set", "seed=0", "--set", "train_images=60", "--set", "test_images=50")


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        pytest.param("experiment", {}, marks=pytest.mark.slow),
        ("method", {"plugin": "new_method.py", "method": "my_method"}),
        pytest.param("network", {"model": "new_network.py:make_network"}, marks=pytest.mark.slow),
        pytest.param("dataset", {"dataset": "new_dataset.py:make_data"}, marks=pytest.mark.slow),
        ("task", {"task": "new_task.py:task"}),
        ("recipe", {"recipe": "new_recipe.py:make_recipe"}),
    ],
)
def test_each_template_runs(tmp_path, kind, settings):
    assert call("new", "experiment", cwd=tmp_path)[0] == 0
    if kind != "experiment":
        code, told = call("new", kind, "--out", f"new_{kind}.py", cwd=tmp_path)
        assert code == 0, told
    chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    code, told = call("sweep", "my_experiment.toml", "--out", "out", *SMALL, *chosen, cwd=tmp_path)
    assert code == 0, told
    results, _ = ResultStore(tmp_path / "out").results()
    assert {result.status for result in results} == {"done"}
    named = results[0].spec.model_dump_json() + "".join(r.spec.method.name for r in results)
    assert all(value in named for name, value in settings.items() if name not in ("plugin", "recipe"))
    assert kind != "recipe" or {result.spec.recipe.name for result in results} == {"my-recipe"}


def test_every_command_that_takes_a_part_takes_plugins():
    for command in app.registered_commands:
        names = set(inspect.signature(command.callback).parameters)
        if names & {"model", "method", "dataset", "experiment", "what", "fix"}:
            assert "plugins" in names, command.callback.__name__
