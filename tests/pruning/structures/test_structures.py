"""What is removed together: shapes of masks, edges, groups, and units that span layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_networks import ConvNet, ViT, batches, seeded
from torch import nn

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError, UnknownNameError
from shrinkbench.network.dataflow import Geometry
from shrinkbench.pruning import PruneContext, PruningMethod, prunable_names, prune
from shrinkbench.pruning.allocations.rules import layerwise
from shrinkbench.pruning.units import STRUCTURES

SHAPE = (3, 8, 8)


def masks_of(structure, module, compression=2.0, **options):
    method = PruningMethod(name="test", score=magnitude, structure=STRUCTURES.get(structure), **options)
    return prune(module, method, compression=compression, input_shape=SHAPE, one_shot=True)


def magnitude(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}


def test_filters_go_whole_and_the_weakest_first():
    module = seeded(ConvNet)
    masks = masks_of("filters", module, allocation=layerwise)
    for name, mask in masks.items():
        rows = mask.flatten(1)
        whole, none = rows.all(1), ~rows.any(1)
        assert bool((whole | none).all())
        norms = dict(module.named_parameters())[name].detach().flatten(1).abs().sum(1)
        assert norms[none].max() <= norms[whole].min()


def test_every_layer_keeps_a_filter_however_small_the_budget():
    masks = masks_of("filters", seeded(ConvNet), compression=3.5)
    assert all(bool(mask.any()) for mask in masks.values())
    with pytest.raises(CannotMeetTargetError, match=r"structure 'filters' leaves at least .* largest possible"):
        masks_of("filters", seeded(ConvNet), compression=6)


def test_input_channels_of_grouped_convolutions():
    module = seeded(ConvNet)
    masks = masks_of("input-channels", module)
    grouped = masks["grouped.weight"].reshape(4, 4, 4, 9)  # groups, outputs, inputs, kernel
    columns = grouped.permute(0, 2, 1, 3).flatten(2)
    assert bool((columns.all(2) | ~columns.any(2)).all())
    dense = masks["stem.weight"].transpose(0, 1).flatten(1)
    assert bool((dense.all(1) | ~dense.any(1)).all())


def test_kernels_go_whole():
    masks = masks_of("kernels", seeded(ConvNet))
    kernels = masks["stem.weight"].flatten(2)
    assert bool((kernels.all(2) | ~kernels.any(2)).all())
    assert not bool(kernels.all())


@pytest.mark.parametrize(("name", "n", "m"), [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4), ("1:2", 1, 2)])
def test_the_pattern_holds_along_input_channels_where_the_budget_is_no_more(name, n, m):
    module = seeded(lambda: ConvNet(32))
    weights = {f"{k}.weight": getattr(module, k).weight for k in ("stem", "grouped", "depthwise", "pointwise")}
    able = {k for k, w in weights.items() if w.shape[1] % m == 0}
    assert "stem.weight" not in able  # 3 inputs
    capacity = sum(w.numel() * n // m if k in able else w.numel() for k, w in weights.items())
    total = sum(p.numel() for p in module.parameters())
    fixed = total - sum(w.numel() for w in weights.values())
    at_most = masks_of(name, module, compression=total / (fixed + capacity))
    for key in able:
        assert set(at_most[key].movedim(1, -1).reshape(-1, m).sum(1).tolist()) == {n}
    for key in weights.keys() - able:
        assert bool(at_most[key].all())
    more = masks_of(name, module, compression=total / (fixed + capacity + 50))
    assert sum(int(more[k].sum()) for k in weights) == capacity + 50
    less = masks_of(name, module, compression=total / (fixed + capacity - 500))
    assert all(int(less[k].movedim(1, -1).reshape(-1, m).sum(1).max()) <= n for k in able)


@settings(max_examples=25, deadline=None)
@given(st.floats(2.05, 4.0), st.sampled_from(["global", "layerwise", "rowwise"]))
def test_two_of_four_is_kept_at_every_target_that_allows_it(compression, allocation):
    from shrinkbench.pruning.allocations.rules import ALLOCATIONS

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 64, bias=False), nn.Linear(64, 4, bias=False))
    method = PruningMethod(
        name="t",
        score=magnitude,
        structure=STRUCTURES.get("2:4"),
        allocation=ALLOCATIONS.get(allocation),
    )
    masks = prune(
        module, method, compression=compression, input_shape=(32,), prune_classifier=True, one_shot=True
    )
    for mask in masks.values():
        assert int(mask.reshape(-1, 4).sum(1).max()) <= 2
    assert masks.kept == round(masks.total / compression)


def test_at_half_the_two_best_of_each_four_stay():
    module = nn.Linear(16, 8, bias=False)
    method = PruningMethod(name="t", score=magnitude, structure=STRUCTURES.get("2:4"))
    mask = prune(module, method, compression=2, input_shape=(16,), prune_classifier=True, one_shot=True)[
        "weight"
    ]
    best = module.weight.detach().abs().reshape(-1, 4).topk(2, dim=1).indices
    expected = torch.zeros(32, 4, dtype=torch.bool).scatter_(1, best, value=True)
    assert torch.equal(mask.reshape(-1, 4), expected)


@pytest.mark.parametrize("method", ["magnitude_2_4", "wanda_2_4", "sparsegpt_2_4"])
def test_masks_convert_to_semi_structured_tensors_without_their_device(method, monkeypatch):
    """torch packs on any device, and insists on CUDA only for the kernels that multiply: let it pack here."""
    from torch.sparse import SparseSemiStructuredTensor, SparseSemiStructuredTensorCUTLASS
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_to_dense_cutlass

    monkeypatch.setattr(SparseSemiStructuredTensor, "_FORCE_CUTLASS", True)
    monkeypatch.setattr(SparseSemiStructuredTensorCUTLASS, "_validate_device_dim_dtype_shape", lambda w: None)
    torch.manual_seed(0)
    module = nn.Linear(128, 128, bias=False)
    data = [(torch.randn(64, 128), torch.randint(0, 128, (64,)))]
    prune(
        module, method, compression=2, batches=data, input_shape=(128,), prune_classifier=True, one_shot=True
    ).apply(module)  # fmt: skip
    weight = module.weight.detach().half()
    sparse = torch.sparse.to_sparse_semi_structured(weight)
    assert sparse.packed.shape == (128, 64)
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(sparse.packed, sparse.meta), weight)
    dense = torch.sparse.to_sparse_semi_structured(
        torch.randn(128, 128).half()
    )  # no such pattern: values are lost
    assert (sparse_semi_structured_to_dense_cutlass(dense.packed, dense.meta) == 0).sum() == 128 * 64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="semi-structured tensors exist on CUDA only")
def test_masks_convert_to_semi_structured_tensors():
    module = nn.Linear(128, 128, bias=False).half().cuda()
    masks = prune(module, "magnitude_2_4", compression=2, input_shape=(128,), prune_classifier=True)
    masks.apply(module)
    sparse = torch.sparse.to_sparse_semi_structured(module.weight.detach())
    assert torch.equal(sparse.to_dense(), module.weight.detach())


@pytest.mark.parametrize("shape", [(8, 8), (10, 7), (3, 9), (2, 2)])
def test_blocks_cover_the_matrix_edges_included(shape):
    module = nn.Linear(shape[1], shape[0], bias=False)
    ctx = PruneContext(module, ["weight"], input_shape=(shape[1],))
    grouping = STRUCTURES.get("blocks-4x4").group(ctx, {"weight": module.weight.detach().abs()})
    units = grouping.units["weight"]
    assert units.total == module.weight.numel()
    for index in range(units.scores.numel()):
        keep = torch.zeros(units.scores.numel(), dtype=torch.bool)
        keep[index] = True
        mask = grouping.expand({"weight": keep.reshape(units.scores.shape)})["weight"]
        assert int(mask.sum()) == units.weight_of(keep.reshape(units.scores.shape))
        torch.testing.assert_close(units.scores.flatten()[index], module.weight.detach()[mask].abs().mean())


def test_structures_with_numbers_are_made_from_their_names():
    assert STRUCTURES.get("blocks-2x8").name == "blocks-2x8"
    assert STRUCTURES.get("1:4").pattern == (1, 4)
    with pytest.raises(UnknownNameError):
        STRUCTURES.get("4:2")


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_rows_of_transposed_convolutions_are_outputs(groups):
    layer = nn.ConvTranspose2d(8, 12, 3, groups=groups, bias=False)
    geometry = Geometry(groups, transposed=True)
    rows = geometry.rows(layer.weight.detach())
    assert rows.shape == (12, 8 // groups, 3, 3)
    assert torch.equal(geometry.restore(rows), layer.weight.detach())
    x = torch.randn(1, 8, 4, 4)
    for output in (0, 5, 11):
        keep = torch.ones(12, dtype=torch.bool)
        keep[output] = False
        masked = geometry.restore(keep.reshape(-1, 1, 1, 1).expand(rows.shape)) * layer.weight
        y = torch.nn.functional.conv_transpose2d(x, masked, groups=groups)
        assert not y[:, output].any()
        assert bool(y[:, keep].any())


def test_a_head_goes_with_its_rows_and_columns_and_nothing_else_is_left_of_it():
    module = seeded(ViT)
    masks = masks_of("heads", module, compression=1.3)
    lost = 0
    for block in (0, 1):
        rows = masks[f"blocks.{block}.attention.in_proj_weight"].reshape(3, 4, 4, 16)
        columns = masks[f"blocks.{block}.attention.out_proj.weight"].reshape(16, 4, 4)
        head_rows = rows.transpose(0, 1).flatten(1)
        head_columns = columns.transpose(0, 1).flatten(1)
        assert torch.equal(head_rows.any(1), head_columns.any(1))
        assert torch.equal(head_rows.all(1), head_rows.any(1))
        assert torch.equal(head_columns.all(1), head_columns.any(1))
        lost += int((~head_rows.any(1)).sum())
    assert lost > 0
    assert masks["blocks.0.fc1.weight"].all()


def test_masking_a_head_is_taking_it_out_of_the_output_projection():
    """The values of a head reach the output through its columns only."""
    module = seeded(ViT).eval()
    x = batches(1)[0][0]
    masks = masks_of("heads", module, compression=1.3)
    masks.apply(module)
    reference = seeded(ViT).eval()
    for name in masks:
        if "out_proj" in name:
            parameter = dict(reference.named_parameters())[name]
            parameter.data *= masks[name]
    with torch.no_grad():
        torch.testing.assert_close(module(x), reference(x), atol=1e-5, rtol=1e-5)


def test_neurons_go_with_their_row_and_their_column():
    masks = masks_of("neurons", seeded(ViT), compression=1.3)
    for block in (0, 1):
        rows = masks[f"blocks.{block}.fc1.weight"]
        columns = masks[f"blocks.{block}.fc2.weight"]
        assert torch.equal(rows.any(1), columns.any(0))
        assert torch.equal(rows.all(1), rows.any(1))


def test_chains_of_linear_layers_overlap():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    method = PruningMethod(name="t", score=magnitude, structure=STRUCTURES.get("neurons"))
    masks = prune(module, method, compression=2, input_shape=(8,), one_shot=True)
    first, second, third = (masks[f"{i}.weight"] for i in (0, 2, 4))
    assert torch.equal(second, first.any(1).unsqueeze(0) & third.any(0).unsqueeze(1))
    total = sum(p.numel() for p in module.parameters())
    kept = total - (masks.total - masks.kept)
    assert total / 2 - 2 * 32 < kept <= total / 2


def test_a_residual_branch_goes_whole():
    masks = masks_of("residual-blocks", seeded(ViT), compression=1.5)
    for pair in (("attention.in_proj_weight", "attention.out_proj.weight"), ("fc1.weight", "fc2.weight")):
        for block in (0, 1):
            first, second = (masks[f"blocks.{block}.{name}"] for name in pair)
            assert bool(first.all()) == bool(first.any()) == bool(second.all()) == bool(second.any())
    assert masks["patches.weight"].all()


def test_residual_blocks_are_branches_and_leave_with_their_biases():
    assert STRUCTURES.get("residual-blocks") is STRUCTURES.get("branches")
    masks = masks_of("residual-blocks", seeded(ViT), compression=1.5)
    gone = [name for name in ("blocks.0.fc1", "blocks.1.fc1") if not masks[f"{name}.weight"].any()]
    assert gone
    assert not any(bool(masks[f"{name}.bias"].any()) for name in gone)


def test_scores_of_units_add_up_to_those_of_their_prunable_weights():
    """Biases and batch norms leave with a branch or a channel, and have no score: they are not in the sum."""
    module = seeded(ConvNet)
    ctx = PruneContext(module, prunable_names(module, input_shape=(3, 8, 8)), input_shape=(3, 8, 8))
    scores = {name: torch.randn_like(w) for name, w in ctx.weights.items()}
    (branch,) = STRUCTURES.get("branches").group(ctx, scores).units.values()
    inside = sum(scores[f"{name}.weight"].sum() for name in ("grouped", "depthwise", "pointwise"))
    torch.testing.assert_close(branch.sums, inside.reshape(1))
    assert branch.total > branch.scored
    mlp = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    ctx = PruneContext(mlp, ("0.weight",), input_shape=(8,))
    rows = {"0.weight": torch.randn(6, 8)}
    (neurons,) = STRUCTURES.get("channels").group(ctx, rows).units.values()
    torch.testing.assert_close(neurons.sums, rows["0.weight"].sum(1))
    assert neurons.size == 8 + 1 + 2


@pytest.mark.parametrize(
    ("structure", "sentence"),
    [("heads", "no attention layers"), ("neurons", "no pair of linear layers")],
)
def test_networks_without_such_units_are_told(structure, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence):
        masks_of(structure, seeded(ConvNet))


def test_layers_that_write_the_outputs_are_named_where_they_are_all_there_is():
    bare = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), 1).eval()
    for method in ("head_magnitude", "neuron_magnitude"):
        with pytest.raises(ShrinkbenchError, match="which writes the outputs; prune_classifier frees it"):
            prune(bare, method, compression=1.1, input_shape=(5, 8))
        assert prune(bare, method, compression=1.1, input_shape=(5, 8), prune_classifier=True)
    with pytest.raises(ShrinkbenchError, match=r"'0\.weight' is kept because the outputs are written there"):
        prune(nn.Sequential(nn.Linear(4, 3)), "global_magnitude", compression=2, input_shape=(4,))


@pytest.mark.parametrize("size", ["7x100000000", "100000000x3", "999999999x999999999"])
def test_blocks_larger_than_a_layer_are_the_layer(size):
    """The same masks as of blocks of the larger of all layers' rows and columns."""
    module = seeded(ConvNet)
    tall, wide = (min(int(part), 4096) for part in size.split("x"))
    asked = {"compression": 1.2, "input_shape": SHAPE}
    found = prune(module, f"global_magnitude[structure=blocks-{size}]", **asked)
    same = prune(module, f"global_magnitude[structure=blocks-{tall}x{wide}]", **asked)
    assert found.kept == same.kept
    assert all(torch.equal(found[n], same[n]) for n in same)
