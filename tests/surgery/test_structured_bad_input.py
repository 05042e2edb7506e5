"""What cannot be made smaller is told in one sentence, from the command line (exit code 2) and from Python."""

from __future__ import annotations

import json
import re

import pytest
import torch
from sampling import sampled
from surgery_networks import load_small
from torch import nn

from shrinkbench.cli import main
from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import count_parameters
from shrinkbench.models import build
from shrinkbench.pruning import prune
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.surgery.shrinking import LeftWholeWarning, shrink

SHAPE = (3, 32, 32)
PLUGIN = """
from torch import nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register
from shrinkbench.pruning import pruning_method


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        y = self.conv(x)
        if bool(y.mean() < 0):
            y = -y
        return self.fc(y.mean((2, 3)))


@pruning_method("for_a_test", reference="shrinkbench")
def for_a_test(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}


register(
    ModelCard(
        name="branching-for-a-test",
        family="test",
        definition="goes another way for dark images",
        reference="shrinkbench",
        input_shape=(1, 8, 8),
        num_classes=10,
        parameters=90,
        multiply_adds=1336,
        agrees_with="no publication",
        build=lambda num_classes: Branching(),
        weights_note=NO_PUBLIC_WEIGHTS,
    )
)
"""


@pytest.fixture
def refused(monkeypatch, capsys):
    """The one sentence with which the command line refuses its arguments."""

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["shrinkbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        printed = capsys.readouterr().err.strip()
        assert printed.startswith("error: ")
        assert "\n" not in printed
        return printed

    return call


@pytest.fixture
def half(tmp_path):
    """Masks of half of the filters of one inner layer, and of all that produce the first residual stream."""
    module = build("resnet20")
    masks = {}
    for layer in ("layer2.1.conv1", "conv1", *(f"layer1.{block}.conv2" for block in range(3))):
        masks[f"{layer}.weight"] = torch.ones_like(module.get_submodule(layer).weight, dtype=torch.bool)
        masks[f"{layer}.weight"][::2] = False
    Masks(masks).save(tmp_path / "half.safetensors")
    return tmp_path / "half.safetensors"


@pytest.mark.parametrize("method", sampled(["channel_l1", "filter_l1", "slimming_without_penalty"], every=3))
def test_a_ratio_that_would_empty_a_layer_names_the_largest_one(method, refused):
    sentence = refused("prune", "--model", "resnet20", "--method", method, "--compression", 1000, "--one-shot")
    largest = float(re.search(r"the largest possible target is ([\d.]+)$", sentence)[1])
    module = build("resnet20")
    with pytest.raises(CannotMeetTargetError, match=f"the largest possible target is {largest:g}$"):
        prune(module, method, compression=1000, input_shape=SHAPE, one_shot=True)
    masks = prune(module, method, compression=largest, input_shape=SHAPE, one_shot=True)
    assert all(bool(mask.any()) for mask in masks.values())
    if method == "channel_l1":
        assert shrink(module, masks, SHAPE).layer1[0].conv1.out_channels == 1


@pytest.mark.slow
def test_thinet_names_the_largest_target_too():
    batches = [(torch.randn(2, *SHAPE), torch.tensor([0, 1]))]
    with pytest.raises(
        CannotMeetTargetError, match=r"compression 1000 cannot be met: .* target is \d"
    ) as raised:
        prune(build("resnet20"), "thinet", compression=1000, batches=batches)
    largest = float(str(raised.value).rpartition(" ")[2])
    masks = prune(build("resnet20"), "thinet", compression=largest, batches=batches)
    assert all(bool(mask.any()) for mask in masks.values())


def test_emptying_a_group_by_hand_is_refused():
    from shrinkbench.network.coupling import couple

    module = build("resnet20")
    nothing = {"layer1.0.conv1": torch.zeros(16, dtype=torch.bool)}
    with pytest.raises(ShrinkbenchError, match=r"all 16 channels of 'layer1\.0\.conv1' would be removed; keep"):
        masks_of_units(module, couple(module, SHAPE), nothing)


def test_a_network_that_cannot_be_followed(refused, tmp_path):
    plugin = tmp_path / "branching.py"
    plugin.write_text(PLUGIN)
    common = ("--plugin", plugin, "--model", "branching-for-a-test")
    told = refused("prune", *common, "--method", "channel_l1", "--compression", 1.2)
    assert "does not depend on values" in told
    with pytest.raises(ShrinkbenchError, match="channels can only be removed where what is computed outside"):
        shrink(build("branching-for-a-test"), {}, (1, 8, 8))


class Cut(nn.Module):
    """torch-pruning takes an unknown function for an element-wise one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        y = self.second(torch.relu(self.first(x)).flip(1))
        return self.fc(torch.relu(y).mean((2, 3)))


def test_a_group_that_is_misread_is_left_whole_and_named():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Cut()
    with pytest.warns(LeftWholeWarning, match="channels of 'first' are left whole: removing some changes"):
        masks = prune(module, "channel_l1", compression=1.5, input_shape=(3, 12, 12))
    assert bool(masks["first.weight"].all())
    with pytest.warns(LeftWholeWarning, match="channels of 'first' are left whole"):
        small = shrink(module, masks, (3, 12, 12))
    assert small.first.out_channels == 8
    assert count_parameters(small) == masks.kept + count_parameters(module) - masks.total


def test_masks_of_another_network(refused, half, tmp_path):
    for command in (("shrink", "--out", tmp_path / "small"), ("latency", "--rounds", 1)):
        assert "for another network" in refused(*command, "--model", "digits-cnn", "--masks", half)
    assert "shape 1x32x32" in refused(
        "shrink", "--model", "resnet20", "--masks", half, "--out", tmp_path / "s", "--input-shape", "1,32,32"
    )
    # A ResNet-20's names and shapes are all in a ResNet-56.
    Masks.load(half).save(tmp_path / "noted.safetensors", network="resnet20")
    noted = ("--model", "resnet56", "--masks", tmp_path / "noted.safetensors")
    for command in (("shrink", "--out", tmp_path / "small"), ("latency",), ("patterns",)):
        assert "holds masks for resnet20, not for resnet56" in refused(*command, *noted)
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    torn = ("--masks", tmp_path / "torn.safetensors")
    assert "cannot read masks" in refused("shrink", "--model", "resnet20", *torn, "--out", tmp_path / "small")


def test_options_without_effect_and_unknown_endings(refused, half, tmp_path):
    masks = ("--model", "resnet20", "--masks", half)
    assert "ends in .pt2, .ts, .onnx" in refused("shrink", *masks, "--out", tmp_path / "net.pt")
    assert not (tmp_path / "net.pt").exists()
    assert "100000 threads are too many" in refused("latency", *masks, "--threads", 100_000)
    assert "--figures draws what a sweep recorded" in refused(
        "patterns", *masks, "--figures", tmp_path / "figures"
    )


def test_a_target_of_another_network(refused):
    target = ("--model", "resnet20", "--method", "li2017:resnet56-a")
    assert "compression=2 has no say; leave it out" in refused("prune", *target, "--compression", 2)
    told = refused("prune", *target)
    assert "'li2017:resnet56-a' keeps" in told
    assert "use the network that the target was published for" in told


def test_groups_that_stay_are_named_by_the_command(half, tmp_path, monkeypatch, capsys):
    common = ["shrink", "--model", "resnet20", "--masks", half, "--out", tmp_path / "small", "--json"]
    monkeypatch.setattr("sys.argv", ["shrinkbench", *map(str, common)])
    main()
    left = json.loads(capsys.readouterr().out)["left_in_place"]
    assert any("8 pruned channels of 'conv1' stay in place" in sentence for sentence in left)


def test_a_description_that_does_not_fit_its_weights(half, tmp_path, monkeypatch):
    common = ["shrink", "--model", "resnet20", "--masks", half, "--out", tmp_path / "small", "--complete"]
    monkeypatch.setattr("sys.argv", ["shrinkbench", *map(str, common)])
    main()
    description = tmp_path / "small" / "network.json"

    def edit(**changes):
        description.write_text(json.dumps(json.loads(description.read_text()) | changes))

    def load():
        return load_small(tmp_path / "small", lambda name, classes: build(name, num_classes=classes))

    load()
    edit(num_classes=7)
    with pytest.raises(ShrinkbenchError, match="do not fit the description"):
        load()
    edit(network="digits-cnn")
    with pytest.raises(ShrinkbenchError, match="this surgery is for another network"):
        load()
    edit(surgery={})
    with pytest.raises(ShrinkbenchError, match=r"not a description|cannot read"):
        load()


FLIPPING = """
from torch import nn

from shrinkbench.models.card import NO_PUBLIC_WEIGHTS, ModelCard, register


class Flipping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        y = self.second(self.first(x).relu().flip(1)).relu()
        return self.fc(self.third(y).relu().mean((2, 3)))
"""


def test_prune_names_what_it_left_whole(tmp_path, monkeypatch, capsys):
    plugin = tmp_path / "flipping.py"
    registration = PLUGIN[PLUGIN.index("register(") :]
    registration = registration.replace("Branching", "Flipping").replace(
        "branching-for-a-test", "flipping-for-a-test"
    )
    plugin.write_text(FLIPPING + "\n\n" + registration)
    asked = ["prune", "--plugin", plugin, "--model", "flipping-for-a-test", "--method", "channel_l1"]
    monkeypatch.setattr("sys.argv", ["shrinkbench", *map(str, asked), "--compression", "1.5"])
    main()
    assert (
        "note: channels of 'first' are left whole: removing some changes the outputs" in capsys.readouterr().err
    )
