"""Networks of a Hugging Face folder: built by its configuration, with its weights, and never downloaded."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import sha256_of
from shrinkbench.models import MODELS, build, get_model, load_weights
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import prune
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import read_experiments
from shrinkbench.surgery.folders import NetworkDescription, build_full, read_network, save_network
from shrinkbench.surgery.hub import export_hub
from shrinkbench.surgery.stored_inputs import StoredInputs

SIZES = {"vocab_size": 13, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
TOKENS = torch.randint(0, 13, (2, 9), generator=torch.Generator().manual_seed(0))


def saved(folder, *, tied=False, seed=0):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        **SIZES, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied
    )
    module = transformers.LlamaForCausalLM(config).eval()
    module.save_pretrained(folder)
    return module


@pytest.mark.parametrize("tied", [False, True])
def test_with_the_weights_of_the_folder_it_computes_what_was_saved(tmp_path, tied):
    module = saved(tmp_path, tied=tied)
    name = f"hf:{tmp_path}"
    card, other = get_model(name), build(name, num_classes=13, seed=1).eval()
    with torch.no_grad():
        assert not torch.allclose(other(TOKENS).logits, module(TOKENS).logits)
        file = load_weights(other, "default", card=card)
        assert torch.equal(other(TOKENS).logits, module(TOKENS).logits)
    assert (file.path, file.normalisation) == (tmp_path / "model.safetensors", None)
    assert card.takes == "tokens"


def test_what_is_published_of_a_whole_network_is_read_by_transformers_too(tmp_path):
    module, name = saved(tmp_path / "net"), f"hf:{tmp_path / 'net'}"
    masks = prune(module, "global_magnitude", compression=1.5, batches=[TOKENS])
    masks.apply(module)
    example = StoredInputs.of(Inputs.of(TOKENS[:1]))
    description = NetworkDescription(name, 13, (9,), takes=example)
    export_hub(module, tmp_path / "hub", description, build_full, masks=masks)
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hub").eval()
    ours = read_network(tmp_path / "hub", network=name).module
    with torch.no_grad():
        assert torch.equal(again(TOKENS).logits, module(TOKENS).logits)
        assert torch.equal(ours(TOKENS).logits, module(TOKENS).logits)


def test_classes_are_those_of_the_data(tmp_path):
    config = transformers.BertConfig(**SIZES, num_attention_heads=4, max_position_embeddings=16)
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    assert build(f"hf:{tmp_path}", num_classes=5)(TOKENS).logits.shape == (2, 5)


def test_the_configuration_is_in_the_key(tmp_path):
    saved(tmp_path)
    name = f"hf:{tmp_path}"
    first = MODELS.source(name)
    assert MODELS.source(name) == first is not None
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    assert MODELS.source(name) != first
    assert MODELS.source("tiny-llama") is None


def test_a_folder_does_not_lead_to_another(tmp_path):
    """What a stranger's folder names is not read from this disk."""
    module = saved(tmp_path / "hub")
    description = NetworkDescription("hf:hub", 13, (9,))
    save_network(tmp_path / "stored", module, description)
    get_model(f"hf:{tmp_path / 'hub'}")
    with pytest.raises(ShrinkbenchError, match=r"a network of a folder .* which lies elsewhere"):
        read_network(tmp_path / "stored")
    read_network(tmp_path / "stored", network=description.network)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read .*config.json"),
        ("[1]", "it is no object"),
        ("{", "cannot read"),
        ("{}", "names the architecture ''"),
        ('{"architectures": ["WhisperModel"]}', "names the architecture 'WhisperModel'"),
        ('{"architectures": ["XForCausalLM"], "auto_map": {"AutoConfig": "evil.C"}}', "code of its own"),
        ('{"architectures": [7]}', "names the architecture ''"),
    ],
)
def test_what_cannot_be_built_is_told(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ShrinkbenchError, match=said) as caught:
        get_model(f"hf:{tmp_path}")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_nothing_is_downloaded(tmp_path):
    with pytest.raises(ShrinkbenchError, match="nothing is downloaded here"):
        get_model("hf:gpt2")
    (tmp_path / "config.json").write_text('{"architectures": ["XForCausalLM"], "model_type": "no-such-kind"}')
    with pytest.raises(ShrinkbenchError, match=r"transformers .* cannot build"):
        build(f"hf:{tmp_path}")
    saved(tmp_path)
    with pytest.raises(ShrinkbenchError, match="tells 13 tokens apart, and the data have 256"):
        build(f"hf:{tmp_path}", num_classes=256)


def test_two_folders_of_one_name_are_told_apart(tmp_path):
    config = transformers.BertConfig(**SIZES, num_attention_heads=4, max_position_embeddings=16)
    for number, name in enumerate(("one", "two")):
        config.num_labels = 3 + number
        transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / name / "of-one-name")
    assert get_model(f"hf:{tmp_path}/one/of-one-name").name == "hf:of-one-name"
    assert get_model("hf:of-one-name").configuration == tmp_path / "one" / "of-one-name" / "config.json"
    with pytest.raises(ShrinkbenchError, match="two different networks lie in folders called of-one-name"):
        get_model(f"hf:{tmp_path}/two/of-one-name")


@pytest.mark.slow
def test_a_sweep_of_a_folder_and_tokens_with_workers(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    saved(tmp_path / "little-llama")
    rows = [[(first * n) % 13 for n in range(400)] for first in range(1, 12)]
    pq.write_table(pa.table({"input_ids": rows}), tmp_path / "train.parquet")
    grid = tmp_path / "grid.toml"
    grid.write_text(
        f"""name = "grid"
dataset = "text-files"
model = "hf:{tmp_path}/little-llama"
weights = "default"
method = ["wanda", "random@layerwise_magnitude"]
compression = [1, 1.3]
[finetune]
epochs = 0
"""
    )
    out = tmp_path / "out"
    done = sweep(read_experiments(grid)[0], out, workers=2, data={"text-files": tmp_path})
    results, problems = ResultStore(out).results()
    assert not problems
    assert [r.status for r in results] == ["done"] * 4, done
    assert {r.spec.model.name for r in results} == {"hf:little-llama"}
    assert all(r.after.metrics["perplexity"] > 1 for r in results)
    weights = {r.spec.weights.digest for r in results}
    assert weights == {sha256_of(tmp_path / "little-llama" / "model.safetensors")}
    assert str(tmp_path) not in (out / "plan.json").read_text()


LAYERS = {k: v for k, v in SIZES.items() if k != "vocab_size"} | {"num_attention_heads": 4}
IMAGES = {"image_size": 16, "patch_size": 8, "num_labels": 3}
TOKEN_SIZES = SIZES | {"num_attention_heads": 4}
RENAMED = {
    "ViT": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**LAYERS, **IMAGES)),
    "DeiT": lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(**LAYERS, **IMAGES)),
    "BEiT": lambda: transformers.BeitForImageClassification(transformers.BeitConfig(**LAYERS, **IMAGES)),
    "Swin": lambda: transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=32,
            patch_size=4,
            embed_dim=16,
            depths=[1, 1],
            num_heads=[2, 4],
            window_size=4,
            num_labels=3,
        )
    ),
    "DINOv2": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, **IMAGES)
    ),
    "GPT-NeoX": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**TOKEN_SIZES)),
    "Mixtral": lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**TOKEN_SIZES, num_key_value_heads=2, num_local_experts=4)
    ),
    "Qwen2-MoE": lambda: transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            **TOKEN_SIZES,
            num_key_value_heads=2,
            num_experts=4,
            moe_intermediate_size=8,
            shared_expert_intermediate_size=8,
        )
    ),
}


@pytest.mark.parametrize("kind", RENAMED)
def test_files_with_names_of_earlier_versions_are_loaded(tmp_path, kind, capfd):
    torch.manual_seed(0)
    module = RENAMED[kind]()
    module.save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    other = build(name, num_classes=3 if "Image" in type(module).__name__ else 13, seed=1)
    capfd.readouterr()
    load_weights(other, "folder", card=get_model(name))
    assert capfd.readouterr() == ("", "")
    expected, found = module.state_dict(), other.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_earlier_names_of_another_network_are_told(tmp_path):
    RENAMED["ViT"]().save_pretrained(tmp_path)
    card = get_model(f"hf:{tmp_path}")
    with pytest.raises(ShrinkbenchError, match=r"classifier\.bias is 3 in the file and 5 in the network"):
        load_weights(card.build(5), "folder", card=card)
    deeper = transformers.ViTForImageClassification(
        transformers.ViTConfig(**LAYERS | {"num_hidden_layers": 3}, **IMAGES)
    )
    with pytest.raises(ShrinkbenchError, match="the file lacks"):
        load_weights(deeper, tmp_path / "model.safetensors")


@pytest.mark.parametrize("change", [{"vocab_size": "13"}, {"num_attention_heads": 0}])
def test_configurations_of_other_kinds_of_values_are_told(tmp_path, change):
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ShrinkbenchError, match="cannot build the network"):
        build(f"hf:{tmp_path}")
