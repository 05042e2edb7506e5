"""What has diverged is refused in a sentence by every method that looks at it."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import METHODS, prune, training_hook


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def batches():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 3, 6, 6, generator=generator)
    return [(inputs, torch.arange(8) % 4)]


def plain_methods():
    """One method a score: those that state their own amount, or train first, are others' business."""
    for name in METHODS:
        method = METHODS.get(name)
        if method.amount is None and method.like is None:
            yield name


def spoil_weight(module, data):
    with torch.no_grad():
        module[3].weight[0, 0, 0, 0] = float("nan")


def spoil_weight_infinitely(module, data):
    with torch.no_grad():
        module[3].weight[0, 0, 0, 0] = float("inf")


def spoil_statistics(module, data):
    module[1].running_mean.fill_(float("nan"))


def spoil_data(module, data):
    data[0][0][0, 0, 0, 0] = float("nan")


def spoil_data_infinitely(module, data):
    data[0][0][0, 0, 0, 0] = float("inf")


SPOILS = [spoil_weight, spoil_weight_infinitely, spoil_statistics, spoil_data, spoil_data_infinitely]


def masks_or_sentence(name, spoil=None):
    module, data = network(), batches()
    if spoil is not None:
        spoil(module, data)
    try:
        return prune(module, name, compression=1.3, batches=data, input_shape=(3, 6, 6), one_shot=True)
    except ShrinkbenchError as error:
        return str(error)


@pytest.mark.parametrize(
    "name",
    [m if n % 4 == 0 else pytest.param(m, marks=pytest.mark.slow) for n, m in enumerate(plain_methods())],
)
def test_what_is_not_finite_is_refused_or_not_looked_at(name):
    clean = masks_or_sentence(name)
    if isinstance(clean, str):
        pytest.skip(clean)
    for spoil in (spoil_weight, spoil_statistics, spoil_data_infinitely):
        found = masks_or_sentence(name, spoil)
        if isinstance(found, str):
            assert len(found) < 300
        else:
            assert spoil is not spoil_weight
            assert found.equal(clean), spoil.__name__


@pytest.mark.parametrize("name", ["wanda", "wanda_2_4", "sparsegpt", "global_activation", "thinet"])
@pytest.mark.parametrize("spoil", SPOILS)
def test_methods_on_data_refuse_it_all(name, spoil):
    assert isinstance(masks_or_sentence(name), str) is False
    assert isinstance(masks_or_sentence(name, spoil), str)


def test_the_reason_names_what_is_wrong():
    assert "the weights of '3.weight' contain NaN or infinity" in masks_or_sentence("wanda", spoil_weight)
    assert "NaN or infinite inputs" in masks_or_sentence("sparsegpt", spoil_data)
    assert "'3.weight' contain NaN" in masks_or_sentence("wanda", spoil_statistics)
    assert "'sparsegpt' cannot solve for its scores" in masks_or_sentence("sparsegpt", spoil_statistics)


def test_inside_inference_mode_masks_are_the_same():
    for name in ("global_magnitude", "snip", "wanda", "synflow", "channel_l1"):
        outside = masks_or_sentence(name)
        with torch.inference_mode():
            inside = masks_or_sentence(name)
        assert inside.equal(outside), name


def looked_at(name, data):
    """What the method says of ``data`` on a network of two batches."""
    try:
        return prune(network(), name, compression=1.3, batches=data, one_shot=True)
    except ShrinkbenchError as error:
        sentence = str(error)
    assert len(sentence) < 300
    return sentence


READERS = ["wanda", "sparsegpt", "snip", "force", "movement", "owl_wanda", "skeletonization", "alpha_pruning"]


@pytest.mark.parametrize("name", READERS)
def test_a_batch_without_examples_is_refused_by_its_number(name):
    [(inputs, labels)] = batches()
    empty = (inputs[:0], labels[:0])
    assert "batch 1 of batches= holds no examples" in looked_at(name, [empty])
    if METHODS.get(name).batch_count > 1 and "data" in METHODS.get(name).needs:
        assert "batch 2 of batches= holds no examples" in looked_at(name, iter([(inputs, labels), empty]))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(plain_methods()))
def test_no_method_decides_on_batches_without_examples(name):
    [(inputs, labels)] = batches()
    empty = (inputs[:0], labels[:0])
    assert isinstance(looked_at(name, [empty]), str)
    looked_at(name, [(inputs, labels), empty])


@pytest.mark.parametrize("name", ["wanda", "snip", "obert", "thinet"])
def test_a_batch_that_the_network_does_not_take_is_named_with_its_shape(name):
    [(inputs, labels)] = batches()
    sentence = looked_at(name, [(inputs, labels), (inputs[:, :1], labels)])
    if METHODS.get(name).batch_count == 1:
        assert not isinstance(sentence, str)
        return
    assert "the network does not take batch 2 of batches=, float32 8x1x6x6: Given groups=1" in sentence
    other_size = nn.functional.pad(inputs, (1, 1, 1, 1))
    assert not isinstance(looked_at(name, [(inputs, labels), (other_size, labels)]), str)


def test_batches_of_an_iterator_are_the_same_each_time_they_are_read():
    [(inputs, labels)] = batches()
    two = [(inputs, labels), (inputs.flip(0) * 2, labels)]
    for name in ("wanda", "sparsegpt", "snip", "obert"):
        assert looked_at(name, iter(two)).equal(looked_at(name, two)), name


def test_a_hook_refuses_batches_without_examples():
    module = nn.Sequential(*(nn.Sequential(nn.Conv2d(c, 8, 3, padding=1), nn.ReLU()) for c in (3, 8, 8)))
    module.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(8, 4))
    [(inputs, labels)] = batches()
    hook = training_hook(
        module,
        "discrimination_aware",
        compression=1.3,
        epochs=1,
        steps_per_epoch=4,
        seed=0,
        input_shape=(3, 6, 6),
        batches=lambda generator: [(inputs, labels), (inputs[:0], labels[:0])],
    )
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    hook.start(optimizer)
    nn.functional.cross_entropy(module(inputs), labels).backward()
    with pytest.raises(ShrinkbenchError, match="batch 2 of batches= holds no examples"):
        hook.after_backward(1)


@pytest.mark.parametrize("name", ["global_magnitude", "layerwise_magnitude", "synflow"])
def test_what_torch_has_pruned_already_is_pruned(name):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    for layer in (module[0], module[2]):
        torch_prune.random_unstructured(layer, "weight", amount=0.5)
    for compression, kept in ((1.5, 256), (3, 204 - 100)):  # half of 512 are gone; 100 are not prunable
        masks = prune(module, name, compression=compression, input_shape=(16,))
        assert masks.kept == kept
        for i in (0, 2):
            assert not bool((masks[f"{i}.weight_orig"] & (module[i].weight_mask == 0)).any())
    with pytest.raises(ShrinkbenchError, match="carries masks of torch"):
        training_hook(module, "rigl", compression=3, epochs=1, steps_per_epoch=9, seed=0, input_shape=(16,))


@pytest.mark.parametrize("name", ["global_gradient", "snip", "grasp", "obd_hutchinson", "filter_taylor_2016"])
def test_scores_that_are_zero_throughout_do_not_rank_by_position(name):
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(4, 6), torch.randint(0, 3, (4,)))] * 20
    with pytest.raises(ShrinkbenchError, match="position alone would decide"):
        prune(
            module,
            name,
            compression=2,
            batches=batches,
            input_shape=(6,),
            loss=lambda outputs, targets: (outputs * 0).sum(),
            one_shot=True,
        )


@pytest.mark.parametrize("name", ["global_taylor", "obd"])
def test_scores_that_overflow_do_not_rank_by_position(name):
    """Squares of gradients do before gradients do."""
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(4, 6), torch.randint(0, 3, (4,)))] * 20

    def large(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets) * 1e30

    with pytest.raises(ShrinkbenchError, match=f"scores that '{name}' gives '0.weight' overflow"):
        prune(module, name, compression=2, batches=batches, loss=large)


def test_a_complex_loss_is_told():
    module = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [(torch.randn(4, 6), torch.randint(0, 3, (4,)))]

    def turned(outputs, targets):
        return outputs.sum().to(torch.complex64)

    with pytest.raises(ShrinkbenchError, match="gives complex64 number, and gradients are of one real number"):
        prune(module, "global_gradient", compression=2, batches=batches, loss=turned)


@pytest.mark.parametrize(
    "name", ["wanda", "sparsegpt", "obc", "nisp", "hrank", "apoz", "thinet", "global_activation"]
)
def test_inputs_of_zeros_tell_nothing(name):
    blank = [(torch.zeros(8, 3, 6, 6), torch.arange(8) % 4)]
    with pytest.raises(ShrinkbenchError, match="inputs of batches= are 0 throughout"):
        prune(network(), name, compression=2, batches=blank)
