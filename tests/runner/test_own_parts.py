"""Networks, datasets, recipes and tasks of one's own, named by their file, from the command line."""

import contextlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import commands
import pytest
import torch
from places import ROOT
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.bundle import read_source, write_bundle
from shrinkbench.results.frame import to_frame
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import read_experiments

PARTS = '''
import torch
from torch import nn

from shrinkbench.tasks import Metric, Supervised
{imports}

def make_network():
    """Two layers that add three numbers up."""
    return nn.Sequential(nn.Linear(3, {width}), nn.ReLU(), nn.Linear({width}, 1))


def make_data():
    """Sums of three random numbers."""
    inputs = torch.rand(120, 3)
    targets = inputs.sum(1, keepdim=True)
    return (inputs[:90], targets[:90]), (inputs[90:], targets[90:])


def distance(outputs, targets):
    return (outputs - targets).abs().squeeze(1)


task = Supervised(nn.functional.mse_loss, {{"distance": Metric(distance, "lower", lower=0)}})
recipe = dict(optimizer="adam", learning_rate=0.01, batch_size=32, epochs=1)
'''
GRID = """
name = "sums"
dataset = "{name}.py:make_data"
model = "{name}.py:make_network"
task = "{name}.py:task"
recipe = "{name}.py:recipe"
pretrain_recipe = {{name = "first", optimizer = "adam", learning_rate = 0.02, batch_size = 32, epochs = 2}}
method = ["global_magnitude", "global_gradient"]
compression = [1, 2]
"""


def write(folder, name, *, width="8", imports=""):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(PARTS.format(width=width, imports=imports))
    (folder / f"{name}.toml").write_text(GRID.format(name=name))
    return folder / f"{name}.toml"


def in_process(*arguments, cwd):
    """A process of its own: what it knows of files, it learns from the arguments."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def shrinkbench(*arguments, cwd):
    """The command line, in this process."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, [*map(str, arguments)])
    told = str(done.exception) if isinstance(done.exception, ShrinkbenchError) else done.stderr
    return SimpleNamespace(returncode=done.exit_code, stdout=done.stdout, stderr=told)


@pytest.mark.slow
def test_a_sweep_of_own_parts_from_another_folder_with_workers(tmp_path):
    toml = write(tmp_path / "mine", "sums_cli")
    out = tmp_path / "out"
    done = in_process("-m", "shrinkbench", "sweep", toml, "--out", out, "--workers", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results, problems = ResultStore(out).results()
    assert not problems
    assert {r.status for r in results} == {"done"}
    assert {r.spec.model.name for r in results} == {"sums_cli.py:make_network"}
    (objective,) = {r.spec.task.objective for r in results}
    assert (objective.headline, objective.metric("distance").direction) == ("distance", "lower")
    task = results[0].spec.task
    assert task.model.source == task.data.source == objective.source is not None
    assert str(tmp_path) not in (out / "plan.json").read_text()  # where a file lies is in no plan
    assert shrinkbench("report", out, cwd=tmp_path).returncode == 0
    write_bundle(out, tmp_path / "sums.zip")
    bundle = read_source(tmp_path / "sums.zip")
    assert [*bundle.sources[task.model.source]] == ["sums_cli.py"]  # the source is carried
    # What a stored plan names is not run unasked.
    refused = shrinkbench("checklist", out, "--fix", "--plan", cwd=tmp_path)
    assert refused.returncode
    assert "load it with --plugin" in refused.stderr
    assert f"plugins/{task.model.source}/sums_cli.py" in refused.stderr
    allowed = shrinkbench(
        "checklist", out, "--fix", "--plan", "--plugin", toml.with_suffix(".py"), cwd=tmp_path
    )
    assert allowed.returncode == 0, allowed.stderr


KEYS = """
import sys
from pathlib import Path
from shrinkbench.runner import Workspace, plan
from shrinkbench.runner.own_parts import take_own_parts
from shrinkbench.spec import read_experiments
(grid,), _ = take_own_parts(read_experiments(Path(sys.argv[1])))
print(*(run.key for run in plan(grid, Workspace(root=Path("out"))).runs))
"""


def keys_of(folder, name):
    """In a process of its own, as code that has changed is refused within one."""
    done = in_process("-c", KEYS, folder / f"{name}.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.slow
def test_an_edit_of_the_file_or_of_what_it_imports_makes_other_runs_and_moving_it_does_not(tmp_path):
    write(tmp_path / "a", "keyed", width="helper.WIDTH", imports="import helper\n")
    (tmp_path / "a" / "helper.py").write_text("WIDTH = 4\n")
    before = keys_of(tmp_path / "a", "keyed")
    (tmp_path / "a").rename(tmp_path / "b")
    assert keys_of(tmp_path / "b", "keyed") == before
    (tmp_path / "b" / "helper.py").write_text("WIDTH = 5\n")
    assert not keys_of(tmp_path / "b", "keyed") & before


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('model = "none.py:make"', "there is none at"),
        ('model = "sums_bad.py:make_netwrk"', "has nothing called 'make_netwrk'; it defines make_network"),
        ('model = "sums_bad.py:recipe"', "name a function or class that returns a fresh network"),
        ('dataset = "sums_bad.py:recipe"', "name a function, and let it return"),
        ('task = "sums_bad.py:make_data"', "is no task"),
        ('task = "detection"', "follow from its data"),
        ('recipe = "sums_bad.py:make_data"', "let it be a Recipe"),
        ('recipe = {optimizer = "adam"}', "the recipe table: the key 'learning_rate' is missing"),
        ('method = "sums_bad.py:make_data"', "is not named by a file"),
    ],
)
def test_mistakes_are_told_in_one_sentence_before_anything_runs(tmp_path, line, sentence):
    path = write(tmp_path, "sums_bad")
    field = line.partition(" =")[0]
    kept = [each for each in path.read_text().splitlines() if not each.startswith(f"{field} =")]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ShrinkbenchError) as caught:
        sweep(read_experiments(path), tmp_path / "out")
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
    assert not (tmp_path / "out" / "plan.json").exists()


@pytest.mark.parametrize("line", ['task = "regression"\ntest_images = 1', 'task = "regression"'])
def test_test_targets_that_are_all_alike_are_refused_before_anything_runs(tmp_path, line):
    path = write(tmp_path, "alike")
    (tmp_path / "alike.py").write_text(
        (tmp_path / "alike.py").read_text().replace("targets[90:]", "targets[90:] * 0")
    )
    path.write_text(path.read_text().replace('task = "alike.py:task"', line))
    with pytest.raises(ShrinkbenchError, match="R² is undefined on the test split: a number is the same"):
        sweep(read_experiments(path), tmp_path / "out")


def test_two_different_files_of_one_name_are_refused(tmp_path):
    one, other = (write(tmp_path / folder, "twin", width=width) for folder, width in (("a", "4"), ("b", "5")))
    sweep(read_experiments(one), tmp_path / "out")
    with pytest.raises(ShrinkbenchError, match="two different files are called"):
        sweep(read_experiments(other), tmp_path / "out")


def test_copies_of_one_file_in_two_folders_are_refused_in_one_sweep(tmp_path):
    one, other = (write(tmp_path / folder, "copied") for folder in ("a", "b"))
    experiments = (*read_experiments(one), *read_experiments(other))
    with pytest.raises(ShrinkbenchError, match="are copies of one file") as told:
        sweep(experiments, tmp_path / "out")
    assert len(str(told.value)) < 300 + len(str(tmp_path))
    assert not (tmp_path / "out" / "plan.json").exists()


NAMED = """
class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.out = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, left, right):
        return self.out(self.hidden(left - right).relu())


def make_pairs():
    return pairs(lambda left, right, wanted: ((left, right), wanted))


def pairs(form):
    left, right = torch.rand(120, 3), torch.rand(120, 3)
    parts = zip(*(t.split(90) for t in (left, right, (left - right).sum(1, keepdim=True))))
    return tuple(form(*each) for each in parts)


def make_named():
    return pairs(lambda left, right, wanted: {"left": left, "right": right, "labels": wanted})
"""


def test_copies_of_one_file_read_each_their_own_data_in_one_process(tmp_path):
    """The second sweep of a process took the first's file, with what lies beside that."""
    revisions = set()
    for seed, folder in enumerate((tmp_path / "one", tmp_path / "two")):
        toml = write(folder, "sums_beside", imports="from pathlib import Path\n")
        file = folder / "sums_beside.py"
        read = "torch.load(Path(__file__).with_name('inputs.pt'))"
        file.write_text(file.read_text().replace("torch.rand(120, 3)", read))
        inputs = torch.rand(120, 3, generator=torch.Generator().manual_seed(seed))
        torch.save(inputs, folder / "inputs.pt")
        experiments = [each.model_copy(update={"method": ("random",)}) for each in read_experiments(toml)]
        sweep(experiments, folder / "out")
        results, _ = ResultStore(folder / "out").results()
        assert {r.status for r in results} == {"done"}
        revisions |= {r.spec.task.data.revision for r in results}
        assert torch.equal(load_dataset(f"{file}:make_data").test.inputs, inputs[90:])
    assert len(revisions) == 2
    torch.save(torch.zeros(120, 3).bernoulli_(), folder / "inputs.pt")  # in the place of what was swept before
    sweep(experiments, folder / "again")
    results, _ = ResultStore(folder / "again").results()
    assert not revisions & {r.spec.task.data.revision for r in results}


def test_networks_of_several_inputs_run_and_places_or_names_make_no_difference(tmp_path):
    found = {}
    for data in ("make_pairs", "make_named"):
        path = write(tmp_path / data, f"of_{data}")
        file = path.parent / f"of_{data}.py"
        file.write_text(file.read_text() + NAMED)
        text = path.read_text().replace(":make_network", ":Both").replace(":make_data", f":{data}")
        path.write_text(text.replace('"global_gradient"', '"global_gradient", "channel_l1"'))
        sweep(read_experiments(path), out := tmp_path / data / "out")
        results = ResultStore(out).results()[0]
        found[data] = sorted((r.spec.method.name, r.spec.amount.ratio, r.headline) for r in results)
    assert found["make_pairs"] == found["make_named"]
    assert len({headline for *_, headline in found["make_pairs"]}) == 4


def test_the_card_of_an_own_network_of_several_inputs_says_how_it_is_read(tmp_path, monkeypatch):
    write(tmp_path, "carded")
    (tmp_path / "carded.py").write_text((tmp_path / "carded.py").read_text() + NAMED)
    chosen = ("--model", "carded.py:Both", "--dataset", "carded.py:make_pairs")
    told = shrinkbench(
        "prune", *chosen, "--method", "channel_l1", "--compression", 1.5, "--out", "o", cwd=tmp_path
    )
    assert told.returncode == 0, told.stderr
    told = shrinkbench("export", *chosen, "--format", "hf", "--out", "DIR", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    card = (tmp_path / "DIR" / "README.md").read_text()
    assert "Inputs 3 and 3, not pruned." in card
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(card.partition("```python")[2].partition("```")[0], found)
    one, other = torch.rand(2, 3), torch.rand(2, 3)
    assert found["module"](one, other).shape == (2, 1)


def test_a_network_that_ends_the_process_fails_its_runs_and_the_sweep_goes_on(tmp_path):
    path = write(tmp_path, "leaving")
    file = tmp_path / "leaving.py"
    file.write_text(file.read_text().replace("nn.ReLU()", "Leaving()") + LEAVING)
    ended = shrinkbench("sweep", path, "--out", tmp_path / "out", cwd=tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert "0 of 4 runs done, 4 failed" in ended.stdout
    assert "called sys.exit(6)" in ended.stderr
    told = commands.shrinkbench("describe", "leaving.py:make_network", "--input-shape", "3", cwd=tmp_path)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert "calls sys.exit(6)" in told.stderr


LEAVING = """

class Leaving(nn.Module):
    def forward(self, x):
        raise SystemExit(6)
"""


@pytest.mark.slow
def test_what_papers_call_an_own_network_is_stored_with_its_runs(tmp_path):
    path = write(tmp_path, "named")
    file = tmp_path / "named.py"
    card = "ModelCard(name='mine', build=lambda n: make_network(), published_as=('A-1', 'B 2'))"
    file.write_text(
        f"{file.read_text()}\nfrom shrinkbench.models import MODELS, ModelCard\nMODELS.add('mine', {card})\n"
    )
    path.write_text(path.read_text().replace('model = "named.py:make_network"', 'model = "mine"'))
    # A registered network is there for every test that walks the registry, so in a process of its own.
    done = in_process(
        "-m", "shrinkbench", "sweep", str(path), "--out", "out", "--plugin", "named.py", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    frame = to_frame(ResultStore(tmp_path / "out").results()[0])
    assert set(frame["published_as"]) == {"A-1; B 2"}


@pytest.mark.slow
def test_a_card_of_name_and_build_is_enough_and_its_figures_are_counted(tmp_path):
    (tmp_path / "short_card.py").write_text(
        "from torch import nn\nfrom shrinkbench.models import MODELS, ModelCard\n"
        "MODELS.add('short-card', ModelCard(name='short-card', input_shape=(4,), num_classes=3, "
        "build=lambda classes: nn.Linear(4, classes)))\n"
    )
    (tmp_path / "no_card.py").write_text(
        "from torch import nn\n"
        "def bare(num_classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    listing = ("list", "models", "--plugin", "short_card.py", "--json")
    listed = in_process("-m", "shrinkbench", *listing, cwd=tmp_path)  # other tests walk the registry
    (row,) = [row for row in json.loads(listed.stdout) if row["name"] == "short-card"]
    assert (row["parameters"], row["multiply_adds"]) == (15, 12)
    described = shrinkbench("describe", "no_card.py:bare", "--dataset", "digits", "--json", cwd=tmp_path)
    assert json.loads(described.stdout)["parameters"] == 650, described.stderr
    unknown = shrinkbench("describe", "no_card.py:bare", "--input-shape", "1,8,8", cwd=tmp_path)
    assert "name a dataset or give num_classes a default" in unknown.stderr


@pytest.mark.slow
def test_an_own_network_goes_through_the_chain_of_commands(tmp_path):
    (tmp_path / "chain.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), "
        "nn.Flatten(), nn.Linear(8, 10))\n"
    )
    own, data = ("--model", "chain.py:make"), ("--dataset", "digits")
    masks, shape = "m.safetensors", ("--input-shape", "1,8,8")
    for command in (
        ("pretrain", *own, *data, "--out", "w.safetensors", "--set", "epochs=1", "--train-images", 50),
        ("evaluate", *own, *data, "--weights", "w.safetensors"),
        ("prune", *own, *data, "--method", "channel_l1", "--compression", 1.5, "--masks-out", masks),
        ("shrink", *own, *data, "--masks", masks, "--out", "small"),
        (
            "latency",
            *own,
            *shape,
            "--masks",
            "m.safetensors",
            "--batch-size",
            1,
            "--rounds",
            1,
        ),
    ):
        done = shrinkbench(*command, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


def test_a_method_that_trains_by_another_recipe_is_told_before_it_starts(tmp_path):
    path = write(tmp_path, "told")
    notes = []
    text = path.read_text().replace("epochs = 2", "epochs = 6").replace('"global_gradient"', '"snip"')
    path.write_text(text)

    def stop(total, todo):
        notes.append(f"{total} planned")

    class StoppedError(Exception):
        pass

    def note(sentence):
        notes.append(sentence)
        raise StoppedError

    with pytest.raises(StoppedError):
        sweep(read_experiments(path), tmp_path / "out", on_plan=stop, on_note=note)
    assert notes[1].startswith(
        "each run of snip trains for up to 6 epochs by 'first', the recipe of pretraining"
    )
    assert not list((tmp_path / "out").glob("runs/*"))
