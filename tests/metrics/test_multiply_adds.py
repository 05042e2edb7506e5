"""Multiply-adds against counts by hand and against torchvision's own figures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampling import sampled
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_kept, count_multiply_adds, count_parameters, measure_size
from shrinkbench.models import build, get_model
from shrinkbench.network.probe import trace

# Every case that the original counter got wrong: groups, valid and unusual padding, dilation, 1-d, tokens.
BY_HAND = {
    "valid 5x5": (nn.Conv2d(3, 6, 5), (3, 12, 12), 8 * 8 * 6 * 3 * 25),
    "strided": (nn.Conv2d(3, 6, 3, stride=2, padding=1), (3, 8, 8), 4 * 4 * 6 * 3 * 9),
    "grouped": (nn.Conv2d(8, 16, 3, padding=1, groups=4), (8, 5, 5), 25 * 16 * 2 * 9),
    "depthwise": (nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 5, 5), 25 * 8 * 9),
    "dilated": (nn.Conv2d(2, 4, 3, dilation=2), (2, 9, 9), 5 * 5 * 4 * 2 * 9),
    "circular": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (2, 6, 6), 36 * 4 * 2 * 9),
    "reflect": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), (2, 6, 6), 36 * 4 * 2 * 9),
    "replicate": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="replicate"), (2, 6, 6), 36 * 4 * 2 * 9),
    "one-dimensional": (nn.Conv1d(3, 5, 3), (3, 10), 8 * 5 * 3 * 3),
    "tokens": (nn.Linear(7, 5), (11, 7), 11 * 7 * 5),
    "reused": (nn.Sequential(layer := nn.Linear(4, 4), nn.ReLU(), layer), (4,), 2 * 16),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_agrees_with_a_count_by_hand(case):
    module, shape, expected = BY_HAND[case]
    assert count_multiply_adds(module, shape) == expected


def test_attention_counts_projections_and_products():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    tokens, width = 5, 8
    traced = trace(Attention(), (tokens, width))
    projections = 4 * tokens * width * width
    products = 2 * tokens * tokens * width  # scores and weighted sum, over all heads together
    assert traced.multiply_adds == projections + products
    assert traced.by_parameter == {
        "attention.in_proj_weight": 3 * tokens * width * width,
        "attention.out_proj.weight": tokens * width * width,
    }


@pytest.mark.parametrize(
    "name",
    sampled(
        ["resnet18", "vgg16_bn", "alexnet", "resnet50", "mobilenet_v2", "efficientnet_b0", "convnext_tiny",
         "swin_t", "vit_b_16"],
        every=4,
    ),
)  # fmt: skip
def test_agrees_with_torchvisions_published_figures(name):
    import torchvision

    published = next(iter(torchvision.models.get_model_weights(name))).meta
    card = get_model(f"torchvision/{name}")
    with torch.device("meta"):
        module = torchvision.models.get_model(name)
    assert count_parameters(module) == published["num_params"]
    assert count_multiply_adds(module, card.input_shape) / 1e9 == pytest.approx(published["_ops"], rel=0.01)


@given(st.floats(0, 1), st.integers(0, 99))
def test_masked_weights_are_not_counted(density, seed):
    """For one convolution, what is left is the kept weights times the output positions."""
    layer = nn.Conv2d(3, 4, 3, padding=1)
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(seed)) < density
    size = measure_size(layer, (3, 6, 6), {"weight": mask})
    assert size.multiply_adds_kept == int(mask.sum()) * 36
    assert size.parameters_kept == int(mask.sum()) + 4
    assert size.compression == size.parameters / size.parameters_kept


def test_size_counts_masks_and_not_values():
    """A fresh network with zeros among its weights is not compressed (zero biases, batch-norm shifts)."""
    module = build("resnet20")
    assert count_kept(module, {}) == count_parameters(module) == 269722


def test_counting_leaves_the_module_as_it_was():
    module = build("resnet20").train()
    module.layer1.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [child.training for child in module.modules()]
    count_multiply_adds(module, (3, 32, 32))
    assert [child.training for child in module.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_wrong_input_shape_is_one_sentence():
    with pytest.raises(ShrinkbenchError, match="does not run on one input of shape 1x32x32"):
        count_multiply_adds(build("resnet20"), (1, 32, 32))


def test_networks_that_look_at_their_data_are_counted_too():
    class Peeks(nn.Linear):
        def forward(self, x):
            return super().forward(x) if bool((x >= 0).all()) else x

    assert count_multiply_adds(Peeks(4, 3), (4,)) == 12


def test_shapes_are_whole_numbers_of_any_kind_from_1_on_and_examples_one_at_least():
    assert count_multiply_adds(nn.Linear(8, 3), (np.int64(8),)) == 24
    with pytest.raises(ShrinkbenchError, match=r"input shape \(-8,\) has a dimension below 1"):
        measure_size(nn.Linear(8, 3), (-8,))
    with pytest.raises(ShrinkbenchError, match="float32 0x8 hold no example"):
        measure_size(nn.Linear(8, 3), example_inputs=torch.zeros(0, 8))
