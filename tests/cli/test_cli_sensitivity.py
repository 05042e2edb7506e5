"""`shrinkbench sensitivity`, as a person types it."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError

COMMAND = (
    "sensitivity",
    "--model",
    "digits-cnn",
    "--dataset",
    "digits",
    "--images",
    40,
    "--fractions",
    "1,0.5,0.1",
)


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.slow
def test_table_files_and_json_say_the_same(tmp_path):
    out = tmp_path / "found"
    printed = call(*COMMAND, "--method", "channel_l1", "--out", out, "--most-lost", 1)
    lines = printed.splitlines()
    assert lines[0].startswith("top1 0.")
    assert "over 40 validation images" in lines[0]
    assert "max_ratio = 0.9" in lines
    assert max(map(len, lines[1:-2])) <= 80
    assert {p.name for p in out.iterdir()} == {f"sensitivity.{kind}" for kind in ("csv", "svg", "pdf", "png")}
    frame = pd.read_csv(out / "sensitivity.csv")
    assert len(frame) == 1 + 2 * 4
    report = json.loads(call(*COMMAND, "--method", "channel_l1", "--json", "--most-lost", 1))
    assert [layer["layer"] for layer in report["layers"]] == list(dict.fromkeys(frame["layer"].dropna()))
    assert report["bounds"] == {"round_to": None, "ignore": [], "max_ratio": 0.9}
    first = report["layers"][0]
    here = frame[(frame["layer"] == first["layer"]) & (frame["density"] == 0.1)]
    assert list(here["top1"]) == pytest.approx(first["top1"]["0.1"])


def test_the_test_split_is_never_read(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the test split was read")

    from shrinkbench.cli import networks

    load = networks.load_named

    class Closed:
        batches = subset = __len__ = refuse

    def loaded(name, data):
        from dataclasses import replace

        return replace(load(name, data), test=Closed())

    monkeypatch.setattr("shrinkbench.cli.sensitivity.load_named", loaded)
    assert "validation images" in call(*COMMAND, "--method", "global_gradient", "--seed", 0, "--seed", 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--method", "gradual_magnitude"), "over a training"),
        (("--method", "global_magnitude", "--fractions", "half"), "write numbers with commas"),
        (("--method", "global_magnitude", "--fractions", "2"), "no fraction of a layer"),
        (("--method", "global_magnitude", "--images", 10**6), "more than the"),
        (("--method", "global_magnitude", "--most-lost", "-1"), "bounds nothing"),
        (("--method", "global_magnitude", "--most-lost", "nan"), "bounds nothing"),
        (("--method", "global_magnitude", "--out", __file__), "folder|file"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        call(*COMMAND, *arguments)


def test_a_dataset_has_to_be_named():
    with pytest.raises(ShrinkbenchError, match="name a dataset"):
        call("sensitivity", "--model", "digits-cnn", "--method", "global_magnitude")
