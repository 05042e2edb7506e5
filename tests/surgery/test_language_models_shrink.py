"""Heads, neurons and blocks of language models leave: the smaller network computes what the masked one does."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import transformers
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.llama import TinyLlama
from shrinkbench.network.dataflow import projected_heads, read_flow
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import prune
from shrinkbench.surgery.operation import Surgery, operate
from shrinkbench.surgery.shrinking import plan_and_shrink

TOKENS = torch.randint(0, 13, (3, 9), generator=torch.Generator().manual_seed(0))
EXAMPLES = {"ours": TOKENS, **{kind: {"input_ids": TOKENS} for kind in ("llama", "bert", "gpt2")}}


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    sizes = {"vocab_size": 13, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    made = {
        "ours": TinyLlama(13, width=16, depth=3, heads=4, shared_heads=2, hidden=24),
        "llama": transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                **sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False
            )
        ),
        "bert": transformers.BertForSequenceClassification(
            transformers.BertConfig(**sizes, num_attention_heads=4, max_position_embeddings=16, num_labels=3)
        ),
        "gpt2": transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=13, n_embd=16, n_layer=3, n_head=4, n_positions=16, bos_token_id=0, eos_token_id=0
            )
        ),
    }
    with torch.no_grad():
        for module in made.values():
            for parameter in module.eval().parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return made


def logits(module, example):
    with torch.no_grad():
        out = module(example) if isinstance(example, torch.Tensor) else module(**example)
    return out if isinstance(out, torch.Tensor) else out.logits


def cut_by(networks, kind, method, compression):
    module, example = networks[kind], EXAMPLES[kind]
    batches = [(example, torch.tensor([0, 1, 2]))] if method == "block_influence" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        masks = prune(module, method, compression=compression, batches=batches, example_inputs=example)
        small, surgery = plan_and_shrink(module, masks, Inputs.of(example))
    masked = copy.deepcopy(module)
    masks.apply(masked)
    assert torch.allclose(logits(masked, example), logits(small, example), atol=1e-5)
    again = operate(copy.deepcopy(masked), Surgery.from_json(surgery.as_json()))
    assert torch.equal(logits(again, example), logits(small, example))
    sizes = [sum(p.numel() for p in net.parameters()) for net in (module, small)]
    return masks, small, sizes


@pytest.mark.parametrize(
    ("kind", "groups"), [pytest.param("ours", 2, marks=pytest.mark.slow), ("llama", 2), ("bert", 4)]
)
def test_keys_and_values_leave_with_the_queries_that_read_them(networks, kind, groups):
    masks, _, (whole, left) = cut_by(networks, kind, "head_magnitude", 1.08)
    heads = projected_heads(read_flow(networks[kind], Inputs.of(EXAMPLES[kind])), masks)
    assert len(heads) == 3
    gone = 0
    for attention in heads:
        assert attention.units == groups
        units = [masks[name].reshape(groups, -1) for name in attention.sources]
        units.append(masks[attention.output].reshape(16, groups, -1).transpose(0, 1).reshape(groups, -1))
        for parts in zip(*units, strict=True):
            assert len({bool(value) for part in parts for value in part.unique()}) == 1
        gone += sum(not bool(part.any()) for part in units[0])
    assert gone >= 1
    assert whole - left >= gone * (2 * 16 * 16 + 2 * 16 * 16 * groups // 4) // groups


@pytest.mark.parametrize("kind", ["ours", pytest.param("llama", marks=pytest.mark.slow), "gpt2"])
def test_whole_blocks_leave_by_their_influence(networks, kind):
    module, example = networks[kind], EXAMPLES[kind]
    paths = {"ours": "blocks", "llama": "model.layers", "gpt2": "transformer.h"}[kind]
    blocks = module.get_submodule(paths)
    influence = {}

    def note(path):
        def hook(_, args, output):
            out = output if isinstance(output, torch.Tensor) else output[0]
            influence[path] = 1 - float(nn.functional.cosine_similarity(args[0], out, dim=-1).mean())

        return hook

    handles = [block.register_forward_hook(note(number)) for number, block in enumerate(blocks)]
    logits(module, example)
    for handle in handles:
        handle.remove()
    size = sum(p.numel() for p in blocks[0].parameters())
    total = sum(p.numel() for p in module.parameters())
    masks, small, (whole, left) = cut_by(networks, kind, "block_influence", total / (total - size))
    assert whole - left == size
    least = min(influence, key=influence.get)
    assert not any(bool(mask.any()) for name, mask in masks.items() if name.startswith(f"{paths}.{least}."))
    assert not list(small.get_submodule(f"{paths}.{least}").parameters())
    shorter = copy.deepcopy(module)
    if kind == "ours":
        del shorter.blocks[least]
        assert torch.allclose(logits(shorter, example), logits(small, example), atol=1e-6)


def test_where_all_blocks_leave_nothing_of_them_stays(networks):
    module = networks["ours"]
    blocks = sum(p.numel() for p in module.blocks.parameters())
    total = sum(p.numel() for p in module.parameters())
    masks, small, (whole, left) = cut_by(networks, "ours", "block_influence", total / (total - blocks))
    assert whole - left == blocks == sum((~mask).sum() for mask in masks.values())
    assert not list(small.blocks.parameters())


def test_blocks_behind_a_norm_are_refused(networks):
    with pytest.raises(ShrinkbenchError, match="passes its input on unchanged"):
        prune(
            networks["bert"],
            "branch_l1[structure=whole-blocks]",
            compression=1.2,
            example_inputs=EXAMPLES["bert"],
        )


@pytest.mark.slow
def test_a_block_of_swiglu_loses_neurons(networks):
    for kind in ("ours", "llama"):
        _, _, (whole, left) = cut_by(networks, kind, "channel_l1", 1.2)
        assert whole / left > 1.15


def test_wanda_prunes_layers_that_lay_their_weights_out_the_other_way(networks):
    """GPT-2's: (inputs, outputs)."""
    module, example = networks["gpt2"], EXAMPLES["gpt2"]
    masks = prune(module, "wanda", compression=1.4, batches=[example])
    pruned = copy.deepcopy(module)
    assert len(masks) == 12
    for name in masks:
        layer = pruned.get_submodule(name.removesuffix(".weight"))
        seen = []
        handle = layer.register_forward_hook(lambda _, args, __, seen=seen: seen.append(args[0]))
        logits(pruned, example)
        handle.remove()
        metric = (
            layer.weight.detach().abs() * seen[0].reshape(-1, len(layer.weight)).square().sum(0).sqrt()[:, None]
        )
        for output, found in enumerate(masks[name].T):
            best = metric[:, output].argsort(descending=True)[: int(found.sum())]
            assert sorted(best.tolist()) == found.nonzero().flatten().tolist()
        with torch.no_grad():
            layer.weight.mul_(masks[name])
