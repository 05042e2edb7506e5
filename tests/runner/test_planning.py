"""A plan tells each mistake before anything runs, and its keys name the code that is used."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from shrinkbench.datasets import EXTRAS
from shrinkbench.errors import InputError, ShrinkbenchError
from shrinkbench.models import MODELS, build
from shrinkbench.pruning import FINETUNINGS, METHODS, carried_out, prune, resolve
from shrinkbench.pruning.finetunings import Finetuning
from shrinkbench.report.checklist import roles
from shrinkbench.runner import planning
from shrinkbench.runner.execution import run
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import ChannelFraction, ExperimentSpec, FractionPerLayer


def planned(tmp_path, **fields):
    grid = {
        "name": "planned",
        "dataset": "digits",
        "model": "digits-cnn",
        "weights": "random",
        "train_images": 20,
        "test_images": 20,
        "finetune": {"epochs": 0},
        "compression": 1,
        **fields,
    }
    return planning.plan(ExperimentSpec(**grid), Workspace(root=tmp_path)).runs


@pytest.mark.parametrize(
    "fields",
    [
        {"method": ["layerwise_magnitude", "global_magnitude[allocation=layerwise]"], "compression": 2},
        {"method": ["layerwise_magnitude", "global_magnitude[allocation=layerwise]"], "compression": [1, 3]},
        {"method": ["filter_l1:30", "filter_l1"], "fraction_per_layer": 0.3},
        {"method": ["channel_l1", "global_channel_l1[allocation=layerwise]"], "compression": 2},
    ],
)
def test_one_method_by_two_names_is_refused(tmp_path, fields):
    with pytest.raises(ShrinkbenchError, match=r"are one method at .*; name it once"):
        planned(tmp_path, **fields)


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("iterative_magnitude", {"channels": 0.3}),
        ("global_magnitude:30[schedule=iterative-20]", {}),
        ("li2017:vgg16-a[schedule=iterative-20]", {}),
        ("thinet", {"fraction_per_layer": 0.3}),
        ("branch_l1:50", {}),
    ],
)
def test_an_amount_that_a_method_does_not_take_is_told_before_anything_runs(tmp_path, method, fields):
    with pytest.raises(ShrinkbenchError, match="compression"):
        planned(tmp_path, method=method, **fields)


@pytest.mark.parametrize("fields", [{"compression": True}, {"compression": "4"}, {"seed": True}])
def test_a_truth_value_or_a_text_is_no_number(tmp_path, fields):
    with pytest.raises(ValueError, match=r"valid (number|integer)"):
        planned(tmp_path, method="random", **fields)


def test_code_of_a_further_evaluation_is_part_of_the_key(tmp_path, monkeypatch):
    for attribute in ("_entries", "_spellings", "_origins"):  # forget it afterwards
        monkeypatch.setattr(EXTRAS, attribute, dict(getattr(EXTRAS, attribute)))
    card = replace(EXTRAS.get("cifar10.1"), name="own-extra", dataset="digits")
    EXTRAS.add("own-extra", card)
    monkeypatch.setattr(Workspace, "extra", lambda self, name: SimpleNamespace(revision="as read"))
    (spec,) = planned(tmp_path, method="random", extra="own-extra")
    assert spec.extra[0].source == EXTRAS.source("own-extra") is not None


def test_a_run_whose_network_or_further_evaluation_is_another_code_is_refused(tmp_path):
    (spec,) = planned(tmp_path, method="random")
    for registry, path in ((MODELS, "model"), (planning.DATASETS, "data")):
        value = getattr(spec.task, path)
        other = spec.task.model_copy(update={path: value.model_copy(update={"source": "0" * 64})})
        sentence = f"the code of the {registry.kind} '{value.name}' is not what it was"
        with pytest.raises(InputError, match=sentence):
            run(spec.model_copy(update={"task": other}), Workspace(root=tmp_path))


@pytest.fixture
def own_modes(monkeypatch):
    for attribute in ("_entries", "_spellings", "_origins"):  # forget them afterwards
        monkeypatch.setattr(FINETUNINGS, attribute, dict(getattr(FINETUNINGS, attribute)))
    for name, weights in (("late", "rewound"), ("my-rw", "rewound"), ("slow-start", "reinitialised")):
        mode = Finetuning(name, "a mode of one's own", weights=weights, recipe="pretraining", epoch=7)
        FINETUNINGS.add(name, mode)


@pytest.mark.usefixtures("own_modes")
@pytest.mark.parametrize("epochs", [0, 1, 3])
@pytest.mark.parametrize(
    "method",
    [
        "global_magnitude[finetuning=late]",
        "global_magnitude[finetuning=my-rw]",
        "global_magnitude[finetuning=slow-start]",
        "global_magnitude[finetuning=rewind-learning-rate-4]",
        "weight_rewinding",
        "random@weight_rewinding",
        "filter_l1[finetuning=late]:30",
        "lottery_ticket[finetuning=rewind-weights-3]",
        "snip",
    ],
)
def test_what_helps_where_pretraining_is_too_short_has_been_tried(tmp_path, method, epochs):
    """Every name that the sentence gives, and the number of epochs that it asks for, makes a plan."""
    fields = {"weights": "pretrain", "compression": 1 if ":" in method else 2}
    if method == "snip" and epochs:
        pytest.skip("it begins with the first epoch")
    with pytest.raises(ShrinkbenchError) as told:
        planned(tmp_path, method=method, pretrain={"epochs": epochs}, **fields)
    sentence = str(told.value)
    assert sentence.startswith(f"method '{METHODS.get(method).name}' ")
    enough = int(re.search(r"set pretrain.epochs to (\d+) at least", sentence)[1])
    assert planned(tmp_path, method=method, pretrain={"epochs": enough}, **fields)
    for name in re.findall(r"or name (\S+)$", sentence):
        assert planned(tmp_path, method=name, pretrain={"epochs": epochs}, **fields)
    assert ("or name" in sentence) == (bool(epochs) and not re.search("slow-start|:", method))


@pytest.mark.parametrize(
    "fields",
    [
        {"method": ["channel_l1", "global_channel_l1"], "channels": 0.3},
        {
            "method": ["global_channel_l1", "global_channel_l1[allocation=layerwise]"],
            "fraction_per_layer": 0.3,
        },
        {"method": ["channel_l1", "channel_l1[allocation=global]"], "channels": 0.3},
        {"method": ["random@channel_l1", "random@global_channel_l1"], "channels": 0.3},
        {
            "method": ["random@layerwise_magnitude", "random@global_magnitude[allocation=layerwise]"],
            "compression": 2,
        },
    ],
)
def test_what_an_amount_makes_one_method_is_refused_by_two_names(tmp_path, fields):
    one, other = fields["method"]
    with pytest.raises(ShrinkbenchError) as told:
        planned(tmp_path, **fields)
    assert str(told.value).startswith(
        f"methods '{one}' and '{other}' of experiment 'planned' are one method at "
    )


@pytest.mark.parametrize(
    ("method", "fields", "name", "allocation"),
    [
        ("channel_l1", {"channels": 0.3}, "channel_l1[allocation=global]", "global"),
        ("global_channel_l1", {"channels": 0.3}, "global_channel_l1", "global"),
        ("channel_l1", {"fraction_per_layer": 0.3}, "channel_l1", "layerwise"),
        ("global_channel_l1:30", {}, "global_channel_l1[allocation=layerwise]", "layerwise"),
        (
            "channel_l1[finetuning=none]",
            {"channels": 0.3},
            "channel_l1[allocation=global,finetuning=none]",
            "global",
        ),
        (
            "random@channel_l1",
            {"channels": 0.3},
            "random@channel_l1[allocation=global]",
            "as:channel_l1[allocation=global]",
        ),
        (
            "inverted@global_channel_l1[finetuning=none]",
            {"fraction_per_layer": 0.3},
            "inverted@global_channel_l1[allocation=layerwise][finetuning=none]",
            "as:global_channel_l1[allocation=layerwise,finetuning=none]",
        ),
    ],
)
def test_the_allocation_that_is_stored_is_the_one_that_is_carried_out(
    tmp_path, method, fields, name, allocation
):
    """A process finds it by the stored value, and the checklist judges it."""
    run_of = next(spec for spec in planned(tmp_path, method=method, **fields) if not spec.is_control)
    value = run_of.method
    assert (value.name, value.allocation.name) == (name, allocation)
    assert resolve(value).spec == value
    own = value.allocation.like or value
    assert own.allocation.scope == run_of.amount.settles == own.allocation.name
    if value.allocation.like is None:
        assert roles.is_global(value, run_of.amount) == roles.is_global(value) == (allocation == "global")
        assert roles.is_uniform(value, run_of.amount) == roles.is_uniform(value) == (allocation == "layerwise")


def test_a_compression_leaves_the_allocation_as_it_is(tmp_path):
    specs = planned(tmp_path, method=["channel_l1", "global_channel_l1"], compression=2)
    assert [spec.method.name for spec in specs] == ["channel_l1", "global_channel_l1"]
    assert [spec.method.allocation.scope for spec in specs] == ["layerwise", "global"]


@pytest.mark.parametrize("name", ["channel_l1", "global_channel_l1"])
@pytest.mark.parametrize("amount", [ChannelFraction(fraction=0.4), FractionPerLayer(fraction=0.4)])
def test_the_method_that_an_amount_makes_has_the_same_masks(name, amount):
    module = build("digits-cnn", num_classes=10, seed=0)
    said = {"channels": 0.4} if amount.settles == "global" else {"fraction_per_layer": 0.4}
    method = METHODS.get(name)
    found = [prune(module, m, input_shape=(1, 8, 8), **said) for m in (method, carried_out(method, amount))]
    assert found[0].equal(found[1])


def test_a_label_goes_to_what_the_amount_makes_of_the_method():
    grid = ExperimentSpec(
        name="x",
        dataset="digits",
        model="digits-cnn",
        method="channel_l1",
        channels=0.3,
        labels={"channel_l1": "L1"},
    )
    assert planning.label_methods(grid).labels == {"channel_l1[allocation=global]": "L1"}


REWINDING = {"weights": "pretrain", "compression": 4, "pretrain": {"epochs": 3, "batch_size": 8}}


@pytest.mark.parametrize("method", ["global_magnitude", "iterative_magnitude", "random@global_magnitude"])
def test_the_last_step_to_rewind_to_is_one_that_training_goes_on_from(tmp_path, method):
    # 20 images in batches of 8 are 3 steps, three times.
    mode = "rewind-weights-step"
    assert planned(tmp_path, method=f"{method}[finetuning={mode}-8]", **REWINDING)
    for step in (9, 10, 10**9):
        with pytest.raises(ShrinkbenchError, match=r"takes 9 steps \(3 epochs of 20 examples") as e:
            planned(tmp_path, method=f"{method}[finetuning={mode}-{step}]", **REWINDING)
        assert len(str(e.value)) < 300


@pytest.mark.parametrize("mode", ["rewind-weights-1", "rewind-weights-step-1"])
@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"method": "global_magnitude", "weights": "random"}, "'random' are those of no training"),
        ({"method": "snip"}, "prunes before any training"),
        ({"method": "rigl"}, "prunes before any training"),
    ],
)
def test_weights_that_no_training_has_are_not_rewound_to(tmp_path, mode, fields, match):
    method = f"{fields['method']}[finetuning={mode}]"
    with pytest.raises(ShrinkbenchError, match=match):
        planned(tmp_path, **{**REWINDING, **fields, "method": method})
    start = f"{fields['method']}[finetuning=rewind-weights-0]"  # that is drawn, whatever the weights are
    assert planned(tmp_path, **{**REWINDING, **fields, "method": start})
