"""What every registered method, structure, allocation, schedule and fine-tuning mode must do.

Registering something is enough to be tested here. A method may refuse a network, in one sentence that says
why; a network of either kind must be left for it.
"""

import copy
import itertools
import re

import pytest
import torch
from places import ROOT
from sample_networks import ConvNet, Odd, ViT, batches, largest_unit, seeded
from sampling import sampled

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import build
from shrinkbench.pruning import FINETUNINGS, METHODS, PruningMethod, prune, resolve
from shrinkbench.pruning.allocations.rules import ALLOCATIONS
from shrinkbench.pruning.conformance import LAWS, NETWORKS, NotApplicableError, check
from shrinkbench.pruning.conformance import kept_parameters as kept
from shrinkbench.pruning.schedules.schedule import SCHEDULES
from shrinkbench.pruning.units import STRUCTURES

NAMES = [name for name in METHODS if not name.startswith("doctest")]
FOR_TRANSFORMERS = {"heads", "neurons", "chained-channels", "whole-blocks"}
SHAPE = (3, 8, 8)
# Structures that leave much of a network whole.
SPANNING = {"heads", "neurons", "branches", "chained-channels", "scaled-channels", "whole-blocks"}
SPANNING |= {"convolution-weights"}


def own_kind(method):
    """The network that the method is for."""
    return "transformer" if method.structure.name in FOR_TRANSFORMERS else "convolutional"


# Every method on the network that it is for in every run of the tests, on the other one in the slow ones.
OWN_FIRST = [
    pytest.param(
        *pair,
        marks=() if pair[1] == own_kind(METHODS.get(pair[0])) else pytest.mark.slow,
    )
    for pair in itertools.product(NAMES, NETWORKS)
]
# Of laws that rest on code that all methods share, every eighth method in every run, all in the slow ones.
SAMPLED = [name if n % 8 == 0 else pytest.param(name, marks=pytest.mark.slow) for n, name in enumerate(NAMES)]
BIB = ROOT / "docs" / "references.bib"


def target_for(method, whole=2.2):
    return 1.15 if method.structure.name in SPANNING else whole


def decide(name, module, compression, *, data=None, seed=0, **options):
    """Masks, or ``None`` where the method refuses the network in one sentence."""
    try:
        return prune(
            module,
            name,
            compression=compression,
            batches=batches(2, 4) if data is None else data,
            generator=torch.Generator().manual_seed(seed),
            **options,
            one_shot=True,
        )
    except ShrinkbenchError as error:
        sentence = str(error)
    assert re.search(r"; (choose|use|pass|the largest possible target) ", sentence), sentence  # says what to do
    assert "\n" not in sentence
    return None


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("name", "kind"), sampled(OWN_FIRST, every=8))
def test_the_laws_that_ship_with_the_package(name, kind, law):
    method = METHODS.get(name)
    compression = target_for(method)
    try:
        LAWS[law](method, NETWORKS[kind], compression)
    except NotApplicableError as error:
        sentence = str(error)
        assert re.search(r"; (choose|use|pass|the largest possible target) ", sentence), sentence
        if kind == own_kind(method):
            raise


def is_random(method):
    return method.score.__name__ in ("random", "obd_hutchinson", "first_passed")


@pytest.mark.parametrize(("name", "kind"), sampled(OWN_FIRST, every=7))
def test_masks_depend_on_the_seed_only_where_the_method_is_random(name, kind):
    method, module = METHODS.get(name), seeded(NETWORKS[kind])
    compression = target_for(method)
    first = decide(name, module, compression, seed=1)
    if first is None:
        return
    torch.manual_seed(12345)  # the global state has no say
    again, other = (decide(name, module, compression, seed=s) for s in (1, 2))
    assert first.equal(again)
    for key, value in first.new_weights.items():
        assert torch.equal(value, again.new_weights[key]), key
    if method.score.__name__ == "searched_ratios":
        return  # it draws candidates, of which these networks, at this target, have one that is best
    assert first.equal(other) != is_random(method)


@pytest.mark.parametrize("name", SAMPLED)
def test_tied_reused_and_frozen_layers(name):
    """A reused module, a weight that two layers share, and one that is not trained."""
    module = seeded(Odd)
    before = copy.deepcopy(module.state_dict())
    masks = decide(name, module, target_for(METHODS.get(name)))
    assert all(torch.equal(t, before[n]) for n, t in module.state_dict().items())
    if masks is None:
        return
    assert "tied.weight" not in masks  # pruned once, under its first name
    masks.apply(module)
    assert module.tied.weight is module.again.weight
    assert not module.tied.weight[~masks["again.weight"]].any()
    assert not module.frozen.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["convolutional", pytest.param("transformer", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SAMPLED)
def test_half_precision(name, kind, dtype):
    method, module = METHODS.get(name), seeded(NETWORKS[kind]).to(dtype)
    compression = target_for(method)
    masks = decide(name, module, compression)
    if masks is None:
        assert decide(name, seeded(NETWORKS[kind]), compression) is None  # for another reason
        return
    target = sum(p.numel() for p in module.parameters()) / compression
    slack = 5 * (masks.total / 4) ** 0.5 if not method.allocation.exact else largest_unit(method, module)
    assert abs(kept(module, masks) - target) <= slack
    masks.apply(module)
    assert all(p.dtype == dtype for p in module.parameters())
    assert all(bool(p.isfinite().all()) for p in module.parameters())


@pytest.mark.parametrize("name", SAMPLED)
def test_lazy_parameters_are_refused_in_one_sentence(name):
    module = torch.nn.Sequential(torch.nn.LazyConv2d(4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
    with pytest.raises(ShrinkbenchError, match="is lazy and has no shape yet; run one batch through"):
        prune(module, name, compression=2, batches=batches(1), one_shot=True)


@pytest.mark.parametrize("name", SAMPLED)
def test_biases_and_the_classifier_can_be_pruned(name):
    method, module = METHODS.get(name), seeded(ConvNet)
    if method.structure.name in SPANNING or method.structure.name == "input-channels":
        pytest.skip(f"structure {method.structure.name} holds no biases")
    compression = 2.0
    masks = decide(name, module, compression, prune_biases=True, prune_classifier=True)
    if masks is None:
        return
    assert {"fc.weight", "fc.bias", "grouped.bias"} <= masks.keys()
    target = sum(p.numel() for p in module.parameters()) / compression
    slack = 5 * (masks.total / 4) ** 0.5 if not method.allocation.exact else 144
    assert abs(kept(module, masks) - target) <= slack


def test_there_are_many_methods_and_none_is_another_under_a_new_name():
    assert len(NAMES) >= 40
    axes = {}
    for name in NAMES:
        axes.setdefault(METHODS.get(name).axes, []).append(name)
    assert {a: names for a, names in axes.items() if len(names) > 1} == {}


def test_no_score_is_another_under_a_new_name():
    """Methods that differ in their score alone decide differently on some network."""
    alike = {}
    for name in NAMES:
        structure, _, *others = METHODS.get(name).axes
        alike.setdefault((structure, *others), []).append(name)
    networks = [seeded(ConvNet), seeded(ViT)]
    for names in alike.values():
        if len(names) < 2:
            continue
        compression = target_for(METHODS.get(names[0]), 1.7)
        one_per_layer = METHODS.get(names[0]).structure.one_per_layer
        tried = [*networks, build("resnet20", seed=0)] if one_per_layer else networks  # needs many layers
        alike_so_far = list(itertools.combinations(names, 2))
        for module in tried:
            masks = {name: decide(name, module, compression) for name in sorted({*sum(alike_so_far, ())})}
            alike_so_far = [
                (a, b)
                for a, b in alike_so_far
                if masks[a] is masks[b] is None or (masks[a] and masks[b] and masks[a].equal(masks[b]))
            ]
        assert not alike_so_far


@pytest.mark.parametrize("name", NAMES)
def test_every_method_is_documented(name):
    method = METHODS.get(name)
    assert method.name == name
    assert method.summary.endswith("."), "the first line of the score's docstring describes it"
    assert method.reference, "cite the publication"
    assert re.search(rf"@\w+{{{re.escape(method.reference)},", BIB.read_text(encoding="utf-8")), (
        method.reference
    )
    assert set(method.needs) <= {"data", "labels", "gradients"}
    spec = method.spec
    axes = (spec.structure, spec.score, spec.allocation, spec.schedule, spec.finetuning)
    assert tuple(axis.name for axis in axes) == method.axes
    assert spec.sources == ()
    assert spec.name == name
    assert resolve(spec) == method


@pytest.mark.parametrize("name", NAMES)
def test_a_method_that_needs_data_says_so(name):
    method = METHODS.get(name)
    if "data" not in method.needs:
        return
    module, compression = seeded(NETWORKS[own_kind(method)]), target_for(method)
    with pytest.raises(ShrinkbenchError, match="scores weights on data, and none was given"):
        prune(module, name, compression=compression, input_shape=SHAPE, one_shot=True)


PLUGIN = """
import torch
from shrinkbench import Masks, decides, pruning_method

@pruning_method("check_keeps_the_laws")
def check_keeps_the_laws(ctx):
    "Magnitude."
    return {name: w.abs() for name, w in ctx.weights.items()}

@pruning_method("check_breaks_the_laws")
def check_breaks_the_laws(ctx):
    "Draws from the global state, and looks at what it does not say."
    ctx.inputs
    return {name: torch.rand_like(w) for name, w in ctx.weights.items()}

@pruning_method("check_spends_too_much")
@decides("structure", "allocation")
def check_spends_too_much(ctx):
    "Keeps everything."
    return Masks({name: torch.ones_like(w, dtype=torch.bool) for name, w in ctx.weights.items()})

@pruning_method("check_falls")
def check_falls(ctx):
    "Falls."
    return ctx.nothing
"""


def test_a_plug_in_is_checked(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    failed = {}
    for finding in check(tmp_path / "mine.py"):
        assert len(finding.reason) < 300
        assert bool(finding.reason) == (finding.outcome != "passed")
        failed.setdefault(finding.method, set())
        if finding.outcome == "failed":
            failed[finding.method].add(finding.law)
    assert failed["check_keeps_the_laws"] == set()
    breaks = {"the network is left untouched", "one seed gives one outcome", "needs are true"}
    assert failed["check_breaks_the_laws"] == breaks
    assert failed["check_spends_too_much"] == {"the budget is met"}
    assert failed["check_falls"] == {"there is a network for it, which works"}


def magnitude(ctx):
    return {name: w.abs() for name, w in ctx.weights.items()}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("structure", list(STRUCTURES))
def test_every_structure(structure, kind):
    """Kept units give back whole masks, the budget holds, and the network still runs."""
    method = PruningMethod(name="test", score=magnitude, structure=STRUCTURES.get(structure))
    module = seeded(NETWORKS[kind])
    masks = decide(method, module, target_for(method, 1.8))
    if masks is None:
        return
    target = sum(p.numel() for p in module.parameters()) / target_for(method, 1.8)
    assert target - largest_unit(method, module) < kept(module, masks) <= target + 0.5
    masks.apply(module)
    assert bool(module.eval()(batches(1)[0][0]).isfinite().all())
    everything = decide(method, module, 1.0)
    assert everything.kept == everything.total


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("allocation", list(ALLOCATIONS))
def test_every_allocation(allocation, kind):
    """Spends the budget at every target, and a smaller budget keeps no more of any layer (up to rounding)."""
    method = PruningMethod(name="test", score=magnitude, allocation=ALLOCATIONS.get(allocation))
    if not method.allocation.exact:
        return
    module = seeded(NETWORKS[kind])
    total = sum(p.numel() for p in module.parameters())
    counts = None
    for compression in (1.01, 1.3, 1.9, 2.4):
        masks = decide(method, module, compression)
        assert abs(kept(module, masks) - total / compression) <= 0.5
        new = {name: int(mask.sum()) for name, mask in masks.items()}
        assert counts is None or all(new[name] <= counts[name] + 1 for name in new)
        counts = new


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_every_schedule_rises_to_the_target(schedule):
    for target in (1.1, 2.0, 4, 32, 1000.0):
        steps = SCHEDULES.get(schedule)(target)
        assert steps[-1] == target
        assert all(1 < a < b for a, b in itertools.pairwise(steps))


def test_every_entry_describes_itself():
    for registry in (STRUCTURES, ALLOCATIONS, SCHEDULES, FINETUNINGS):
        for name, entry in registry.items():
            assert entry.name == name
            assert len(entry.description) > 10, name
