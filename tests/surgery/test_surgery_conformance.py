"""Every structured method of the registry on every network: registering a method is enough to be tested here.

A method that applies gives masks whose small network computes what the masked one does, trains, and needs
fewer multiply-adds at every higher compression. One that does not apply says so in one sentence.
"""

from __future__ import annotations

import copy
import re
import warnings
from functools import lru_cache

import pytest
import torch
from sample_networks import ViT, seeded
from sampling import sampled
from surgery_networks import CONFORMANCE, as_trained, make

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds, count_parameters
from shrinkbench.models.cifar_resnet import CifarResNet, full_widths
from shrinkbench.pruning import METHODS, prune, training_hook
from shrinkbench.pruning.structures.channel_masks import complete_masks
from shrinkbench.surgery.checking import largest_difference
from shrinkbench.surgery.shrinking import LeftWholeWarning, shrink

STRUCTURED = (
    "filters",
    "input-channels",
    "heads",
    "neurons",
    "channels",
    "chained-channels",
)
STRUCTURED += ("branches", "scaled-channels")
PARTIAL = ("filters", "input-channels")
METHOD_NAMES = [n for n in METHODS if METHODS.get(n).structure.name in STRUCTURED and "doctest" not in n]
SMALL = ("resnet8", "small-vit")
# Networks to which a structure, or a score, does not apply, and why.
TRANSFORMERS = {"torchvision/vit_b_16", "torchvision/swin_t", "small-vit"}
WITHOUT_BATCH_NORM = {*TRANSFORMERS, "torchvision/convnext_tiny"}
EVERY = {*CONFORMANCE, *SMALL}
REFUSED_BY_STRUCTURE = {
    "heads": EVERY - TRANSFORMERS,  # no attention
    "neurons": EVERY - WITHOUT_BATCH_NORM,  # no two linear layers with a hidden one between them
    "branches": {"cifar-vgg", "densenet40"},  # no residual sums
    "chained-channels": {"densenet40"},  # every channel is read by many layers
    # Squeeze-and-excitation reads along, and grouped convolutions read a part.
    "scaled-channels": {*WITHOUT_BATCH_NORM, "torchvision/regnet_y_400mf"},
}
REFUSED_BY_SCORE = {
    "apoz": {*WITHOUT_BATCH_NORM, "torchvision/efficientnet_b0"},  # no ReLU
    "hrank": {*WITHOUT_BATCH_NORM, "cifar-vgg"},  # linear layers have no maps
    "batch_norm_scale": WITHOUT_BATCH_NORM,
    # Its descent on weights that nobody has trained diverges where they are deep.
    "most_discriminative": {"resnet56", "preresnet56", "torchvision/resnet50"},
}


@lru_cache(maxsize=1)
def network(name):
    """The network, its input shape, and two batches of two random images."""
    if name == "resnet8":
        small, shape = seeded(lambda: CifarResNet(full_widths(8), 10, shortcut="A")), (3, 16, 16)
        module = as_trained(small)
    elif name == "small-vit":
        module, shape = as_trained(seeded(ViT)), (3, 8, 8)
    else:
        module, shape = make(name)
    generator = torch.Generator().manual_seed(2)
    data = [(torch.randn(2, *shape, generator=generator), torch.tensor([0, 1])) for _ in range(2)]
    return module, shape, data


def pruned(name, network_name, compression):
    """The network as the method leaves it, not yet masked, and the masks."""
    module, shape, data = network(network_name)
    method = METHODS.get(name)
    if method.schedule.during is None:
        generator = torch.Generator().manual_seed(0)
        return module, prune(
            module, name, compression=compression, batches=data, generator=generator, one_shot=True
        )
    module = copy.deepcopy(module)
    torch.manual_seed(0)  # dropped at random are the same units, and paths, at every compression
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    hook = training_hook(
        module,
        name,
        compression=compression,
        epochs=2,
        steps_per_epoch=1,
        seed=0,
        input_shape=shape,
        batches=lambda _: data,
    )
    hook.start(optimizer)
    for epoch in (1, 2):
        hook.before_step(epoch)
        step(module, optimizer, data[epoch - 1], before=lambda epoch=epoch: hook.after_backward(epoch))
        hook.after_step(epoch)
        hook.after_epoch(epoch)
    assert hook.settled
    return module.eval(), hook.masks


def step(module, optimizer, batch, before=lambda: None):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(module.train()(batch[0]), batch[1]).backward()
    before()
    optimizer.step()


def highest(name, network_name):
    """A compression of at most 2 that the method reaches there, and what it gives."""
    compression = 2.0
    for _ in range(3):
        try:
            return compression, pruned(name, network_name, compression)
        except CannotMeetTargetError as error:
            largest = float(re.search(r"; the largest possible target is ([\d.]+)$", str(error))[1])
            compression = 1 + 0.8 * (largest - 1)
    raise AssertionError(f"{name} names targets that it does not reach")


def small_of(name, module, masks, shape):
    """The small network, which computes what the masked one does, and the masks that it was cut by."""
    structure = METHODS.get(name).structure.name
    masked = copy.deepcopy(module)
    masks.apply(masked)
    with warnings.catch_warnings():  # of masks that leave part of a channel, what stays is named
        warnings.simplefilter("ignore" if structure in PARTIAL else "error", LeftWholeWarning)
        # Streams of ConvNeXt pass layer norms over channels, which mix them: told of each network that is new.
        warnings.filterwarnings("ignore", r"(?s).*LayerNorm(2d)?\), which mixes channels", LeftWholeWarning)
        small = shrink(module, masks, shape)
        assert largest_difference(masked, small, shape) < 1e-9
        if structure == "filters":  # the whole channels, as `shrinkbench shrink --complete` takes them out
            masks = complete_masks(module, masks, shape)
            masks.apply(masked)
            small = shrink(module, masks, shape)
            assert largest_difference(masked, small, shape) < 1e-9
    return small, masks


def moved(module, data):
    """Tensors that a training step changes; the parameters stay finite."""
    before = [p.detach().clone() for p in module.parameters()]
    step(module, torch.optim.SGD(module.parameters(), lr=0.01), data[0])
    assert all(bool(p.isfinite().all()) for p in module.parameters())
    return sum(not torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))


def assert_trainable(small, module, masks, data):
    """It trains as the masked network does, of which some methods leave little that the loss depends on."""
    masked = copy.deepcopy(module)
    masks.apply(masked)
    for name, parameter in masked.named_parameters():
        if name in masks:  # pruned weights stay where they are
            parameter.register_hook(lambda grad, name=name: grad * masks[name])
    trained = moved(small, data)
    assert trained >= max(1, moved(masked, data) / 2)


def applies(name, network_name):
    method = METHODS.get(name)
    refused = REFUSED_BY_STRUCTURE.get(method.structure.name, set())
    return network_name not in refused | REFUSED_BY_SCORE.get(method.score.__name__, set())


def is_saturated(network_name):
    """Whether this network, drawn at random, is so sure of every image that its loss is flat."""
    module, _, data = network(network_name)
    with torch.no_grad():
        logits = torch.cat([module.eval()(images) for images, _ in data]).double()
    top = logits.topk(2, dim=1).values
    return bool((top[:, 0] - top[:, 1] > 600).all())


def assert_conforms(name, network_name, record):
    try:
        compression, found = highest(name, network_name)
    except ShrinkbenchError as error:
        sentence = str(error)
        record("refused", sentence)
        assert re.search(r"; (choose|use) ", sentence), sentence
        assert "\n" not in sentence
        if "no image curves" in sentence:
            assert is_saturated(network_name)
            return
        assert not applies(name, network_name), sentence
        return
    assert applies(name, network_name)
    record("compression", compression)
    _, shape, data = network(network_name)
    halfway = pruned(name, network_name, (1 + compression) / 2)
    steps = [halfway, found]
    if halfway[1].equal(found[1]):  # one block may be enough for both
        assert METHODS.get(name).structure.name == "branches"
        steps = [found]
    structure = METHODS.get(name).structure.name
    counts = [count_multiply_adds(network(network_name)[0], shape)]
    sizes = [count_parameters(network(network_name)[0])]
    for module, masks in steps:
        small, masks = small_of(name, module, masks, shape)
        counts.append(count_multiply_adds(small, shape))
        sizes.append(count_parameters(small))
    record("multiply_adds", counts)
    assert sizes == sorted(sizes, reverse=True)
    if name == "amc":  # it searches for the least loss at a size: speed goes either way
        assert max(counts) == counts[0]
    else:
        assert counts == sorted(counts, reverse=True)
    # Filters whose outputs are added to others' stay: of the first few that go, none may be free to leave.
    assert counts[-1] < counts[0] if structure in PARTIAL else len(set(counts)) == len(counts)
    assert_trainable(small, module, masks, data)


# One method of each structure is quick enough for every run of the tests.
QUICK = {METHODS.get(name).structure.name: name for name in reversed(METHOD_NAMES)}


@pytest.mark.parametrize(
    "name", [n if n in QUICK.values() else pytest.param(n, marks=pytest.mark.slow) for n in METHOD_NAMES]
)
@pytest.mark.parametrize("network_name", sampled(SMALL, every=2))
def test_small_networks(network_name, name, record_property):
    assert_conforms(name, network_name, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("network_name", CONFORMANCE)
def test_every_network(network_name, name, record_property):
    assert_conforms(name, network_name, record_property)
