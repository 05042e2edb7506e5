"""Embeddings by option: what is counted, what goes with the head, and who refuses them for which reason."""

import copy
import warnings

import pytest
import torch
import transformers
from made_results import make_spec
from torch import nn
from torch.nn import functional as F
from typer.testing import CliRunner

from shrinkbench import METHODS, Pruner
from shrinkbench.cli import app
from shrinkbench.errors import LeftWholeWarning, ShrinkbenchError
from shrinkbench.metrics.multiply_adds import measure_size
from shrinkbench.metrics.size import layer_densities
from shrinkbench.network.inputs import Inputs
from shrinkbench.pruning import prune
from shrinkbench.pruning.layer_sensitivity import sensitivity
from shrinkbench.pruning.prunable import prunable_names
from shrinkbench.report.page.origin import as_toml
from shrinkbench.results.labels import label_runs
from shrinkbench.spec import ExperimentSpec, RunSpec, digest, read_experiments
from shrinkbench.surgery.shrinking import plan_and_shrink

TOKENS = torch.randint(0, 13, (8, 6), generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3
BATCHES = [(TOKENS, LABELS)] * 2
SIZES = {"vocab_size": 13, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}


class Bag(nn.Module):
    """208 + 408 + 75 parameters, 384 + 72 multiply-adds: those of the two linear layers."""

    def __init__(self, *, sparse=False):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(13, 16, sparse=sparse)
        self.hidden, self.classify = nn.Linear(16, 24), nn.Linear(24, 3)

    def forward(self, tokens):
        return self.classify(self.hidden(self.embedding(tokens).mean(1)).relu())


class Tied(nn.Module):
    """Writes its logits by the table, of which no linear layer knows."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.hidden = nn.Embedding(13, 16), nn.Linear(16, 16)

    def forward(self, tokens):
        return F.linear(self.hidden(self.embedding(tokens)).relu(), self.embedding.weight)


def language_model(*, tied):
    torch.manual_seed(0)
    if tied:
        config = transformers.GPT2Config(**SIZES, n_embd=16, n_layer=1, n_head=2, n_positions=8)
        return transformers.GPT2LMHeadModel(config).eval()
    widths = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SIZES, **widths, tie_word_embeddings=False)
    ).eval()


def size_of(module):
    return sum(p.numel() for p in module.parameters())


def test_by_default_an_embedding_stays_and_by_option_it_is_counted():
    net = Bag()
    assert prunable_names(net, input_shape=TOKENS) == ("hidden.weight",)
    assert prunable_names(net, input_shape=TOKENS, prune_embeddings=True) == (
        "embedding.weight",
        "hidden.weight",
    )
    masks = prune(
        net, "layerwise_magnitude", compression=691 / 200, example_inputs=TOKENS, prune_embeddings=True
    )
    assert masks.total == 208 + 384
    assert masks.kept == 200 - 24 - 75  # biases and the classifier stay
    size = measure_size(net, masks=masks, example_inputs=TOKENS)
    assert (size.parameters, size.parameters_kept) == (691, 200)
    assert (size.multiply_adds, size.multiply_adds_kept) == (456, int(masks["hidden.weight"].sum()) + 72)
    assert layer_densities(net, masks)["embedding.weight"].total == 208
    alone = {"embedding.weight": torch.zeros(13, 16, dtype=torch.bool)}
    size = measure_size(net, masks=alone, example_inputs=TOKENS)
    assert (size.parameters_kept, size.multiply_adds_kept, size.theoretical_speedup) == (691 - 208, 456, 1)


def test_ignore_leaves_one_table_out():
    net = language_model(tied=True)
    found = prunable_names(
        net, input_shape=TOKENS, prune_embeddings=True, prune_classifier=True, ignore=["transformer.wpe"]
    )
    assert "transformer.wte.weight" in found
    assert "transformer.wpe.weight" not in found


def test_an_untied_embedding_and_a_head_are_two_tensors():
    net = language_model(tied=False)
    table, head = "model.embed_tokens.weight", "lm_head.weight"
    names = {
        options: set(prunable_names(net, input_shape=TOKENS, **dict.fromkeys(options, True))) & {table, head}
        for options in ((), ("prune_embeddings",), ("prune_classifier",))
    }
    assert list(names.values()) == [set(), {table}, {head}]
    example = {"input_ids": TOKENS}
    masks = prune(net, "layerwise_magnitude", compression=1.5, example_inputs=example, prune_embeddings=True)
    assert size_of(net) - (masks.total - masks.kept) == round(size_of(net) / 1.5)
    size = measure_size(net, masks=masks, example_inputs=example)
    gone = sum(int((~mask).sum()) for name, mask in masks.items() if name != table)
    assert size.multiply_adds - size.multiply_adds_kept == 6 * gone  # tokens; the table's zeros skip nothing
    assert bool((~masks[table]).any())


def test_a_tied_table_is_the_head_and_goes_by_its_option_alone():
    net, table = language_model(tied=True), "transformer.wte.weight"
    with pytest.warns(LeftWholeWarning, match="also the layer of the logits, which prune_classifier frees"):
        found = prunable_names(net, input_shape=TOKENS, prune_embeddings=True)
    assert table not in found
    assert "transformer.wpe.weight" in found
    for options in ({"prune_classifier": True}, {"prune_classifier": True, "prune_embeddings": True}):
        found = prunable_names(net, input_shape=TOKENS, **options)
        assert found.count(table) == 1
        assert "lm_head.weight" not in found
    masks = prune(net, "global_magnitude", compression=2, example_inputs=TOKENS, **options)
    size = measure_size(net, masks=masks, example_inputs=TOKENS)
    assert size.parameters == size_of(net)
    assert size.parameters_kept == round(size_of(net) / 2)
    gone = sum(int((~mask).sum()) for name, mask in masks.items() if name != "transformer.wpe.weight")
    assert size.multiply_adds - size.multiply_adds_kept == 6 * gone  # the head's products follow its mask
    assert bool((~masks[table]).any())
    masks.apply(net)
    assert net.lm_head.weight is net.transformer.wte.weight


def test_a_table_that_writes_the_logits_without_a_layer_is_the_head_too():
    net, both = Tied(), {"prune_embeddings": True, "prune_classifier": True}
    with pytest.warns(LeftWholeWarning, match="also the layer of the logits"):
        assert prunable_names(net, input_shape=TOKENS, prune_embeddings=True) == ("hidden.weight",)
    assert prunable_names(net, input_shape=TOKENS, **both) == ("embedding.weight", "hidden.weight")
    mask = torch.arange(13 * 16).reshape(13, 16) % 2 == 0
    size = measure_size(net, masks={"embedding.weight": mask}, example_inputs=TOKENS)
    assert size.multiply_adds == 6 * (16 * 16 + 16 * 13)
    assert size.multiply_adds_kept == 6 * (16 * 16 + 8 * 13)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_meets_the_target_or_says_that_it_is_an_embedding(name, sparse):
    net, fixed = Bag(sparse=sparse), METHODS.get(name).amount is not None
    before = copy.deepcopy(net.state_dict())
    settings = {"batches": BATCHES, "prune_embeddings": True, "one_shot": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            masks = prune(net, name, **settings, **({} if fixed else {"compression": 1.5}))
        except ShrinkbenchError as error:
            told = str(error)
            assert (
                "'embedding.weight' is an embedding, which is looked up and is the weight of no layer" in told
            )
            assert "prune_embeddings" in told
            assert len(told) < 300
            assert (
                METHODS.get(name).structure.name != "weights"
                or METHODS.get(name).kind == "activation"
                or ("owl" in name)
                or name in ("npb", "phew")  # which follow paths through products
            )
        else:
            gone = int((~masks["embedding.weight"]).sum())
            assert 0 < gone < 208
            if METHODS.get(name).allocation.exact:
                assert 691 - (masks.total - masks.kept) == round(691 / 1.5)
    assert net.embedding.sparse is sparse
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["wanda", "ria", "sparsegpt", "dsnot", "obc"])
def test_layers_are_calibrated_on_what_is_left_of_the_embedding(name):
    """Its own share goes by magnitude, as no input tells of it."""
    net = Bag()
    masks = prune(net, name, compression=2, batches=BATCHES, prune_embeddings=True)
    table = masks["embedding.weight"]
    weights = net.embedding.weight.detach().abs()
    assert float(weights[table].min()) >= float(weights[~table].max())
    first = copy.deepcopy(net)
    with torch.no_grad():
        first.embedding.weight.mul_(table)
    rest = 691 - int((~masks["hidden.weight"]).sum())
    again = prune(first, name, compression=691 / rest, batches=BATCHES)
    assert torch.equal(again["hidden.weight"], masks["hidden.weight"])


@pytest.mark.parametrize("method", ["gradual_magnitude", "rigl", "global_gradient"])
def test_zeros_of_an_embedding_are_kept_in_ones_own_loop(method):
    net = Bag()
    pruner = Pruner(net, method, compression=2, batches=BATCHES, total_steps=12, prune_embeddings=True)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    pruner.attach(optimizer)
    for _ in range(12):
        optimizer.zero_grad()
        F.cross_entropy(net(TOKENS), LABELS).backward()
        optimizer.step()
    masks = pruner.finish()
    assert 691 - (masks.total - masks.kept) == round(691 / 2)
    assert bool((net.embedding.weight[~masks["embedding.weight"]] == 0).all())


def test_a_network_with_a_pruned_embedding_shrinks_to_the_same_outputs():
    net = Bag().double()
    masks = prune(net, "layerwise_magnitude", compression=5, example_inputs=TOKENS, prune_embeddings=True)
    masked = copy.deepcopy(net)
    masks.apply(masked)
    small, _ = plan_and_shrink(net, masks, Inputs.of(TOKENS))
    assert torch.allclose(small(TOKENS), masked(TOKENS), atol=1e-12)


@pytest.mark.parametrize("method", ["global_magnitude", "filter_l1"])
def test_a_table_is_looked_at_alone_where_the_structure_has_units_in_it(method):
    settings = {"validation": BATCHES, "example_inputs": TOKENS, "densities": [0.5], "prune_embeddings": True}
    if method == "filter_l1":
        with pytest.raises(ShrinkbenchError, match="'filters' has no units in it"):
            sensitivity(Bag(), method, **settings)
        return
    found = {point.group: point.kept for point in sensitivity(Bag(), method, **settings).points}
    assert found == {"embedding": 104, "hidden": 192}


def test_a_file_and_what_overrides_it_say_so(tmp_path):
    fields = 'name = "e"\ndataset = "digits"\nmodel = "m"\nmethod = "random"\ncompression = 2\n'
    (tmp_path / "e.toml").write_text(fields)
    assert not read_experiments(tmp_path / "e.toml")[0].prune_embeddings
    assert read_experiments(tmp_path / "e.toml", {"prune_embeddings": True})[0].prune_embeddings
    (tmp_path / "e.toml").write_text(fields + "prune_embeddings = true\n")
    found = read_experiments(tmp_path / "e.toml")[0]
    assert found.prune_embeddings
    assert "prune_embeddings = true" in as_toml(found)


def test_the_option_is_in_the_key_and_a_run_without_it_has_the_key_that_it_had():
    plain, asked = make_spec(), make_spec(prune_embeddings=True)
    assert "prune_embeddings" not in plain.model_dump()
    assert plain.key == make_spec(prune_embeddings=False).key != asked.key
    assert RunSpec.model_validate_json(asked.model_dump_json()) == asked
    assert RunSpec.model_validate_json(plain.model_dump_json()).key == plain.key
    assert asked.control.key == plain.control.key
    assert label_runs([plain, asked])[1].method.endswith(" + embeddings")


def test_a_grid_without_the_option_is_the_grid_that_it_was():
    fields = {"name": "e", "dataset": "digits", "model": "m", "method": "random", "compression": 2}
    plain, asked = ExperimentSpec(**fields), ExperimentSpec(**fields, prune_embeddings=True)
    assert "prune_embeddings" not in plain.model_dump()
    assert asked.model_dump()["prune_embeddings"] is True
    assert digest(plain) != digest(asked)


def test_the_command_prunes_embeddings_when_asked():
    words = ["prune", "--model", "tiny-llama", "--method", "global_magnitude", "--compression", "2", "--json"]
    plain = CliRunner().invoke(app, words)
    asked = CliRunner().invoke(app, [*words, "--prune-embeddings"])
    assert (plain.exit_code, asked.exit_code) == (0, 0), plain.output + asked.output
    assert plain.output != asked.output
    assert "embedding" in asked.output
