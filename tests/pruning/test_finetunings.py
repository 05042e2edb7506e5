"""From which weights training goes on."""

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from torch import nn

from shrinkbench.errors import ShrinkbenchError, UnknownNameError
from shrinkbench.models import build
from shrinkbench.models.initialise import kaiming_normal
from shrinkbench.pruning import FINETUNINGS, METHODS, Masks, prune, restart
from shrinkbench.pruning.layer_sensitivity import check_method
from shrinkbench.surgery.shrinking import shrink


def generator(seed):
    return torch.Generator().manual_seed(seed)


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
    restart(FINETUNINGS.get("continue"), module, Masks(dict(masks), new_weights=values))
    assert set(module.stem.weight.unique().tolist()) == {0.0, 7.0}


@pytest.mark.parametrize("name", ["rewind-weights-0", "rewind-weights-3"])
def test_rewound_weights_are_those_of_the_checkpoint_under_the_mask(name):
    module, masks = pruned()
    checkpoint = {n: t.clone() for n, t in seeded(ConvNet, seed=5).state_dict().items()}
    values = {"stem.weight": torch.full_like(module.stem.weight, 7.0)}
    restart(FINETUNINGS.get(name), module, Masks(dict(masks), new_weights=values), checkpoint)
    for key, tensor in module.state_dict().items():
        expected = checkpoint[key] * masks[key] if key in masks else checkpoint[key]
        assert torch.equal(tensor, expected), key  # batch-norm statistics too; no values of the method


def test_scratch_under_single_weights_has_the_deviation_of_the_survivors():
    """sqrt(2 / n) with n survivors per input channel, from sqrt(2 / fan out) (Liu et al. 2019)."""
    module = nn.Sequential(nn.Conv2d(32, 64, 3), nn.Conv2d(64, 128, 3, groups=4))
    masks = Masks(
        {
            n: torch.rand(p.shape, generator=generator(3)) < 0.25
            for n, p in module.named_parameters()
            if p.ndim > 1
        }
    )
    fresh = seeded(lambda: nn.Sequential(nn.Conv2d(32, 64, 3), nn.Conv2d(64, 128, 3, groups=4)))
    kaiming_normal(fresh)
    restart(FINETUNINGS.get("scratch-e"), module, masks, fresh.state_dict())
    assert not any(p[~masks[n]].any() for n, p in module.named_parameters() if n in masks)
    for name, inputs in (("0.weight", 32), ("1.weight", 16)):
        survivors = dict(module.named_parameters())[name].detach()[masks[name]]
        # torch's fan out of a grouped convolution counts all outputs, as it does without groups
        assert float(survivors.std()) == pytest.approx((2 / (len(survivors) / inputs)) ** 0.5, rel=0.03)


@pytest.mark.slow
def test_scratch_under_whole_channels_is_drawn_as_the_small_network_is():
    """Deviations of every layer, against the network that is built small."""
    module = build("cifar-vgg16-l1")
    masks = prune(module, "li2017:vgg16-a", input_shape=(3, 32, 32))
    restart(FINETUNINGS.get("scratch-b"), module, masks, build("cifar-vgg16-l1", seed=3).state_dict())
    small, expected = shrink(module, masks, (3, 32, 32)), build("vgg16-a", seed=4)
    for name, weight in small.named_parameters():
        other = dict(expected.named_parameters())[name]
        assert weight.shape == other.shape
        if weight.numel() > 30_000:
            assert weight.detach().std().item() == pytest.approx(other.detach().std().item(), rel=0.03), name
        elif weight.ndim == 1:
            assert torch.equal(weight, other), name  # batch norm starts where its network has it start


def test_scratch_is_told_from_rounds_in_between():
    assert FINETUNINGS.get("scratch-b").between.name == "rewind-weights-0"
    assert FINETUNINGS.get("continue").between.name == "continue"


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
        ("scratch-e", "scratch", "pretraining", 0),
        ("scratch-b", "scratch", "pretraining", 0),
    ],
)
def test_what_the_runner_has_to_do(name, weights, recipe, epoch):
    mode = FINETUNINGS.get(name)
    assert (mode.weights, mode.recipe, mode.epoch) == (weights, recipe, epoch)


def test_networks_run_after_each_mode():
    for name in FINETUNINGS:
        module, masks = pruned()
        restart(FINETUNINGS.get(name), module, masks, seeded(ConvNet, seed=5).state_dict())
        assert bool(module(batches(1)[0][0]).isfinite().all())


LEFT_OUT = {
    "one_shot_lottery_ticket": "rewinds weights",
    "global_magnitude[finetuning=rewind-weights-3]": "rewinds weights",
    "random_reinitialisation": "draws anew",
    "rescaled_reinitialisation": "draws anew",
    "channel_l1[finetuning=scratch-b]": "draws anew",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_masks_alone_are_given_of_what_goes_on_from_other_weights_only_when_asked(name):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ShrinkbenchError, match=rf"{LEFT_OUT[name]}.*a sweep carries it out.*one_shot=True"):
        prune(net, name, compression=1.5, input_shape=(6,))
    assert prune(net, name, compression=1.5, input_shape=(6,), one_shot=True).kept
    with pytest.raises(ShrinkbenchError, match="trains from other weights than those at hand"):
        check_method(METHODS.get(name))


@pytest.mark.parametrize("mode", ["continue", "none", "rewind-learning-rate-0"])
def test_masks_are_all_of_what_goes_on_from_the_weights_at_hand(mode):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    assert prune(net, f"global_magnitude[finetuning={mode}]", compression=1.5, input_shape=(6,)).kept
