"""The small language model is Llama: with the weights of Hugging Face's it computes the same."""

from __future__ import annotations

import torch
import transformers

from shrinkbench.models import build, example_for, get_model
from shrinkbench.models.llama import TinyLlama
from shrinkbench.network.probe import trace
from shrinkbench.pruning.prunable import prunable_names


def test_it_computes_what_hugging_face_computes():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10_000, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    ours = TinyLlama(11, width=16, depth=2, heads=4, shared_heads=2, hidden=24).eval()
    names = {
        "model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "head", "model.layers": "blocks",
        "self_attn": "attention", "mlp.": "", "input_layernorm": "input_norm",
        "post_attention_layernorm": "post_norm",
    }  # fmt: skip
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = tensor
    ours.load_state_dict(state)
    tokens = torch.randint(0, 11, (3, 9))
    with torch.no_grad():
        assert torch.allclose(ours(tokens), theirs(input_ids=tokens).logits, atol=1e-5)


def test_no_token_sees_those_that_follow():
    model = TinyLlama(11, width=16, depth=2, heads=4, shared_heads=2, hidden=24).eval()
    one = torch.randint(0, 11, (1, 9))
    two = one.clone()
    two[0, 6:] = (two[0, 6:] + 1) % 11
    with torch.no_grad():
        assert torch.allclose(model(one)[:, :6], model(two)[:, :6], atol=1e-6)
        assert not torch.allclose(model(one)[:, 6:], model(two)[:, 6:], atol=1e-6)


def test_its_figures_are_those_of_its_card_and_the_blocks_are_prunable():
    card = get_model("tiny-llama")
    model = build("tiny-llama")
    example = example_for(card, card.input_shape)
    assert (
        sum(p.numel() for p in model.parameters())
        == card.parameters
        == 2 * 256 * 128 + 128 + 4 * (3 * 128 * 448 + 2 * 128 * 128 + 2 * 128 * 64 + 2 * 128)
    )
    linear, attention = 4 * (3 * 128 * 448 + 2 * 128 * 128 + 2 * 128 * 64) + 128 * 256, 4 * 2 * 4 * 128 * 32
    assert trace(model, example).multiply_adds == card.multiply_adds == 128 * (linear + attention)
    names = prunable_names(model, input_shape=example)
    assert len(names) == 4 * 7
    assert all(name.startswith("blocks.") for name in names)
    assert "head.weight" in prunable_names(model, input_shape=example, prune_classifier=True)
