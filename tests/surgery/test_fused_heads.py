"""Heads and neurons of GPT-2's transposed layers, and of layers that make queries, keys and values together."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.probe import floating_leaves
from shrinkbench.pruning import prune
from shrinkbench.surgery.operation import Surgery, operate
from shrinkbench.surgery.shrinking import plan_and_shrink

TOKENS = {"input_ids": torch.randint(3, 13, (2, 9), generator=torch.Generator().manual_seed(0))}
WIDTH, HEADS, SIZE = 16, 4, 4
PLAIN = {"vocab_size": 13, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
SIZES = {**PLAIN, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2}
ATTENTION = {**SIZES, "num_attention_heads": HEADS, "max_position_embeddings": 16}
NETWORKS = {
    "gpt2": (
        transformers.GPT2Config,
        {**PLAIN, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "n_positions": 16},
    ),
    "gpt_neox": (transformers.GPTNeoXConfig, ATTENTION),
    "bloom": (transformers.BloomConfig, {**PLAIN, "hidden_size": WIDTH, "n_layer": 2, "n_head": HEADS}),
    "phi3": (transformers.Phi3Config, {**ATTENTION, "num_key_value_heads": 2}),
    "opt": (transformers.OPTConfig, {**ATTENTION, "ffn_dim": 24, "word_embed_proj_dim": WIDTH}),
}
FUSED = {  # which head each output of the layer of queries, keys and values belongs to, by its code
    "gpt2": ("c_attn", torch.arange(WIDTH).div(SIZE, rounding_mode="floor").repeat(3), "c_proj"),
    "gpt_neox": ("query_key_value", torch.arange(3 * WIDTH) // (3 * SIZE), "dense"),
    "bloom": ("query_key_value", torch.arange(3 * WIDTH) // (3 * SIZE), "dense"),
    "phi3": ("qkv_proj", torch.cat([torch.arange(16) // 8, *[torch.arange(8) // 4] * 2]), "o_proj"),
}
CANNOT_SHRINK = {"bloom", "phi3"}  # they count their heads outside of attention, or in their configuration


def network(kind):
    config, sizes = NETWORKS[kind]
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(config(**sizes)).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return module


def outputs(module):
    with torch.no_grad():
        return floating_leaves(module(**TOKENS, use_cache=False))


def shrunk(module, masks):
    """The smaller network, whose outputs, and those of its surgery repeated, are the masked network's."""
    masked = copy.deepcopy(module)
    masks.apply(masked)
    small, surgery = plan_and_shrink(module, masks, Inputs.of(TOKENS))
    again = operate(copy.deepcopy(masked), Surgery.from_json(surgery.as_json()))
    for one, other, third in zip(outputs(masked), outputs(small), outputs(again), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
        assert torch.equal(other, third)
    return small


def size_of(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("kind", FUSED)
def test_heads_in_one_layer_go_with_all_of_their_outputs(kind):
    module = network(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = prune(module, "head_magnitude", compression=1.1, example_inputs=TOKENS)
        small = shrunk(module, masks)
    fused, heads, behind = FUSED[kind]
    gone = 0
    for name, mask in masks.items():
        if f".{fused}." in name:
            other = masks[name.replace(fused, behind)]
            rows, columns = (m.t() if kind == "gpt2" else m for m in (mask, other))
            columns = columns.t().reshape(int(heads.max()) + 1, -1)
            for head, reading in enumerate(columns):
                assert bool(rows[heads == head].all()) == bool(reading.all())
                assert bool(rows[heads == head].any()) == bool(reading.any())
                gone += not bool(reading.any())
    assert gone >= 1
    if kind not in CANNOT_SHRINK:
        assert size_of(module) - size_of(small) >= gone * 4 * SIZE * WIDTH


def test_heads_that_a_network_counts_elsewhere_stay_and_are_named():
    module = network("bloom")
    masks = prune(module, "head_magnitude", compression=1.1, example_inputs=TOKENS)
    with pytest.warns(
        LeftWholeWarning, match=r"pruned heads of '.*query_key_value' stay in place: the network"
    ):
        shrunk(module, masks)


@pytest.mark.parametrize(
    ("kind", "method"), [("gpt2", "neuron_magnitude"), ("gpt2", "channel_l1"), ("opt", "head_magnitude")]
)
def test_what_is_pruned_leaves(kind, method):
    module = network(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = prune(module, method, compression=1.1, example_inputs=TOKENS)
        small = shrunk(module, masks)
    assert size_of(small) <= size_of(module) - (masks.total - masks.kept)


def test_gates_are_named_where_neurons_are_asked_for():
    with pytest.raises(ShrinkbenchError, match=r"'.*down_proj' is made of two outputs \(of '.*gate_up_proj'\)"):
        prune(network("phi3"), "neuron_magnitude", compression=1.1, example_inputs=TOKENS)


def test_experts_are_named():
    sizes = {**ATTENTION, "hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 2}
    config = transformers.MixtralConfig(**sizes, num_local_experts=2, num_experts_per_tok=1)
    module = transformers.MixtralForCausalLM(config)
    with pytest.warns(
        LeftWholeWarning, match=r"mlp.gate.weight' and 5 more are of no layer that is pruned here"
    ):
        prune(module, "global_magnitude", compression=1.1, example_inputs=TOKENS)


@pytest.mark.parametrize("method", ["global_magnitude", "wanda"])
def test_a_tied_head_is_pruned_by_option_and_with_it_the_embedding(method):
    module = network("gpt2")
    batches = [(TOKENS, torch.tensor([0, 1]))] if method == "wanda" else None
    settings = {"compression": 1.5, "batches": batches, "example_inputs": TOKENS}
    name = "transformer.wte.weight"
    assert name not in prune(module, method, **settings)
    masks = prune(module, method, **settings, prune_classifier=True)
    assert not bool(masks[name].all())
    masks.apply(module)
    assert module.lm_head.weight is module.transformer.wte.weight
    assert bool((module.lm_head.weight[~masks[name]] == 0).all())
    assert sum(int((~m).sum()) for m in masks.values()) == round(size_of(module) / 3)
