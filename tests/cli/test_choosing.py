"""Methods are listed with all that tells them apart, described whole, and asked for by what they are."""

import json
import re
import sys

import pytest

from shrinkbench.cli import main, tables
from shrinkbench.cli.documented import note_of, plain
from shrinkbench.cli.listing import COLUMNS, entries
from shrinkbench.cli.methods import METHOD_AXES, describe_method
from shrinkbench.cli.naming import axes
from shrinkbench.pruning import METHODS
from shrinkbench.pruning.families import FAMILIES, sentence_of

NAMES = [name for name in METHODS if not name.startswith(("doctest", "check_"))]
# Before any test has loaded a plug-in.
VALUES = {axis: [n for n in each if not n.startswith(("doctest", "check_"))] for axis, each in axes().items()}
MORE = ["thinet:vgg-conv", "li2017:resnet56-a", "random@rigl", "network_slimming:70"]
MORE += ["lottery_ticket[schedule=one-shot]"]


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line in this process, in a terminal of some width."""

    def call(*arguments, width=80):
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["shrinkbench", *map(str, arguments)])
        try:
            code = main()
        except SystemExit as exit_:
            code = exit_.code
        captured = capsys.readouterr()
        return code or 0, captured.out, captured.err

    return call


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_at_no_width_is_anything_of_a_method_left_out(run, width):
    code, out, _ = run("list", "methods", width=width)
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    whole = re.sub(r"\s+", "", out)  # folding breaks lines, and nothing else
    for row in entries("methods"):
        told = [row["name"], plain(row["sentence"]), row["reference"], row["start"]]
        told += [f"{axis} {row[axis]}" for axis in METHOD_AXES]
        told += row["needs"] + ([row["amount"]] if row["amount"] else [])
        for text in told:
            assert re.sub(r"\s+", "", str(text)) in whole, (row["name"], text)


def test_rows_are_grouped_by_family_and_none_is_lost(run):
    rows = entries("methods")
    assert {row["family"] for row in rows} == FAMILIES.keys()
    _, out, _ = run("list", "methods", width=120)
    lines = out.splitlines()
    heads = [line for line in lines if any(line.startswith(f"{family}: ") for family in FAMILIES)]
    assert [head.partition(":")[0] for head in heads] == [*FAMILIES]
    under, found = "", {}
    for line in lines:
        if line in heads:
            under = line.partition(":")[0]
        elif re.match(r"  \S", line):
            found[line.split()[0]] = under
    assert found == {row["name"]: row["family"] for row in rows}


def test_each_method_has_one_sentence():
    for row in entries("methods"):
        sentence = row["sentence"]
        assert sentence[0].isupper() or not sentence[0].isalpha(), sentence
        assert sentence.endswith(".")
        assert not sentence.endswith("..")
        assert "\n" not in sentence
    apart = {tuple(row[axis] for axis in (*METHOD_AXES, "amount", "sentence")) for row in entries("methods")}
    assert len(apart) == len(entries("methods"))


@pytest.mark.parametrize("need", ["data", "labels", "gradients"])
def test_needs_and_without_part_all_methods_in_two(run, need):
    def names(*options):
        code, out, _ = run("list", "methods", "--json", *options)
        assert code == 0
        return {row["name"]: row for row in json.loads(out)}

    every, having, lacking = names(), names("--needs", need), names("--without", need)
    assert having.keys() | lacking.keys() == every.keys()
    assert not having.keys() & lacking.keys()
    assert all(need in row["needs"] for row in having.values())
    of_schedules = {
        "rigl",
        "granet",
        "mest",
        "top_kast",
        "pcas",
        "autopruner",
        "gradual_magnitude",
        "lottery_ticket",
    }
    assert of_schedules <= having.keys()
    assert {"global_magnitude", "phew", "li2017:resnet56-a"} <= lacking.keys()


@pytest.mark.parametrize("spelling", ["branches", "residual-blocks", "Residual_Blocks"])
def test_structures_are_asked_for_by_all_their_names(run, spelling):
    code, out, _ = run("list", "methods", "--json", "--structure", spelling)
    assert code == 0
    assert {row["name"] for row in json.loads(out)} >= {"branch_l1", "residual_block_taylor"}


@pytest.mark.parametrize("name", ["obert", "gradual_woodfisher", "woodfisher", "obs"])
def test_sentences_say_that_weights_adapt(name):
    assert METHODS.get(name).update is not None
    assert "weights adapt" in sentence_of(METHODS.get(name))


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("what", ["models", "datasets", "recipes", "experiments"])
def test_at_no_width_is_a_column_of_other_lists_left_out(run, what, width):
    code, out, _ = run("list", what, width=width)
    assert code == 0
    assert max(map(len, out.splitlines())) <= width
    if width < 120:  # a table folds beside other columns
        whole = re.sub(r"\s+", "", out)
        if any(line.startswith("name ") for line in out.splitlines()):
            return
        for row in entries(what):
            for column in COLUMNS[what]:
                assert re.sub(r"\s+", "", tables.text(row[column])) in whole, (row["name"], column)


def test_needs_add_up(run):
    _, out, _ = run("list", "methods", "--json", "--needs", "data", "--without", "gradients")
    rows = {row["name"]: row for row in json.loads(out)}
    assert {"wanda", "owl_wanda", "amc", "thinet:vgg-conv"} <= rows.keys()
    assert "synflow" not in rows
    assert rows["wanda"]["needs_by_axis"] == {"score": ["data"]}
    assert rows["owl_wanda"]["needs_by_axis"] == {"score": ["data"], "allocation": ["data"]}


def is_fine_tuned(method):
    return method.schedule.start == "trained" and method.schedule.during is None


@pytest.mark.parametrize("name", [*NAMES, *MORE])
def test_a_description_has_formula_deviations_and_course_of_every_axis(name):
    """Every value of every axis has its row in docs/methods.md, which is where they are told."""
    row = describe_method(name)
    method = METHODS.get(name)
    told = {axis for axis in METHOD_AXES if axis not in ("score", "finetuning")}
    assert row["notes"].keys() >= told
    assert ("finetuning" in row["notes"]) == (method.schedule.train_after or is_fine_tuned(method))
    if not name.startswith("random@"):
        assert "score" in row["notes"]
    assert (row["mechanism"] != "") == (method.schedule.during is not None)
    assert row["needs"] == list(method.all_needs)
    assert row["figure"]
    assert row["when"]
    if method.schedule.during is not None or method.amount is not None:
        assert row["rounds"] is None  # not "1: 4x"
    else:
        assert row["rounds"][-1] == 4
    json.dumps(row)


@pytest.mark.parametrize("axis", METHOD_AXES)
def test_every_value_of_every_axis_is_documented(axis):
    for name in VALUES[axis]:
        assert note_of(axis, name), name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("l0_hard_concrete", ["z = clip(s (zeta - gamma) + gamma)", "One strength"]),
        ("sparse_variational_dropout", ["N(w, sigma^2)", "k = 0.63576", "clips log α"]),
        ("structured_bayesian_pruning", ["log z", "divergence from the log-uniform"]),
        ("variational_information_bottleneck", ["log(1 + mean^2 / sigma^2)", "set the factor by experiment"]),
        ("bayesian_compression", ["normal-Jeffreys prior", "bit widths are not chosen"]),
        ("gradual_magnitude", ["1 − (1 − t)³", "from the start to 50% of it", "by hand"]),
        ("force", ["60 rounds of its own, without training", "authors draw anew"]),
        ("rigl", ["half a cosine", "exchanges to 75% of it", "schedule: data, labels, gradients"]),
        ("lottery_ticket", ["in 7 rounds at 4x", "Frankle and Carbin 2019 prune layer by layer"]),
        ("thinet:vgg-conv", ["as published", "chosen by ThiNet", "no say"]),
    ],
)
def test_what_describe_prints(run, name, told):
    code, out, _ = run("describe", name, width=120)
    assert code == 0
    whole = re.sub(r"\s+", " ", out)
    assert all(text in whole for text in told), [text for text in told if text not in whole]
    assert "rounds at 4x 1:" not in whole
    assert "#####" in whole


def test_published_widths_are_not_told_as_a_compression(run):
    _, out, _ = run("describe", "thinet:vgg-conv", width=200)
    assert "4x" not in out
    assert "another method" not in out


def test_the_figure_is_drawn_into_a_file(run, tmp_path):
    code, _, err = run("describe", "gradual_magnitude", "--figure", tmp_path / "a.svg")
    assert (code, err) == (0, "")
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    code, _, err = run("describe", "gradual_magnitude", "--figure", tmp_path / "a.jpg")
    assert code == 2
    assert "is no figure of a known format" in err
    code, _, err = run("describe", "resnet20", "--figure", tmp_path / "b.svg")
    assert code == 2
    assert "draws the schedule of a method" in err


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("global_magnitude[schedule=foo]", "unknown schedule 'foo'"),
        ("global_magnitude[foo=1]", "write axis=value with an axis of structure, allocation"),
        ("global_magnitude[", "no network, method or axis value is called|unknown pruning method"),
        ("random@nope", "unknown pruning method 'nope'"),
        ("nope@rigl", "unknown score 'nope'"),
        ("nope[schedule=one-shot]", "unknown pruning method 'nope'"),
        ("thinet:foo", "there are no published widths 'thinet:foo'"),
        ("network_slimming:120", "'120' in method 'network_slimming:120' is no whole percentage"),
        ("control", "'control' is no method: it is the run without pruning"),
        ("erk", "did you mean 'erk_magnitude'"),
        ("gradual-cubik", "did you mean 'gradual-cubic'"),
        ("xyzzy", "no network, method or axis value is called 'xyzzy'"),
        ("resnet21", "did you mean 'resnet32' or 'resnet20'"),
    ],
)
def test_a_wrong_name_is_told_for_what_is_wrong(run, name, sentence):
    code, out, err = run("describe", name)
    assert (code, out) == (2, "")
    assert re.search(sentence if "|" in sentence else re.escape(sentence), err)
    assert "unknown model" not in err
    assert len(err) < 310


@pytest.mark.parametrize("axis", METHOD_AXES)
def test_values_of_axes_are_described_as_what_they_are(run, axis):
    for name in [*axes()[axis]][:4]:
        if name in METHODS:
            continue
        code, out, _ = run("describe", name, "--json")
        assert code == 0, name
        row = next(row for row in json.loads(out) if row["axis"] == axis)
        assert all(METHODS.get(method).axes for method in row["used_by"])
    code, out, _ = run("describe", axis)
    assert code == 0
    assert f"{axis} is an axis of methods" in out
    assert next(iter(axes()[axis])) in out


def test_no_two_methods_have_one_sentence():
    told = [sentence_of(METHODS.get(name)) for name in NAMES]
    assert len(set(told)) == len(told)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((" ",), "an empty name describes nothing"),
        (("",), "an argument is empty and names nothing"),
        (("rigl", "--input-shape", "3,8,8"), "--input-shape is for networks"),
        (("rigl", "--dataset", "digits"), "--dataset is for networks"),
        (("rigle", "--figure", "x.svg"), "did you mean 'rigl'"),
        ((f"lottery_ticket[finetuning=rewind-weights-{'9' * 5000}]",), "unknown fine-tuning mode"),
        ((f"global_magnitude[structure=1:{'9' * 5000}]",), "unknown structure"),
        ((f"global_magnitude[structure=permuted-1:{'9' * 5000}]",), "unknown structure"),
        ((f"network_slimming:{'9' * 5000}",), "no whole percentage"),
        (("lottery_ticket[finetuning=rewind-weights-007]",), "unknown fine-tuning mode"),
    ],
)
def test_what_cannot_be_described_is_said_in_one_sentence(run, asked, told):
    code, out, err = run("describe", *asked)
    assert (code, out) == (2, "")
    assert told in " ".join(err.split())
    assert len(err) < 330


def test_a_schedule_that_ranks_by_its_own_is_not_told_by_a_score(run):
    assert "by its absolute" not in sentence_of(METHODS.get("continuous_sparsification"))
    code, out, _ = run("describe", "continuous_sparsification", width=200)
    assert code == 0
    assert "none decides: the schedule ranks weights by how far its gate is on the open side" in out


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("rigl", "nothing follows the training that it prunes in, which is by the pretraining recipe"),
        (
            "gradual_magnitude",
            "nothing follows the training that it prunes in, which is by the fine-tuning",
        ),
        ("snip", "train what is left by the pretraining recipe, with the mask fixed"),
        ("global_magnitude", "go on from the weights that pruning left"),
    ],
)
def test_what_trains_the_network_that_is_left_is_told(run, name, told):
    code, out, _ = run("describe", name, width=200)
    assert code == 0
    assert told in " ".join(out.split())


def test_no_marks_of_other_languages_are_printed(run):
    for name in ("npb", "dsnot", "amc", "thinet:vgg-conv"):
        _, out, _ = run("describe", name)
        assert not re.search(r":func:|\]\(|``", out), name
    _, out, _ = run("list", "methods")
    assert not re.search(r":func:|\]\(|``", out)


def test_a_method_that_brings_its_amount_goes_by_the_name_that_was_asked_for():
    assert describe_method("network_slimming:70")["name"] == "network_slimming:70"
    assert describe_method("random@network_slimming:30")["name"] == "random@network_slimming:30"
