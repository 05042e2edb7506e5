"""Masks are counted on the network that they are of, and on no other."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torchs

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_kept, measure_size
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
    with pytest.raises(ShrinkbenchError, match="'weight_orig'; give the mask of 'weight' under that"):
        measure_size(layer, (8,), masks)
    assert measure_size(layer, (8,), Masks.from_module(layer)).multiply_adds_kept == 12


@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ({"other.weight": MASK}, "these masks are for another network"),
        ({"0.weight": MASK[:2]}, "these masks are for another network"),
        ({"module.0.weight": MASK}, "parameter 'module.0.weight'; give the mask of '0.weight' under"),
        ({"_orig_mod.0.weight": MASK}, "give the mask of '0.weight' under that name"),
        ({"0.weight_orig": MASK}, "give the mask of '0.weight' under that name"),
        ({"2.weight": MASK}, "'2.weight' is another name of '0.weight'"),
    ],
)
def test_an_earlier_round_of_other_names_is_refused(masks, told):
    module = nn.Sequential(nn.Linear(8, 3), nn.Linear(3, 2), nn.Linear(8, 3))
    module[2].weight = module[0].weight
    with pytest.raises(ShrinkbenchError, match=told):
        count_kept(module, masks)
    with pytest.raises(ShrinkbenchError, match=told):
        prune(module, "global_magnitude", compression=1.5, input_shape=(8,), masks=Masks(masks))
