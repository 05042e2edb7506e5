"""The law on more networks of a user's own, by several methods: right, or left whole and named, or refused."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
from made_networks import KINDS, make_kind
from more_networks import ADDED

from shrinkbench.errors import CannotMeetTargetError, LeftWholeWarning, ShrinkbenchError
from shrinkbench.metrics import count_parameters
from shrinkbench.network.probe import floating_leaves
from shrinkbench.network.weights import copy_of
from shrinkbench.pruning import prune
from shrinkbench.surgery.shrinking import shrink

METHODS = ("channel_taylor", "uniform_channels", "filter_l1", "neuron_magnitude", "thinet")
SLOW = frozenset({
    *("bidirectional-lstm", "stacked-gru", "projected-lstm", "packed-lstm", "plain-recurrent", "gru-cell"),
    *("encoder", "decoder", "rotated-pairs", "rotated-by-the-network-itself", "attention-with-more-keys"),
    *("attention-over-batch", "scripted-module", "tiled-channels", "both-signs", "padded-channels"),
    *("differences-of-channels", "top-channels", "old-spectral-norm", "response-norm", "einsum"),
    "called-at-two-sizes",
})  # fmt: skip
# No channel of theirs can leave: the weights are standardised over them, or tokens are mixed by a linear layer.
REFUSED = {"standardised-convolution", "squeezed-tokens"}
NAMED = {
    "cosine-classifier",  # its matrix of classes is of no layer
    "kept-biases",  # of places, which torch-pruning takes for channels
    "spatial-attention",  # a mean over the channels counts them
    "two-best-experts",  # as of any experts: their outputs are summed by shares that a gate makes
    *("scatter", "top-channels", "einsum", "tiled-channels", "every-second-channel", "padded-channels"),
    *("differences-of-channels", "response-norm", "functional-group-norm", "autograd-function"),
    *("chosen-by-values", "scripted-module", "weight-norm", "spectral-norm", "old-spectral-norm"),
    *("bidirectional-lstm", "stacked-gru", "plain-recurrent", "projected-lstm", "packed-lstm", "lstm-cell"),
    *("gru-cell", "rotated-halves", "rotated-pairs", "rotated-by-the-network-itself", "bilinear-layer"),
    *(
        "frozen-front",
        "with-coordinates",
        "shared-module",
        "mixture-of-experts",
        "shuffled-halves",
        "deformable",
    ),
}
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),
]


def masks_by(method, name):
    """Masks at a half, or at the largest possible target."""
    module, shape = make_kind(name)
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn((4, *shape), generator=generator)
    options = {"input_shape": shape, "batches": [(inputs, torch.zeros(4, dtype=torch.long))]}
    try:
        return prune(module, method, compression=2, loss=square, **options)
    except CannotMeetTargetError as error:
        largest = float(re.search(r"the largest possible target is ([\d.]+)$", str(error))[1])
    return prune(module, method, compression=largest, loss=square, **options)


def square(outputs, _):
    return (outputs - 1).square().mean()


def leaves(module, shape):
    inputs = torch.randn((3, *shape), generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    with torch.no_grad():
        return floating_leaves(module(inputs))


def outcome(name, method):
    """``right``, ``named`` or ``refused``; what differs, or is no sentence, fails."""
    refused = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            masks = masks_by(method, name)
            module, shape = make_kind(name)
            small = shrink(module, masks, shape)
        except ShrinkbenchError as error:
            refused = str(error)
    named = [str(w.message) for w in caught if issubclass(w.category, LeftWholeWarning)]
    for sentence in (*named, refused or ""):
        assert not re.search(r"Error:|has no attribute|list index|\n", sentence)
    if refused is not None:
        return "refused"
    masked = copy_of(module)
    masks.apply(masked)
    pairs = zip(leaves(masked.double(), shape), leaves(copy_of(small).double(), shape), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9 * float(one.abs().max()))
    if method.startswith("channel"):
        kept = count_parameters(module) - sum(int((~mask).sum()) for mask in masks.values())
        assert count_parameters(small) == kept
    return "named" if named else "right"


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in ADDED])
def test_half_of_the_channels(name):
    expected = "refused" if name in REFUSED else "named" if name in NAMED else "right"
    assert outcome(name, "channel_l1") == expected


def test_a_perceptron_of_which_nothing_is_left():
    assert outcome("encoder", "neuron_magnitude") == "right"


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_several_methods(method):
    outcomes = [outcome(name, method) for name in KINDS]
    assert {"right", "named"} & set(outcomes)
