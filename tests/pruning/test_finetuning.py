"""From which weights training goes on."""

import pytest
import torch
from sample_networks import ConvNet, batches, seeded

from shrinkbench.errors import ShrinkbenchError, UnknownNameError
from shrinkbench.pruning import FINETUNINGS, Masks, prune, restart


def pruned():
    module = seeded(ConvNet)
    return module, prune(module, "global_magnitude", compression=2.5, input_shape=(3, 8, 8))


def test_kept_weights_stay_and_pruned_ones_are_zero():
    module, masks = pruned()
    before = module.stem.weight.detach().clone()
    restart(FINETUNINGS.get("continue"), module, masks)
    assert torch.equal(module.stem.weight, before * masks["stem.weight"])


def test_new_values_of_the_method_are_used_when_weights_are_kept():
    module, masks = pruned()
    values = {"stem.weight": torch.full_like(module.stem.weight, 7.0)}
    restart(FINETUNINGS.get("continue"), module, Masks(dict(masks), values=values))
    assert set(module.stem.weight.unique().tolist()) == {0.0, 7.0}


@pytest.mark.parametrize("name", ["rewind-weights-0", "rewind-weights-3"])
def test_rewound_weights_are_those_of_the_checkpoint_under_the_mask(name):
    module, masks = pruned()
    checkpoint = {n: t.clone() for n, t in seeded(ConvNet, seed=5).state_dict().items()}
    values = {"stem.weight": torch.full_like(module.stem.weight, 7.0)}
    restart(FINETUNINGS.get(name), module, Masks(dict(masks), values=values), checkpoint)
    for key, tensor in module.state_dict().items():
        expected = checkpoint[key] * masks[key] if key in masks else checkpoint[key]
        assert torch.equal(tensor, expected), key  # batch-norm statistics too; no values of the method


def test_rescaled_weights_have_the_deviation_of_the_survivors():
    module, masks = pruned()
    fresh = seeded(ConvNet, seed=9).state_dict()
    restart(FINETUNINGS.get("reinitialise-rescaled"), module, masks, fresh)
    for name, mask in masks.items():
        density = mask.float().mean()
        expected = fresh[name] / density.sqrt() * mask
        torch.testing.assert_close(dict(module.named_parameters())[name].detach(), expected)
    # sqrt(2 / n) with n survivors per input channel, from sqrt(2 / fan-out) (Liu et al. 2019).
    mask = masks["stem.weight"]
    fan_out, survivors = mask.numel() / mask.shape[1], mask.sum() / mask.shape[1]
    factor = (2 / survivors).sqrt() / (2 / fan_out) ** 0.5
    assert factor.item() == pytest.approx(float(mask.float().mean()) ** -0.5)


def test_modes_say_what_they_need():
    module, masks = pruned()
    with pytest.raises(ShrinkbenchError, match="needs the weights of epoch 4"):
        restart(FINETUNINGS.get("rewind-weights-4"), module, masks)
    with pytest.raises(UnknownNameError):
        FINETUNINGS.get("rewind-weights-soon")


@pytest.mark.parametrize(
    ("name", "weights", "recipe", "epoch"),
    [
        ("continue", "kept", "finetuning", 0),
        ("none", "kept", "none", 0),
        ("rewind-weights-7", "rewound", "pretraining", 7),
        ("rewind-learning-rate-7", "kept", "pretraining", 7),
        ("reinitialise", "reinitialised", "pretraining", 0),
    ],
)
def test_what_the_runner_has_to_do(name, weights, recipe, epoch):
    mode = FINETUNINGS.get(name)
    assert (mode.weights, mode.recipe, mode.epoch) == (weights, recipe, epoch)
    assert mode.rewound_to == (epoch if weights == "rewound" else None)


def test_networks_run_after_each_mode():
    for name in FINETUNINGS:
        module, masks = pruned()
        restart(FINETUNINGS.get(name), module, masks, seeded(ConvNet, seed=5).state_dict())
        assert bool(module(batches(1)[0][0]).isfinite().all())
