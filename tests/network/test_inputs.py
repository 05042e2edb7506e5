"""What goes into a network: batches of every form, several and named inputs, whole numbers, wrappers."""

from __future__ import annotations

from collections import UserDict, namedtuple
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shrinkbench import count_multiply_adds, measure_size, prune, shrink
from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.network.inputs import Batch, Inputs, split_batch
from shrinkbench.network.probe import first_tensor, trace
from shrinkbench.pruning import Pruner

X, Y = torch.arange(12.0).reshape(4, 3), torch.tensor([0, 1, 0, 1])
Pair = namedtuple("Pair", ["image", "label"])


class Sum(nn.Module):
    """Two inputs, each with a layer; the second has a default."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 8), nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, a, b=None):
        return self.head(F.relu(self.one(a) + (0 if b is None else self.two(b))))


class Words(nn.Module):
    """Token ids with a mask that says which are there; what it does depends on their values."""

    def __init__(self):
        super().__init__()
        self.embed, self.hidden, self.head = nn.Embedding(9, 4), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        if attention_mask is not None and not bool(attention_mask.all()):
            x = x * attention_mask[..., None]
        return {"loss": x.sum(), "logits": self.head(F.relu(self.hidden(x.mean(1))))}


IDS = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 1], [2, 2, 2]])
MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0]])


@pytest.mark.parametrize(
    ("batch", "args", "kwargs", "targets"),
    [
        ((X, Y), (X,), {}, Y),
        ([X, Y], (X,), {}, Y),
        (Pair(X, Y), (X,), {}, Y),
        (((X, X + 1), Y), (X, X + 1), {}, Y),
        (([X, X + 1], Y), (X, X + 1), {}, Y),
        (({"a": X}, Y), (), {"a": X}, Y),
        ({"a": X, "labels": Y}, (), {"a": X}, Y),
        ({"a": X, "label": Y}, (), {"a": X}, Y),
        (UserDict({"a": X, "target": Y}), (), {"a": X}, Y),
        ({"a": X, "target": {"k": Y}}, (), {"a": X}, {"k": Y}),
        ([X], (X,), {}, None),
        (X, (X,), {}, None),
    ],
)
def test_a_batch_is_split_into_inputs_and_targets(batch, args, kwargs, targets):
    found = split_batch(batch)
    assert len(found.inputs.args) == len(args)
    assert all(torch.equal(one, two) for one, two in zip(found.inputs.args, args, strict=True))
    assert found.inputs.kwargs.keys() == kwargs.keys()
    assert str(found.targets) == str(targets)
    assert len(found) == 4
    assert split_batch(found) is found


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ((X, X, Y), "a batch of 3 things does not tell inputs from targets"),
        ("text", "a batch of 4 things does not tell"),
        (7, "a batch of a int does not tell"),
        ((X, Y[:2]), "a batch has 4 rows of inputs .float32 4x3. and 2 of targets"),
        ({"labels": Y}, "the inputs hold no tensor"),
        ({"a": torch.tensor(1.0), "labels": Y}, "the inputs hold no tensor with a first dimension"),
    ],
)
def test_a_batch_that_does_not_tell_is_refused(batch, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        split_batch(batch)


def test_parts_and_joins_of_batches_are_those_of_rows():
    batch = split_batch({"ids": IDS, "table": torch.zeros(9, 2), "labels": Y})
    one, two = batch.part(0, 3), batch.part(3, 4)
    assert one.inputs.kwargs["ids"].tolist() == IDS[:3].tolist()
    assert one.inputs.kwargs["table"].shape == (9, 2)  # no row for each example: it goes with every one
    assert [len(part) for part in batch.parts(3)] == [2, 2]
    rows = split_batch((X, Y))
    joined = rows.part(0, 3).joined(rows.part(3, 4))
    assert torch.equal(joined.inputs.single, X)
    assert torch.equal(joined.targets, Y)
    assert one.joined(two) is None  # the table would be doubled
    assert rows.joined(split_batch((torch.zeros(1, 5), Y[:1]))) is None  # of another shape


def test_drawn_inputs_keep_choices_and_masks():
    floating = torch.tensor([[0.0, float("-inf")], [0.0, 0.0]])
    inputs = Inputs.of({"ids": IDS, "where": floating, "x": X})
    drawn = inputs.drawn(6, seed=0)
    assert drawn.kwargs["ids"].tolist() == IDS[[0, 1, 2, 3, 0, 1]].tolist()
    assert torch.equal(drawn.kwargs["where"], floating)
    assert drawn.kwargs["x"].shape == (6, 3)
    assert not torch.equal(drawn.kwargs["x"][:4], X)
    assert Inputs.of((3, 4)).drawn(2, seed=0).single.shape == (2, 3, 4)


def test_named_inputs_that_a_network_does_not_know_go_in_as_they_are():
    class TakesAll(nn.Module):
        def forward(self, batch):
            return batch["a"] + batch["b"]

    assert torch.equal(Inputs.of({"a": X, "b": X}).call(TakesAll()), X + X)
    assert torch.equal(Inputs.of({"picture": X}).call(nn.Identity()), X)


def test_the_logits_are_found_beside_a_loss():
    words = Words()
    found = first_tensor(words(IDS))
    assert found.shape == (4, 2)
    assert first_tensor((torch.tensor(1.0), X)) is X


@pytest.mark.parametrize(
    "method", ["global_magnitude", "global_gradient", "wanda", "snip", "synflow", "channel_l1"]
)
@pytest.mark.parametrize("form", ["two inputs", "tokens", "padded tokens"])
def test_networks_of_several_inputs_and_of_tokens_are_pruned(method, form):
    torch.manual_seed(0)
    two = form == "two inputs"
    network = Sum() if two else Words()
    named = {"input_ids": IDS, **({"attention_mask": MASK} if form == "padded tokens" else {})}
    batch = ((X, X.flip(0)), Y) if two else {**named, "labels": Y}
    masks = prune(network, method, compression=1.2, batches=[batch], one_shot=True)
    total = sum(p.numel() for p in network.parameters())
    size = measure_size(network, example_inputs=split_batch(batch).inputs, masks=masks)
    assert size.parameters_kept == total - (masks.total - masks.kept)
    assert size.compression == pytest.approx(1.2, rel=0.02 if method != "channel_l1" else 0.2)
    assert "head.weight" not in masks or bool(masks["head.weight"].any(0).all()) or method == "channel_l1"
    if method == "channel_l1":
        example = (X, X.flip(0)) if two else named
        small = shrink(network, masks, example_inputs=example)
        masks.apply(network)
        expected, found = (first_tensor(split_batch(batch).inputs.call(n.eval())) for n in (network, small))
        assert torch.allclose(expected, found, atol=1e-6)
        assert sum(p.numel() for p in small.parameters()) == size.parameters_kept


def test_an_example_counts_as_one_input_whatever_its_rows():
    assert count_multiply_adds(Sum(), example_inputs=(X, X)) == 3 * 8 * 2 + 8 * 2
    assert count_multiply_adds(Sum(), example_inputs={"a": X}) == 3 * 8 + 8 * 2
    assert count_multiply_adds(Sum(), (3,)) == 3 * 8 + 8 * 2
    assert count_multiply_adds(Words(), example_inputs={"input_ids": IDS, "attention_mask": MASK}) == 32 + 16
    with pytest.raises(ShrinkbenchError, match="both given"):
        count_multiply_adds(Sum(), (3,), example_inputs=(X, X))
    with pytest.raises(ShrinkbenchError, match="what the network takes has to be known"):
        measure_size(Sum())


def test_networks_of_tokens_are_timed_and_pruned_in_a_loop():
    words = Words()
    times = time_forward(
        {"a": words}, Inputs.of(IDS), Conditions(batch_size=8), rounds=1, seconds_per_round=0.001
    )
    assert times["a"].median > 0
    optimizer = torch.optim.SGD(words.parameters(), lr=0.1)
    pruner = Pruner(words, "global_magnitude", compression=1.2, example_inputs=IDS, total_steps=2)
    pruner.attach(optimizer)
    for _ in range(2):
        F.cross_entropy(words(IDS)["logits"], Y).backward()
        optimizer.step()
    masks = pruner.finish()
    assert not bool(words.hidden.weight[~masks["hidden.weight"]].any())


def test_a_loss_of_ones_own_is_given_what_the_network_returns():
    seen = []

    def loss(outputs, targets):
        seen.append((type(outputs), targets))
        return F.cross_entropy(outputs["logits"], targets["k"])

    words = Words()
    masks = prune(words, "global_gradient", compression=1.2, batches=[(IDS, {"k": Y})], loss=loss)
    assert seen[0][0] is dict
    smoothed = partial(F.cross_entropy, label_smoothing=0.0)
    again = prune(words, "global_gradient", compression=1.2, batches=[(IDS, Y)], loss=smoothed)
    assert torch.equal(masks["hidden.weight"], again["hidden.weight"])


@pytest.mark.parametrize(
    ("batch", "loss", "sentence"),
    [
        (IDS, F.cross_entropy, "the batches hold no targets"),
        ((IDS, Y.float()[:, None]), F.cross_entropy, "the loss does not take outputs float32 4x2 with targets"),
        ((IDS, Y), lambda o, t: o["logits"], "gradients are of one real number"),
        ((IDS, Y), lambda o, t: o.logits.sum(), r"does not take outputs \{loss: float32 number"),
    ],
)
def test_a_loss_that_does_not_fit_is_told(batch, loss, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        prune(Words(), "global_gradient", compression=1.2, batches=[batch], loss=loss)


def test_inputs_that_a_network_does_not_take_are_told_with_the_reason():
    with pytest.raises(ShrinkbenchError, match="does not run on the example inputs float32 1x5: "):
        trace(Sum(), torch.zeros(4, 5))
    with pytest.raises(ShrinkbenchError, match=r"one input of shape 3: .*example_inputs="):
        trace(Words(), (3,))


@pytest.mark.parametrize("wrap", [nn.DataParallel, pytest.param(torch.compile, marks=pytest.mark.slow)])
def test_a_wrapped_network_is_refused_for_its_wrapping(wrap):
    with pytest.raises(ShrinkbenchError, match=r"is wrapped in (DataParallel|OptimizedModule)"):
        prune(wrap(Sum()), "global_magnitude", compression=1.2, batches=[(X, Y)])


@pytest.mark.filterwarnings("ignore")
def test_a_script_is_refused_for_what_it_is():
    script = torch.jit.trace(Sum(), (X, X))
    with pytest.raises(ShrinkbenchError, match=r"the network is compiled .TorchScript"):
        prune(script, "global_magnitude", compression=1.2, input_shape=(3,))


def test_recurrent_layers_are_left_whole_and_named():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.hidden, self.head = nn.LSTM(3, 4), nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(F.relu(self.hidden(self.lstm(x)[0])))

    with pytest.warns(LeftWholeWarning, match="'lstm.weight_ih_l0' and 1 more are of a recurrent layer"):
        prune(Recurrent(), "global_magnitude", compression=1.1, batches=[(X, Y)])
    with pytest.raises(ShrinkbenchError, match="'weight_ih_l0' and 1 more are of a recurrent"):
        prune(nn.LSTM(3, 4), "global_magnitude", compression=1.1, batches=[(X, Y)])


def test_batches_unpack_into_what_they_were():
    inputs, targets = Batch(Inputs.of(X), Y)
    assert inputs is X
    assert targets is Y
