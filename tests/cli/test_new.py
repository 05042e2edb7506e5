"""Templates run as they are written, and no file is overwritten unasked; every command takes plug-ins."""

import contextlib
import inspect
import shlex

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


SETTINGS = {
    "experiment": {},
    "method": {"plugin": "new_method.py", "method": "my_method"},
    "network": {"model": "new_network.py:make_network"},
    "dataset": {"dataset": "new_dataset.py:make_data"},
    "task": {"task": "new_task.py:task"},
    "recipe": {"recipe": "new_recipe.py:make_recipe"},
}


def sweep_templates(folder, *kinds):
    """Write the templates of ``kinds`` and sweep the template of an experiment with them."""
    settings = {name: value for kind in kinds for name, value in SETTINGS[kind].items()}
    assert call("new", "experiment", cwd=folder)[0] == 0
    for kind in kinds:
        if kind != "experiment":
            code, told = call("new", kind, "--out", f"new_{kind}.py", cwd=folder)
            assert code == 0, told
    chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    code, told = call("sweep", "my_experiment.toml", "--out", "out", *SMALL, *chosen, cwd=folder)
    assert code == 0, told
    results, _ = ResultStore(folder / "out").results()
    assert {result.status for result in results} == {"done"}
    named = results[0].spec.model_dump_json() + "".join(r.spec.method.name for r in results)
    assert all(value in named for name, value in settings.items() if name not in ("plugin", "recipe"))
    assert "recipe" not in kinds or {result.spec.recipe.name for result in results} == {"my-recipe"}


@pytest.mark.usefixtures("sweeps_here")
def test_the_templates_run_together(tmp_path):
    sweep_templates(tmp_path, *KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_each_template_runs(tmp_path, kind):
    sweep_templates(tmp_path, kind)


def test_every_command_that_takes_a_part_takes_plugins():
    for command in app.registered_commands:
        names = set(inspect.signature(command.callback).parameters)
        if names & {"model", "method", "dataset", "experiment", "what", "fix"}:
            assert "plugins" in names, command.callback.__name__


def test_commands_of_a_template_name_a_file_as_a_shell_takes_it(tmp_path):
    for kind in ("experiment", "network", "method"):
        name = "my own" + (".toml" if kind == "experiment" else ".py")
        code, told = call("new", kind, "--out", name, "--force", cwd=tmp_path)
        assert code == 0, told
        commands = [line for line in (tmp_path / name).read_text().splitlines() if "shrinkbench " in line]
        words = [word for line in commands if name in line for word in shlex.split(line.replace('"""', ""))]
        assert any(word.partition(":")[0] == name for word in words)
    code, told = call("new", "task", "--out", 'a"b.py', cwd=tmp_path)
    assert code
    assert "without quotes" in told
