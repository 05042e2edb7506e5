"""What each layer alone can lose: the layer that matters falls to chance, the one that does not stays flat."""

from __future__ import annotations

import pytest
import torch
from sample_networks import ConvNet, ViT, seeded
from torch import nn

import shrinkbench
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.pruning import METHODS, layer_sensitivity
from shrinkbench.results.sensitivity import LayerGroup, Sensitivity, SensitivityPoint
from shrinkbench.spec import CLASSIFICATION, Constraints
from shrinkbench.spec.measures import Quality
from shrinkbench.tasks import Classification

CLASSES = 8


class TwoPaths(nn.Module):
    """Logits are what ``all`` makes of the input; what ``nothing`` makes is multiplied by zero."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Linear(CLASSES, CLASSES)
        self.nothing = nn.Linear(CLASSES, CLASSES, bias=False)
        with torch.no_grad():
            # Class c has weights of c + 1 on its own input: the smallest go first.
            self.all.weight.copy_(torch.diag(torch.arange(1.0, CLASSES + 1)))
            self.all.bias.zero_()[-1] = 0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.all(x) + 0 * self.nothing(x)


def one_of_each():
    """An image of each class, which lights its own input."""
    inputs = torch.eye(CLASSES)
    return [(inputs[:4], torch.arange(4)), (inputs[4:], torch.arange(4, CLASSES))]


def found(method="global_magnitude", **settings):
    fields = {"densities": [1, 0.5, 0.125, 0.0625], "prune_classifier": True, "validation": one_of_each()}
    return shrinkbench.sensitivity(TwoPaths(), method, **{**fields, **settings})


def test_a_layer_that_is_the_network_falls_to_chance_and_one_that_does_not_matter_stays_flat():
    result = found()
    assert result.whole["top1"] == 1
    # Of 64 weights 8 are not zero: they are among the 32 and the 8 that stay. Of 4, one is of each of the
    # last classes; an image of another class has the bias alone, which says the last.
    assert [result.values("all", d) for d in (0.5, 0.125, 0.0625)] == [(1.0,), (1.0,), (0.5,)]
    assert [result.values("nothing", d) for d in (0.5, 0.125, 0.0625)] == [(1.0,)] * 3
    assert [g.name for g in result.ranked()] == ["all", "nothing"]
    assert result.area("nothing") == 0
    assert result.area("all") == pytest.approx((0.0625 * 0.5 / 2) / (1 - 0.0625))


def test_bounds_follow_from_what_is_lost():
    result = found(densities=[0.5, 0.0625])
    assert result.bounds(0.0) == Constraints(max_ratio=0.5)
    assert result.bounds(0.5) == Constraints(max_ratio=0.9375)
    assert found(densities=[0.0625]).bounds(0.1) == Constraints(ignore=("all",), max_ratio=0.9375)
    with pytest.raises(ShrinkbenchError, match="bounds nothing"):
        result.bounds(-1)


@pytest.fixture
def seen(monkeypatch):
    """Networks as they are measured: which of their weights are zero."""
    zeros = []
    measure = Classification.evaluate

    def evaluate(self, module, batches, *, precision):
        zeros.append({n: p == 0 for n, p in module.named_parameters()})
        return measure(self, module, batches, precision=precision)

    monkeypatch.setattr(Classification, "evaluate", evaluate)
    return zeros


def images(shape=(3, 8, 8), classes=4):
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(8, *shape, generator=generator), torch.arange(8) % classes)]


@pytest.mark.parametrize(
    "method", ["global_magnitude", "random", "global_gradient", "wanda", "sparsegpt", "lamp"]
)
def test_the_named_layer_alone_loses_weights_as_many_as_asked(seen, method):
    module = seeded(ConvNet)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    result = shrinkbench.sensitivity(
        module, method, validation=images(), batches=images(), densities=[0.5, 0.25], seeds=[3]
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    whole, *pruned = seen
    assert len(pruned) == len(result.points) == 2 * len(result.groups)
    for point, zeros in zip(result.points, pruned, strict=True):
        changed = {
            n: int(z.sum()) - int(whole[n].sum()) for n, z in zeros.items() if not torch.equal(z, whole[n])
        }
        weight = f"{point.group}.weight"
        assert changed == {weight: round((1 - point.density) * zeros[weight].numel())}
        assert point.kept == zeros[weight].numel() - changed[weight]


def test_scores_are_those_of_the_whole_network():
    """At one density the layer keeps what the method keeps of it at that fraction of every layer."""
    module = seeded(ConvNet)
    masks = shrinkbench.prune(module, "layerwise_magnitude", fraction_per_layer=0.5, input_shape=(3, 8, 8))
    setting = layer_sensitivity._Setting(
        module, METHODS.get("layerwise_magnitude"), tuple(masks), (3, 8, 8), None, nn.functional.cross_entropy
    )
    masks_of = layer_sensitivity._by_scores(setting, 0)
    for name, mask in masks.items():
        assert torch.equal(masks_of(name, int(mask.sum()))[name], mask)


@pytest.mark.parametrize("method", ["channel_l1", "channel_taylor"])
def test_channels_leave_with_all_that_reads_them_and_coupled_layers_are_named(seen, method):
    module = seeded(ConvNet)
    result = shrinkbench.sensitivity(module, method, validation=images(), batches=images(), densities=[0.5])
    names = dict(module.named_modules())
    for group, point, zeros in zip(result.groups, result.points, seen[1:], strict=True):
        assert group.layers[0] == group.name
        assert set(group.layers) <= names.keys()
        assert point.kept == group.units - group.units // 2
        for layer in group.layers:
            rows = zeros[f"{layer}.weight"].flatten(1).all(1)
            assert rows.float().mean() == 1 - point.kept / group.units  # a unit may be several channels
    assert any(len(group.layers) > 1 for group in result.groups)


def test_a_method_that_decides_everything_prunes_the_named_layer_and_its_reader_is_rescaled(seen):
    module, data = build("digits-cnn", seed=0), images((1, 8, 8), classes=10)
    result = shrinkbench.sensitivity(module, "thinet", validation=data, batches=data, densities=[0.5])
    assert [(g.layers, g.units) for g in result.groups] == [
        (("features.0",), 32),
        (("features.3",), 32),
        (("features.7",), 64),
    ]
    for group, point, zeros in zip(result.groups, result.points, seen[1:], strict=True):
        emptied = {name: int(z.flatten(1).all(1).sum()) for name, z in zeros.items() if z.ndim > 1}
        assert {name: rows for name, rows in emptied.items() if rows} == {
            f"{group.name}.weight": group.units // 2
        }
        assert point.kept == group.units // 2


@pytest.mark.parametrize("structure", ["heads", "neurons"])
def test_parts_of_transformers_name_the_layers_on_both_sides(structure):
    name = f"global_magnitude[structure={structure}]"
    result = shrinkbench.sensitivity(seeded(ViT), name, validation=images(), densities=[0.5])
    assert all(len(group.layers) == 2 for group in result.groups)
    assert all(point.kept * 2 == group.units for group, point in zip(result.groups, result.points, strict=True))


def test_what_a_structure_must_keep_stays():
    result = found("filter_l1", densities=[0.01])
    assert [point.kept for point in result.points] == [1, 1]


def test_seeds_draw_anew_and_equal_seeds_repeat():
    one, two = (found("random", densities=[0.25], seeds=seeds) for seeds in ((0, 1, 2), (0, 1, 2)))
    assert one.points == two.points
    assert len(set(one.values("all", 0.25))) > 1
    assert one.lost("all", 0.25) == pytest.approx(1 - sum(one.values("all", 0.25)) / 3)


def test_an_iterator_of_validation_batches_is_enough():
    assert (
        found(validation=iter(one_of_each())).points == found(validation=one_of_each).points == found().points
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"densities": [1]}, "no fraction below 1"),
        ({"densities": [0, 0.5]}, "no fraction of a layer to keep"),
        ({"densities": [float("nan")]}, "no fraction of a layer to keep"),
        ({"seeds": []}, "there is no seed"),
        ({"seeds": [-1]}, "is no seed"),
        ({"validation": []}, "is empty"),
        ({"ignore": ["nowhere"]}, "matches no layer"),
        ({"method": "gradual_magnitude"}, "over a training"),
        ({"method": "synflow"}, "in several rounds"),
        ({"method": "filter_l1:30"}, "by its name"),
        ({"method": "li2017:vgg16-a"}, "by its name"),
        ({"method": "branch_l1"}, "no choice of a layer's density"),
        ({"method": "magnitude_2_4"}, "no choice of a layer's density"),
        ({"method": "global_gradient"}, "give batches="),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(settings, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence) as error:
        found(**settings)
    assert len(str(error.value)) < 300


def made(direction="higher"):
    def quality(value):
        return Quality(metrics={"top1": value, "top5": 1.0, "loss": 1.0}, examples=10)

    metrics = tuple(m.model_copy(update={"direction": direction}) for m in CLASSIFICATION.metrics)
    objective = CLASSIFICATION.model_copy(update={"metrics": metrics})
    groups = (LayerGroup("a", ("a", "b"), 4), LayerGroup("c", ("c",), 8))
    values = {("a", 0.5): 0.8, ("a", 0.25): 0.4, ("c", 0.5): 0.6, ("c", 0.25): 0.6}
    points = tuple(SensitivityPoint(g, d, 2, 0, quality(v)) for (g, d), v in values.items())
    return Sensitivity("m", objective, groups, quality(0.8), points)


def test_the_area_is_that_of_trapezoids_and_the_table_is_in_its_order():
    result = made()
    assert result.area("a") == pytest.approx((0.25 * 0.4 / 2) / 0.75)
    assert result.area("c") == pytest.approx((0.5 * 0.2 / 2 + 0.25 * 0.2) / 0.75)
    assert [g.name for g in result.ranked()] == ["c", "a"]
    frame = result.to_frame()
    assert list(frame["layer"].dropna()) == ["c", "c", "a", "a"]
    assert list(frame["lost"]) == pytest.approx([0, 0.2, 0.2, 0, 0.4])
    assert result.bounds(0.1) == Constraints(ignore=("c",), max_ratio=0.5)
    assert result.bounds(0.0).ignore == ("c",)
    assert made("lower").lost("c", 0.5) == pytest.approx(-0.2)
