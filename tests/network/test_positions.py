"""Blocks of tokens longer than a network's positions, whatever computes these, and tokens of no table."""

import pytest
import torch
import transformers

from shrinkbench import evaluate, prune
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.tasks import LanguageModelling

SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 12}
GPT2 = transformers.GPT2Config(
    vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=0
)
LOSS = LanguageModelling().criterion


def llama(**options):
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **HEADS, **options)).eval()


def tokens(length, high=20):
    return torch.randint(0, high, (4, length), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("length", [12, 13])
@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 2.0}])
def test_blocks_longer_than_rotary_positions_are_refused_everywhere(length, scaling):
    network, blocks = llama(rope_scaling=scaling), tokens(length)
    for run in (
        lambda: evaluate(network, [blocks], task=LanguageModelling()),
        lambda: prune(network, "wanda", compression=1.05, batches=[blocks]),
        lambda: prune(network, "global_gradient", compression=1.05, batches=[(blocks, blocks)], loss=LOSS),
    ):
        if length == 12:
            assert run()
        else:
            with pytest.raises(ShrinkbenchError, match="a block of 13 tokens is longer than the 12 positions"):
                run()


def test_positions_that_stretch_take_any_block():
    network = llama(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert evaluate(network, [tokens(20)], task=LanguageModelling())["perplexity"] > 1


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "layerwise_activation"])
@pytest.mark.parametrize("first", [True, False])
def test_tokens_that_the_table_lacks_are_told_in_whichever_batch(method, first):
    network = transformers.GPT2LMHeadModel(GPT2).eval()
    bad = tokens(9)
    bad[3, 5] = 25
    batches = [(each, each) for each in ([bad, tokens(9)] if first else [tokens(9), bad])]
    with pytest.raises(ShrinkbenchError, match=r"does not take .*(numbers 0 to 25|index out of range)"):
        prune(network, method, compression=1.05, batches=batches, loss=LOSS)
