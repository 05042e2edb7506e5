"""Masks of other tools: read exactly, or said to be none."""

import json

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune
from typer.testing import CliRunner

from shrinkbench.cli import app
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.pruning import Masks, import_masks


def pruned():
    module = build("digits-cnn", seed=5)
    layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        torch_prune.l1_unstructured(layer, "weight", amount=0.5)
    return module, layers


@pytest.mark.parametrize("way", ["masks", "removed", "lightning"])
def test_masks_of_torch_are_read_from_a_checkpoint(tmp_path, way):
    module, layers = pruned()
    expected = [layer.weight_mask.bool() for layer in layers]
    if way == "removed":
        for layer in layers:
            torch_prune.remove(layer, "weight")
    state = module.state_dict()
    if way == "lightning":
        state = {"state_dict": {f"model.{name}": value for name, value in state.items()}}
    torch.save(state, tmp_path / "w.pt")
    plain = build("digits-cnn", seed=1)
    masks = import_masks(plain, tmp_path / "w.pt")
    assert all(map(torch.equal, masks.values(), expected))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(plain.eval()(x), module.eval()(x))


def test_masks_of_a_module_fit_it():
    module, layers = pruned()
    masks = Masks.from_module(module)
    assert all(map(torch.equal, masks.values(), (layer.weight_mask.bool() for layer in layers)))
    masks.apply(module)


def test_where_there_are_no_masks_it_is_said(tmp_path):
    module = build("digits-cnn", seed=5)
    with pytest.raises(ShrinkbenchError, match="no masks of torch"):
        Masks.from_module(module)
    state = {k: v[: max(len(v) // 2, 1)] if v.dim() else v for k, v in module.state_dict().items()}
    torch.save(state, tmp_path / "small.pt")
    with pytest.raises(ShrinkbenchError, match="holds a smaller network"):
        import_masks(module, tmp_path / "small.pt")


def test_the_command_line_imports(tmp_path):
    module, _ = pruned()
    torch.save(module.state_dict(), tmp_path / "w.pt")
    out = tmp_path / "m.safetensors"
    command = [
        "prune",
        "--model",
        "digits-cnn",
        "--import",
        str(tmp_path / "w.pt"),
        "--masks-out",
        str(out),
        "--json",
    ]
    done = CliRunner().invoke(app, [*command, "--masks-out", str(out)], catch_exceptions=False)
    masks = Masks.load(out, network="digits-cnn")
    assert masks.equal(import_masks(build("digits-cnn"), tmp_path / "w.pt"))
    assert json.loads(done.stdout)["compression"] > 1.5


def test_masks_in_a_file_that_keep_every_weight_are_told(tmp_path):
    layer = torch.nn.utils.prune.identity(nn.Linear(2, 2), "weight")
    torch.save(layer.state_dict(), tmp_path / "whole.pt")
    with pytest.raises(ShrinkbenchError, match="keep every weight"):
        import_masks(nn.Linear(2, 2), tmp_path / "whole.pt")


def test_layers_whose_masks_were_removed_keep_their_zeros(tmp_path):
    def layers():
        return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))

    module = layers()
    torch_prune.global_unstructured(
        [(module[0], "weight"), (module[2], "weight")], torch_prune.L1Unstructured, amount=0.5
    )
    torch_prune.remove(module[0], "weight")
    torch.save(module.state_dict(), tmp_path / "partly.pt")
    found, read = Masks.from_module(module), import_masks(layers(), tmp_path / "partly.pt")
    assert found.total - found.kept == read.total - read.kept == 48
    assert {*found} == {"0.weight", "2.weight_orig"}
    assert {*read} == {"0.weight", "2.weight"}


def test_masks_that_keep_everything_are_no_masks():
    with pytest.raises(ShrinkbenchError, match=r"no masks of torch\.nn\.utils\.prune"):
        Masks.from_module(torch_prune.identity(nn.Linear(3, 2), "weight"))
