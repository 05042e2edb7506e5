"""``shrinkbench connectivity``: errors at the ends are those of the networks."""

import json

import pytest
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.datasets import load_dataset
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.surgery.folders import NetworkDescription, read_network, save_network
from shrinkbench.training import evaluate


def test_the_ends_are_the_networks_themselves(tmp_path):
    digits = load_dataset("digits")
    expected = []
    for seed in (0, 1):
        module = build("digits-cnn", seed=seed)
        description = NetworkDescription("digits-cnn", 10, (1, 8, 8), normalisation=digits.card.normalisation)
        save_network(tmp_path / str(seed), module, description)
        batches = digits.test.batches(128, normalisation=digits.card.normalisation)
        expected.append(1 - evaluate(module, batches)["top1"])
    folders = [str(tmp_path / "0"), str(tmp_path / "1")]
    result = CliRunner().invoke(
        app, ["connectivity", *folders, "--dataset", "digits", "--points", "3", "--json", "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert found["places"] == [0, 0.5, 1]
    assert [found["errors"][0], found["errors"][-1]] == pytest.approx(expected)
    assert found["barrier"] == pytest.approx(max(found["errors"]) - sum(expected) / 2)
    assert (found["split"], found["images"]) == ("test", len(digits.test))


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_folder_without_a_network_is_told_with_what_to_give(tmp_path, place):
    with pytest.raises(
        ShrinkbenchError, match=r"\(No such file or directory\); give a folder that holds"
    ) as error:
        read_network(tmp_path / place)
    assert "FileNotFoundError" not in str(error.value)
