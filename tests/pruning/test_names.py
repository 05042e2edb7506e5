"""Names that compose: what a variant or a control is called is what it does, or it is refused."""

import warnings

import pytest
import torch
from sample_networks import ConvNet, seeded
from sampling import sampled
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models.cifar_resnet import CifarResNet, full_widths
from shrinkbench.pruning import METHODS, PruneContext, prunable_names, prune, pruning_method
from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.pruning.masks import Masks
from shrinkbench.pruning.method import SCORES, decided_by
from shrinkbench.pruning.units import STRUCTURES

# Scores by the first method that has them.
FIRST = {METHODS.get(n).score.__name__: n for n in reversed(list(METHODS)) if "doctest" not in n}
ALIKE = {
    "lamp[allocation=lamp]",  # the score is the allocation
    # A network of three residual blocks leaves them no choice.
    "sparse_structure_selection[allocation=layerwise]",
    "sparse_structure_selection[allocation=erdos-renyi-kernel]",
}


@pytest.fixture(scope="module")
def decided():
    """Masks of a small ResNet at compression 1.5, by name of the method."""
    network = seeded(lambda: CifarResNet(full_widths(8), 10, shortcut="A"))
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(4, 3, 8, 8, generator=generator), torch.randint(10, (4,), generator=generator))
        for _ in range(2)
    ]

    def decide(name):
        drawn = torch.Generator().manual_seed(1)
        with warnings.catch_warnings(action="ignore"):
            return prune(network, name, compression=1.5, batches=batches, generator=drawn, one_shot=True)

    return decide


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("score", "axis"),
    [
        pytest.param(
            s, axis, marks=() if s == "magnitude" or axis in METHODS.get(n).decides else pytest.mark.slow
        )
        for s, n in FIRST.items()
        for axis in ("allocation", "structure")
    ],
)
def test_an_axis_that_is_changed_changes_the_masks_or_is_refused(decided, score, axis):
    method = METHODS.get(FIRST[score])
    registry = {"allocation": ALLOCATIONS, "structure": STRUCTURES}[axis]
    base = None
    if axis not in method.decides:  # else every other is refused, unlooked
        try:
            base = decided(method.name)
        except ShrinkbenchError:  # no attention, say
            pytest.skip(f"{method.name} does not apply to a ResNet")
    # The only linear layer here is the classifier, which stays: weights are weights of convolutions.
    others = [v for v in registry if v not in (getattr(method, axis).name, "convolution-weights")]
    if axis == "structure" and method.structure.name == "convolution-weights":
        others.remove("weights")
    told = 0
    for value in others:
        name = f"{method.name}[{axis}={value}]"
        try:
            masks = decided(name)
        except ShrinkbenchError:
            told += 1
        else:
            assert base is not None, name
            assert not equal(masks, base) or name in ALIKE, name
    if base is None:
        assert told == len(others)


@pytest.mark.parametrize("score", sampled([s for s in SCORES if "doctest" not in s], every=2))
def test_a_control_has_the_proportions_of_its_method_or_is_refused(decided, score):
    if decided_by(SCORES.get(score).function):
        with pytest.raises(ShrinkbenchError, match="decides for itself"):
            decided(f"{score}@global_magnitude")
        return
    masks, wanted = decided(f"{score}@global_magnitude"), decided("global_magnitude")
    assert {n: int(masks[n].sum()) for n in wanted} == {n: int(wanted[n].sum()) for n in wanted}


def test_masks_of_a_plug_in_take_no_axis_from_outside(decided, monkeypatch):
    for registry in (METHODS, SCORES):  # forget it afterwards
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
        monkeypatch.setattr(registry, "_spellings", dict(registry._spellings))

    def turn_by_turn(ctx):
        """Every other weight."""
        return Masks({n: torch.arange(w.numel()).reshape(w.shape) % 2 == 0 for n, w in ctx.weights.items()})

    pruning_method("weights_in_turn")(turn_by_turn)
    assert decided("weights_in_turn").kept > 0
    for name in ("weights_in_turn[allocation=lamp]", "turn_by_turn@global_magnitude"):
        with pytest.raises(ShrinkbenchError, match="returns masks and takes no"):
            decided(name)


def test_independent_chance_takes_uniform_scores(decided):
    with pytest.raises(ShrinkbenchError, match="draws by uniform scores"):
        decided("global_magnitude[allocation=independent]")
    with pytest.raises(ShrinkbenchError, match="leaves no N:M pattern"):
        decided("random[structure=2:4]")


@pytest.mark.parametrize("name", ["global_magnitude", "head_magnitude", "kernel_magnitude"])
def test_a_fraction_of_channels_is_refused_where_none_are_removed(name):
    with pytest.raises(ShrinkbenchError, match="which are no channels; give compression"):
        prune(seeded(ConvNet), name, channels=0.5, input_shape=(3, 8, 8))


@pytest.mark.parametrize("name", ["global_channel_l1", "global_filter_l1"])
def test_a_fraction_of_channels_is_taken_of_all_of_them(name):
    module = seeded(ConvNet)
    method = METHODS.get(name)
    masks = prune(module, name, channels=0.3, input_shape=(3, 8, 8))
    ctx = PruneContext(module, prunable_names(module, input_shape=(3, 8, 8)), input_shape=(3, 8, 8))
    alive = {n: masks[n].float() if n in masks else torch.ones_like(w) for n, w in ctx.weights.items()}
    units = method.structure.group(ctx, alive).units
    total = sum(u.scores.numel() for u in units.values())
    assert sum(int((u.scores > 0).sum()) for u in units.values()) == total - int(total * 0.3)


def test_the_finetuning_of_a_control_varies_as_that_of_any_method():
    variant = METHODS.get("random@global_gradient[finetuning=none]")
    assert (variant.base, variant.changed) == ("random@global_gradient", ("finetuning",))


@pytest.mark.parametrize(
    ("spelling", "other"),
    [
        ("RANDOM@Global-Magnitude", "random@global_magnitude"),
        ("random @ global_magnitude", "random@global_magnitude"),
        ("filter_l1[finetuning=none]:30", "filter_l1:30[finetuning=none]"),
        ("random@filter_l1[finetuning=none]:30", "random@filter_l1:30[finetuning=none]"),
        ("network_slimming[finetuning=scratch-b]:070", "network_slimming:70[finetuning=scratch-b]"),
    ],
)
def test_spellings_of_a_name_are_one_method(spelling, other):
    one, two = METHODS.get(spelling), METHODS.get(other)
    assert (one.spec, one.amount, one.name) == (two.spec, two.amount, two.name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lottery_ticket[finetuning=none,finetuning=continue]", "names its finetuning twice"),
        ("filter_l1:5.5", r"'5\.5' in method 'filter_l1:5\.5' is no whole percentage"),
        ("filter_l1:0", "name 1 to 99"),
        ("filter_l1:100", "name 1 to 99"),
        ("filter_l1:\u0663\u0660", "name 1 to 99"),
        ("filter_l1:30[finetuning=none]:40", "says twice how much is pruned"),
        ("no such method at all", r"known pruning methods: .* shows all"),
    ],
)
def test_names_that_say_nothing_true_are_told_in_a_sentence(name, sentence):
    with pytest.raises(ShrinkbenchError, match=sentence) as caught:
        METHODS.get(name)
    assert len(str(caught.value)) < 300


def test_two_sanity_checks_are_other_words_for_what_has_a_name():
    for method in ("snip", "channel_l1", "snip[allocation=layerwise]"):
        assert METHODS.get(f"shuffled@{method}").spec == METHODS.get(f"random@{method}").spec
        assert (
            METHODS.get(f"reinitialised@{method}").spec
            == METHODS.get(f"{method}[finetuning=reinitialise]").spec
        )


class Chain(nn.Module):
    """Two convolutions, one of them with a batch norm that the classifier's inputs come from."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(12), nn.Linear(12, 4)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)

    def forward(self, x):
        return self.last(self.norm(self.second(self.first(x).relu())).relu().mean((2, 3)))


def chain(name, seed=0):
    module = seeded(Chain)
    generator = torch.Generator().manual_seed(seed)
    return prune(module, name, compression=1.5, input_shape=(3, 8, 8), generator=generator)


def kept_rows(masks, name):
    return masks[name].flatten(1).any(1)


@pytest.mark.parametrize("score", ["random", "magnitude"])
def test_controls_of_channels_that_a_classifier_reads_remove_as_many(score):
    masks, control = chain("slimming_without_penalty"), chain(f"{score}@slimming_without_penalty")
    assert int(masks["norm.weight"].sum()) == int(control["norm.weight"].sum()) < 12
    assert (masks.total, masks.kept) == (control.total, control.kept)


def test_channels_that_a_classifier_reads_are_scored_by_their_filters():
    """By chance, they are another choice for every seed; by magnitude, the filters tell."""
    kept = {tuple(chain("random@slimming_without_penalty", seed)["norm.weight"].tolist()) for seed in range(4)}
    assert len(kept) > 1
    filters = seeded(Chain).second.weight.abs().flatten(1).mean(1)
    found = chain("magnitude@slimming_without_penalty")["norm.weight"]
    assert filters[found].min() > filters[~found].max()


def test_what_goes_last_of_all_goes_first_when_it_is_inverted_but_not_altogether():
    """Layers without batch norm have infinite scores."""
    masks, control = chain("batch_norm_scale"), chain("inverted@batch_norm_scale")
    assert kept_rows(masks, "first.weight").all()
    assert kept_rows(control, "first.weight").all()
    assert (masks.total, masks.kept) == (control.total, control.kept)
    assert not (kept_rows(masks, "second.weight") & kept_rows(control, "second.weight")).all()
