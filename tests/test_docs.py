"""What the documentation says is true: its code runs, its references exist, its links lead somewhere."""

import functools
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from types import SimpleNamespace

import pytest
import typer
from places import ROOT
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.datasets import DATASETS
from shrinkbench.models import MODELS
from shrinkbench.pruning import METHODS
from shrinkbench.spec import ExperimentSpec, parse_value, read_experiments
from shrinkbench.training import RECIPES

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
BIBLIOGRAPHY = ROOT / "docs" / "references.bib"


def keys():
    return set(re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHY.read_text(), flags=re.MULTILINE))


def cited():
    yield from ((f"model {name}", card.reference) for name, card in MODELS.items())
    yield from ((f"dataset {name}", card.reference) for name, card in DATASETS.items())
    yield from (
        (f"method {name}", m.reference)
        for name, m in METHODS.items()
        if m.score.__module__.startswith("shrinkbench.") and not name.startswith("doctest_")
    )
    yield from ((f"recipe {name}", recipe.reference) for name, recipe in RECIPES.items())
    yield from ((e.name, e.reference) for p in ROOT.glob("experiments/*.toml") for e in read_experiments(p))


def test_every_reference_is_in_the_bibliography():
    missing = sorted(
        {(what, key) for what, keys_ in cited() for key in keys_.split(", ") if key and key not in keys()}
    )
    assert not missing


def test_the_bibliography_names_nothing_twice():
    found = re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHY.read_text(), flags=re.MULTILINE)
    assert len(found) == len(set(found)) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_exist(page):
    text = page.read_text()
    lines = {line for line in text.splitlines() if line.startswith(("from shrinkbench", "import shrinkbench"))}
    for line in sorted(lines):
        exec(line, {})
    for path in set(re.findall(r"`(shrinkbench\.[a-z_.]+)", text)) - {"shrinkbench.methods"}:  # an entry point
        assert pkgutil.resolve_name(path), path


def test_the_tutorials_python_runs():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        exec(compile(block, "tutorial.md", "exec"), {"__name__": "tutorial"})


@pytest.mark.slow
def test_the_tutorials_own_network_data_and_metric_run_in_a_sweep(tmp_path):
    """At most thirty lines of Python, from the command line."""
    text = (ROOT / "docs" / "tutorial.md").read_text()
    for name, language in (("parts.py", "python"), ("sums.toml", "toml")):
        block = next(
            b
            for b in re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
            if b.startswith(f"# {name}\n")
        )
        assert len(block.strip().splitlines()) <= 30
        (tmp_path / name).write_text(block)
    command = [sys.executable, "-m", "shrinkbench", "sweep", str(tmp_path / "sums.toml"), "--out", "out"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 of 8 runs done" in done.stdout


TRY_BLOCKS = """
import shrinkbench
from shrinkbench import RECIPES, SCHEDULES, build_model

if "add-a-method" in files[0]:
    net = build_model("digits-cnn")
    for axes in ("[allocation=my-roots]", "[structure=my-wide]"):
        assert shrinkbench.prune(net, f"distance_from_mean{axes}", compression=1.5, input_shape=(1, 8, 8)).kept
    assert [round(c, 9) for c in SCHEDULES.get("my-two")(4)] == [2, 4]
    assert RECIPES.get("my-cosine").epochs == 2
"""
TRY_EXAMPLES = """
from shrinkbench import DATASETS, FINETUNINGS, METHODS, MODELS, RECIPES, SCHEDULES
from shrinkbench import build_model, count_multiply_adds, count_parameters, prune

net = build_model("digits-cnn")
for axes in ("", "[structure=example-wide]", "[allocation=example-square-root]"):
    masks = prune(net, f"example_cube{axes}", compression=1.5, input_shape=(1, 8, 8))
    kept = count_parameters(net) - masks.total + masks.kept
    assert abs(kept - count_parameters(net) / 1.5) < 700, (axes, kept)
assert [round(c, 9) for c in SCHEDULES.get("example-three")(8)] == [2, 4, 8]
assert (FINETUNINGS.get("example-rewind").weights, FINETUNINGS.get("example-rewind").epoch) == ("rewound", 1)
card, net = MODELS.get("example-linear"), build_model("example-linear")
assert count_parameters(net) == card.parameters
assert count_multiply_adds(net, card.input_shape) == card.multiply_adds
assert len(DATASETS.get("example-stripes").load(None).test) == 20
assert RECIPES.get("example-recipe").epochs == 2
"""
EACH_APART = """
import os, runpy, sys, traceback
import torch._dynamo, torchvision  # every process below would read them
import shrinkbench.pruning, shrinkbench.runner

def load_blocks(files):
    for file in files:
        runpy.run_path(file, run_name="block")

def load_plugins(files):
    names = [name for file in files for name in shrinkbench.pruning.load_plugin(file)]
    assert len(names) == len(files), names

for job in sys.argv[1:]:
    load, check, *files = job.split(os.pathsep)
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        try:
            globals()[load](files)
            exec(compile(open(check).read(), check, "exec"), {"files": files})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    print("end of a job", file=sys.stderr, flush=True)
"""
OWN_PARTS = ["README.md", "docs/models.md", "docs/datasets.md", "docs/add-a-method.md", "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def tried_apart(tmp_path_factory):
    """How the Python of each page ended, and what it said.

    Each page has a process of its own, so that what it registers is in no registry that others walk; all are
    copies of one that has loaded the package.
    """
    folder, jobs = tmp_path_factory.mktemp("pages"), []
    for page in OWN_PARTS:
        stem = page.rpartition("/")[2].removesuffix(".md")
        plugins = page == "CONTRIBUTING.md"
        texts = [b for b in blocks(page) if not (plugins and "shrinkbench.report" in b)]
        assert len(texts) == 8 if plugins else texts
        files = [folder / f"check_{stem}.py", *(folder / f"{stem}_{number}.py" for number in range(len(texts)))]
        for file, text in zip(files, [TRY_EXAMPLES if plugins else TRY_BLOCKS, *texts], strict=True):
            file.write_text(text)
        jobs.append(os.pathsep.join(["load_plugins" if plugins else "load_blocks", *map(str, files)]))
    done = subprocess.run([sys.executable, "-c", EACH_APART, *jobs], check=True, capture_output=True, text=True)
    codes, said = done.stdout.split(), done.stderr.split("end of a job\n")
    return dict(zip(OWN_PARTS, zip(codes, said[:-1], strict=True), strict=True))


@pytest.mark.parametrize("page", OWN_PARTS)
def test_the_python_of_pages_on_own_parts_runs(tried_apart, page):
    code, said = tried_apart[page]
    assert code == "0", said


def test_the_loop_of_the_page_on_own_loops_runs_and_meets_its_target():
    (block,) = blocks("docs/own-loop.md")
    found = {"__name__": "own_loop"}
    exec(compile(block, "own-loop.md", "exec"), found)
    total = sum(p.numel() for p in found["model"].parameters())
    assert total - found["masks"].total + found["masks"].kept == round(total / 1.5)


NOT_RUN = {
    "docs/literature.md": "needs the published corpus and results on CIFAR-10",
    "docs/report.md": "needs the results of quickstart",
    "docs/structured-pruning.md 3": "needs PASCAL VOC",
}
RUN_ELSEWHERE = {
    *("README.md", "CONTRIBUTING.md", "docs/add-a-method.md", "docs/datasets.md", "docs/models.md"),
    *("docs/own-loop.md", "docs/tutorial.md"),
}
RUN_HERE = {
    "docs/structured-pruning.md 2": False,  # whether it is slow
    "docs/structured-pruning.md 4": False,
    "docs/structured-pruning.md 1": True,
    "docs/architecture-search.md 1": True,
    "docs/language-models.md 1": True,
    **{f"docs/tasks.md {number}": False for number in range(1, 6)},
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if slow else []) for n, slow in RUN_HERE.items()]
)
def test_the_python_of_pages_on_networks_runs(name, tmp_path, monkeypatch):
    page, number = name.split()
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(page)[int(number) - 1], name, "exec"), {"__name__": "block"})


def test_every_python_block_is_run_or_named_with_its_reason():
    for path in PAGES:
        page = path.relative_to(ROOT).as_posix()
        for number in range(1, len(blocks(page)) + 1):
            places = {page, f"{page} {number}"}
            assert len([p for p in (RUN_ELSEWHERE, RUN_HERE, NOT_RUN) if places & set(p)]) == 1, places


@functools.cache
def whole_command():
    return typer.main.get_command(app)


def commands(page):
    """Every command of a page's console blocks, without what follows it as a comment."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if line.startswith("$ ") and words[:1] == ["shrinkbench"]:
                yield words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_is_one(page):
    """Names of commands, arguments, options and their kinds; nothing is carried out."""
    for words in commands(page):
        command = whole_command()
        context, rest = None, words[: words.index(">")] if ">" in words else words
        while hasattr(command, "resolve_command"):
            outer = command.make_context("shrinkbench", [], parent=context, resilient_parsing=True)
            _, command, rest = command.resolve_command(outer, rest)
            context = outer
        command.make_context(words[0], list(rest), parent=context)


QUICK_COMMANDS = {"docs/models.md": ("describe", "prune"), "README.md": ("list",)}


@pytest.mark.parametrize("page", QUICK_COMMANDS)
def test_quick_commands_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for block in blocks(page):
        if block.startswith("# my_network.py\n"):
            (tmp_path / "my_network.py").write_text(block)
    chosen = [words for words in commands(ROOT / page) if words[0] in QUICK_COMMANDS[page]]
    assert chosen
    for words in chosen:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output, done.exception)


@pytest.mark.slow
def test_the_commands_on_networks_that_come_out_run_in_their_order(tmp_path, monkeypatch):
    """Of the page on structured pruning: a chain in which each reads what another has written."""
    monkeypatch.chdir(tmp_path)
    settings = ("method=channel_l1", "compression=[2]", "seed=0", "train_images=64")
    short = ("finetune.epochs=1", "pretrain.epochs=1", "name=NAME")
    chain = [["sweep", "quickstart", *(w for s in (*settings, *short) for w in ("--set", s))]]
    listed = list(commands(ROOT / "docs" / "structured-pruning.md"))
    first = next(i for i, words in enumerate(listed) if words[0] == "weights")
    chain += listed[first : first + 8]
    assert [words[0] for words in chain[-2:]] == ["export", "export"]
    for words in chain:
        key = next((path.parent.name for path in tmp_path.glob("results/NAME/runs/*/result.json")), "")
        filled = [word.replace("KEY", key) for word in words]
        done = CliRunner().invoke(app, filled)
        assert done.exit_code == 0, (filled, done.output, done.exception)


def tables():
    for path in PAGES:
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(), flags=re.DOTALL):
            yield pytest.param(block, id=f"{path.name} {block.splitlines()[0][:30]}")


@pytest.mark.parametrize("block", tables())
def test_every_experiment_of_a_page_is_one(block, tmp_path):
    """A table that leaves keys out is completed by the first of the page on file formats."""
    whole = (ROOT / "docs" / "file-formats.md").read_text().partition("```toml\n")[2].partition("```")[0]
    given, base = tomllib.loads(block), tomllib.loads(whole)
    parts = given.pop("part", [{}])
    for part in parts:
        fields = {**base, **given, **part}
        fields["labels"] = {k: v for k, v in base["labels"].items() if k in fields["method"]}
        spec = parse_value(ExperimentSpec, fields, where="block")
        for method in spec.method:
            assert METHODS.get(method).axes


def test_scripts_of_pages_are_shell(tmp_path):
    for path in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", path.read_text(), flags=re.DOTALL):
            subprocess.run(["/bin/bash", "-n"], input=block, text=True, check=True)


def test_the_tutorials_method_is_at_most_ten_lines():
    text = (ROOT / "docs" / "tutorial.md").read_text()
    block = next(b for b in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL) if "@pruning_method" in b)
    assert len(block.strip().splitlines()) <= 10


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), flags=re.DOTALL)


def test_the_checks_of_contributing_decide(monkeypatch):
    from shrinkbench.report.checklist import lines

    monkeypatch.setattr(lines, "RULES", dict(lines.RULES))
    found = {}
    for block in blocks("CONTRIBUTING.md"):
        if "shrinkbench.report" in block:
            exec(compile(block, "CONTRIBUTING.md", "exec"), found)
    good, bad = (
        SimpleNamespace(key="k", cost=cost, epochs_run=epochs, spec=SimpleNamespace(is_control=True))
        for cost, epochs in (("known", 3), (None, 0))
    )
    told = [lines.RULES["example-line"](SimpleNamespace(results=[result])) for result in (good, bad)]
    assert [(d.status, d.runs) for d in told] == [("satisfied", ()), ("violated", ("k",))]
    assert [len(list(found["untrained_controls"]([result]))) for result in (good, bad)] == [0, 1]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/design.md"])
def test_the_layers_are_those_that_are_checked(page):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    layered = [c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    text = (ROOT / page).read_text()
    for contract in layered[: 1 if page == "CONTRIBUTING.md" else None]:
        lines = (f"    {layer.replace('shrinkbench.', '')}\n" for layer in contract["layers"])
        assert "".join(lines) in text, contract["name"]


def test_every_folder_of_the_layout_exists():
    text = (ROOT / "docs" / "design.md").read_text()
    tree = re.search(r"    src/shrinkbench/\n(.*?)\n\n", text, flags=re.DOTALL)[1]
    package = ROOT / "src" / "shrinkbench"
    inside = {folder.name for folder in package.rglob("*") if (folder / "__init__.py").exists()}
    named = set(re.findall(r"\b([a-z]+)/", tree)) - {"experiments", "benchmarks", "docs", "tests"}
    assert named <= inside
    assert {f.name for f in package.iterdir() if (f / "__init__.py").exists()} <= named
