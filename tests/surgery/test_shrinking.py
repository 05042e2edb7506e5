"""Surgery: the smaller network computes what the masked one does, and is as small as the masks say."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from surgery_networks import CONFORMANCE, as_trained, make, outputs
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds, count_parameters, measure_size
from shrinkbench.models import build
from shrinkbench.network.coupling import couple
from shrinkbench.network.probe import trace
from shrinkbench.pruning import prune
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.structures.channel_masks import complete_masks, masks_of_units
from shrinkbench.surgery.shrinking import LeftWholeWarning, plan_and_shrink, shrink


def keep_some(coupling, removed, seed=0):
    """A random choice of units to keep in every group, ``removed`` of each gone."""
    generator = torch.Generator().manual_seed(seed)
    keep = {}
    for group in coupling.free:
        order = torch.randperm(group.units, generator=generator)
        keep[group.layer] = torch.zeros(group.units, dtype=torch.bool)
        keep[group.layer][order[: max(1, round(group.units * (1 - removed)))]] = True
    return keep


def masked_copy(module, masks):
    copied = copy.deepcopy(module)
    Masks(masks).apply(copied)
    return copied


def assert_same_outputs(module, masks, small, shape):
    expected = outputs(masked_copy(module, masks).double(), shape, lambda m: lambda x: m(x.double()))
    found = outputs(copy.deepcopy(small).double(), shape, lambda m: lambda x: m(x.double()))
    assert float(expected.abs().max()) > 1e-3  # or the comparison would show nothing
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


LARGE = (
    "resnet50",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_16",
    "swin_t",
    "mobilenet_v2",
    "regnet_y_400mf",
    "densenet40",
    "cifar-vgg",
    "preresnet56",
    "resnet56",
)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow) if n.endswith(LARGE) else n for n in CONFORMANCE],
)
def test_channels_of_every_network(name):
    module, shape = make(name)
    coupling = couple(module, shape)
    masks = masks_of_units(module, coupling, keep_some(coupling, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if "convnext" in name:  # its streams pass layer norms over channels, which mix them
            warnings.filterwarnings("ignore", r".*LayerNorm(2d)?\), which mixes channels", LeftWholeWarning)
        small = shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    size = measure_size(module, shape, masks)
    assert count_parameters(small) == size.parameters_kept
    attention = sum(p.multiply_adds for p in trace(module, shape).products if p.parameter is None)
    left = sum(p.multiply_adds for p in trace(small, shape).products if p.parameter is None)
    assert count_multiply_adds(small, shape) - left == size.multiply_adds_kept - attention

    loss = small.train()(torch.randn(2, *shape)).square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in small.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFORMANCE)
def test_multiply_adds_fall_with_every_channel_fraction(name):
    module, shape = make(name)
    coupling = couple(module, shape)
    counts = [count_multiply_adds(module, shape)]
    for removed in (0.2, 0.4, 0.6, 0.8):
        masks = masks_of_units(module, coupling, keep_some(coupling, removed))
        small = shrink(module, masks, shape)
        assert_same_outputs(module, masks, small, shape)
        counts.append(count_multiply_adds(small, shape))
    assert counts == sorted(set(counts), reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preresnet56", "densenet40"])
def test_inputs_that_one_layer_ignores_are_selected_away_before_its_batch_norm(name):
    module, shape = make(name)
    coupling = couple(module, shape)
    generator = torch.Generator().manual_seed(3)
    masks = {}
    # The first convolution of a block reads a stream that other layers read too.
    chosen = [layer for layer in coupling.feeding_norm if layer.endswith("conv1")][2:9]
    for layer in chosen:
        norm, weight = coupling.feeding_norm[layer], module.get_submodule(layer).weight
        keep = torch.rand(weight.shape[1], generator=generator) < 0.5
        masks[f"{layer}.weight"] = keep.view(1, -1, 1, 1).expand(weight.shape).clone()
        masks[f"{norm}.weight"], masks[f"{norm}.bias"] = keep.clone(), keep.clone()
    small, surgery = plan_and_shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    assert count_parameters(small) == measure_size(module, shape, masks).parameters_kept
    assert set(surgery.selected) <= set(coupling.feeding_norm.values())
    whole = shrink(module, masks, shape, select_inputs=False)
    assert_same_outputs(module, masks, whole, shape)
    assert count_parameters(whole) > count_parameters(small)


@pytest.mark.slow
def test_an_emptied_residual_block_becomes_the_identity():
    module, shape = make("resnet56")
    masks = {
        name: torch.zeros_like(p, dtype=torch.bool)
        for name, p in module.named_parameters()
        if name.startswith(("layer1.3.", "layer3.5."))
    }
    small = shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    assert isinstance(small.layer1[3], nn.Identity)
    assert isinstance(small.layer3[5], nn.Identity)
    assert count_parameters(small) == measure_size(module, shape, masks).parameters_kept


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision/resnet50", "preresnet56"])
def test_an_emptied_branch_beside_a_projection_costs_nothing(name):
    module, shape = make(name)
    masks = {
        n: torch.zeros_like(p, dtype=torch.bool)
        for n, p in module.named_parameters()
        if n.startswith("layer2.0.") and "downsample" not in n
    }
    small = shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    size = measure_size(module, shape, masks)
    assert count_parameters(small) == size.parameters_kept
    assert count_multiply_adds(small, shape) == size.multiply_adds_kept


def test_a_layer_emptied_by_weight_pruning_leaves_its_bias():
    net = as_trained(
        nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.Flatten())
    )
    masks = {"2.weight": torch.zeros(5, 4, 1, 1, dtype=torch.bool)}
    small = shrink(net, masks, (3, 9, 9))
    assert_same_outputs(net, masks, small, (3, 9, 9))
    assert count_parameters(small) == 5
    assert count_multiply_adds(small, (3, 9, 9)) == 0


def filter_masks(module, names):
    masks = {}
    for name in names:
        weight = module.get_submodule(name).weight
        masks[f"{name}.weight"] = torch.ones_like(weight, dtype=torch.bool)
        masks[f"{name}.weight"][::2] = False
    return masks


def test_filters_without_a_shift_leave_and_with_one_stay_and_are_named():
    layers = ["layer1.0.conv1", "layer2.1.conv1"]
    module = build("resnet20").eval()  # shifts and running means are zero
    masks = filter_masks(module, layers)
    small = shrink(module, masks, (3, 32, 32))
    assert_same_outputs(module, masks, small, (3, 32, 32))
    assert small.layer1[0].conv1.out_channels == 8

    as_trained(module)
    norm = module.layer1[0].bn1
    constant = (norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt())[::2]
    heard = int((constant > 0).sum())  # the others are cut off by the rectifier
    with pytest.warns(LeftWholeWarning, match=rf"^{heard} channels of 'layer1.0.conv1' have no filter left"):
        whole = shrink(module, masks, (3, 32, 32))
    assert_same_outputs(module, masks, whole, (3, 32, 32))
    assert whole.layer1[0].conv1.out_channels == 8 + heard

    completed = complete_masks(module, masks, (3, 32, 32))
    small = shrink(module, completed, (3, 32, 32))
    assert_same_outputs(module, completed, small, (3, 32, 32))
    assert small.layer1[0].conv1.out_channels == 8
    assert count_parameters(small) == measure_size(module, (3, 32, 32), completed).parameters_kept


def test_pruned_filters_of_a_residual_stream_are_named_as_staying():
    module = build("resnet20").eval()
    masks = filter_masks(module, [f"layer1.{b}.conv2" for b in range(3)] + ["conv1"])
    with pytest.warns(
        LeftWholeWarning, match=r"8 pruned channels of 'conv1' stay in place.*layer2.0.downsample"
    ):
        small = shrink(module, masks, (3, 32, 32))
    assert_same_outputs(module, masks, small, (3, 32, 32))


class ChannelSoftmax(nn.Module):
    """torch-pruning takes a softmax over channels for an element-wise operation."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        y = self.first(x).softmax(1)
        return self.fc(torch.relu(self.second(y)).mean((2, 3)))


# With seed 61 every channel of the second layer is cut off by its rectifier for most inputs.
@pytest.mark.parametrize("seed", [0, 61])
def test_channels_that_the_graph_misreads_are_left_whole_and_named(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module, shape = as_trained(ChannelSoftmax()), (3, 8, 8)
    with pytest.warns(LeftWholeWarning, match="channels of 'first' are left whole: removing some changes"):
        coupling = couple(module, shape)
    masks = masks_of_units(module, coupling, keep_some(coupling, 0.5))
    assert "first" not in {group.layer for group in coupling.free}
    with pytest.warns(LeftWholeWarning, match="channels of 'first' are left whole"):
        small = shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    assert (small.first.out_channels, small.second.out_channels) == (6, 3)


@pytest.mark.slow
def test_unstructured_masks_change_nothing_but_the_weights():
    module, shape = make("resnet56")
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(p.shape, generator=generator) < 0.5
        for name, p in module.named_parameters()
        if p.dim() == 4
    }
    small, surgery = plan_and_shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    assert surgery.kept == {}
    assert all(torch.equal(p == 0, ~masks[name]) for name, p in small.named_parameters() if name in masks)


def test_new_values_of_a_method_are_carried_over():
    net = as_trained(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Flatten()))
    keep = torch.tensor([True, False, True, True])
    masks = Masks(
        {"1.weight": keep.view(1, 4, 1, 1).expand(2, 4, 1, 1).clone()},
        new_weights={"1.weight": torch.ones(2, 4, 1, 1)},
    )
    small = shrink(net, masks, (3, 2, 2))
    assert torch.equal(small[1].weight, torch.ones(2, 3, 1, 1))


@pytest.mark.slow
def test_the_original_keeps_everything_and_modes_are_copied():
    module, shape = make("densenet40")
    module.train()
    frozen = module.get_parameter("dense1.0.conv1.weight").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    coupling = couple(module, shape)
    small = shrink(module, masks_of_units(module, coupling, keep_some(coupling, 0.5)), shape)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(layer.training for layer in small.modules())
    assert not frozen.requires_grad
    assert not small.get_parameter("dense1.0.conv1.weight").requires_grad


def test_emptying_a_layer_is_refused_with_its_name():
    module = build("resnet20")
    coupling = couple(module, (3, 32, 32))
    with pytest.raises(ShrinkbenchError, match=r"all 16 channels of 'layer1.0.conv1' would be removed"):
        masks_of_units(module, coupling, {"layer1.0.conv1": torch.zeros(16, dtype=torch.bool)})


def test_masks_of_another_network_are_refused():
    with pytest.raises(ShrinkbenchError, match="for another network"):
        shrink(build("resnet20"), {"layer1.0.conv1.weight": torch.ones(3, 3, dtype=torch.bool)}, (3, 32, 32))


class Made(nn.Module):
    """A random small network: chains, residual sums and concatenations of convolutions."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleDict()
        width, self.widths = 3, []
        for number, (kind, filters, norm) in enumerate(steps):
            if kind == "grouped":
                width_out, groups = (width, 2) if width % 2 == 0 else (width, 1)
            elif kind == "depthwise":
                width_out, groups = width, width
            elif kind == "residual":
                width_out, groups = width, 1
            else:
                width_out, groups = filters, 1
            conv = nn.Conv2d(width, width_out, 3, padding=1, groups=groups, bias=not norm)
            self.layers[str(number)] = nn.Sequential(conv, nn.BatchNorm2d(width_out) if norm else nn.Identity())
            width = width + width_out if kind == "concat" else width_out
        self.fc = nn.Linear(width * 4, 5)

    def forward(self, x):
        for number, (kind, _, _) in enumerate(self.steps):
            y = self.layers[str(number)](x)
            if kind == "residual":
                y = y + x
            elif kind == "concat":
                y = torch.cat([x, y], 1)
            x = torch.relu(y) if kind != "residual" else y
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


step = st.tuples(
    st.sampled_from(["plain", "plain", "residual", "concat", "depthwise", "grouped"]),
    st.integers(2, 8),
    st.booleans(),
)


# Shrinking a failure would take minutes.
@settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(steps=st.lists(step, min_size=2, max_size=7), removed=st.floats(0.1, 0.9), seed=st.integers(0, 99))
@example(  # nothing is left that the input reaches, and a batch norm without channels
    steps=[
        ("plain", 5, True),
        ("concat", 2, False),
        ("depthwise", 7, False),
        ("concat", 2, False),
        ("plain", 3, True),
        ("concat", 6, True),
        ("depthwise", 8, True),
    ],
    removed=0.878,
    seed=10,
)
@example(  # a layer whose input and output have both become zeros is no identity
    steps=[
        ("plain", 5, True),
        ("plain", 2, True),
        ("depthwise", 5, True),
        ("plain", 2, False),
        ("concat", 2, False),
        ("grouped", 5, False),
        ("residual", 7, False),
    ],
    removed=0.517,
    seed=90,
)
@example(  # a batch norm without channels behind which a layer selects, and one that reads nothing left
    steps=[("grouped", 2, False), ("concat", 5, True), ("depthwise", 7, True), ("plain", 4, True)],
    removed=0.8047289636770453,
    seed=8,
)
@example(  # a block of a grouped convolution that reads the network's input too stays, the others leave
    steps=[
        ("concat", 7, True),
        ("grouped", 6, True),
        ("residual", 4, False),
        ("grouped", 3, True),
        ("grouped", 7, False),
        ("plain", 5, False),
        ("plain", 5, False),
    ],
    removed=0.8352274302944205,
    seed=29,
)
def test_random_networks(steps, removed, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = as_trained(Made(steps))
    shape = (3, 6, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*channels of .* have no filter left but still carry a constant")
        warnings.filterwarnings(
            "ignore", "channels of .* are left whole"
        )  # by the graph, and never by the proof
        warnings.filterwarnings("error", ".*left whole: (removing some|no output|the network)")
        coupling = couple(module, shape)
        masks = masks_of_units(module, coupling, keep_some(coupling, removed, seed))
        small, surgery = plan_and_shrink(module, masks, shape)
    assert_same_outputs(module, masks, small, shape)
    counted, kept = count_parameters(small), measure_size(module, shape, masks).parameters_kept
    if "fc" in surgery.constant:  # nothing reaches the classifier: what is left is idle, and has no law
        return
    # Behind a layer without a weight left, more is idle than was masked.
    assert counted <= kept if surgery.constant else counted == kept


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 4, 16, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.encoder(x).mean(1))


@pytest.mark.parametrize("method", ["channel_l1", "head_magnitude"])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_torchs_transformer_encoder_becomes_smaller(method):
    torch.manual_seed(0)
    module, x = Encoder().eval(), torch.randn(3, 5, 8)
    masks = prune(module, method, compression=1.2, input_shape=(5, 8))
    small = shrink(module, masks, (5, 8))
    masks.apply(module)
    with torch.no_grad():  # where torch takes its fused layers
        torch.testing.assert_close(small(x), module(x))
    assert count_parameters(small) < 0.9 * count_parameters(module)
    small.train()(x).sum().backward()


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_an_even_number_of_heads_does_not_wake_the_fused_layer(heads):
    module, x = Encoder().eval(), torch.randn(3, 5, 8)
    kept = torch.arange(8) < 2 * heads
    masks = {}
    for path in ("encoder.layers.0.self_attn", "encoder.layers.1.self_attn"):
        masks[f"{path}.in_proj_weight"] = kept.repeat(3)[:, None].expand(24, 8).clone()
        masks[f"{path}.in_proj_bias"] = kept.repeat(3)
        masks[f"{path}.out_proj.weight"] = kept.expand(8, 8).clone()
    small = shrink(module, masks, (5, 8))
    Masks(masks).apply(module)
    with torch.no_grad():
        torch.testing.assert_close(small(x), module(x))
    assert [layer.self_attn.num_heads for layer in small.encoder.layers] == [heads, heads]


@pytest.mark.slow
def test_channels_last_stays_the_memory_layout():
    module, shape = make("resnet56")
    module = module.to(memory_format=torch.channels_last)
    coupling = couple(module, shape)
    small = shrink(module, masks_of_units(module, coupling, keep_some(coupling, 0.5)), shape)
    kernels = [p for p in small.parameters() if p.dim() == 4]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    assert not small.layer1[0].conv1.weight.is_contiguous()


class Halves(nn.Module):
    """Outputs that are told apart again: by two gates, or by a pixel shuffle by two."""

    def __init__(self, *, shuffled: bool) -> None:
        super().__init__()
        self.before, self.wide = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 32, 1)
        self.behind, self.classify = nn.Conv2d(8 if shuffled else 16, 8, 1), nn.Linear(8, 5)
        self.shuffled = shuffled

    def forward(self, x):
        wide = self.wide(self.before(x).relu())
        one, other = (None, None) if self.shuffled else wide.chunk(2, 1)
        mixed = nn.functional.pixel_shuffle(wide, 2) if self.shuffled else one * other.sigmoid()
        return self.classify(self.behind(mixed).mean((2, 3)))


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("empty", [("behind",), ("before", "behind"), ("wide", "behind"), ("wide",)])
def test_outputs_that_nothing_reads_stay_as_many_as_are_told_apart_behind_them(shuffled, empty):
    torch.manual_seed(0)
    module = Halves(shuffled=shuffled).eval()
    masks = {
        f"{name}.weight": torch.rand_like(getattr(module, name).weight) > 0.4 for name in ("wide", "behind")
    }
    masks |= {f"{name}.weight": torch.zeros_like(getattr(module, name).weight).bool() for name in empty}
    small, x = shrink(module, masks, (3, 8, 8)), torch.randn(3, 3, 8, 8)
    Masks(masks).apply(module)
    torch.testing.assert_close(small(x), module(x))
    assert count_parameters(small) < count_parameters(module)
