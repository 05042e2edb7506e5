"""Network Slimming and Sparse Structure Selection: the penalty, the cut, and what is left."""

from __future__ import annotations

import copy

import pytest
import torch
from sample_networks import as_drawn
from sampling import sampled
from surgery_networks import as_trained, make, outputs
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_parameters, measure_size
from shrinkbench.models import build
from shrinkbench.models.preresnet import cifar_preresnet
from shrinkbench.network.coupling import couple
from shrinkbench.pruning import METHODS, training_hook
from shrinkbench.pruning.context import PruneContext
from shrinkbench.pruning.methods.network_slimming import scaled_channels, slimming_masks
from shrinkbench.pruning.methods.sparse_structure_selection import proximal_step
from shrinkbench.spec import Recipe
from shrinkbench.surgery.shrinking import shrink
from shrinkbench.training import train

RECIPE = Recipe(
    name="test", reference="test", optimizer="sgd", learning_rate=0.05, momentum=0.9, batch_size=16, epochs=5
)


class Images:
    """Classes told apart by brightness; the same images serve for training and validation."""

    def __init__(self, size=8):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(48) % 4
        noise = torch.randn(48, 3, size, size, generator=generator)
        self.images = noise * 0.3 + self.labels.view(-1, 1, 1, 1)

    def train(self, batch_size, *, generator, augment):
        order = torch.randperm(48, generator=generator)
        return [(self.images[i], self.labels[i]) for i in order.split(batch_size)]

    def validation(self):
        return [(self.images, self.labels)]

    test = validation


class Residual(nn.Module):
    """A stem and four residual blocks; the branches of two of them start at next to nothing."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
                *(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)),
            )
            for _ in range(4)
        )
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.fc(x.mean((2, 3)))


def hook_for(module, method, compression, recipe=RECIPE, shape=(3, 8, 8)):
    return training_hook(
        module,
        method,
        compression=compression,
        epochs=recipe.epochs,
        steps_per_epoch=3,
        seed=0,
        input_shape=shape,
    )


def test_the_penalty_is_the_subgradient_of_the_l1_norm_of_scales():
    module = as_drawn(Residual)
    hook = hook_for(module, "network_slimming", 1.2)
    scales = [m.weight for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        scales[0][:3] = -0.2
    loss = module(Images().images).square().mean()
    loss.backward()
    plain = [s.grad.clone() for s in scales]
    hook.after_backward(1)
    for scale, before in zip(scales, plain, strict=True):
        torch.testing.assert_close(scale.grad - before, 1e-4 * scale.detach().sign(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("method", ["network_slimming", "sparse_structure_selection"])
def test_training_ends_with_masks_that_meet_the_target_and_can_be_cut_out(method):
    module, data = as_drawn(Residual), Images()
    hook = hook_for(module, method, 1.4)
    training = train(module, RECIPE, data, seed=0, hooks=[hook])
    assert len(training.epochs) == 5
    size = measure_size(module, (3, 8, 8), hook.masks)
    assert size.compression >= 1.4 - 1e-3
    assert all(not p[~hook.masks[n]].any() for n, p in module.named_parameters() if n in hook.masks)
    small = shrink(module, hook.masks, (3, 8, 8))
    torch.testing.assert_close(small(data.images), module(data.images), rtol=1e-4, atol=1e-5)
    assert count_parameters(small) == size.parameters_kept


def test_scaling_factors_reach_zero_where_a_branch_is_of_no_use():
    module, data = as_drawn(Residual), Images()
    for block in (module.blocks[1], module.blocks[3]):
        nn.init.constant_(block[4].weight, 1e-3)
    hook = hook_for(module, METHODS.get("sparse_structure_selection"), 1.5)
    hook._penalty = 0.6
    seen = []
    train(
        module,
        RECIPE,
        data,
        seed=0,
        hooks=[hook],
        on_epoch=lambda _: seen.append(hook.factors.detach().clone()),
    )
    assert bool((seen[-2] == 0).any())  # exact zeros while training
    assert bool((hook.factors >= 0).all())
    removed = [i for i in range(4) if not hook.masks[f"blocks.{i}.0.weight"].any()]
    kept = [i for i in range(4) if i not in removed]
    assert removed
    assert hook.factors[removed].max() <= hook.factors[kept].min()


def test_factors_are_folded_into_the_weights_at_the_end():
    module, data = as_drawn(Residual), Images()
    hook = hook_for(module, "sparse_structure_selection", 1.05)
    with torch.no_grad():
        hook.factors.copy_(torch.tensor([0.5, 0.9, 1.1, 0.7]))
    module.eval()
    scaled = module(data.images).detach()
    hook._fold()
    torch.testing.assert_close(module(data.images), scaled)


def test_proximal_step_by_hand():
    # z = (0.5 - 0.1 * 2, 0.02 - 0); s = (0.3 - 0.05, 0); v' = (s - f) + 0.9 v; f' = max(s + 0.9 v', 0)
    factors, velocity = torch.tensor([0.5, 0.02]), torch.tensor([0.1, 0.0])
    new, speed = proximal_step(factors, velocity, torch.tensor([2.0, 0.0]), rate=0.1, penalty=0.5, momentum=0.9)
    torch.testing.assert_close(speed, torch.tensor([0.25 - 0.5 + 0.09, -0.02]))
    torch.testing.assert_close(new, torch.tensor([0.25 + 0.9 * (0.25 - 0.5 + 0.09), 0.0]))


@pytest.mark.parametrize(
    "method", ["network_slimming", pytest.param("sparse_structure_selection", marks=pytest.mark.slow)]
)
def test_interrupted_and_resumed_is_uninterrupted(method, tmp_path):
    def run(last_epochs):
        module = as_drawn(Residual)
        for last in last_epochs:
            module = as_drawn(Residual)
            hook = hook_for(module, method, 1.3, recipe)
            train(*(module, recipe, Images()), seed=0, hooks=[hook], last_epoch=last, checkpoint=path)
        return module, hook

    recipe = RECIPE.model_copy(update={"epochs": 3})
    path = tmp_path / "whole.pt"
    whole, hook = run([None])
    path = tmp_path / "parts.pt"
    parts, resumed = run([1, 2, None])
    assert hook.masks.equal(resumed.masks)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name


def made(name):
    """As :func:`make`, and a shallow one of the same kind as preresnet56."""
    if name != "preresnet20":
        return make(name)
    return as_trained(as_drawn(lambda: cifar_preresnet(20, 10, gain=0.5))), (3, 32, 32)


# Population of batch-norm channels that the papers rank, by architecture (facts of the released code).
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        pytest.param("cifar-vgg16", 4_224, marks=pytest.mark.slow),
        pytest.param("cifar-vgg19", 5_504, marks=pytest.mark.slow),
        ("preresnet56", 4_048),
        pytest.param("densenet40", 9_360, marks=pytest.mark.slow),
        pytest.param("densenet40-paper", 9_048, marks=pytest.mark.slow),
    ],
)
def test_all_batch_norm_channels_are_ranked(name, channels):
    module = build(name)
    found = scaled_channels(module, couple(module, (3, 32, 32)))
    assert sum(len(module.get_submodule(item.norm).weight) for item in found) == channels


@pytest.mark.parametrize(
    ("name", "fraction"),
    [
        ("preresnet20", 0.4),
        *(
            pytest.param(name, fraction, marks=pytest.mark.slow)
            for name, fraction in (
                ("preresnet56", 0.4),
                ("preresnet56", 0.6),
                ("cifar-vgg16", 0.4),
                ("cifar-vgg16", 0.6),
                ("densenet40", 0.4),
                ("densenet40", 0.6),
            )
        ),
    ],
)
def test_a_fraction_of_all_channels_goes_by_the_smallest_scales(name, fraction):
    module, shape = made(name)
    masks = slimming_masks(module, shape, fraction)
    found = scaled_channels(module, couple(module, shape))
    scales = torch.cat([module.get_submodule(i.norm).weight.detach().abs() for i in found])
    kept = torch.cat([masks[f"{i.norm}.weight"] for i in found])
    assert int(kept.sum()) == len(scales) - int(len(scales) * fraction)
    assert scales[kept].min() >= scales[~kept].max()
    small = shrink(module, masks, shape)
    pruned = copy.deepcopy(module)
    masks.apply(pruned)
    torch.testing.assert_close(outputs(small, shape), outputs(pruned, shape), rtol=1e-4, atol=1e-4)
    # Channels of a dense network that no layer reads any more leave too.
    assert count_parameters(small) <= measure_size(module, shape, masks).parameters_kept


def test_streams_are_selected_and_keep_their_width():
    module, shape = made("preresnet20")
    small = shrink(module, slimming_masks(module, shape, 0.5), shape)
    assert small.layer2[1].conv3.out_channels == 128
    select, norm = small.layer2[1].bn1
    assert len(select.index) == norm.num_features == small.layer2[1].conv1.in_channels < 128


@pytest.mark.slow
def test_one_channel_stays_in_each_layer():
    module = as_trained(build("cifar-vgg11"))
    with torch.no_grad():
        module.get_submodule(scaled_channels(module, couple(module, (3, 32, 32)))[3].norm).weight.mul_(1e-6)
    masks = slimming_masks(module, (3, 32, 32), 0.7)
    assert all(bool(mask.any()) for mask in masks.values())


def test_a_network_without_suitable_batch_norm_is_told():
    grouped = nn.Sequential(
        *(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    for module, shape in ((build("lenet5"), (1, 28, 28)), (grouped, (3, 8, 8))):  # none; none read whole
        with pytest.raises(ShrinkbenchError, match="feeds one layer alone which reads all its channels"):
            slimming_masks(module, shape, 0.5)


@pytest.mark.slow
def test_a_fraction_of_everything_is_refused():
    with pytest.raises(ShrinkbenchError, match="a fraction of 1 cannot be removed"):
        slimming_masks(build("cifar-vgg11"), (3, 32, 32), 1.0)


@pytest.mark.parametrize("score", ["random", pytest.param("magnitude", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "method", sampled(["network_slimming", "network_slimming:40", "sparse_structure_selection"], every=3)
)
def test_controls_train_alike_and_keep_as_much_by_another_score(method, score):
    """In each layer, or in the whole network where a unit is a whole layer."""
    masks, kept = {}, {}
    for name in (method, f"{score}@{method}"):
        module, generator = as_drawn(Residual), torch.Generator().manual_seed(1)
        for depth, block in enumerate(module.blocks):  # so that a global cut takes unequal shares
            nn.init.uniform_(block[1].weight, 0.1, 1.2 - 0.2 * depth, generator=generator)
        hook = hook_for(module, name, None if METHODS.get(name).amount else 1.4)
        train(module, RECIPE, Images(), seed=1, hooks=[hook])
        masks[name] = hook.masks
        ctx = PruneContext(module, hook.setting.names, input_shape=(3, 8, 8))
        alive = {n: hook.masks[n].float() if n in hook.masks else 1 + 0 * w for n, w in ctx.weights.items()}
        units = METHODS.get(method).structure.group(ctx, alive).units
        kept[name] = {layer: int((u.scores > 0).sum()) for layer, u in units.items()}
    own, control = kept.values()
    assert len(set(own.values())) > 1
    if METHODS.get(method).structure.one_per_layer:
        assert sum(own.values()) == sum(control.values())
    else:
        assert own == control
    mine, other = masks.values()
    assert any(not torch.equal(mask, other[n]) for n, mask in mine.items())
