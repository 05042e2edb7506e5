"""Every score on a network of four weights, against numbers worked out by hand.

The network is y = W x with W = [[1, -2], [3, 0.5]], the loss half the squared error to a target of zero. For
x = (1, 2): y = (-3, 4) and dL/dW = y x' = [[-3, -6], [4, 8]].
"""

import math

import pytest
import torch
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, PruneContext
from shrinkbench.pruning.units import UnitScores
from shrinkbench.spec import Compression

WEIGHT = [[1.0, -2.0], [3.0, 0.5]]
ONE_IMAGE = [(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))]
TWO_IMAGES = [(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.zeros(2, 2))]


def half_square(outputs, targets):
    return 0.5 * (outputs - targets).square().sum(1).mean()


def layer():
    module = nn.Linear(2, 2, bias=False)
    module.weight.data = torch.tensor(WEIGHT)
    return module


def score(name, batches=ONE_IMAGE, module=None, **options):
    module = module or layer()
    names = [n for n, p in module.named_parameters() if p.ndim > 1]
    method = METHODS.get(name)
    options.setdefault("loss", half_square)
    ctx = PruneContext(
        module,
        names,
        batches=batches,
        batch_count=8,
        input_shape=batches[0][0].shape[1:],
        structure=method.structure,
        **options,
    )
    found = method.score(ctx)
    scores = found.scores if isinstance(found, UnitScores) else found
    return scores[names[0]].double()


def close(found, expected):
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-9)


BY_HAND = {
    "global_magnitude": [[1, 2], [3, 0.5]],
    "filter_l2": [[1, 4], [9, 0.25]],
    "lamp": [[1 / 14, 4 / 13], [1, 0.25 / 14.25]],
    "global_gradient": [[3, 12], [12, 4]],
    "global_taylor": [[9, 144], [144, 16]],
    "movement": [[3, -12], [-12, -4]],
    "snip": [[3 / 31, 12 / 31], [12 / 31, 4 / 31]],
    # H of one row is x x', so H g = 5 g; temperature T scales loss and outputs by 1 / T.
    "grasp": [[-15 / 200**4, 60 / 200**4], [60 / 200**4, 20 / 200**4]],
    "synflow": [[1 / 6.5, 2 / 6.5], [3 / 6.5, 0.5 / 6.5]],
    "obd": [[4.5, 72], [72, 8]],  # g^2 w^2 / 2
    # One image: h = g^2 and g / h = 1 / g, so h (w - 1 / g)^2 / 2 = (g w - 1)^2 / 2.
    "early_brain_damage": [[8, 60.5], [60.5, 4.5]],
    "global_activation": [[1, 4], [3, 1]],  # |w| times mean |x|
    "fpgm": [[math.sqrt(10.25)] * 2] * 2,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name):
    expected = torch.tensor(BY_HAND[name], dtype=torch.float64)
    torch.testing.assert_close(score(name).expand(2, 2), expected, rtol=1e-4, atol=0)


def test_first_order_taylor_of_a_filter():
    # Sums of w g over the rows: -3 + 12 = 9 and 12 + 4 = 16.
    close(score("filter_taylor_2019"), [81.0, 256.0])
    close(score("filter_taylor_2016"), [9 / math.hypot(9, 16), 16 / math.hypot(9, 16)])


def test_taylor_averages_over_batches_and_images_after_squares_and_absolute_values():
    # Second image (-1, -2), target (-2, 0): y = (3, -4), error (5, -4), g = [[-5, -10], [4, 8]].
    second = (torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, 0.0]]))
    batches = [*ONE_IMAGE, second]
    # Row sums of w g: first 9 and 16, second 15 and 16.
    close(score("filter_taylor_2019", batches), [81.0 + 225, 256.0 * 2])
    total = (9 + 15, 16 + 16)
    close(score("filter_taylor_2016", batches), [t / math.hypot(*total) for t in total])


def test_hutchinson_is_exact_where_inputs_are_orthogonal():
    # Mean of x x' = diag(0.5, 2): every probe gives the diagonal exactly.
    close(score("obd_hutchinson", TWO_IMAGES), [[0.25, 4.0], [2.25, 0.25]])


def test_inputs_that_only_late_images_light_have_finite_scores():
    inputs = torch.tensor([[1.0, 0.0]]).repeat(300, 1)
    inputs[-1, 1] = 5.0
    found = score("early_brain_damage", [(part, torch.ones(len(part), 2)) for part in inputs.split(100)])
    assert torch.isfinite(found).all()
    assert (found[:, 1] == 0).all()  # never seen by the curvature: these weights do nothing
    assert (found[:, 0] > 0).any()


def test_magnitudes_of_positive_and_negative_inputs_do_not_cancel():
    batches = [(torch.tensor([[1.0, 5.0], [1.0, -5.0]]), torch.zeros(2, 2))]
    close(score("global_activation", batches), [[1.0, 10.0], [3.0, 2.5]])


def test_gradients_are_means_over_all_images_of_unequal_batches():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(5, 2, generator=generator), torch.randn(5, 2, generator=generator)
    whole = score("global_gradient", [(x, y)])
    parts = score("global_gradient", [(x[:2], y[:2]), (x[2:], y[2:])])
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)


def test_apoz_counts_zeros_after_relu():
    module = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False))
    module[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    x = torch.tensor([1.0, 2.0, 3.0, -4.0]).reshape(1, 1, 2, 2)
    found = score("apoz", [(x, torch.zeros(1))], module)
    assert found.flatten().tolist() == [0.75, 0.25]


def test_apoz_says_why_it_needs_relu():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GELU(), nn.Conv2d(2, 1, 1))
    with pytest.raises(ShrinkbenchError, match="counts zeros after ReLU"):
        score("apoz", [(torch.randn(1, 1, 2, 2), torch.zeros(1))], module)


def test_hrank_is_the_rank_of_maps():
    module = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(2, 1, 1, bias=False))
    module[0].weight.data = torch.eye(2).reshape(2, 2, 1, 1)
    rank_one, rank_three = torch.ones(4, 4), torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.0]))
    x = torch.stack([rank_one, rank_three]).unsqueeze(0)
    found = score("hrank", [(x, torch.zeros(1))], module)
    assert found[:, 0].flatten().tolist() == [1, 3]


def test_batch_norm_scale_is_that_of_the_norm_behind_the_layer():
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1))
    module[1].weight.data = torch.tensor([0.5, -2.0, 1.0])
    found = score("batch_norm_scale", [(torch.randn(2, 1, 2, 2), torch.zeros(2))], module)
    assert found.flatten().tolist() == [0.5, 2.0, 1.0]


def test_wanda_compares_within_rows():
    module = layer()
    # |W| x norms (1, 2): rows (1, 4) and (3, 1).
    masks = METHODS.get("wanda").score(
        PruneContext(
            module, ["weight"], batches=ONE_IMAGE, budget=2, input_shape=(2,), amount=Compression(ratio=2)
        )
    )
    assert masks["weight"].tolist() == [[False, True], [True, False]]


def test_random_scores_come_from_the_generator_alone():
    first = score("random", generator=torch.Generator().manual_seed(3))
    torch.manual_seed(99)
    assert torch.equal(first, score("random", generator=torch.Generator().manual_seed(3)))
    assert not torch.equal(first, score("random", generator=torch.Generator().manual_seed(4)))


def test_half_precision_scores_do_not_vanish():
    module = layer().half()
    module.weight.data *= 1e-3
    batches = [(torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2))]
    found = score("filter_l2", batches, module)
    assert bool((found > 0).all())
    assert score("global_gradient", batches, module).dtype == torch.float64  # promoted from float32


@pytest.mark.parametrize(
    "name", ["global_gradient", "global_taylor", "snip", "grasp", "obd_hutchinson", "prospr"]
)
@pytest.mark.parametrize(
    "loss",
    [
        lambda outputs, targets: torch.tensor(1.0),
        lambda outputs, targets: half_square(outputs.detach().requires_grad_(), targets),
        lambda outputs, targets: (outputs > targets).float().mean(),
    ],
)
def test_a_loss_that_does_not_depend_on_the_network_ranks_nothing(name, loss):
    with pytest.raises(ShrinkbenchError, match="the loss does not depend on any weight"):
        score(name, loss=loss)


@pytest.mark.parametrize("kind", [torch.complex64, torch.int64])
@pytest.mark.parametrize("name", ["global_gradient", "obs"])
def test_losses_that_are_no_real_numbers_are_told(name, kind):
    with pytest.raises(ShrinkbenchError, match="gradients are of one real number"):
        score(name, loss=lambda outputs, targets: outputs.sum().to(kind))
