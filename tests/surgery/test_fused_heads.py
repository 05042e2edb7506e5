"""Heads and neurons of GPT-2's transposed layers, and of layers that make queries, keys and values together."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import transformers

from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.network.inputs import Inputs
from shrinkbench.network.probe import floating_leaves
from shrinkbench.pruning import prune
from shrinkbench.pruning.masks import Masks
from shrinkbench.surgery.folders import NetworkDescription, read_network, save_network
from shrinkbench.surgery.operation import Surgery, operate
from shrinkbench.surgery.shrinking import plan_and_shrink
from shrinkbench.surgery.stored_inputs import StoredInputs

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
    "mpt": (
        transformers.MptConfig,
        {**PLAIN, "d_model": WIDTH, "n_heads": HEADS, "n_layers": 2, "max_seq_len": 16},
    ),
}
FUSED = {  # which head each output of the layer of queries, keys and values belongs to, by its code
    "gpt2": ("c_attn", torch.arange(WIDTH).div(SIZE, rounding_mode="floor").repeat(3), "c_proj"),
    "gpt_neox": ("query_key_value", torch.arange(3 * WIDTH) // (3 * SIZE), "dense"),
    "bloom": ("query_key_value", torch.arange(3 * WIDTH) // (3 * SIZE), "dense"),
    "phi3": ("qkv_proj", torch.cat([torch.arange(16) // 8, *[torch.arange(8) // 4] * 2]), "o_proj"),
}
LOST = {"bloom": ((0, 2), (3,)), "phi3": ((1, 2), (0,))}  # of four, in each block


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
    assert size_of(module) - size_of(small) >= gone * 4 * SIZE * WIDTH


def without_heads(kind):
    """A network in double precision, without dropout, and masks that take the units ``LOST`` of its heads."""
    config, sizes = NETWORKS[kind]
    if kind == "phi3":  # eight heads of queries, four of keys and values
        sizes = {**sizes, "hidden_size": 2 * WIDTH, "num_attention_heads": 8, "num_key_value_heads": 4}
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(config(**sizes)).eval().double()
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    fused, unit, behind = FUSED[kind]
    if kind == "phi3":
        unit = torch.cat([torch.arange(32) // 8, *[torch.arange(16) // 4] * 2])
    masks = {}
    for name, weight in module.named_parameters():
        gone = next(
            (torch.tensor(lost) for block, lost in enumerate(LOST[kind]) if f".{block}.self_" in name), None
        )
        if name.endswith(f"{fused}.weight"):
            masks[name] = ~torch.isin(unit, gone)[:, None].expand_as(weight)
        elif gone is not None and name.endswith(f"{behind}.weight"):
            inputs = torch.arange(weight.shape[1]) * 4 // weight.shape[1]
            masks[name] = ~torch.isin(inputs, gone)[None].expand_as(weight)
    return module, Masks(masks)


def step(module, masks=None):
    """One step of training, after which what is masked is zero again."""
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module.train()
    module(**TOKENS, labels=TOKENS["input_ids"], use_cache=False).loss.backward()
    optimizer.step()
    if masks is not None:
        masks.apply(module)
    return module.eval()


def same_outputs(one, other, **inputs):
    with torch.no_grad():
        both = [net(**(inputs or TOKENS), use_cache=False).logits for net in (one, other)]
    return float((both[0] - both[1]).abs().max()) < 1e-12


@pytest.mark.parametrize("kind", LOST)
def test_without_heads_it_computes_and_learns_what_the_masked_one_does(kind):
    module, masks = without_heads(kind)
    masked = copy.deepcopy(module)
    masks.apply(masked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, surgery = plan_and_shrink(module, masks, Inputs.of(TOKENS))
    biases = sum(len(lost) for lost in LOST[kind]) * 3 * SIZE if kind == "bloom" else 0
    assert size_of(module) - size_of(small) == masks.total - masks.kept + biases
    assert same_outputs(masked, small)
    one = {"input_ids": torch.tensor([[4, 9, 11]])}
    padded = {"input_ids": torch.tensor([[4, 5, 0, 0], [6, 7, 8, 9], [3, 3, 4, 0]])}
    padded["attention_mask"] = (padded["input_ids"] > 0).long()
    assert same_outputs(masked, small, **one)
    assert same_outputs(masked, small, **padded)
    again = operate(copy.deepcopy(masked), Surgery.from_json(surgery.as_json()))
    assert same_outputs(pickle.loads(pickle.dumps(small)), again)
    new = [net.generate(**one, max_new_tokens=5, do_sample=False) for net in (masked, small)]  # with a cache
    assert torch.equal(*new)
    for trained in (small, again):
        assert same_outputs(step(copy.deepcopy(masked), masks), step(trained))
    assert not same_outputs(masked, small)


@pytest.mark.parametrize("kind", LOST)
def test_a_stored_network_without_heads_is_read_again(kind, tmp_path):
    module, masks = without_heads(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, surgery = plan_and_shrink(module, masks, Inputs.of(TOKENS))
    takes = StoredInputs.of(Inputs.of(TOKENS))
    save_network(tmp_path, small, NetworkDescription("mine", 13, (9,), surgery=surgery, takes=takes))
    stored = read_network(tmp_path, build=lambda *_: without_heads(kind)[0])
    assert same_outputs(stored.module, small)


def test_each_attention_counts_its_own_heads():
    module, masks = without_heads("phi3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, _ = plan_and_shrink(module, masks, Inputs.of(TOKENS))
    held = [block.self_attn.config for block in small.model.layers]
    assert [(c.num_attention_heads, c.num_key_value_heads) for c in held] == [(4, 2), (6, 3)]
    assert small.config.num_attention_heads == module.model.layers[0].self_attn.config.num_attention_heads == 8
    assert [block.self_attn.qkv_proj.out_features for block in small.model.layers] == [32, 48]


def test_a_smaller_network_loses_further_heads():
    module, masks = without_heads("bloom")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        small, _ = plan_and_shrink(module, masks, Inputs.of(TOKENS))
        further = prune(small, "head_magnitude", compression=1.05, example_inputs=TOKENS)
        smaller, _ = plan_and_shrink(small, further, Inputs.of(TOKENS))
    further.apply(small)
    assert size_of(smaller) < size_of(small)
    assert same_outputs(small, smaller)


def test_neurons_behind_the_gates_of_phi3_leave_both_halves():
    module, _ = without_heads("phi3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = prune(module, "channel_l1", compression=1.15, example_inputs=TOKENS)
        masked = copy.deepcopy(module)
        masks.apply(masked)
        small, _ = plan_and_shrink(module, masks, Inputs.of(TOKENS))
    assert size_of(small) == size_of(module) - (masks.total - masks.kept)
    widths = [(b.mlp.gate_up_proj.out_features, b.mlp.down_proj.in_features) for b in small.model.layers]
    assert all(made == 2 * read for made, read in widths)
    assert sum(read for _, read in widths) < 48
    assert same_outputs(masked, small)
    assert same_outputs(step(masked, masks), step(small))


def test_heads_of_another_network_are_refused():
    module = network("bloom")
    attention = "transformer.h.0.self_attention"
    with pytest.raises(ShrinkbenchError, match="4 heads cannot keep the heads"):
        operate(module, Surgery(heads={attention: (0, 7)}))


def test_heads_that_a_network_counts_elsewhere_stay_and_are_named():
    """MPT is given position biases for all heads, without a part for each example."""
    module = network("mpt")
    masks = prune(module, "head_magnitude", compression=1.1, example_inputs=TOKENS)
    with pytest.warns(LeftWholeWarning, match=r"pruned heads of '.*Wqkv' stay in place: the network"):
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
