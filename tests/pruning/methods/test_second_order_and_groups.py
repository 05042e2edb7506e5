"""oBERT, optimal brain compression, group norms, permuted patterns, FORCE and ProsPr, by hand."""

import copy
import itertools

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, prune, training_hook
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.method import SCORES
from shrinkbench.pruning.methods.optimal_brain_compression import counts_of_rows, trace
from shrinkbench.pruning.structures.permuted import best_order


def two_layers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 9, bias=False), nn.Tanh(), nn.Linear(9, 3, bias=False))


def data(images=24, width=6, classes=3):
    generator = torch.Generator().manual_seed(4)
    return [
        (
            torch.randn(images, width, generator=generator),
            torch.randint(0, classes, (images,), generator=generator),
        )
    ]


def test_small_fisher_blocks_are_those_of_dense_matrices():
    """54 weights are a block of 50 and one of 4; saliency and change from F written out."""
    module, (batch,) = two_layers(), data()
    ctx = PruneContext(module, ["0.weight"], batches=[batch], input_shape=(6,))
    rows = []
    for image, label in zip(*batch, strict=True):
        loss = nn.functional.cross_entropy(module(image[None]), label[None])
        rows.append(torch.autograd.grad(loss, module[0].weight)[0].flatten().double())
    g, w = torch.stack(rows), module[0].weight.detach().flatten().double()
    blocks = [slice(0, 50), slice(50, 54)]
    fishers = [g[:, b].T @ g[:, b] / len(g) + 1e-5 * torch.eye(g[:, b].shape[1]).double() for b in blocks]
    pairs = list(zip(blocks, fishers, strict=True))
    expected = torch.cat([w[b] ** 2 / (2 * f.inverse().diagonal()) for b, f in pairs])
    found = SCORES.get("fisher_in_runs").function(ctx)["0.weight"].flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-9)
    masks = prune(module, "obert", compression=1.6, batches=[batch], input_shape=(6,), one_shot=True)
    keep = masks["0.weight"].flatten()
    for b, f in pairs:
        k = keep[b]
        change = f[k][:, k].inverse() @ (f[k][:, ~k] @ w[b][~k])
        values = masks.new_weights["0.weight"].flatten().double()[b]
        torch.testing.assert_close(values[k], w[b][k] + change, rtol=1e-4, atol=1e-5)
        assert not values[~k].any()


def slow_row(w, h, count):
    """One weight after another by inverting what is left each time: losses, who goes, and the row."""
    alive, losses, order = list(range(len(w))), [], []
    w = w.clone()
    for _ in range(count):
        inverse = h[alive][:, alive].inverse()
        cost = w[alive] ** 2 / inverse.diagonal()
        i = int(cost.argmin())
        losses.append(float(cost[i]) / 2)
        order.append(alive[i])
        w[alive] = w[alive] - inverse[:, i] * w[alive[i]] / inverse[i, i]
        w[alive[i]] = 0
        del alive[i]
    return losses, order, w


def test_brain_compression_is_the_surgeon_written_out():
    module, (batch,) = two_layers(), data()
    masks = prune(module, "obc", compression=1.7, batches=[batch], input_shape=(6,))
    x, weights = batch[0].double(), module[0].weight.detach().double()
    h = 2 / len(x) * x.T @ x
    h += 0.01 * h.diagonal().mean() * torch.eye(6).double()
    rows = [slow_row(w, h, 6) for w in weights]
    counts, budget = [0] * 9, int((~masks["0.weight"]).sum())
    for _ in range(budget):  # the row whose next weight costs least
        row = min((r for r in range(9) if counts[r] < 6), key=lambda r: rows[r][0][counts[r]])
        counts[row] += 1
    for row, count in enumerate(counts):
        _, order, values = slow_row(weights[row], h, count)
        gone = torch.zeros(6, dtype=torch.bool)
        gone[order] = True
        assert torch.equal(~masks["0.weight"][row], gone)
        found = masks.new_weights["0.weight"][row].double()
        torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-6)
    assert len(set(counts)) > 1  # rows differ


def test_a_dear_removal_takes_what_comes_cheaper_after_it_along():
    losses = torch.tensor([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0]])
    assert [counts_of_rows(losses, n).tolist() for n in range(6)] == [
        [0, 0],
        [1, 0],
        [1, 1],
        [1, 2],
        [2, 2],
        [3, 2],
    ]
    order, found = trace(torch.tensor([[3.0, 1.0]]).double(), torch.eye(2).double(), 2)
    assert order.tolist() == [[1, 0]]
    assert found.tolist() == [[0.5, 4.5]]


def test_brain_compression_refuses_patterns_in_a_sentence():
    with pytest.raises(ShrinkbenchError, match="; choose the structure weights"):
        prune(seeded(ConvNet), "obc[structure=2:4]", compression=2, batches=batches())


def chain():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 2)
        )


def units_of(module):
    """Filter, bias, scale, shift, and what reads it, of each of the first three channels."""
    conv, norm, reader = module[0], module[1], module[3]
    return [(conv.weight[u], conv.bias[u], norm.weight[u], norm.bias[u], reader.weight[:, u]) for u in range(3)]


def test_group_norms_and_their_penalty_by_hand():
    module = chain()
    squares = torch.tensor([sum(t.detach().square().sum().item() for t in unit) for unit in units_of(module)])
    ctx = PruneContext(module, ["0.weight", "3.weight"], input_shape=(1, 6, 6))
    found = SCORES.get("group_norm").function(ctx).scores["0"]
    torch.testing.assert_close(found, squares / squares.mean())
    hook = training_hook(
        module,
        "group_sparse_learning",
        compression=1.3,
        epochs=1,
        steps_per_epoch=2,
        seed=0,
        input_shape=(1, 6, 6),
    )
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    hook.after_backward(1)
    push = 2 ** (4 * (squares.max() - squares) / (squares.max() - squares.min()))
    for u in range(3):
        torch.testing.assert_close(module[0].weight.grad[u], 1e-4 * push[u] * module[0].weight[u].detach())
        torch.testing.assert_close(module[1].weight.grad[u], 1e-4 * push[u] * module[1].weight[u].detach())
        own = module[3].weight.detach()
        # the second convolution's filters are pushed as units of their own group too
        assert bool((module[3].weight.grad[:, u] * own[:, u] >= 0).all())
    assert sorted(push.tolist())[0] == 1.0
    assert sorted(push.tolist())[-1] == pytest.approx(16.0)
    hook.after_epoch(1)
    assert hook.settled
    assert hook.masks.kept < hook.masks.total


def test_the_best_order_is_found_where_it_can_be_tried_out():
    matrix = torch.rand(5, 4, generator=torch.Generator().manual_seed(7))

    def kept(order):
        return float(matrix[:, list(order)].view(5, 2, 2).max(-1).values.sum())

    best = max(kept(order) for order in itertools.permutations(range(4)))
    assert kept(best_order(matrix, 1, 2).tolist()) == pytest.approx(best)


def test_permuted_patterns_keep_more_and_hold_in_some_order():
    module = nn.Sequential(nn.Linear(16, 32, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.randn(32, 16, generator=torch.Generator().manual_seed(0)))
        module[0].weight[:, :4] *= 5  # a run of strong inputs, of which 2:4 keeps half
    options = {"compression": 2, "input_shape": (16,), "prune_classifier": True}
    plain = prune(module, "magnitude_2_4", **options)["0.weight"]
    found = prune(module, "permuted_magnitude_2_4", **options)["0.weight"]
    size = module[0].weight.detach().abs()
    assert int(found.sum()) == int(plain.sum()) == 256
    assert float((size * found).sum()) > 1.1 * float((size * plain).sum())
    order = best_order(size, 2, 4)
    assert bool((found[:, order].view(32, 4, 4).sum(-1) == 2).all())


def test_force_lets_weights_come_back_and_prospr_looks_through_steps():
    """FORCE by its loop written out; ProsPr with no step left is SNIP without its normalisation."""
    module, (batch,) = two_layers(), data()
    options = {"compression": 1.5, "batches": [batch], "input_shape": (6,)}
    w = module[0].weight.detach()
    total, keep, seen = w.numel(), torch.ones_like(w, dtype=torch.bool), []
    budget = round(81 / 1.5) - 27
    for number in range(1, 61):
        leaf = (w * keep).requires_grad_()
        out = module[2](torch.tanh(batch[0] @ leaf.T))
        (g,) = torch.autograd.grad(nn.functional.cross_entropy(out, batch[1]), leaf)
        score = (w * g).abs().flatten()
        count = int(total * (budget / total) ** (number / 60) + 1e-9)
        keep = (
            torch.zeros(total, dtype=torch.bool).scatter_(0, score.topk(count).indices, value=True).view_as(w)
        )
        seen.append(keep)
    masks = prune(module, "force", **options)
    assert torch.equal(masks["0.weight"], seen[-1])
    assert not masks.equal(prune(module, "snip", **options))
    ctx = PruneContext(module, ["0.weight"], batches=[batch], input_shape=(6,))
    found = SCORES.get("prospr").function(ctx)["0.weight"]
    m, last = torch.ones_like(w).requires_grad_(), module[2].weight.detach().clone().requires_grad_()
    values = [w * m, last]  # the classifier is not prunable, but trained
    for step in range(4):
        loss = nn.functional.cross_entropy(torch.tanh(batch[0] @ values[0].T) @ values[1].T, batch[1])
        if step < 3:
            slopes = torch.autograd.grad(loss, values, create_graph=True)
            values = [v - 0.1 * g for v, g in zip(values, slopes, strict=True)]
    torch.testing.assert_close(found, torch.autograd.grad(loss, m)[0].abs(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("frozen", [False, True])
def test_prospr_trains_what_training_moves_and_no_more(frozen):
    """Biases and the scale of a batch norm move with the weights; what is frozen stays."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 3))
    module[1].requires_grad_(not frozen)
    (batch,) = data()
    ctx = PruneContext(module, ["0.weight"], batches=[batch], input_shape=(6,))
    found = SCORES.get("prospr").function(ctx)["0.weight"]
    given = {name: p.detach().clone() for name, p in module.named_parameters()}
    m = torch.ones_like(given["0.weight"]).requires_grad_()
    values = {name: p.requires_grad_() for name, p in given.items() if not (frozen and name.startswith("1."))}
    values["0.weight"] = given["0.weight"].detach() * m
    twin = copy.deepcopy(module).train()
    for step in range(4):
        loss = nn.functional.cross_entropy(torch.func.functional_call(twin, values, batch[0]), batch[1])
        if step < 3:
            slopes = torch.autograd.grad(loss, list(values.values()), create_graph=True)
            values = {name: v - 0.1 * g for (name, v), g in zip(values.items(), slopes, strict=True)}
    torch.testing.assert_close(found, torch.autograd.grad(loss, m)[0].abs(), rtol=1e-4, atol=1e-7)


def test_gradual_forms_by_name_are_those_of_their_scores():
    for gradual, plain in (("gradual_lamp", "lamp"), ("gradual_woodfisher", "woodfisher")):
        method = METHODS.get(gradual)
        assert method.score is METHODS.get(plain).score
        assert method.update is METHODS.get(plain).update
        assert method.schedule.name == "gradual-cubic"
