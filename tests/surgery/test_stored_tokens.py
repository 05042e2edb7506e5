"""Folders of networks that take tokens: what they take is stored, and read again."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import prune
from shrinkbench.surgery.export import export_folder
from shrinkbench.surgery.folders import NetworkDescription, build_full, read_description, save_network
from shrinkbench.surgery.stored_inputs import StoredInputs

TOKENS = torch.arange(16).reshape(1, 16)


def test_inputs_are_known_again_by_kind_shape_and_range():
    mask = torch.ones(1, 3, dtype=torch.bool)
    given = Inputs.of({"input_ids": torch.tensor([[3, 9, 4]]), "mask": mask, "x": torch.ones(1, 2)})
    stored = StoredInputs.of(given)
    again = StoredInputs.from_json(json.loads(json.dumps(stored.as_json())))
    assert again == stored
    example = again.example
    assert example.signature == given.signature
    ids = example.kwargs["input_ids"]
    assert (int(ids.min()), int(ids.max())) == (3, 9)
    assert bool(example.kwargs["mask"].all())
    assert example.kwargs["x"].is_meta
    assert StoredInputs.of(Inputs.of((3, 8, 8))) is None
    assert StoredInputs.of(Inputs.of(([torch.ones(1, 2)], torch.ones(1, 2)))) is None


def test_whole_numbers_of_any_range():
    for low, high in ((0, 2**62), (-(2**63), 2**63 - 1), (7, 7)):
        data = {"args": [{"dtype": "int64", "shape": [3], "low": low, "high": high}], "named": {}}
        found = StoredInputs.from_json(data).example.single
        assert low <= int(found.min()) <= int(found.max()) <= high


@pytest.mark.parametrize(
    "broken",
    [
        {"dtype": "complex64"}, {"shape": [0]}, {"shape": [10**9]}, {"low": 5, "high": 1}, {"high": 2**70},
        {"shape": "x"}, {"low": None},
    ],
)  # fmt: skip
def test_what_describes_no_inputs_is_refused(tmp_path, broken):
    description = NetworkDescription("tiny-llama", 256, (16,), takes=StoredInputs.of(Inputs.of(TOKENS)))
    save_network(tmp_path, build("tiny-llama"), description)
    assert read_description(tmp_path) == description
    data = json.loads((tmp_path / "network.json").read_text())
    assert data["format"] == 3
    data["takes"]["args"][0] |= broken
    (tmp_path / "network.json").write_text(json.dumps(data))
    with pytest.raises(ShrinkbenchError, match="cannot read a network's description"):
        read_description(tmp_path)


def run(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_commands_read_a_stored_language_model(tmp_path):
    module = build("tiny-llama").eval()
    masks = prune(module, "channel_l1", compression=1.3, example_inputs=TOKENS)
    masks.apply(module)
    description = NetworkDescription("tiny-llama", 256, (16,), takes=StoredInputs.of(Inputs.of(TOKENS)))
    export_folder(module, tmp_path / "masked", description, build_full, masks)
    run("shrink", "--model", tmp_path / "masked", "--out", tmp_path / "small")
    described = json.loads(run("describe", tmp_path / "small", "--json"))
    assert described["small"]
    assert described["parameters"] < 951_424 / 1.2
    timed = json.loads(
        run(
            *("latency", "--model", tmp_path / "small", "--batch-size", 1),
            *("--rounds", 1, "--device", "cpu", "--json"),
        )
    )
    assert {row["network"] for row in timed} == {"dense", "small"}
    assert timed[1]["theoretical_speedup"] > 1.1
    text = tmp_path / "text"
    text.mkdir()
    for number in range(10):
        (text / f"{number}.py").write_text("value = 1\n" * 30)
    found = json.loads(
        run(
            *("evaluate", "--model", tmp_path / "small", "--dataset", "python-text", "--data", text),
            *("--device", "cpu", "--json"),
        )
    )
    assert 1 < found["perplexity"] < 2000
