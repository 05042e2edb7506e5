"""One walk through everything that touches tensors, on whatever device it is given.

``test_other_device`` takes it without a GPU, ``test_cuda`` on one. Each step raises where a tensor is on the
wrong device, and asserts that what it gives lies where the network lies.
"""

import copy
import itertools
import warnings

import torch
from made_networks import make_kind
from sample_networks import ConvNet, ViT, batches, seeded
from torch import nn
from torch.nn import functional as F

from shrinkbench.errors import CannotMeetTargetError, ShrinkbenchError
from shrinkbench.metrics import layer_densities, measure_size
from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.metrics.patterns import kernel_pattern, layer_widths
from shrinkbench.pruning import METHODS, Masks, Pruner, Upholder, hook_for, prune, restart
from shrinkbench.pruning.amounts import amount_of
from shrinkbench.pruning.finetunings import FINETUNINGS
from shrinkbench.runner.execution import run
from shrinkbench.runner.planning import plan
from shrinkbench.runner.smaller import Trained, smaller_or_why
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import EarlyStopping, ExperimentSpec, Recipe, parse_value
from shrinkbench.surgery.checking import largest_difference
from shrinkbench.surgery.correspondence import SmallerNetwork
from shrinkbench.surgery.latency import prune_to_latency
from shrinkbench.surgery.shrinking import shrink
from shrinkbench.tasks import Classification, Metric, Supervised
from shrinkbench.training import evaluate, train

SHAPE, EPOCHS, STEPS, SEED = (3, 8, 8), 3, 3, 3
NETWORKS = {"convolutional": ConvNet, "transformer": ViT}
OWN = [name for name in METHODS if METHODS.origin(name) is None and not name.startswith("doctest_")]
DURING = [name for name in OWN if METHODS.get(name).schedule.during is not None]


class Pictures:
    """Random images of four classes on a device; the order is drawn on the CPU."""

    def __init__(self, device, count=24):
        self.inputs, self.labels = (part.to(device) for part in batches(1, count)[0])

    def train(self, batch_size, *, generator, augment):
        for rows in torch.randperm(len(self.labels), generator=generator).split(batch_size):
            yield self.inputs[rows], self.labels[rows]

    def validation(self):
        yield self.inputs[:16], self.labels[:16]

    def test(self):
        yield self.inputs, self.labels


def recipe(**fields):
    base = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.01, "batch_size": 8, "epochs": EPOCHS}
    return Recipe(name="walk", reference="shrinkbench", **{**base, **fields})


def place(make, device, *, memory_format=torch.contiguous_format):
    return seeded(make).to(device).to(memory_format=memory_format)


def require_there(device, tensors):
    kind = torch.device(device).type
    strays = [name for name, tensor in tensors.items() if tensor.device.type != kind]
    assert not strays, f"not on {device}: {strays}"


def decide(name, device):
    """Masks of a method for both sample networks, where it takes them; refusals are equal on every device."""
    found = {}
    for kind, make in NETWORKS.items():
        for asked in (2.2, 1.15):
            module = place(make, device)
            amount = {"compression": asked} if METHODS.get(name).amount is None else {}
            try:
                masks = prune(
                    module,
                    name,
                    batches=batches(2, 4),
                    generator=torch.Generator().manual_seed(0),
                    one_shot=True,
                    **amount,
                )
            except CannotMeetTargetError:
                continue
            except ShrinkbenchError as error:
                found[kind] = str(error)
                break
            require_there(device, masks)
            require_there(device, masks.new_weights)
            masks.apply(module)
            require_there(device, module.state_dict())
            assert all(not module.get_parameter(n)[~m].any() for n, m in masks.items())
            Quick(device).require_finite(module)
            found[kind] = masks
            break
    return found


class Chain(nn.Sequential):
    """Every convolution is read by one other alone."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 4),
        )


class Quick:
    """What the steps ask of a network again and again."""

    def __init__(self, device):
        self.inputs = batches(1, 4)[0][0].to(device)

    def require_finite(self, module):
        with torch.no_grad():
            assert bool(module.eval()(self.inputs).isfinite().all())


class Stopped(BaseException):
    """A training is killed after an epoch."""


def train_and_resume(name, device, tmp_path):
    """Every training that prunes is killed on one device after its first epoch, and goes on on the other."""
    for number, (first, second) in enumerate(itertools.permutations((device, "cpu"))):
        checkpoint = tmp_path / f"{name}-{number}.pt"
        train_with(name, first, checkpoint, stop=True)
        assert checkpoint.exists()
        module, hook = train_with(name, second, checkpoint)
        require_there(second, module.state_dict())
        require_there(second, hook.masks)
        assert all(not module.get_parameter(n)[~m].any() for n, m in hook.masks.items())


def train_with(name, device, checkpoint, *, stop=False):
    method, data = METHODS.get(name), Pictures(device)
    # Every channel of the convolutional one is in a stream, or read by several layers.
    module = place(ViT if method.structure.name == "chained-channels" else ConvNet, device)
    hook = hook_for(
        module,
        method,
        amount=amount_of(method, compression=2.0 if name in WEIGHTS else 1.1),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        seed=SEED,
        input_shape=SHAPE,
        batches=lambda generator: data.train(8, generator=generator, augment=False),
    )

    def after_epoch(record):
        if stop:
            raise Stopped

    try:
        train(
            module,
            recipe(selection="best-validation"),
            data,
            seed=1,
            hooks=[hook],
            checkpoint=checkpoint,
            on_epoch=after_epoch,
        )
    except Stopped:
        return None
    return module, hook


WEIGHTS = {name for name in OWN if METHODS.get(name).structure.name == "weights"}


def fine_tune(device, tmp_path, **fields):
    """Masked training by every optimizer, killed on one device and resumed on the other."""
    for number, (first, second) in enumerate(itertools.permutations((device, "cpu"))):
        path = tmp_path / f"{number}-{fields.get('optimizer', 'sgd')}.pt"
        settings = recipe(
            selection="best-validation",
            early_stopping=EarlyStopping(patience=3),
            clip_gradient_norm=1.0,
            label_smoothing=0.1,
            **fields,
        )

        def stop(record):
            raise Stopped

        for place_, on_epoch in ((first, stop), (second, None)):
            module = place(ConvNet, place_)
            masks = prune(module, "global_magnitude", compression=3, input_shape=SHAPE)
            masks.apply(module)
            try:
                train(
                    module,
                    settings,
                    Pictures(place_),
                    seed=2,
                    hooks=[Upholder(module, masks)],
                    checkpoint=path,
                    on_epoch=on_epoch,
                )
            except Stopped:
                continue
            require_there(second, module.state_dict())
            assert all(not module.get_parameter(n)[~m].any() for n, m in masks.items())


def move_upheld_masks(device, tmp_path):
    """Masks that were found on the CPU are upheld on the device, and the other way round."""
    for first, second in itertools.permutations((device, "cpu")):
        module = place(ConvNet, first)
        masks = prune(module, "global_magnitude", compression=3, input_shape=SHAPE)
        uphold = Upholder(module, masks)
        module.to(second)
        with torch.no_grad():
            module.fc.weight.add_(1)
        uphold()
        masks.apply(module)
        assert not module.fc.weight[~masks["fc.weight"].to(second)].any() if "fc.weight" in masks else True
        again = prune(module, "global_magnitude", compression=4, input_shape=SHAPE, masks=masks)
        require_there(second, again)


def follow_a_loop(device, tmp_path):
    """A Pruner in a loop of somebody's own, whose state is saved on one device and read on the other."""
    for name in ("gradual_magnitude", "rigl", "movement", "soft_filter_pruning", "iterative_magnitude"):
        for first, second in itertools.permutations((device, "cpu")):
            saved = None
            for where, steps in ((first, 4), (second, 5)):
                module, data = place(ConvNet, where), Pictures(where)
                draw = list(data.train(8, generator=torch.Generator().manual_seed(0), augment=False))
                pruner = Pruner(
                    module,
                    name,
                    total_steps=9,
                    steps_per_epoch=3,
                    compression=1.5,
                    batches=draw,
                    input_shape=SHAPE,
                )
                optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
                if saved is not None:
                    module.load_state_dict(saved[0])
                    pruner.load_state_dict(saved[1])
                pruner.attach(optimizer)
                if saved is not None:
                    optimizer.load_state_dict(saved[2])
                for inputs, labels in itertools.islice(itertools.cycle(draw), steps):
                    F.cross_entropy(module(inputs), labels).backward()
                    optimizer.step()
                    optimizer.zero_grad()
                path = tmp_path / "pruner.pt"
                torch.save([module.state_dict(), pruner.state_dict(), optimizer.state_dict()], path)
                saved = torch.load(path, map_location="cpu", weights_only=True)
            masks = pruner.finish()
            assert all(not module.get_parameter(n)[~m.to(second)].any() for n, m in masks.items())


def restart_from_the_cpu(device, tmp_path):
    """Every fine-tuning mode, with weights that come from a file and so from the CPU."""
    for name in FINETUNINGS:
        mode, module = FINETUNINGS.get(name), place(ConvNet, device)
        masks = prune(module, "filter_l1", compression=1.5, input_shape=SHAPE)
        restart(mode, module, masks, seeded(ConvNet, 1).state_dict())
        require_there(device, module.state_dict())


def evaluate_tasks(device, tmp_path):
    """Classification, a regression of one's own, and the count of every size."""
    module, data = place(ConvNet, device), Pictures(device)
    quality = evaluate(module, data.test())
    there = evaluate(seeded(ConvNet), Pictures("cpu").test())
    assert abs(quality["loss"] - there["loss"]) < 1e-2
    task = Supervised(F.cross_entropy, {"error": Metric(lambda y, t: (y.argmax(1) != t).float(), "lower")})
    train(module, recipe(epochs=1), data, seed=0, task=task)
    evaluate(module, data.test(), task=task)
    assert Classification().evaluate(module, data.test()).examples == 24
    masks = prune(module, "filter_l1", compression=1.5, input_shape=SHAPE)
    size = measure_size(module, SHAPE, masks)
    here = copy.deepcopy(module).cpu()
    assert size == measure_size(here, SHAPE, Masks({n: m.cpu() for n, m in masks.items()}))
    layer_densities(module, masks)
    require_there(device, module.state_dict())


def cut(device, tmp_path):
    """Surgery on the device computes what the masked network computes; the copy lies where the network lies."""
    for make, name in (
        (ConvNet, "channel_l1"),
        (ConvNet, "filter_l1"),
        (Chain, "thinet"),
        (Chain, "channel_regression"),
        (ViT, "head_magnitude"),
        (ViT, "neuron_magnitude"),
    ):
        module = place(make, device)
        masks = decide_once(module, name)
        masks.apply(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = shrink(module, masks, SHAPE)
        require_there(device, small.state_dict())
        assert largest_difference(module, small, SHAPE) < 1e-6
        assert measure_size(small, SHAPE, Masks({})).parameters <= measure_size(module, SHAPE, masks).parameters


def decide_once(module, name):
    for asked in (1.5, 1.15, 1.05):
        try:
            return prune(module, name, compression=asked, batches=batches(2, 4), one_shot=True)
        except CannotMeetTargetError:
            continue
    raise AssertionError(f"{name} reaches nothing")


def cut_made_networks(device, tmp_path):
    """Networks with every kind of coupling."""
    for name in ("u-net", "squeeze-and-excite", "swiglu", "grouped-query-attention", "two-towers"):
        module, shape = make_kind(name)
        module.to(device)
        masks = prune(module, "channel_l1", compression=1.1, input_shape=shape, one_shot=True)
        masks.apply(module)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            small = shrink(module, masks, shape)
        require_there(device, small.state_dict())


def take_time(device, tmp_path):
    """Wall times are of the device, and a search by them ends."""
    module = place(ConvNet, device)
    time_forward({"a": module}, SHAPE, Conditions(device=device), rounds=1, seconds_per_round=0.001)
    require_there(device, module.state_dict())
    masks = prune_to_latency(
        module, "channel_l1", 1.1, input_shape=SHAPE, measure=lambda masks: masks.total / masks.kept
    )
    require_there(device, masks)


def use_masks_of_a_file(device, tmp_path):
    """Masks from a file lie on the CPU, and everything takes them."""
    module = place(ConvNet, device)
    found = prune(module, "filter_l1", compression=1.5, input_shape=SHAPE)
    found.save(tmp_path / "masks.safetensors")
    masks = Masks.load(tmp_path / "masks.safetensors")
    assert masks.equal(found)
    assert found.equal(masks)
    assert masks.within(found)
    assert found.intersect(masks).equal(masks)
    assert measure_size(module, SHAPE, masks) == measure_size(module, SHAPE, found)
    layer_densities(module, masks)
    kernel_pattern(module, masks, SHAPE)
    restart(FINETUNINGS.get("scratch-e"), module, masks, seeded(ConvNet, 1).state_dict())
    require_there(device, shrink(module, masks, SHAPE).state_dict())
    module = place(ConvNet, device)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    masks.apply(module)
    Upholder(module, masks).attach(optimizer)
    F.cross_entropy(module(Pictures(device).inputs), Pictures(device).labels).backward()
    optimizer.step()
    assert measure_size(module, SHAPE, Masks.from_module(module)).parameters_kept < sum(
        p.numel() for p in module.parameters()
    )


def find_patterns(device, tmp_path):
    """Kernel patterns are counted."""
    module = place(ConvNet, device)
    masks = prune(module, "convolution_magnitude", compression=2, input_shape=SHAPE)
    kernel_pattern(module, masks, SHAPE)
    layer_widths(module, masks, SHAPE)


def train_smaller(device, tmp_path):
    """The smaller network is proven, drops what the whole one drops, is trained there and put back."""
    for make, method in ((ConvNet, "channel_l1"), (ViT, "head_magnitude")):
        module, data = place(make, device), Pictures(device)
        masks = prune(module, method, compression=1.2, input_shape=SHAPE)
        masks.apply(module)
        twin = copy.deepcopy(module)
        drawn = data.train(8, generator=torch.Generator().manual_seed(SEED), augment=False)
        found = smaller_or_why(twin, masks, recipe(), drawn, example=SHAPE)
        assert isinstance(found, SmallerNetwork), found
        require_there(device, found.module.state_dict())
        for trained in (Trained.masked(module, masks), Trained.smaller(found)):
            train(trained.module, recipe(selection="last"), data, seed=SEED, hooks=trained.hooks)
        found.write_back(twin)
        require_there(device, twin.state_dict())
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(twin.get_parameter(name), parameter, atol=1e-4, rtol=1e-3)


STEPS_OF_WALK = {
    step.__name__: step
    for step in (
        move_upheld_masks,
        follow_a_loop,
        restart_from_the_cpu,
        evaluate_tasks,
        cut,
        cut_made_networks,
        train_smaller,
        take_time,
        find_patterns,
        use_masks_of_a_file,
    )
}


RUNS = {
    "rewound": {"method": "weight_rewinding[finetuning=rewind-weights-0]", "compression": 2},
    "equal computation": {"method": "filter_l1[finetuning=scratch-b]", "compression": 1.5},
    "learning rate rewound": {"method": "learning_rate_rewinding", "compression": 1.3},
    "grown": {"method": "rigl", "compression": 2},
    "slimmed": {"method": "network_slimming", "channels": 0.5},
    "reconstructed": {"method": "sparsegpt", "compression": 2},
    "timed": {"method": "channel_l1", "compression": 1.5, "latency": [2]},
    "bf16": {"method": "global_gradient", "compression": 2, "precision": "bf16-mixed"},
    "control": {"method": "random", "compression": 1},
}


def carry_out(fields, device, root):
    """A whole run on the digits, as a sweep carries it out."""
    fields = dict(fields)
    training = {"epochs": 1, "precision": fields.pop("precision", "float32")}
    experiment = parse_value(
        ExperimentSpec,
        {
            "name": "walk",
            "dataset": "digits",
            "model": "digits-cnn",
            "pretrain": {**training, "epochs": 2},
            "finetune": training,
            "train_images": 64,
            "validation_images": 20,
            "test_images": 20,
            "seed": 0,
            **fields,
        },
        where="walk",
    )
    workspace = Workspace(root, device=device, latency=tuple(fields.get("latency", ())))
    (spec,) = plan(experiment, workspace).runs
    result = run(spec, workspace)
    assert result.status == "done", result.error
    return result
