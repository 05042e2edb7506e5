"""Refusals say what is so: numbers over one set, reasons that hold, a way out that works."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import count_multiply_adds, measure_size
from shrinkbench.pruning import Masks, Pruner, prune
from shrinkbench.results.sensitivity import check_densities
from shrinkbench.surgery.shrinking import shrink
from shrinkbench.tasks import Metric, Supervised
from shrinkbench.training import evaluate


def test_what_stays_is_counted_over_all_parameters():
    """One hidden unit stays: 2 weights, its bias, 50 weights of the classifier and its 50 biases."""
    net = nn.Sequential(nn.Linear(2, 20), nn.ReLU(), nn.Linear(20, 50))
    with pytest.raises(CannotMeetTargetError, match=r"leaves at least 103 of 1,110 parameters; .* is 10\.7766"):
        prune(net, "channel_l1", compression=50, input_shape=(2,))
    assert prune(net, "channel_l1", compression=10.7766, input_shape=(2,)).kept


def test_channels_that_a_classifier_alone_reads_need_it_to_be_prunable():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4))
    batches = [(torch.randn(4, 5), torch.zeros(4, dtype=torch.long))]
    options = {"compression": 1.3, "input_shape": (5,), "batches": batches}
    with pytest.raises(ShrinkbenchError, match="with prune_classifier alone"):
        prune(net, "thinet", **options)
    assert prune(net, "thinet", prune_classifier=True, **options).kept


def test_densities_may_come_from_anywhere_and_one_number_is_none():
    assert check_densities(d for d in (0.5, 0.25)) == (0.5, 0.25)
    with pytest.raises(ShrinkbenchError, match=r"0\.5 is no list of fractions"):
        check_densities(0.5)


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward(self, x):
        return torch.sparse.mm(self.weight.detach().to_sparse(), x.T).T


@pytest.mark.filterwarnings("ignore")
def test_sparse_products_are_refused_for_what_they_are():
    with pytest.raises(ShrinkbenchError, match="computes with sparse tensors"):
        count_multiply_adds(Sparse(), (6,))


class OneDictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, inputs):
        return self.last(self.first(inputs["x"]).relu())


def test_a_dictionary_that_is_an_argument_is_told_from_named_arguments():
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    options = {"compression": 1.2, "example_inputs": ({"x": x},)}
    with pytest.raises(ShrinkbenchError, match=r"for one that is an argument itself write \(\(\{"):
        prune(OneDictionary(), "snip", batches=[({"x": x}, y)], **options)
    assert prune(OneDictionary(), "snip", batches=[(({"x": x},), y)], **options).kept


class Seq2Seq(nn.Module):
    """As T5: labels alone start its decoder, and they are targets here."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=True)
        self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9)

    def forward(self, input_ids, decoder_input_ids=None):
        if decoder_input_ids is None:
            raise ValueError("specify exactly one of input_ids or inputs_embeds")
        return self.head(self.table(input_ids).mean(1, keepdim=True) + self.table(decoder_input_ids))


@pytest.mark.parametrize("method", ["global_magnitude", "global_gradient"])
def test_a_decoder_without_tokens_is_told_as_that(method):
    net, tokens = Seq2Seq(), torch.randint(9, (2, 5))
    batch = {"input_ids": tokens, "labels": tokens}
    with pytest.raises(ShrinkbenchError, match="add decoder_input_ids to every batch"):
        prune(net, method, compression=1.5, batches=[batch])
    with pytest.raises(ShrinkbenchError, match="add decoder_input_ids to every batch"):
        evaluate(net, [batch], task=Supervised(loss_of, {"error": Metric(loss_of, "lower")}))
    whole = {**batch, "decoder_input_ids": tokens}
    assert prune(net, method, compression=1.5, batches=[whole], loss=loss_of, prune_classifier=True).kept


def loss_of(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 12), nn.Linear(4, 12), nn.Linear(12, 3)

    def forward(self, a, b):
        return self.last((self.first(a) + self.second(b)).relu())


@pytest.mark.parametrize("method", ["wanda", "global_gradient", "snip"])
def test_inputs_that_do_not_go_together_are_refused_and_shared_ones_taken(method):
    """Example by example each was added to all rows of the other, and Wanda's masks were of that."""
    torch.manual_seed(0)
    a, b, labels = torch.randn(6, 4), torch.randn(3, 4), torch.randint(3, (6,))
    with pytest.raises(ShrinkbenchError, match="does not take batch 1 of batches="):
        prune(Two(), method, compression=1.5, batches=[((a, b), labels)])
    net = Two()
    shared, repeated = (((a, b[:1]), labels), ((a, b[:1].repeat(6, 1)), labels))
    masks = [prune(net, method, compression=1.5, batches=[batch]) for batch in (shared, repeated)]
    assert masks[0].equal(masks[1])


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("resnet56", "a str"),
        ({"weight": torch.ones(2)}, "a dict"),
        (None, "a NoneType"),
        (nn.Linear, "the class Linear"),
    ],
)
def test_what_is_no_network_is_said_to_be_none(given, what):
    inputs, labels = torch.randn(2, 4), torch.tensor([0, 1])
    calls = (
        lambda: prune(given, "global_magnitude", compression=2, example_inputs=inputs),
        lambda: Pruner(given, "gradual_magnitude", compression=2, total_steps=3),
        lambda: evaluate(given, [(inputs, labels)]),
        lambda: measure_size(given, example_inputs=inputs),
        lambda: shrink(given, Masks({}), example_inputs=inputs),
    )
    for call in calls:
        with pytest.raises(ShrinkbenchError, match=f"this is {what}; make the network"):
            call()
