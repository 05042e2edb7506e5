"""Masks are counted on the network that they are of, and on no other."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torchs

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import measure_size
from shrinkbench.pruning import prune
from shrinkbench.pruning.masks import Masks

MASK = torch.arange(24).reshape(3, 8) % 2 == 0


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"foo": MASK}, "the network has no parameter 'foo'"),
        ({"module.weight": MASK}, "the network has no parameter 'module.weight'"),
        ({"weight_orig": MASK}, "the network has no parameter 'weight_orig'"),
        ({"weight": MASK[:, :1]}, "the mask of 'weight' has shape (3, 1), the parameter (3, 8)"),
        ({"weight": [1, 0]}, "the mask of 'weight' is a list"),
        ({"weight": MASK.float()}, "the mask of 'weight' is torch.float32"),
    ],
)
def test_masks_of_another_network_are_refused(masks, told):
    with pytest.raises(ShrinkbenchError, match=re.escape(told)):
        measure_size(nn.Linear(8, 3), (8,), masks)


def test_masks_of_torch_are_counted_under_the_names_of_now():
    layer = torchs.l1_unstructured(nn.Linear(8, 3), "weight", amount=12)
    masks = Masks.from_module(layer)
    assert measure_size(layer, (8,), masks).multiply_adds_kept == 12
    torchs.remove(layer, "weight")
    with pytest.raises(ShrinkbenchError, match="no parameter 'weight_orig'"):
        measure_size(layer, (8,), masks)
    assert measure_size(layer, (8,), Masks.from_module(layer)).multiply_adds_kept == 12


@pytest.mark.parametrize("masks", [{"module.0.weight": MASK}, {"0.weight": MASK[:2]}])
def test_an_earlier_round_of_another_network_is_refused(masks):
    module = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 2))
    with pytest.raises(ShrinkbenchError, match="these masks are for another network"):
        prune(module, "global_magnitude", compression=1.5, input_shape=(8,), masks=Masks(masks))
