"""OBS, WoodFisher and SparseGPT against closed forms."""

import pytest
import torch
from sample_networks import ConvNet, ViT, batches, seeded
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, Masks, PruneContext, prune
from shrinkbench.pruning.methods import optimal_brain_surgeon as surgeon
from shrinkbench.pruning.methods.wanda_sparsegpt import inverse_roots
from shrinkbench.spec import Compression


def half_square(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1).mean()


def regression(seed=0, images=16, inputs=6):
    """A linear network at the minimum of a quadratic loss."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, inputs, generator=generator) @ torch.randn(inputs, inputs, generator=generator)
    y = torch.randn(images, 1, generator=generator)
    module = nn.Linear(inputs, 1, bias=False)
    module.weight.data = torch.linalg.lstsq(x.double(), y.double()).solution.T.float()
    return module, [(x, y)]


def context(module, data, **options):
    return PruneContext(
        module, ["weight"], batches=data, input_shape=data[0][0].shape[1:], loss=half_square, **options
    )


def loss_of(weight, data):
    return half_square(data[0][0].double() @ weight.double().T, data[0][1].double()).item()


def best_without(removed, data):
    """Least squares over the weights that stay."""
    x, y = data[0][0].double(), data[0][1].double()
    kept = [i for i in range(x.shape[1]) if i not in removed]
    weight = torch.zeros(1, x.shape[1], dtype=torch.float64)
    weight[0, kept] = torch.linalg.lstsq(x[:, kept], y).solution[:, 0]
    return weight


def test_obs_saliency_is_the_increase_of_a_quadratic_loss():
    module, data = regression()
    scores = METHODS.get("obs").score(context(module, data))["weight"][0]
    before = loss_of(module.weight.detach(), data)
    increases = [loss_of(best_without({i}, data), data) - before for i in range(6)]
    torch.testing.assert_close(
        scores.double(), torch.tensor(increases, dtype=torch.float64), rtol=2e-3, atol=1e-6
    )


@pytest.mark.parametrize("removed", [{2}, {0, 3}, {1, 2, 4, 5}])
def test_obs_moves_the_other_weights_to_the_new_minimum(removed):
    module, data = regression()
    mask = torch.tensor([[i not in removed for i in range(6)]])
    ctx = context(module, data)
    values = METHODS.get("obs").update(ctx, Masks({"weight": mask}))["weight"] * mask
    torch.testing.assert_close(values.double(), best_without(removed, data), rtol=2e-3, atol=1e-4)


def woodbury_recursion(vectors, damping):
    """F^-1 by one rank-one update per vector, as the paper writes it."""
    count = len(vectors)
    inverse = torch.eye(vectors.shape[1], dtype=torch.float64) / damping
    for g in vectors:
        fg = inverse @ g
        inverse = inverse - torch.outer(fg, fg) / (count + g @ fg)
    return inverse


def test_woodfisher_equals_the_recursion_of_the_paper(monkeypatch):
    monkeypatch.setattr(surgeon, "_DAMPING", 1e-2)
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(10, 5, generator=generator), torch.randn(10, 2, generator=generator))]
    module = nn.Linear(5, 2, bias=False)
    errors = data[0][0] @ module.weight.detach().T - data[0][1]
    vectors = torch.stack(
        [torch.outer(e, x).flatten() for e, x in zip(errors, data[0][0], strict=True)]
    ).double()
    inverse = woodbury_recursion(vectors, 1e-2)
    w = module.weight.detach().flatten().double()
    ctx = context(module, data)
    scores = METHODS.get("woodfisher").score(ctx)["weight"].flatten().double()
    torch.testing.assert_close(scores, w.square() / (2 * inverse.diagonal()), rtol=1e-4, atol=1e-9)
    q = 7
    mask = torch.ones(10, dtype=torch.bool)
    mask[q] = False
    expected = w - w[q] / inverse[q, q] * inverse[:, q]
    masks = Masks({"weight": mask.reshape(2, 5)})
    values = METHODS.get("woodfisher").update(ctx, masks)["weight"].flatten().double()
    torch.testing.assert_close(values[mask], expected[mask], rtol=1e-4, atol=1e-6)


def test_blocks_cover_every_weight_once_and_respect_the_memory(monkeypatch):
    monkeypatch.setattr(surgeon, "_MEMORY", 1000)
    module = seeded(ConvNet)
    names = ["stem.weight", "grouped.weight", "pointwise.weight"]
    ctx = PruneContext(module, names, input_shape=(3, 8, 8))
    numbers = sum(ctx.weights[n].numel() for n in names)
    groups = list(surgeon._blocks(ctx, 16))
    covered = {n: torch.zeros(ctx.weights[n].numel()) for n in names}
    for group in groups:
        assert 16 * sum(stop - start for _, start, stop in group) <= max(numbers // 2, 1000)
        for name, start, stop in group:
            covered[name][start:stop] += 1
    assert all(bool((c == 1).all()) for c in covered.values())


@pytest.mark.parametrize("network", [ConvNet, ViT])
def test_new_values_lower_the_modelled_increase_of_the_loss(network):
    """Half of d' F d per layer, d the change of its weights, against the same masks with the old values."""
    module, data = seeded(network), batches(2, 8)
    masks = prune(module, "woodfisher", compression=1.6, batches=data)
    assert masks.new_weights.keys() == masks.keys()
    ctx = PruneContext(module, masks, batches=data, batch_count=2, input_shape=(3, 8, 8))
    vectors = [dict(gradients) for gradients in ctx.image_gradients()]
    for name, w in ctx.weights.items():
        rows = torch.stack([v[name].flatten() for v in vectors])

        def increase(values, w=w, rows=rows):
            change = (values - w).flatten()
            return (rows @ change).square().mean() + 1e-5 * change.square().sum()

        assert increase(masks.new_weights[name]) < increase(w * masks[name]), name


def test_sparsegpt_makes_up_for_a_first_column_as_obs_does():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    hessian = 2 / 200 * x.T @ x
    damped = hessian.double() + 0.01 * hessian.diagonal().mean() * torch.eye(4)
    inverse = torch.linalg.inv(damped)
    module = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 1, bias=False))
    module[0].weight.data = torch.tensor([[1e-4, 1.0, -2.0, 3.0]])  # the first is the one to go
    ctx = PruneContext(
        module,
        ["0.weight"],
        batches=[(x, torch.zeros(200))],
        budget=3,
        input_shape=(4,),
        amount=Compression(ratio=1.2),
    )
    masks = METHODS.get("sparsegpt").score(ctx)
    w = module[0].weight.detach().double()[0]
    expected = w - w[0] / inverse[0, 0] * inverse[:, 0]
    assert masks["0.weight"].tolist() == [[False, True, True, True]]
    torch.testing.assert_close(
        masks.new_weights["0.weight"][0, 1:].double(), expected[1:], rtol=1e-4, atol=1e-6
    )


def test_the_inverse_root_holds_the_optimal_changes_to_the_right():
    x = torch.randn(50, 5, generator=torch.Generator().manual_seed(2))
    hessian = (x.T @ x).unsqueeze(0)
    root = inverse_roots(hessian.clone())[0].double()
    damped = hessian[0].double() + 0.01 * hessian[0].diagonal().mean() * torch.eye(5)
    for i in range(4):
        rest = torch.linalg.inv(damped[i:, i:])  # columns to the left are fixed
        torch.testing.assert_close(root[i, i:] / root[i, i], rest[0] / rest[0, 0], rtol=1e-4, atol=1e-6)


def reconstruction_error(method, module, x, c):
    masks = prune(
        module, method, compression=c, batches=[(x, torch.zeros(len(x), dtype=torch.int64))], one_shot=True
    )
    w = masks.new_weights.get("0.weight", module[0].weight.detach()) * masks["0.weight"]
    return (x @ (w - module[0].weight.detach()).T).square().sum().item()


def test_reconstruction_is_better_than_wanda_and_wanda_than_magnitude():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 32, generator=generator) @ torch.randn(32, 32, generator=generator)
    x[:, :8] *= 6
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 64, bias=False), nn.ReLU(), nn.Linear(64, 4))
    errors = [reconstruction_error(m, module, x, 1.7) for m in ("sparsegpt", "wanda", "layerwise_magnitude")]
    assert errors[0] < errors[1] < errors[2]


def test_layers_are_pruned_on_what_pruned_layers_put_out():
    """The second layer's inputs are zero where the first lost all its weights: these columns go first."""
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2))
    module[0].weight.data = torch.tensor([[5.0] * 4, [4.0] * 4, [0.01] * 4, [0.02] * 4])
    nn.init.ones_(module[1].weight)
    x = torch.ones(3, 4)
    ctx = PruneContext(
        module,
        ["0.weight", "1.weight"],
        batches=[(x, torch.zeros(3))],
        budget=16,
        input_shape=(4,),
        amount=Compression(ratio=2),
    )
    masks = METHODS.get("sparsegpt").score(ctx)
    assert masks["0.weight"].sum(1).tolist() == [4, 4, 0, 0]
    assert masks["1.weight"].sum(0).tolist() == [4, 4, 0, 0]


@pytest.mark.parametrize("name", ["obs", "woodfisher", "obert", "gradual_woodfisher"])
def test_no_curvature_is_refused_where_magnitude_alone_would_decide(name):
    module, data = regression()
    ctx = PruneContext(
        module, ["weight"], batches=data, input_shape=(6,), loss=lambda outputs, _: (outputs * 0).sum()
    )
    with pytest.raises(ShrinkbenchError, match=r"gradients of all images are 0|no image curves"):
        METHODS.get(name).score(ctx)
