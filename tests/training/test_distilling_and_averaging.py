"""A teacher in the loss, the mean of several epochs, and rewinding to a step: against steps written out."""

import copy

import pytest
import torch
from test_loop import Blobs, network, recipe
from torch import nn

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.pruning import FINETUNINGS
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.spec import CLASSIFICATION, ExperimentSpec, Recipe, parse_value
from shrinkbench.tasks import task_of
from shrinkbench.training import RECIPES, train, with_overrides
from shrinkbench.training.distilling import Distilled

LAST = {"selection": "last"}


def plain(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 2))


def test_a_step_with_a_teacher_is_the_one_written_out():
    """SGD on (1 - a) CE + a T^2 sum_k p_k (log p_k - log q_k), both at temperature T."""
    t, a, rate = 3.0, 0.7, 0.5
    module, teacher = plain(), plain(5)
    twin, data = copy.deepcopy(module), Blobs(16)
    train(
        module,
        recipe(
            optimizer="sgd",
            learning_rate=rate,
            epochs=1,
            distillation={"temperature": t, "weight": a},
        ),
        data,
        seed=0,
        teacher=teacher,
    )
    logits, taught = twin(data.inputs), teacher(data.inputs).detach()
    p, q = (taught / t).exp(), (logits / t).exp()
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    divergence = (p * (p.log() - q.log())).sum(1).mean()
    loss = (1 - a) * nn.functional.cross_entropy(logits, data.labels) + a * t**2 * divergence
    loss.backward()
    for p, expected in zip(module.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.detach(), expected.detach() - rate * expected.grad)


def test_the_teacher_is_left_as_it_is_and_normalises_by_its_statistics():
    teacher, module = network(3), network(0)
    before = copy.deepcopy(teacher.state_dict())
    train(module, recipe(epochs=2, distillation={}), Blobs(), seed=0, teacher=teacher)
    assert all(torch.equal(t, before[n]) for n, t in teacher.state_dict().items())
    task = Distilled(task_of(CLASSIFICATION), teacher.train())
    batch = next(iter(Blobs().test()))
    one = Recipe(**{**recipe().model_dump(), "distillation": {"weight": 1}})
    values = {task.loss(network(0).eval(), batch, one)[0].item() for _ in range(2)}  # dropout would differ
    assert len(values) == 1
    itself = network(0)
    assert (
        float(Distilled(task_of(CLASSIFICATION), copy.deepcopy(itself)).loss(itself.eval(), batch, one)[0])
        < 1e-6
    )


def test_without_a_teacher_it_is_refused():
    with pytest.raises(ShrinkbenchError, match="learns from a teacher, and there is none; pass teacher="):
        train(network(), recipe(distillation={}), Blobs(), seed=0)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_mean_is_that_of_the_last_epochs(stopped, tmp_path):
    module, path = network(), tmp_path / "checkpoint.pt"
    fields = recipe(averaging={"epochs": 2}, **LAST)
    if stopped:
        train(network(), fields, Blobs(), seed=0, checkpoint=path, last_epoch=3)
        torch.manual_seed(9)  # another draw: all comes from the checkpoint
    train(module, fields, Blobs(), seed=0, checkpoint=path)
    ends = []
    for last in (3, 4):
        twin = network()
        train(twin, recipe(**LAST), Blobs(), seed=0, last_epoch=last)
        ends.append(dict(twin.named_parameters()))
    for name, p in module.named_parameters():
        mean = (ends[0][name].detach().double() + ends[1][name].detach().double()) / 2
        assert torch.equal(p.detach(), mean.float())
    seen = []
    handle = module[0].register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    generator = torch.Generator()
    from shrinkbench.seeds import stream

    generator.manual_seed(stream(0, "data", "averaging"))
    batches = list(
        task_of(CLASSIFICATION).training_batches(Blobs().train(16, generator=generator, augment=True))
    )
    with torch.no_grad():
        for batch in batches:
            module[0](batch.inputs.single)
    handle.remove()
    torch.testing.assert_close(module[1].running_mean, torch.stack([o.mean(0) for o in seen]).mean(0))


@pytest.mark.parametrize(
    "fields",
    [
        {"averaging": {"epochs": 5}, **LAST},
        {"averaging": {"epochs": 2}, "selection": "best-validation"},
        {"averaging": {"epochs": 1}, **LAST},
        {"distillation": {"temperature": 0}},
        {"distillation": {"weight": 1.5}},
        {"distillation": {"weight": 0}},
        {"distillation": {"temperature": float("nan")}},
        {"distillation": {"temperature": float("inf")}},
        {"distillation": {"teacher": "x"}},
    ],
)
def test_values_that_mean_nothing_are_refused_in_a_sentence(fields):
    with pytest.raises(ShrinkbenchError) as caught:
        parse_value(Recipe, {**recipe().model_dump(), **fields}, where="recipe 'test'")
    assert len(str(caught.value)) < 300


def test_recipes_and_modes_without_them_have_no_entry():
    assert not {"distillation", "averaging"} & recipe().model_dump().keys()
    assert "step" not in FINETUNINGS.get("rewind-weights-3").spec.model_dump()
    assert FINETUNINGS.get("rewind-weights-step-7").spec.model_dump()["step"] == 7


def test_batches_of_the_first_epoch_are_passed_over():
    steps = []

    class Counting:
        settled = True
        beside = ()

        def __getattr__(self, name):
            return (lambda *_: steps.append(1)) if name == "after_step" else (lambda *_: {})

    training = train(network(), recipe(), Blobs(), seed=0, hooks=[Counting()], first_epoch=3, passed_over=2)
    assert len(steps) == 2 * 4 - 2  # 65 examples in batches of 16, the last of one joined to the one before
    assert [record.epoch for record in training.epochs] == [3, 4]


def run(root, **fields):
    base = {
        "name": "test",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["global_magnitude"],
        "compression": [1, 4],
        "train_images": 200,
        "test_images": 100,
        "pretrain": {"epochs": 3},
        "finetune": {"epochs": 2, "selection": "last", "early_stopping": None},
    }
    sweep(parse_value(ExperimentSpec, {**base, **fields}, where="test"), root, device="cpu")
    results, problems = ResultStore(root).results()
    assert not problems
    return {(r.spec.method.name, r.spec.target, r.spec.recipe.distillation is not None): r for r in results}


@pytest.mark.slow
def test_in_a_sweep_controls_are_trained_alike_and_rewinding_takes_the_steps_that_are_left(tmp_path):
    plain = run(tmp_path)
    finetune = {"epochs": 2, "selection": "last", "early_stopping": None}
    taught = run(
        tmp_path,
        finetune={**finetune, "distillation": {"temperature": 2.0, "weight": 0.9}, "averaging": {"epochs": 2}},
        method=["global_magnitude", "global_magnitude[finetuning=rewind-weights-step-5]"],
    )
    assert plain.keys() < taught.keys()
    assert all(r.status == "done" for r in taught.values())
    one, other = (taught["global_magnitude", 4.0, flag] for flag in (False, True))
    assert one.spec.key != other.spec.key
    assert one.after["loss"] != other.after["loss"]
    assert other.spec.control.recipe.distillation == other.spec.recipe.distillation
    assert other.cost.retraining.multiply_adds > one.cost.retraining.multiply_adds
    rewound = taught["global_magnitude[finetuning=rewind-weights-step-5]", 4.0, False]
    assert [e.epoch for e in rewound.epochs] == [2, 3]  # 200 images in batches of 64: 4 steps an epoch


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        (
            {"method": "rigl", "finetune": {"averaging": {"epochs": 2}}},
            None,
        ),  # trains by the pretraining recipe
        ({"method": "gradual_magnitude", "finetune": {"averaging": {"epochs": 2}}}, "changes masks while"),
        ({"pretrain": {"epochs": 3, "distillation": {}}}, "has no teacher; set finetune.distillation"),
        ({"weights": "random", "finetune": {"distillation": {}}}, "is not trained before it is pruned"),
        ({"method": "global_magnitude[finetuning=rewind-weights-step-1000000]"}, "choose an earlier step"),
    ],
)
def test_plans_that_mean_nothing_are_refused(fields, match, tmp_path):
    base = {"epochs": 2, "selection": "last", "early_stopping": None}
    fields = {**fields, "finetune": {**base, **fields.get("finetune", {})}, "compression": [4]}
    if match is not None:
        with pytest.raises(ShrinkbenchError, match=match):
            run(tmp_path, **fields)
        return
    (result,) = run(tmp_path, **fields).values()
    assert result.spec.recipe.averaging is None


def test_what_a_recipe_has_is_taken_away_by_a_word():
    """A file of TOML has no null: averaging would be out of reach for recipes that stop early."""
    stops = RECIPES.get("digits-finetune")
    assert stops.early_stopping is not None
    averaged = with_overrides(
        stops, {"averaging": {"epochs": 2}, "selection": "last", "early_stopping": "none"}
    )
    assert averaged.early_stopping is None
    for name in ("averaging", "distillation", "clip_gradient_norm", "largest_stretch"):
        assert getattr(with_overrides(averaged, {name: "none"}), name) is None
    with pytest.raises(ShrinkbenchError, match=r"averaging is of the last epochs; .* early_stopping = 'none'"):
        with_overrides(stops, {"averaging": {"epochs": 2}})
    with pytest.raises(ShrinkbenchError, match="epochs = 'none'"):
        with_overrides(stops, {"epochs": "none"})
