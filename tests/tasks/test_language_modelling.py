"""Perplexity against an independent loop, padding, and the loss that Hugging Face's own models compute."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.llama import TinyLlama
from shrinkbench.pruning import METHODS, prune
from shrinkbench.spec import Recipe
from shrinkbench.tasks import LanguageModelling, SequenceClassification, objective_for, scoring_loss, task_of
from shrinkbench.training import evaluate, train

TASK = LanguageModelling()
RECIPE = Recipe(
    name="t", reference="shrinkbench", optimizer="adamw", learning_rate=1e-2, batch_size=4, epochs=3
)


def model(vocabulary=7):
    torch.manual_seed(0)
    return TinyLlama(vocabulary, width=16, depth=2, heads=2, shared_heads=1, hidden=24)


def tokens(rows=5, count=9, vocabulary=7, seed=1):
    return torch.randint(0, vocabulary, (rows, count), generator=torch.Generator().manual_seed(seed))


def by_hand(module, sequences):
    """Perplexity and accuracy, token by token."""
    total, right, seen = 0.0, 0, 0
    for sequence in sequences:
        with torch.no_grad():
            chances = module.eval()(sequence[None]).double().softmax(-1)[0]
        for place in range(len(sequence) - 1):
            following = int(sequence[place + 1])
            total -= math.log(float(chances[place, following]))
            right += int(int(chances[place].argmax()) == following)
            seen += 1
    return math.exp(total / seen), right / seen, seen


@pytest.mark.parametrize("form", ["pairs", "tensors", "dictionaries"])
def test_perplexity_agrees_with_an_independent_loop(form):
    module, parts = model(), [tokens(5), tokens(2, seed=2)]  # of which the short batch weighs what it holds
    batches = {
        "pairs": [(part, part) for part in parts],
        "tensors": parts,
        "dictionaries": [{"input_ids": part, "labels": part} for part in parts],
    }[form]
    found = evaluate(module, batches, task=TASK)
    perplexity, accuracy, count = by_hand(module, torch.cat(parts))
    assert found["perplexity"] == pytest.approx(perplexity, rel=1e-5)
    assert found["token_accuracy"] == pytest.approx(accuracy)
    assert found["loss"] == pytest.approx(math.log(perplexity), rel=1e-5)
    assert found.examples == count == 7 * 8


def test_padding_is_not_predicted():
    module, padded = model(), tokens(2)
    mask = torch.ones_like(padded)
    mask[1, 5:] = 0
    found = evaluate(module, [{"input_ids": padded, "attention_mask": mask}], task=TASK_WITHOUT_MASK)
    assert found.examples == 8 + 4
    total = sum(math.log(by_hand(module, [part])[0]) * (len(part) - 1) for part in (padded[0], padded[1, :5]))
    assert found["loss"] == pytest.approx(total / 12, rel=1e-5)
    labels = padded.masked_fill(mask == 0, -100)
    assert evaluate(module, [(padded, labels)], task=TASK) == found


class IgnoringMasks(LanguageModelling):
    """The tiny model takes no mask; to its left it sees no padding."""

    def split(self, batch):
        found = super().split(batch)
        return type(found)(type(found.inputs)((found.inputs.kwargs["input_ids"],)), found.targets)


TASK_WITHOUT_MASK = IgnoringMasks()


def test_the_loss_is_that_of_hugging_face():
    config = transformers.LlamaConfig(
        vocab_size=7, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2
    )
    theirs = transformers.LlamaForCausalLM(config).eval()
    part = tokens(3)
    labels = part.clone()
    labels[0, 4:] = -100
    batch = {"input_ids": part, "labels": labels}
    with torch.no_grad():
        expected = float(theirs(**batch).loss)
    loss, count = TASK.loss(theirs, batch, RECIPE)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert count == 3 + 8 + 8
    assert float(scoring_loss(TASK)(theirs(input_ids=part), labels)) == pytest.approx(expected, rel=1e-5)
    masks = prune(theirs, "global_gradient", compression=1.5, batches=[TASK.split(batch)], loss=TASK.criterion)
    assert "lm_head.weight" not in masks


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ({"ids": torch.zeros(2, 4)}, "takes tokens as 'input_ids'"),
        ((tokens(2), tokens(2)[:, 1:]), "takes logits .N, T, vocabulary. and tokens"),
        ((tokens(2), tokens(2).float()), "tokens .N, T. as int64"),
        ((tokens(2), tokens(2) + 6), "the token 12 is none of the 7"),
        ((tokens(2), tokens(2).fill_(-1)), "the token -1 is none of the 7 .*, and -100 where nothing"),
        ((tokens(2, 1), tokens(2, 1)), "there are no tokens to predict"),
    ],
)
def test_what_is_no_text_is_refused(batch, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        evaluate(model(), [batch], task=TASK)


def test_a_perplexity_that_no_number_holds_is_refused():
    class Sure(nn.Module):
        def forward(self, x):
            return torch.nn.functional.one_hot(x, 7).float() * 1e4

    with pytest.raises(ShrinkbenchError, match="the network has diverged: its mean loss"):
        evaluate(Sure(), [torch.arange(7)[None]], task=TASK)


def test_training_lowers_the_perplexity():
    class Text:
        def train(self, batch_size, *, generator, augment):
            yield from (torch.arange(8).repeat(4, 1) % 7 for _ in range(20))

        def validation(self):
            return None

        def test(self):
            return [torch.arange(8).repeat(2, 1) % 7]

    module = model()
    before = evaluate(module, Text().test(), task=TASK)["perplexity"]
    train(module, RECIPE, Text(), seed=0, task=TASK)
    after = evaluate(module, Text().test(), task=TASK)["perplexity"]
    assert after < 1.5 < before


def test_the_tasks_are_found_by_name():
    assert task_of(objective_for("language_modelling")) == TASK
    assert objective_for("language_modelling").headline == "perplexity"
    assert objective_for("language_modelling").metric("perplexity").direction == "lower"
    assert task_of(objective_for("sequence_classification")) == SequenceClassification()
    assert objective_for(None).name == "classification"


def test_sequences_of_several_lengths_are_classified():
    config = transformers.BertConfig(
        vocab_size=9,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
    )
    bert = transformers.BertForSequenceClassification(config).eval()
    batches = [
        {"input_ids": tokens(4, 6), "labels": torch.tensor([0, 1, 2, 0])},
        {"input_ids": tokens(1, 3), "labels": torch.tensor([1])},
    ]
    found = evaluate(bert, batches, task=SequenceClassification())
    with torch.no_grad():
        logits = torch.cat([bert(input_ids=b["input_ids"]).logits for b in batches])
    labels = torch.cat([b["labels"] for b in batches])
    assert found["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert found["loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert found.examples == 5
    assert len(list(SequenceClassification().training_batches(batches))) == 2  # lengths that cannot be joined


def test_a_network_that_sees_the_token_it_is_scored_on_is_refused():
    config = transformers.BertConfig(
        vocab_size=13, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    masked = transformers.BertForMaskedLM(config)
    for batch in (tokens(vocabulary=13), {"input_ids": tokens(vocabulary=13)}):
        with pytest.raises(ShrinkbenchError, match="it is no causal language model"):
            evaluate(masked, [batch], task=TASK)
    causal = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=13, n_embd=16, n_layer=1, n_head=2, n_positions=16)
    )
    ones = {"attention_mask": torch.ones(5, 9, dtype=torch.int64), "input_ids": tokens(vocabulary=13)}
    assert evaluate(causal, [ones], task=TASK)["perplexity"] > 1


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "ria"])
def test_blocks_of_several_lengths_calibrate(method):
    batches = [(part, part) for part in (tokens(3, 9), tokens(3, 5, seed=3), tokens(2, 9, seed=4))]
    masks = prune(model(), method, compression=1.5, batches=batches, one_shot=True)
    again = prune(model(), method, compression=1.5, batches=batches, one_shot=True)
    assert masks.equal(again)
    assert masks.kept < masks.total


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "ria"])
def test_blocks_of_several_lengths_weigh_as_one_by_one(method):
    blocks, chosen = (tokens(3, 9), tokens(3, 5, seed=3)), replace(METHODS.get(method), batch_count=6)
    rows = [row for part in blocks for row in part.split(1)]
    together, alone = (
        prune(model(), chosen, compression=1.5, batches=[(b, b) for b in given], one_shot=True)
        for given in (blocks, rows)
    )
    assert together.equal(alone)


class Mixes(nn.Module):
    """Logits of each token, with a trace of the block's last tokens: in halves by rounding, or by a leak."""

    def __init__(self, leak):
        super().__init__()
        self.table = nn.Embedding(8, 8)
        self.leak = leak

    def forward(self, tokens):
        logits = self.table(tokens)
        rounding = torch.finfo(logits.dtype).eps if logits.dtype == torch.bfloat16 else 0.0
        return logits + (self.leak + rounding) * (tokens.sum(1) % 2)[:, None, None]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_rounding_of_halves_is_no_leak_and_a_leak_in_halves_is_one(kind):
    torch.manual_seed(0)
    tokens = torch.randint(8, (4, 12))
    assert evaluate(Mixes(0.0).to(kind), [tokens], task=TASK)["perplexity"] > 1
    with pytest.raises(ShrinkbenchError, match="it is no causal language model"):
        evaluate(Mixes(0.1).to(kind), [tokens], task=TASK)


def test_a_batch_without_tokens_to_predict_teaches_nothing():
    module, nothing = model(), torch.full_like(tokens(), -100)
    for loss in (TASK.loss(module, (tokens(), nothing), RECIPE)[0], TASK.criterion(module(tokens()), nothing)):
        loss.backward()
        assert loss.item() == 0
    assert all(not p.grad.any() for p in module.parameters() if p.grad is not None)


def test_the_first_token_behind_padding_follows_nothing():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=7, **sizes))
    plain = tokens(3, 5) % 6 + 1
    padded = torch.cat([torch.zeros(3, 3, dtype=torch.int64), plain], 1)
    one = evaluate(module, [plain], task=TASK)
    other = evaluate(module, [{"input_ids": padded, "attention_mask": (padded > 0).long()}], task=TASK)
    assert other.examples == one.examples == 12
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)


MASK = torch.tensor([[1, 1, 1, 0]])
UNFIT = [
    (
        {"input_ids": tokens(1, 4), "attention_mask": MASK, "labels": tokens(1, 4)},
        "1 tokens that attention_mask",
    ),
    ({"input_ids": tokens(1, 4), "attention_mask": MASK[:, :2]}, "does not say which tokens are padding"),
    (torch.full((1, 4), 9), r"does not take a batch of int64 1x4, numbers 9 to 9 \(IndexError"),
    ([[1, 2], [3, 4]], "sizes or tensors without values"),
]


@pytest.mark.parametrize(("batch", "sentence"), UNFIT)
def test_what_a_network_does_not_take_is_one_sentence(batch, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        evaluate(model(), [batch], task=TASK)
    with pytest.raises(ShrinkbenchError, match=sentence):
        TASK.loss(model(), batch, RECIPE)


def test_blocks_longer_than_the_positions_are_one_sentence_in_scores_too():
    config = transformers.GPT2Config(vocab_size=7, n_positions=8, n_embd=16, n_layer=1, n_head=2)
    module = transformers.GPT2LMHeadModel(config)
    for run in (
        lambda: evaluate(module, [tokens()], task=TASK),
        lambda: prune(module, "snip", compression=1.5, batches=[(tokens(), tokens())], loss=TASK.criterion),
    ):
        with pytest.raises(ShrinkbenchError, match="a block of 9 tokens is longer than the 8 positions"):
            run()
    with pytest.raises(ShrinkbenchError, match=r"hidden states .* and no logits"):
        evaluate(module.transformer, [tokens(2, 4)], task=TASK)


class Fewer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, inputs):
        outputs = self.inner(inputs)
        return outputs if len(inputs) > 2 else outputs[..., :-1]


def test_outputs_of_another_vocabulary_are_of_another_question():
    batches = [tokens(3), tokens(2, vocabulary=6)]
    with pytest.raises(ShrinkbenchError, match="tells 7 tokens apart in one batch and 6 in another"):
        evaluate(Fewer(model()), batches, task=TASK)
    pairs = [(torch.randn(n, 4), torch.zeros(n, dtype=torch.int64)) for n in (3, 2)]
    with pytest.raises(ShrinkbenchError, match="tells 5 classes apart in one batch and 4 in another"):
        evaluate(Fewer(nn.Linear(4, 5)), pairs)


class Backwards(nn.Module):
    """Reads at each place the token that lies as far from the end."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(7, 8), nn.Linear(8, 7)

    def forward(self, inputs):
        return self.head(self.embedding(inputs.flip(1)))


def test_any_later_token_that_is_seen_is_noticed():
    with pytest.raises(ShrinkbenchError, match="no causal language model"):
        evaluate(Backwards(), [tokens()], task=TASK)


def test_blocks_of_one_token_leave_nothing_to_learn():
    class Single:
        def train(self, batch_size, *, generator, augment):
            yield tokens()[:, :1]

        def validation(self):
            return None

    recipe = Recipe(
        name="test", reference="shrinkbench", optimizer="adam", learning_rate=0.01, batch_size=4, epochs=1
    )
    with pytest.raises(ShrinkbenchError, match="epoch 1 has nothing to learn from"):
        train(Backwards(), recipe, Single(), seed=0, task=TASK)
