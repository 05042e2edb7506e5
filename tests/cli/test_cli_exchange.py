"""Passing results on: every command reads a bundle as it reads a folder, and code from outside comes along."""

import json
import shutil

import pytest
from commands import shrinkbench, shrinkbench_apart
from made_results import make_result, make_results, make_spec, plain_accuracy, quality, write_store

PAIR = [("cifar10", "resnet56")]
GRID = {"pairs": PAIR, "methods": ["random", "global_magnitude"], "compressions": (1, 4), "seeds": (0, 1)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("exchange") / "store", make_results(**GRID))


@pytest.fixture(scope="module")
def bundle(store):
    path = store.root.parent / "a.zip"
    assert shrinkbench("bundle", store.root, "--out", path).returncode == 0
    return path


@pytest.mark.parametrize("arguments", [["status"], ["checklist", "--json"], ["literature", "overlay"]])
def test_a_bundle_reads_as_its_folder_does(store, bundle, tmp_path, arguments):
    said = [shrinkbench(*arguments, source, cwd=tmp_path) for source in (store.root, bundle)]
    assert said[0].returncode == said[1].returncode == 0, said[1].stderr
    of_folder, of_bundle = (done.stdout.partition("disk: ")[0] for done in said)  # a bundle has no room to tell
    assert of_folder == of_bundle


def test_a_report_of_a_bundle_lies_beside_it(bundle, tmp_path):
    shutil.copy(bundle, tmp_path / "mine.zip")
    done = shrinkbench("report", tmp_path / "mine.zip", "--figures", "none")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine-report" / "index.html").is_file()


COMMANDS = [
    ["status", "{}"],
    ["report", "{}"],
    ["checklist", "{}"],
    ["scratch", "{}"],
    ["patterns", "{}"],
    ["bundle", "{}", "--verify"],
    ["bundle", "{}", "--show-plugins"],
    ["bundle", "{}", "--out", "new.zip"],
    ["merge", "{}", "{}", "--out", "new"],
    ["leaderboard", "{}", "--out", "new"],
    ["diff", "{}", "{}"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments))
def test_what_is_no_source_is_one_sentence_and_code_2(tmp_path, arguments):
    """In one process: what counts is what leaves each command."""
    from shrinkbench.cli import app
    from shrinkbench.errors import ShrinkbenchError

    (tmp_path / "text.zip").write_text("hello")
    (tmp_path / "folder").mkdir()
    names = {"text.zip": "not a whole bundle", "folder": "holds no results", "nowhere": "there is no bundle"}
    for name, sentence in names.items():
        words = [
            word.replace("{}", str(tmp_path / name)).replace("new", str(tmp_path / "new")) for word in arguments
        ]
        with pytest.raises(ShrinkbenchError, match=sentence):
            app(words, standalone_mode=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "text.zip"]


def test_fixing_a_bundle_is_refused_with_the_way_to_unpack_it(bundle, tmp_path):
    done = shrinkbench("checklist", bundle, "--fix")
    assert done.returncode == 2
    assert f"shrinkbench merge {bundle} --out DIR" in done.stderr
    assert shrinkbench("merge", bundle, "--out", tmp_path / "out").returncode == 0
    assert shrinkbench("diff", bundle, tmp_path / "out").returncode == 0


def test_verification_says_what_it_checked(store, bundle, tmp_path):
    done = shrinkbench("bundle", bundle, "--verify")
    assert done.returncode == 0
    assert "8 runs, consistent with itself, content " in done.stdout
    assert "unaltered" not in done.stdout
    shutil.copytree(store.root, tmp_path / "raised")
    raised = write_store(tmp_path / "raised", make_results(**GRID))
    victim = next(r for r in raised.results()[0] if r.spec.target == 4)
    raised.write(victim.model_copy(update={"after": quality(victim.headline + 0.05)}))
    done = shrinkbench("bundle", raised.root, "--verify")
    assert done.returncode == 1
    assert f"implausible: run {victim.key[:12]}: test top1" in done.stderr
    assert "consistent with itself" in done.stdout
    raised.result_path(victim.key).write_text('{"schema_version": 9}')
    done = shrinkbench("bundle", raised.root, "--verify")
    assert done.returncode == 2
    assert "has schema version 9; this shrinkbench reads versions 1 and 2" in done.stderr
    assert "contradicts itself in 1 place;" in done.stderr


def test_differences_fit_eighty_columns_and_are_told_by_the_exit_code(store, bundle, tmp_path):
    assert shrinkbench("diff", store.root, bundle).returncode == 0
    shifted = make_results(**GRID, accuracy=lambda spec: plain_accuracy(spec) - 0.01 * (not spec.is_control))
    other = write_store(tmp_path / "other", shifted[1:])
    done = shrinkbench("diff", store.root, other.root)
    assert done.returncode == 1
    assert "1 run only in A" in done.stdout
    assert "4 runs of one key with other numbers" in done.stdout
    assert "-0.0100" in done.stdout
    _, _, *table = done.stdout.splitlines()  # after where the two lie
    assert max(map(len, table)) <= 80
    told = json.loads(shrinkbench("diff", store.root, other.root, "--json").stdout)
    assert (told["same"], len(told["unequal"]), len(told["only_first"])) == (False, 4, 1)
    assert {"first_n", "second_n", "label"} <= told["cells"][0].keys()
    other.result_path(shifted[1].key).write_text("{")
    assert "skipped" in shrinkbench("diff", store.root, other.root).stderr


def test_conflicts_are_named_by_merge(store, tmp_path):
    run = next(r for r in store.results()[0] if r.spec.target == 4)
    other = write_store(
        tmp_path / "other", [make_result(run.spec, accuracy=lambda spec: plain_accuracy(spec) - 0.01)]
    )
    done = shrinkbench("merge", store.root, other.root, "--out", tmp_path / "out")
    assert f"conflict: run {run.key[:12]} has top1" in done.stderr
    assert "1 run differs between sources, by up to 0.01" in done.stderr
    assert len(list((tmp_path / "out").glob(f"runs/{run.key}/conflicts/*.json"))) == 1
    assert (
        "conflict: 1 run has other numbers in another source" in shrinkbench("status", tmp_path / "out").stderr
    )


def test_a_conflict_beside_the_headline_names_the_field_that_differs(store, tmp_path):
    run = next(r for r in store.results()[0] if r.spec.target == 4)
    metrics = {**run.after.metrics, "loss": 0.5}
    shifted = {**metrics, "loss": 0.501}
    first, other = (
        write_store(
            tmp_path / name,
            [run.model_copy(update={"after": run.after.model_copy(update={"metrics": numbers})})],
        )
        for name, numbers in (("first", metrics), ("other", shifted))
    )
    done = shrinkbench("merge", first.root, other.root, "--out", tmp_path / "out")
    assert f"conflict: run {run.key[:12]} has after.loss 0.5 on" in done.stderr
    assert "and 0.501 on" in done.stderr
    assert "1 run differs between sources, and none in what it is judged by" in done.stderr
    assert "by up to 0" not in done.stderr


PLUGIN = """
from pathlib import Path
from helper import strength
from shrinkbench import pruning_method

Path(__file__).with_name("ran").open("a").write("x")


@pruning_method("mine")
def mine(ctx):
    "Own magnitude."  # \x1b[31m
    return strength(ctx.weights)
"""
HELPER = "def strength(weights):\n    return {n: w.abs() for n, w in weights.items()}\n"
EXPERIMENT = """
name = "tiny"
dataset = "digits"
model = "digits-cnn"
method = "mine"
compression = 2
train_images = 20
validation_images = 10
test_images = 10
finetune = { epochs = 0 }
pretrain = { epochs = 1 }
"""


@pytest.mark.slow
def test_code_from_outside_comes_along_is_shown_and_not_run(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "tiny.toml").write_text(EXPERIMENT)
    done = shrinkbench_apart(
        "sweep", tmp_path / "tiny.toml", "--plugin", tmp_path / "mine.py", "--out", tmp_path / "tiny"
    )
    assert done.returncode == 0, done.stderr
    ran = (tmp_path / "ran").read_text()
    done = shrinkbench("bundle", tmp_path / "tiny", "--out", tmp_path / "a.zip")
    assert "outside code" not in done.stderr
    shrinkbench("merge", tmp_path / "a.zip", "--out", tmp_path / "merged")
    for source in (tmp_path / "tiny", tmp_path / "a.zip", tmp_path / "merged"):
        shown = shrinkbench("bundle", source, "--show-plugins", "--verify").stdout
        assert "1 run of mine" in shown
        assert HELPER in shown
        assert "return strength(ctx.weights)" in shown
        assert "not whole" not in shown
        assert "\x1b" not in shown
    assert (tmp_path / "ran").read_text() == ran  # none of these commands ran it
    (helper,) = (tmp_path / "merged").glob("plugins/*/helper.py")
    helper.write_text(HELPER.replace("abs()", "neg()"))
    done = shrinkbench("bundle", tmp_path / "merged", "--verify")
    assert "its source is not whole, or was edited" in done.stderr
    assert "consistent" not in done.stdout
    assert done.returncode == 2
    shutil.rmtree(tmp_path / "merged" / "plugins")
    done = shrinkbench("bundle", tmp_path / "merged", "--out", tmp_path / "b.zip")
    assert done.returncode == 0
    assert "its source is not here: it was removed, or never kept" in done.stderr
    for command, code in (("verify", 1), ("repair", 0)):
        done = shrinkbench("store", command, tmp_path / "merged")
        assert done.returncode == code
        assert "on which 1 run rests: its source is not here" in done.stdout


def test_names_of_outputs_do_not_act_on_the_terminal(tmp_path):
    write_store(tmp_path / "a", [make_result(make_spec())])
    name = "x\x1b]0;y\x07\u202e\n"
    bundle = tmp_path / f"{name}.zip"
    for words in (
        ["bundle", tmp_path / "a", "--out", bundle],
        ["bundle", bundle, "--verify"],
        ["bundle", bundle, "--show-plugins"],
        ["merge", bundle, "--out", tmp_path / f"merged{name}"],
        ["report", tmp_path / "a", "--figures", "none", "--out", tmp_path / f"report{name}"],
        ["leaderboard", bundle, "--out", tmp_path / f"board{name}"],
        ["diff", bundle, tmp_path / "a"],
        ["checklist", bundle],
    ):
        done = shrinkbench(*words)
        assert r"x\x1b]0;y\x07\u202e\n" in done.stdout or words[0] == "checklist", done.stderr
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr), words


READERS = [
    ["status", "{}"],
    ["status", "{}", "--json"],
    ["report", "{}", "--figures", "none", "--out", "page"],
    ["checklist", "{}"],
    ["literature", "overlay", "{}"],
    ["bundle", "{}", "--out", "new.zip"],
    ["merge", "{}", "{}", "--out", "new"],
    ["leaderboard", "{}", "--out", "board"],
    ["diff", "{}", "{}"],
    ["store", "verify", "{}"],
]


@pytest.mark.usefixtures("without_figures")
def test_who_only_reads_leaves_a_folder_as_it_is(store, tmp_path):
    """Such as one of somebody else's, on a disk that cannot be written: an index that is lacking stays so."""
    folder = tmp_path / "theirs"
    shutil.copytree(store.root, folder)
    (folder / "index.jsonl").unlink(missing_ok=True)
    before = _tree(folder)
    for arguments in READERS:
        done = shrinkbench(*(word.format(folder) for word in arguments), cwd=tmp_path)
        assert done.returncode == 0, (arguments, done.stderr)
        assert _tree(folder) == before, arguments


def _tree(folder):
    """Every name below ``folder``, with the content and the time of change."""
    found = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_mtime_ns, path.is_dir() or path.read_bytes()) for path, stat in found.items()}
