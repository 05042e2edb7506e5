"""Weights that are no parameters: pruned through the parameter behind them, or left whole and named."""

import warnings

import pytest
import torch
from sampling import sampled
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from shrinkbench import measure_size, prune
from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.coupling import couple
from shrinkbench.network.weights import copy_of, weight_parameters, weights_without_parameter
from shrinkbench.pruning.prunable import UnreadWarning
from shrinkbench.surgery.shrinking import shrink


class Symmetric(nn.Module):
    def forward(self, x):
        return x.triu() + x.triu(1).mT


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def symmetric(layer):
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def doubled(layer):
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def pruned_before(layer):
    return torch_prune.l1_unstructured(layer, "weight", amount=0.25)


class Smallest(torch_prune.BasePruningMethod):
    """A method of one's own, as torch's documentation shows."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t, default_mask):
        return default_mask * (t.abs() > 0.05)


def pruned_by_an_own_method(layer):
    Smallest.apply(layer, "weight")
    return layer


COMPUTED = {
    "weight norm": (parametrizations.weight_norm, "parametrizations.weight.original1"),
    "old weight norm": (nn.utils.weight_norm, "weight_v"),
    "spectral norm": (parametrizations.spectral_norm, "parametrizations.weight.original"),
    "old spectral norm": (nn.utils.spectral_norm, "weight_orig"),
    "a parametrisation of one's own": (doubled, "parametrizations.weight.original"),
    "pruned before": (pruned_before, "weight_orig"),
    "pruned before by an own method": (pruned_by_an_own_method, "weight_orig"),
}
WITHOUT = {"symmetric": symmetric, "orthogonal": parametrizations.orthogonal}


def net(wrap):
    torch.manual_seed(0)
    return nn.Sequential(wrap(nn.Linear(16, 16)), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", COMPUTED)
def test_the_parameter_behind_a_weight_is_pruned(kind):
    wrap, inner = COMPUTED[kind]
    module = net(wrap)
    masks = prune(module, "global_magnitude", compression=1.5, input_shape=(16,))
    assert set(masks) == {f"0.{inner}", "2.weight"}
    size = measure_size(module, (16,), masks)
    assert size.parameters_kept == round(size.parameters / 1.5)
    masks.apply(module)
    module(torch.randn(2, 16))  # torch's older tools compute the weight in the pass
    with torch.no_grad():
        weight = module.eval()[0].weight
    assert bool((weight[~masks[f"0.{inner}"]] == 0).all())
    if kind != "pruned before":
        assert torch.equal(weight != 0, masks[f"0.{inner}"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", sampled(COMPUTED, every=3))
def test_several_rounds_work_on_a_copy(kind):
    module = net(COMPUTED[kind][0])
    before = {name: p.clone() for name, p in module.named_parameters()}
    prune(module, "synflow", compression=1.5, input_shape=(16,))
    assert all(torch.equal(before[name], p) for name, p in module.named_parameters())
    copy = copy_of(module.eval())
    x = torch.randn(3, 16)
    assert torch.equal(copy(x), module(x))


def test_what_a_layer_keeps_in_lists_and_dictionaries_is_copied():
    module = nn.Linear(2, 2)
    module.kept = {"biases": [module.weight[0] * 2, (module.weight[1] * 3,)]}
    copy = copy_of(module)
    first, (second,) = copy.kept["biases"]
    assert first.is_leaf
    assert first is not module.kept["biases"][0]
    assert torch.equal(first, module.weight[0] * 2)
    assert torch.equal(second, module.weight[1] * 3)


@pytest.mark.parametrize("kind", WITHOUT)
def test_a_weight_that_keeps_no_zeros_is_left_whole_and_named(kind):
    module = net(WITHOUT[kind])
    assert weights_without_parameter(module) == ("0.weight",)
    with pytest.warns(
        LeftWholeWarning, match=r"'0\.weight' is computed by the layer in a way that keeps no zeros"
    ):
        masks = prune(module, "global_magnitude", compression=1.2, input_shape=(16,))
    assert set(masks) == {"2.weight"}


def test_a_network_of_such_weights_alone_is_refused_with_the_reason():
    module = nn.Sequential(symmetric(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ShrinkbenchError, match=r"no prunable weights: '0\.weight' is computed by the layer"):
        prune(module, "global_magnitude", compression=1.5, input_shape=(4,))


def test_a_norm_of_nothing_is_refused():
    module = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        module[0].parametrizations.weight.original1[3] = 1e-9
    with pytest.raises(ShrinkbenchError, match="nothing of an output of '0'"):
        prune(module, "global_magnitude", compression=1.2, input_shape=(8,))


def test_a_normalised_classifier_is_kept_with_its_bias():
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), parametrizations.weight_norm(nn.Linear(8, 2)))
    masks = prune(module, "global_magnitude", compression=1.2, input_shape=(8,), prune_biases=True)
    assert set(masks) == {"0.weight", "0.bias"}


def test_weights_that_multiply_nothing_are_named():
    class Auxiliary(nn.Sequential):
        def forward(self, x):
            return self[2](self[0](x).relu())

    module = Auxiliary(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    with pytest.warns(UnreadWarning, match=r"never reads '1\.weight', '1\.bias' \(72 parameters\)"):
        prune(module, "global_magnitude", compression=1.2, input_shape=(8,), prune_biases=True)

    class Added(Auxiliary):
        def forward(self, x):
            return super().forward(x) + self[1].weight.sum()

    module = Added(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    with pytest.warns(LeftWholeWarning, match=r"'1\.weight' is used by no product"):
        masks = prune(module, "global_magnitude", compression=1.2, input_shape=(8,), prune_biases=True)
    assert set(masks) == {"0.weight", "0.bias"}


def test_looking_for_weights_leaves_no_trace():
    module = net(parametrizations.spectral_norm).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weight_parameters(module)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert module[0].training


def test_ordinary_networks_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(net(lambda layer: layer), "global_magnitude", compression=2, input_shape=(16,))


class Standardised(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight - self.weight.mean(1, keepdim=True), self.bias)


@pytest.mark.parametrize("layer", [parametrizations.weight_norm(nn.Linear(8, 8)), Standardised(8, 8)])
def test_new_values_are_not_fitted_to_a_computed_weight(layer):
    module = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), layer, nn.ReLU(), nn.Linear(8, 2))
    data = {"batches": [(torch.randn(16, 8), torch.arange(16) % 2)]}
    with pytest.raises(ShrinkbenchError, match="a weight that is computed from it"):
        prune(module, "sparsegpt", compression=1.3, **data)
    assert len(prune(module, "wanda", compression=1.3, **data)) == 2
    assert len(prune(module, "obs", compression=1.3, **data)) == 2


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap", [parametrizations.weight_norm, nn.utils.weight_norm, parametrizations.orthogonal]
)
def test_channels_that_meet_a_computed_weight_are_left_whole_and_named(wrap):
    module = nn.Sequential(
        nn.Linear(8, 12),
        nn.ReLU(),
        nn.Linear(12, 8),
        nn.ReLU(),
        wrap(nn.Linear(8, 8)),
        nn.ReLU(),
        nn.Linear(8, 2),
    )
    groups = {group.layer: group.refused_because for group in couple(module, (8,)).groups}
    assert groups["0"] is None
    assert groups["2"] == "a weight of '4' is computed from other tensors"
    x = torch.randn(3, 8)
    expected = module(x)
    masks = prune(module, "channel_l1", compression=1.2, input_shape=(8,))
    small = shrink(module, masks, (8,))
    assert torch.equal(module(x), expected)
    masks.apply(module)
    torch.testing.assert_close(small.eval()(x), module.eval()(x))


class Transposed(nn.Module):
    def forward(self, weight):
        return weight.t()

    def right_inverse(self, weight):
        return weight.t()


def test_zeros_that_lie_in_other_places_are_said_to():
    module = net(lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Transposed()))
    with pytest.warns(LeftWholeWarning, match="in a way that keeps no zeros in their places"):
        prune(module, "global_magnitude", compression=1.2, input_shape=(16,))
