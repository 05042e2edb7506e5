"""NISP, data-free merging, searched ratios and L1: by hand, and by laws."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_networks import as_drawn
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.pruning import METHODS, prune, training_hook
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.methods.importance_propagation import propagate, rank_features
from shrinkbench.pruning.methods.neuron_merging import merge_units
from shrinkbench.pruning.methods.searched_ratios import scores_of
from shrinkbench.pruning.prunable import prunable_names


def perceptron(widths=(3, 4, 2, 2)):
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*(piece for layer in layers[:-1] for piece in (layer, nn.ReLU())), layers[-1])


def context(module, shape):
    return PruneContext(module, prunable_names(module, input_shape=shape), input_shape=shape)


def test_importance_goes_back_by_absolute_weights():
    module = as_drawn(perceptron)
    ctx = context(module, (3,))
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([[1.0, -2.0, 0.0, 3.0], [-1.0, 0.0, 5.0, 0.0]]))
    found = propagate(ctx, couple(module, (3,)), {"2": torch.tensor([10.0, 1.0]).double()})
    assert found["2"].tolist() == [10, 1]
    assert found["0"].tolist() == [11, 20, 5, 30]  # |W|' (10, 1)


def test_importance_of_a_residual_stream_is_that_of_all_that_reads_it():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner = nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Conv2d(2, 3, 3, padding=1)
            self.outer, self.head = nn.Conv2d(3, 2, 1), nn.Linear(2, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.head((x + self.outer(torch.relu(self.inner(x)))).mean((2, 3)))

    module = as_drawn(Stream)
    found = propagate(context(module, (1, 4, 4)), couple(module, (1, 4, 4)), {"stem": torch.tensor([5.0, 2.0])})
    inner = module.outer.weight.detach().abs().double()[:, :, 0, 0].T @ torch.tensor([5.0, 2.0]).double()
    torch.testing.assert_close(found["inner"], inner)
    behind = module.inner.weight.detach().abs().double().sum((2, 3)).T @ inner
    torch.testing.assert_close(found["stem"], torch.tensor([5.0, 2.0]).double() + behind)


def test_features_are_ranked_by_all_paths_between_them():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(50, 4, generator=generator).double()
    values[:, 1] = values[:, 0] * 2
    values[:, 3] = 0.0
    deviation = values.std(0, unbiased=False)
    deviation = deviation / deviation.max()
    ranks = values.argsort(0).argsort(0).double()
    ranks[:, 3] = 0
    edges = torch.empty(4, 4).double()
    for i in range(4):
        for j in range(4):
            a, b = ranks[:, i] - ranks[:, i].mean(), ranks[:, j] - ranks[:, j].mean()
            length = float(a.norm() * b.norm())
            correlation = float(a @ b) / length if length else 0.0
            edges[i, j] = 0.5 * max(deviation[i], deviation[j]) + 0.5 * (1 - abs(correlation))
    radius = torch.linalg.eigvalsh(edges).abs().max()
    paths, power = torch.zeros(4, 4).double(), torch.eye(4).double()
    for _ in range(400):
        power = power @ edges * 0.9 / radius
        paths += power
    torch.testing.assert_close(rank_features(values), paths.sum(1))


def batches():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(16, 3, generator=generator), torch.randint(0, 2, (16,), generator=generator))] * 2


def test_nisp_keeps_what_the_last_features_need():
    module = as_drawn(lambda: perceptron((3, 8, 4, 2)))
    with torch.no_grad():
        module[2].weight[:, 5] = 0  # nobody reads it
    masks = prune(module, "nisp", compression=1.5, batches=batches())
    assert not masks["0.weight"][5].any()


def test_merging_by_hand():
    incoming = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 3.0], [0.0, 0.0]])
    outgoing = torch.tensor([[2.0], [1.0], [1.0], [0.01]])
    # Saliencies: unit 1 beside 0: 0.01 * 1; unit 0 beside 1: 0.01 * 4; unit 3 beside 0: 1 * 0.0001.
    alive = torch.ones(4, dtype=torch.bool)
    kept, merged = merge_units(incoming, outgoing, alive, 3)
    assert kept.tolist() == [0, 1, 2]
    torch.testing.assert_close(merged, torch.tensor([[2.01], [1.0], [1.0], [0.0]]))
    kept, merged = merge_units(incoming, outgoing, alive, 2)
    assert kept.tolist() == [0, 2]
    torch.testing.assert_close(merged, torch.tensor([[3.01], [0.0], [1.0], [0.0]]))
    alive[3] = False
    assert merge_units(incoming, outgoing, alive, 2)[0].tolist() == [0, 2]


def merge_plainly(incoming, outgoing, alive, keep):
    """As the paper says it: all pairs are looked at before each removal."""
    rows, outgoing, left = incoming.double(), outgoing.clone(), alive.clone()
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    distances.fill_diagonal_(torch.inf)
    for _ in range(int(left.sum()) - keep):
        distances[~left] = torch.inf
        distances[:, ~left] = torch.inf
        nearest, to = distances.min(0)
        saliency = nearest * outgoing.double().square().mean(1)
        gone = int(torch.where(saliency.isnan() | ~left, torch.inf, saliency).argmin())
        into = int(to[gone])
        outgoing[into] += outgoing[gone]
        outgoing[gone] = 0
        left[gone] = False
    return left.nonzero().flatten(), outgoing


@settings(max_examples=150, deadline=None)
@given(data=st.data(), width=st.integers(2, 40), seed=st.integers(0, 2**31))
def test_merging_is_that_of_all_pairs_bit_for_bit(data, width, seed):
    generator = torch.Generator().manual_seed(seed)
    incoming = torch.randn(width, data.draw(st.integers(1, 20)), generator=generator)
    outgoing = torch.randn(width, data.draw(st.integers(1, 20)), generator=generator)
    if data.draw(st.booleans()):  # few different rows, so many equal distances
        incoming = incoming[torch.randint(data.draw(st.integers(1, 5)), (width,), generator=generator) % width]
    if data.draw(st.booleans()):
        outgoing = outgoing.sign()
    number = st.sampled_from([float("nan"), float("inf"), -float("inf"), 3e38, 0.0])
    for tensor in (incoming, outgoing):
        for row, value in data.draw(st.dictionaries(st.integers(0, width - 1), number, max_size=3)).items():
            tensor[row] = value
    alive = torch.rand(width, generator=generator) < data.draw(st.sampled_from([0.3, 0.8, 1.1]))
    keep = data.draw(st.integers(1, max(1, int(alive.sum()))))
    for found, plain in zip(
        merge_units(incoming, outgoing, alive, keep),
        merge_plainly(incoming, outgoing, alive, keep),
        strict=True,
    ):
        assert torch.equal(found.nan_to_num(7e37), plain.nan_to_num(7e37))


class Twins(nn.Module):
    """Every channel has a twin, told apart by the scales of batch norm alone; one layer reads positions."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.next, self.head = nn.Conv2d(8, 6, 3), nn.Linear(6 * 4, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.head(torch.relu(self.next(x)).flatten(1))


def test_a_unit_whose_twin_stays_goes_without_a_trace_in_the_outputs():
    module, shape = as_drawn(Twins).eval(), (1, 6, 6)
    with torch.no_grad():
        module.conv.weight[4:] = module.conv.weight[:4] * 2
        module.conv.bias[4:] = module.conv.bias[:4] * 2
        module.norm.running_var.uniform_(0.5, 2)
        module.norm.running_mean.uniform_(-1, 1)
        module.norm.running_mean[4:] = module.norm.running_mean[:4] * 2
        module.norm.weight[4:] = module.norm.weight[:4] / 2
        module.norm.running_var[4:] = module.norm.running_var[:4]
        module.next.weight[4:] = module.next.weight[:2]
        module.next.bias[4:] = module.next.bias[:2]
    inputs = torch.randn(5, 1, 6, 6)
    with torch.no_grad():
        before = module(inputs)
        masks = prune(module, "data_free_merging", compression=1.3, input_shape=shape, prune_classifier=True)
        masks.apply(module)
        torch.testing.assert_close(module(inputs), before, rtol=1e-3, atol=1e-4)
    assert int(masks["conv.weight"].flatten(1).any(1).sum()) < 8


def test_searched_shares_are_in_proportion_and_never_worse_than_equal_ones():
    ranks = {"a": torch.tensor([0.0, 0.5]), "b": torch.tensor([0.5, 0.0, 0.25, 0.75])}
    scores = scores_of(ranks, torch.tensor([0.0, 0.6931472]))
    torch.testing.assert_close(scores["b"], -ranks["b"] / 2)
    assert torch.equal(scores["a"], -ranks["a"])
    module = as_drawn(lambda: perceptron((3, 12, 12, 2)))
    data = batches()
    masks = {}
    with torch.no_grad():
        module[0].weight[6:] *= 1e-3  # half of the first layer does nothing
        module[0].bias[6:] = 0
    for name in ("amc", "channel_l1"):
        masks[name] = prune(module, name, compression=1.6, batches=data)
    losses = {}
    for name, found in masks.items():
        copied = copy.deepcopy(module)
        found.apply(copied)
        losses[name] = float(nn.functional.cross_entropy(copied(data[0][0]), data[0][1]).detach())
    assert losses["amc"] <= losses["channel_l1"] + 1e-3
    counts = {n: int(masks["amc"][n].any(1).sum()) for n in ("0.weight", "2.weight")}
    assert len(set(counts.values())) == 2, counts  # of 12 neurons each


def test_l1_adds_the_sign():
    module = as_drawn(perceptron)
    hook = training_hook(
        module, "l1_regularization", compression=1.2, epochs=1, steps_per_epoch=1, seed=0, input_shape=(3,)
    )
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    hook.after_backward(1)
    torch.testing.assert_close(module[0].weight.grad, 1e-4 * module[0].weight.sign())
    assert not module[0].bias.grad.any()
    hook.after_epoch(1)
    assert hook.settled
    assert hook.masks.kept < hook.masks.total


def test_methods_that_need_data_say_so():
    for name in ("nisp", "amc"):
        with pytest.raises(ShrinkbenchError, match="none was given"):
            prune(as_drawn(perceptron), name, compression=1.2, input_shape=(3,))
    assert METHODS.get("data_free_merging").needs == ()
