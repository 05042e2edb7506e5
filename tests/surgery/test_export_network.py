"""Small networks on disk: written, read again by name, and as programs of other runtimes."""

from __future__ import annotations

import functools
import json
import warnings
from importlib.util import find_spec

import pytest
import torch
from surgery_networks import load_small, make

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.network.coupling import couple
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.surgery.export import export_program
from shrinkbench.surgery.folders import NetworkDescription, save_network
from shrinkbench.surgery.shrinking import plan_and_shrink


@functools.cache
def halved(name, heads=True):
    """A small network, its surgery and shape, made once: nobody changes them."""
    module, shape = make(name)
    coupling = couple(module, shape)
    keep = {g.layer: torch.arange(g.units) % 2 == 0 for g in coupling.free if heads or g.kind != "heads"}
    masks = masks_of_units(module, coupling, keep)
    return *plan_and_shrink(module, masks, shape), shape


def rebuild(name, num_classes):
    return build(name, num_classes=num_classes, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet40", "torchvision/swin_t"])
def test_a_small_network_is_read_again_from_its_description(name, tmp_path):
    small, surgery, shape = halved(name)
    classes = 10 if name == "densenet40" else 1000
    save_network(tmp_path / "small", small, NetworkDescription(name, classes, shape, surgery))
    again = load_small(tmp_path / "small", rebuild).eval()
    inputs = torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.equal(small.eval()(inputs), again(inputs))


@pytest.mark.parametrize("ending", [".ts", ".pt2"])
def test_a_name_that_is_too_long_is_told(ending, tmp_path):
    with pytest.raises(ShrinkbenchError, match="File name too long"):
        export_program(build("digits-cnn"), tmp_path / f"{'n' * 300}{ending}", (1, 8, 8))


class LooksAtItsInput(torch.nn.Module):
    """Its way depends on the values, which torch.export refuses."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_a_network_that_an_exporter_refuses_is_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"cannot be written as \.pt2 .*choose another ending"):
        export_program(LooksAtItsInput(), tmp_path / "x.pt2", (1, 8, 8))
    assert list(tmp_path.iterdir()) == []


def test_description_and_weights_are_written_both_or_none(tmp_path):
    small, surgery, shape = halved("resnet20")
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(ShrinkbenchError, match=r"weights\.safetensors is a folder"):
        save_network(tmp_path, small, NetworkDescription("resnet20", 10, shape, surgery))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.slow
def test_selections_constants_and_identities_are_read_again(tmp_path):
    module, shape = make("preresnet56")
    masks = {
        n: torch.zeros_like(p, dtype=torch.bool)
        for n, p in module.named_parameters()
        if n.startswith(("layer1.2.", "layer2.0.")) and "downsample" not in n
    }
    stream = module.layer3[2].conv1.weight
    masks["layer3.2.conv1.weight"] = (torch.arange(stream.shape[1]) % 3 > 0).view(1, -1, 1, 1).expand_as(stream)
    small, surgery = plan_and_shrink(module, masks, shape)
    assert surgery.selected
    assert surgery.constant
    assert surgery.identity == ("layer1.2",)
    save_network(tmp_path, small, NetworkDescription("preresnet56", 10, shape, surgery))
    inputs = torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.equal(small.eval()(inputs), load_small(tmp_path, rebuild).eval()(inputs))


def test_a_description_of_another_network_is_refused(tmp_path):
    small, surgery, shape = halved("resnet20")
    save_network(tmp_path, small, NetworkDescription("densenet40", 10, shape, surgery))
    with pytest.raises(ShrinkbenchError, match="for another network"):
        load_small(tmp_path, rebuild)


def test_a_damaged_description_is_told(tmp_path):
    (tmp_path / "network.json").write_text(json.dumps({"network": "resnet20"}))
    with pytest.raises(ShrinkbenchError, match="cannot read a network's description"):
        load_small(tmp_path, rebuild)


ENDINGS = [
    ".pt2",
    ".ts",
    pytest.param(
        ".onnx",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(
                find_spec("onnx") is None
                or find_spec("onnxscript") is None
                or find_spec("onnxruntime") is None,
                reason="the extra 'onnx' is not installed",
            ),
        ],
    ),
]


@pytest.mark.parametrize("ending", ENDINGS)
def test_programs_compute_the_same_for_any_batch(ending, tmp_path):
    small, _, shape = halved("resnet20")
    export_program(small, tmp_path / f"small{ending}", shape)  # compares on another batch size by itself
    assert (tmp_path / f"small{ending}").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("torchvision/vit_b_16", marks=pytest.mark.slow),
        "torchvision/swin_t",
        "torchvision/regnet_y_400mf",
    ],
)
def test_programs_of_library_networks(name, ending, tmp_path):
    small, _, shape = halved(name)
    export_program(small, tmp_path / f"small{ending}", shape)


def test_an_unknown_ending_is_told(tmp_path):
    with pytest.raises(ShrinkbenchError, match=r"use \.pt2, \.ts, \.onnx"):
        export_program(build("resnet20"), tmp_path / "small.pth", (3, 32, 32))


def test_a_network_with_the_old_weight_norm_is_written(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        net = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Linear(6, 4)), torch.nn.Linear(4, 2))
    net(torch.randn(2, 6))  # the layer now holds a weight that is no leaf
    export_program(net, tmp_path / "net.ts", (6,))
    assert torch.jit.load(str(tmp_path / "net.ts"))(torch.randn(3, 6)).shape == (3, 2)


def test_the_reason_for_no_onnx_is_what_the_exporter_stumbled_over(tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(ShrinkbenchError, match="data-dependent") as told:
        export_program(LooksAtItsInput(), tmp_path / "net.onnx", (4,))
    assert "\x1b" not in str(told.value)
