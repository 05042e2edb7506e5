"""What methods say that they need is what they look at, over all axes, and no more."""

import traceback

import pytest
import torch
from sample_networks import ConvNet, batches, seeded
from sampling import sampled
from test_conformance import NAMES, NETWORKS, SHAPE, own_kind, target_for

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.pruning import METHODS, prune
from shrinkbench.pruning.method import NEEDS
from shrinkbench.pruning.schedules.schedule import OF_TRAINING

MADE = ["random@global_gradient", "random@rigl", "magnitude@wanda", "global_magnitude[allocation=owl]"]
MADE += [
    "random@global_magnitude[allocation=owl]",
    "global_magnitude[schedule=gradual-cubic]",
    "random@synflow",
]
# Derivatives of a probe that tell how data flows through a network are none of the loss, nor at its weights.
LOOKING_AT_NETWORKS = ("dataflow", "following", "coupling", "fused_heads")
LOOKING_AT_NETWORKS = tuple(f"/network/{name}.py" for name in LOOKING_AT_NETWORKS)


def decide(name, *, data, whole=False):
    method = METHODS.get(name)
    return prune(
        seeded(NETWORKS[own_kind(method)]),
        name,
        compression=target_for(method),
        batches=data,
        input_shape=SHAPE,
        generator=torch.Generator().manual_seed(0),
        one_shot=not whole,
    )


@pytest.fixture
def derivatives(monkeypatch):
    """How often derivatives are taken, but for those that find out how data flows."""
    taken = []

    def counted(real):
        def take(*args, **kwargs):
            places = [frame.filename for frame in traceback.extract_stack()]
            if not any(place.endswith(LOOKING_AT_NETWORKS) for place in places):
                taken.append(1)
            return real(*args, **kwargs)

        return take

    for name in ("grad", "backward"):
        monkeypatch.setattr(torch.autograd, name, counted(getattr(torch.autograd, name)))
    return taken


@pytest.mark.parametrize("name", [*sampled(NAMES, every=2), *MADE])
def test_a_decision_takes_gradients_where_its_axes_say_so_and_nowhere_else(name, derivatives):
    decide(name, data=batches(2, 4))
    assert bool(derivatives) == ("gradients" in METHODS.get(name).needs_to_decide)


@pytest.mark.parametrize(
    "name", ["channel_l1", "branch_l1", "head_magnitude", "neuron_magnitude", "block_influence"]
)
def test_the_probe_of_a_structure_takes_no_gradient_at_the_weights_of_the_network(name):
    def refuse(gradient):
        raise AssertionError("a gradient at the network's own weights")

    module = seeded(NETWORKS["transformer"])
    for parameter in module.parameters():
        parameter.register_hook(refuse)
    assert "gradients" not in METHODS.get(name).all_needs
    assert prune(module, name, compression=1.1, batches=batches(1, 4)).kept


def test_curvature_of_a_cross_entropy_asks_for_no_labels():
    """They decide nothing of ``obs``: it is the same with others, and with none."""
    assert METHODS.get("obs").all_needs == ("data", "gradients")
    given = batches(2, 4)
    others = [(x, (y + 1) % 4) for x, y in given]
    found = [
        prune(seeded(ConvNet), "obs", compression=2, batches=b)
        for b in (given, others, [(x, None) for x, _ in given])
    ]
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])
    for name, values in found[0].new_weights.items():
        assert torch.equal(values, found[2].new_weights[name])


@pytest.mark.parametrize("name", [*sampled(NAMES, every=2), *MADE])
def test_masks_are_decided_without_data_where_no_axis_needs_any(name):
    if "data" not in METHODS.get(name).needs_to_decide:
        assert decide(name, data=None).kept
        return
    with pytest.raises(ShrinkbenchError, match="on data, and none was given"):
        decide(name, data=None)


@pytest.mark.parametrize("name", [*sampled(NAMES, every=2), *MADE])
def test_what_trains_on_the_way_to_its_masks_needs_what_a_training_looks_at(name):
    """Without such a schedule, all rounds are carried out at once, with what the other axes need alone."""
    method = METHODS.get(name)
    assert set(method.all_needs) == set().union(*method.needs_by_axis.values())
    assert tuple(need for need in NEEDS if need in method.all_needs) == method.all_needs
    trains = "schedule" in method.needs_by_axis
    assert trains == (not method.in_one_step)
    if trains:
        assert method.all_needs == OF_TRAINING
        with pytest.raises(ShrinkbenchError, match="prunes over a training"):
            decide(name, data=batches(2, 4), whole=True)
    elif method.finetuning.weights == "kept" and method.schedule.rounds == 1:
        assert decide(name, data=batches(2, 4) if method.all_needs else None, whole=True).kept


@pytest.mark.parametrize("name", ["rigl", "granet", "mest", "top_kast", "pcas", "autopruner", "lottery_ticket"])
def test_a_score_that_looks_at_weights_alone_does_not_hide_what_the_schedule_takes(name):
    method = METHODS.get(name)
    assert method.needs == ()
    assert method.all_needs == ("data", "labels", "gradients")


def test_needs_of_axes_are_no_part_of_keys():
    """Keys of stored runs name what the score needs; what other axes need follows from them."""
    assert METHODS.get("rigl").spec.score.needs == ()
    assert METHODS.get("global_magnitude[allocation=owl]").spec.score.needs == ()
    assert METHODS.get("global_magnitude[allocation=owl]").all_needs == ("data",)
    assert METHODS.get("synflow").spec.score.needs == ()


@pytest.mark.parametrize("name", ["owl_wanda", "owl_sparsegpt", "lamp[allocation=owl]", "random@owl_wanda"])
def test_a_target_out_of_reach_is_told_where_the_allocation_reads_data(name):
    module = seeded(ConvNet)
    with pytest.raises(CannotMeetTargetError, match="largest"):
        prune(module, name, compression=1e6, batches=batches(4))


@pytest.mark.parametrize("name", ["synflow[allocation=owl]", "iterative_snip[allocation=owl]"])
def test_rounds_with_an_allocation_that_reads_data_are_carried_out(name):
    module = seeded(ConvNet)
    total = sum(p.numel() for p in module.parameters())
    masks = prune(module, name, compression=2, batches=batches(4))
    assert total - (masks.total - masks.kept) == pytest.approx(total / 2, abs=1)
