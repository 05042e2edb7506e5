"""Scores against torch-pruning's on ResNet-18, and laws of published methods."""

import copy

import pytest
import torch
import torchvision
from sample_networks import batches, seeded
from torch import nn
from torch.nn import functional as F

from shrinkbench.pruning import METHODS, Masks, PruneContext
from shrinkbench.pruning.units import UnitScores

tp = pytest.importorskip("torch_pruning")


@pytest.fixture(scope="module")
def resnet18():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None, num_classes=10).eval()


@pytest.fixture(scope="module")
def graph(resnet18):
    return tp.DependencyGraph().build_dependency(resnet18, torch.randn(1, 3, 64, 64))


CONVOLUTIONS = ["conv1", "layer1.0.conv1", "layer2.0.conv2", "layer3.0.downsample.0", "layer4.1.conv2"]


def theirs(importance, graph, layer):
    """torch-pruning's importance of the filters of one layer, apart from the layers that it is coupled to."""
    group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))
    return importance([group[0]])


def ours(name, module, layers, data=None):
    method = METHODS.get(name)
    names = [f"{layer}.weight" for layer in layers]
    ctx = PruneContext(
        module, names, batches=data, batch_count=1, input_shape=(3, 64, 64), structure=method.structure
    )
    found = method.score(ctx)
    if isinstance(found, UnitScores):
        return found.scores
    return {n: u.scores for n, u in method.structure.group(ctx, found).units.items()}


@pytest.mark.parametrize(("name", "p"), [("filter_l1", 1), ("filter_l2", 2)])
def test_filter_norms(resnet18, graph, name, p):
    importance = tp.importance.GroupMagnitudeImportance(p=p, group_reduction="mean", normalizer=None)
    found = ours(name, resnet18, CONVOLUTIONS)
    for layer in CONVOLUTIONS:
        module = resnet18.get_submodule(layer)
        per_filter = found[f"{layer}.weight"] * module.weight[0].numel()
        torch.testing.assert_close(per_filter, theirs(importance, graph, module), rtol=1e-5, atol=1e-6)


def test_taylor(resnet18, graph):
    generator = torch.Generator().manual_seed(1)
    data = [(torch.randn(4, 3, 64, 64, generator=generator), torch.randint(0, 10, (4,), generator=generator))]
    importance = tp.importance.GroupTaylorImportance(
        group_reduction="mean", normalizer=None, multivariable=True
    )
    found = ours("filter_taylor_2019", resnet18, CONVOLUTIONS, data)
    F.cross_entropy(resnet18(data[0][0]), data[0][1]).backward()
    for layer in CONVOLUTIONS:
        expected = theirs(importance, graph, resnet18.get_submodule(layer)).square()
        torch.testing.assert_close(found[f"{layer}.weight"], expected, rtol=2e-3, atol=1e-10)
    resnet18.zero_grad()


def test_geometric_median(resnet18, graph):
    # torch-pruning measures distances between |w|^p; ours are between filters. On weights that are positive
    # and already raised to p they are the same.
    importance = tp.importance.FPGMImportance(p=2, group_reduction="mean", normalizer=None)
    squared = copy.deepcopy(resnet18)
    for layer in CONVOLUTIONS:
        squared.get_submodule(layer).weight.data.square_()
    found = ours("fpgm", squared, CONVOLUTIONS)
    for layer in CONVOLUTIONS:
        expected = theirs(importance, graph, resnet18.get_submodule(layer))
        torch.testing.assert_close(found[f"{layer}.weight"], expected, rtol=1e-3, atol=1e-5)


class Plain(nn.Module):
    """Convolutions and linear layers in a row, without biases: all flow passes every layer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False),
            nn.ReLU(),
            nn.Conv2d(16, 16, 1, groups=4, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 12, bias=False),
            nn.ReLU(),
            nn.Linear(12, 4, bias=False),
        )

    def forward(self, x):
        return self.layers(x)


def test_synflow_conserves_its_score_per_layer():
    module = seeded(Plain)
    names = [n for n, _ in module.named_parameters()]
    scores = METHODS.get("synflow").score(PruneContext(module, names, input_shape=(3, 8, 8)))
    for name in names:
        assert scores[name].double().sum().item() == pytest.approx(1, rel=1e-5), name


def test_synflow_conserves_its_score_per_neuron():
    module = seeded(Plain)
    names = ["layers.7.weight", "layers.9.weight"]
    scores = METHODS.get("synflow").score(PruneContext(module, names, input_shape=(3, 8, 8)))
    torch.testing.assert_close(scores[names[0]].sum(1), scores[names[1]].sum(0), rtol=1e-5, atol=1e-9)


def test_synflow_in_rounds_does_not_empty_a_layer_where_one_round_does():
    from shrinkbench.pruning import prune

    module = seeded(Plain)
    total = sum(p.numel() for p in module.parameters())

    def emptied(schedule):
        masks, network = Masks({}), copy.deepcopy(module)
        for i, compression in enumerate(schedule):
            masks = prune(
                network, "synflow", compression=compression, input_shape=(3, 8, 8), masks=masks, iteration=i,
                prune_classifier=True,
            )  # fmt: skip
            masks.apply(network)
        return [name for name, mask in masks.items() if not mask.any()]

    target = total / 24
    rounds = METHODS.get("synflow").schedule(target)
    assert len(rounds) == 100
    assert emptied(rounds) == []
    assert emptied((target,)) != []


def test_hessian_products_equal_those_of_the_full_matrix():
    module = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False))
    x, y = torch.randn(6, 3), torch.randint(0, 2, (6,))
    names = ["0.weight", "2.weight"]
    ctx = PruneContext(module, names, batches=[(x[:2], y[:2]), (x[2:], y[2:])], batch_count=2, input_shape=(3,))
    vector = {n: torch.randn_like(w) for n, w in ctx.weights.items()}

    def loss(first, second):
        return F.cross_entropy(torch.tanh(x @ first.T) @ second.T, y)

    _, expected = torch.autograd.functional.hvp(loss, tuple(ctx.weights.values()), tuple(vector.values()))
    for found, want in zip(ctx.hessian_product(vector).values(), expected, strict=True):
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-6)


def test_output_gradients_add_up_to_the_gauss_newton_matrix():
    module = nn.Linear(3, 3, bias=False)  # linear in its weights: Gauss-Newton is the Hessian
    x, y = torch.randn(5, 3), torch.randint(0, 3, (5,))
    ctx = PruneContext(module, ["weight"], batches=[(x, y)], input_shape=(3,))
    rows = torch.stack([g["weight"].flatten() for g in ctx.output_gradients(5)]).double()
    hessian = torch.autograd.functional.hessian(
        lambda w: F.cross_entropy(x.double() @ w.T, y), module.weight.detach().double()
    ).reshape(9, 9)
    torch.testing.assert_close(rows.T @ rows / 5, hessian, rtol=1e-3, atol=1e-6)


def test_image_gradients_average_to_the_gradient():
    from sample_networks import ConvNet

    module, data = seeded(ConvNet), batches(2, 5)
    ctx = PruneContext(module, ["stem.weight", "pointwise.weight"], batches=data, batch_count=2)
    each = [dict(gradients) for gradients in ctx.image_gradients()]
    assert len(each) == 10 == ctx.image_count
    for name, mean in ctx.gradients.items():
        torch.testing.assert_close(torch.stack([g[name] for g in each]).mean(0), mean, rtol=1e-3, atol=1e-6)
