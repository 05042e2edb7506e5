"""What is seen of a forward pass: inputs, statistics and maps, with nothing kept or left behind."""

import gc

import pytest
import torch
from sample_networks import ConvNet, Odd, ViT, batches, seeded
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.dataflow import read_flow
from shrinkbench.pruning import PruneContext, prunable_names

SHAPE = (3, 8, 8)


def context(module, data, count=4, names=None):
    names = names or prunable_names(module, input_shape=data[0][0].shape[1:])
    return PruneContext(module, names, batches=data, batch_count=count, input_shape=tuple(data[0][0].shape[1:]))


CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "padding and stride": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, padding=2, groups=4, dilation=2),
    "circular": nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
    "oblong": nn.Conv2d(4, 6, (1, 5), padding=(0, 2)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_columns_times_rows_are_the_convolution(name):
    """Unfolded inputs reproduce the output, and column sums are sums over them."""
    layer = CONVOLUTIONS[name]
    x = torch.randn(3, 4, 9, 9)
    ctx = context(layer, [(x, torch.zeros(3))], names=["weight"])
    seen = []
    ctx.observe(seen.append)
    (product,) = seen
    columns = torch.cat(list(product.columns()), dim=1)  # groups, rows, columns
    rows = layer.weight.detach().reshape(layer.groups, -1, columns.shape[2])
    found = (columns @ rows.transpose(1, 2)).permute(0, 2, 1).reshape(6 if layer.out_channels == 6 else 8, -1)
    bias = layer.bias.detach().reshape(-1, 1)
    expected = layer(x).detach().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found + bias, expected, rtol=1e-4, atol=1e-5)
    sums = product.column_sums(torch.square).reshape(layer.groups, -1)
    torch.testing.assert_close(sums, columns.square().sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2])
def test_column_sums_of_transposed_convolutions(groups):
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, groups=groups, bias=False)
    x = torch.rand(2, 4, 5, 5)
    seen = []
    context(layer, [(x, torch.zeros(2))], names=["weight"]).observe(seen.append)
    sums = seen[0].column_sums(torch.abs)
    # Without cropping every input meets every kernel position once.
    expected = x.sum((0, 2, 3)).reshape(groups, 4 // groups, 1, 1).expand(groups, 4 // groups, 3, 3)
    torch.testing.assert_close(sums, expected)
    with pytest.raises(ShrinkbenchError, match="cannot be unfolded"):
        list(seen[0].columns())


def test_a_reused_layer_is_seen_as_often_as_it_runs():
    module = seeded(Odd)
    seen = []
    images = context(module, batches(2)).observe(lambda p: seen.append(p.parameter))
    assert images == 16
    assert seen.count("again.weight") == 2 * 3  # twice itself and once as the tied layer, in two batches
    assert seen.count("first.weight") == 2


def test_packed_projections_and_functional_calls_are_seen():
    module = seeded(ViT)
    shapes = {}
    context(module, batches(1, 4)).observe(lambda p: shapes.setdefault(p.parameter, p.input.shape))
    assert shapes["blocks.0.attention.in_proj_weight"] == (16, 16)  # 4 images x 4 tokens, width 16
    assert shapes["blocks.0.attention.out_proj.weight"] == (16, 16)

    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return F.linear(x, self.layer.weight * 2)  # not the module's own call

    seen = []
    context(Functional(), [(torch.ones(2, 4), torch.zeros(2))], names=["layer.weight"]).observe(seen.append)
    assert torch.equal(seen[0].input, torch.ones(2, 4))


def test_observation_stops_at_the_last_layer_of_interest():
    module, ran = seeded(ConvNet), []  # what ran behind the first layer
    module.depthwise.register_forward_hook(lambda *_: ran.append(1))
    ctx = context(module, batches(1))
    assert ctx.flow.order[0] == "stem.weight"  # reads the flow, a pass of its own
    ran.clear()
    ctx.observe(lambda p: None, names=["stem.weight"])
    assert not ran
    ctx.observe(lambda p: None, names=["pointwise.weight"])
    assert ran


def test_given_values_take_the_place_of_weights():
    module = seeded(ConvNet)
    inputs = []
    values = {"stem.weight": torch.zeros_like(module.stem.weight)}
    context(module, batches(1)).observe(
        lambda p: inputs.append(p.input), names=["grouped.weight"], values=values
    )
    expected = F.relu(module.norm1.eval()(torch.zeros(8, 16, 8, 8)))
    torch.testing.assert_close(inputs[0], expected)


def test_activations_are_the_inputs_of_each_layer():
    module, data = seeded(ConvNet).eval(), batches(1)
    found = context(module, data).activations
    torch.testing.assert_close(found["stem.weight"], data[0][0])
    first = F.relu(module.norm1(module.stem(data[0][0])))
    torch.testing.assert_close(found["grouped.weight"], first.detach())


def test_maps_are_taken_after_batch_norm_sum_and_activation():
    module, (x, _) = seeded(ConvNet).eval(), batches(1)[0]
    maps = {}
    context(module, [(x, torch.zeros(8))]).observe_maps(lambda m: maps.setdefault(m.parameter, m.values))
    stem = F.relu(module.norm1(module.stem(x)))
    y = F.relu(module.norm2(module.grouped(stem)))
    y = F.relu(module.norm3(module.depthwise(y)))
    last = F.relu(module.norm4(module.pointwise(y)) + stem)
    torch.testing.assert_close(maps["stem.weight"], stem.detach())
    torch.testing.assert_close(maps["pointwise.weight"], last.detach())


def test_layers_that_no_data_reaches_are_named():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    module.unused = nn.Linear(3, 3)
    module.forward = lambda x: module[1](module[0](x))
    ctx = context(module, [(torch.ones(1, 3), torch.zeros(1))], names=["0.weight", "unused.weight"])
    with pytest.raises(ShrinkbenchError, match=r"no data passes through 'unused\.weight'"):
        ctx.observe(lambda p: None)


def test_nothing_is_left_when_a_visitor_fails():
    module = seeded(ViT)

    def fail(product):
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        context(module, batches(1)).observe(fail)
    assert torch.backends.mha.get_fastpath_enabled()
    assert module.training
    assert isinstance(module(batches(1)[0][0]), torch.Tensor)


@pytest.mark.slow
def test_statistics_over_many_batches_hold_one_batch():
    """Batches of a loader are read, used and let go."""
    alive = 0

    class Tracked:
        def __iter__(self):
            nonlocal alive
            for i in range(6):
                gc.collect()
                x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(i))
                y = torch.zeros(4, dtype=torch.int64)
                held.append(torch.multiprocessing.reductions.StorageWeakRef(x.untyped_storage()))
                alive = max(alive, sum(not ref.expired() for ref in held))
                yield x, y

    held = []
    ctx = context(seeded(ConvNet), [(torch.zeros(1, 3, 8, 8), torch.zeros(1))])
    ctx._source, ctx._batch_count = Tracked(), 6
    assert ctx.gradients.keys() == ctx.weights.keys()
    assert len(held) == 6
    assert alive <= 2
    held.clear()
    alive = 0
    ctx.observe(lambda p: None)
    assert alive <= 2


def test_flow_of_a_plain_network():
    flow = read_flow(seeded(ConvNet), SHAPE)
    assert flow.order == ("stem.weight", "grouped.weight", "depthwise.weight", "pointwise.weight", "fc.weight")
    assert flow.batch_norms["depthwise.weight"] == "norm3.weight"
    assert flow.branches == (frozenset({"grouped.weight", "depthwise.weight", "pointwise.weight"}),)
    assert flow.logits == {"fc.weight"}
    assert flow.consumers("stem.weight") == {"grouped.weight", "fc.weight"}


def test_flow_of_a_transformer():
    flow = read_flow(seeded(ViT), SHAPE)
    heads = {step.parameter: step.head_size for step in flow.steps if step.head_size}
    assert heads == {f"blocks.{i}.attention.out_proj.weight": 4 for i in (0, 1)}
    assert len(flow.branches) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "branches", "heads"),
    [
        ("resnet18", 8, 0),
        ("swin_t", 24, 12),
        ("convnext_tiny", 18, 0),
        ("densenet121", 0, 0),
        ("vit_b_16", 24, 12),
    ],
)
def test_flow_of_torchvision_networks(name, branches, heads):
    import torchvision

    flow = read_flow(torchvision.models.get_model(name, weights=None), (3, 224, 224))
    assert len(flow.branches) == branches
    assert sum(step.head_size is not None for step in flow.steps) == heads


class Steps(nn.Module):
    """Goes over a sequence, step by step, with the same two layers."""

    def __init__(self):
        super().__init__()
        self.read, self.go_on, self.out = nn.Linear(6, 10), nn.Linear(10, 10), nn.Linear(10, 3)

    def forward(self, sequence):
        state = self.read(sequence[:, 0])
        for step in range(1, sequence.shape[1]):
            state = (self.read(sequence[:, step]) + self.go_on(state)).tanh()
        return self.out(state)


def test_all_steps_of_a_longer_sequence_are_seen():
    sequences = [torch.randn(4, 3, 6), torch.randn(4, 9, 6)]
    ctx = PruneContext(Steps(), ["read.weight"], batches=sequences, batch_count=2)
    sums = []
    ctx.observe(lambda product: sums.append(product.column_sums(torch.square).flatten()))
    assert torch.allclose(sum(sums), sum(x.square().sum((0, 1)) for x in sequences))
