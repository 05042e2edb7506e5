"""The walk on a GPU, and what there is on a GPU alone. Without one everything here is skipped.

    python -m pytest tests/test_cuda.py

takes about a minute.
"""

import gc

import device_walk
import pytest
import torch
from device_walk import Pictures, place, recipe, require_there
from sample_networks import ConvNet, batches, seeded
from torch import nn

from shrinkbench.metrics.latency import Conditions, time_forward
from shrinkbench.pruning import METHODS, Upholder, prune
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import sweep
from shrinkbench.runner.repeatable import compute_repeatably
from shrinkbench.spec import ExperimentSpec, parse_value
from shrinkbench.training import evaluate, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize("name", device_walk.OWN)
def test_masks(name):
    """Equal to those of the CPU where nothing is computed from data, up to rounding elsewhere."""
    there, here = device_walk.decide(name, "cuda"), device_walk.decide(name, "cpu")
    assert there.keys() == here.keys()
    spec = METHODS.get(name).spec
    alike = spec.score.kind in ("magnitude", "random") and not spec.score.needs
    for kind, masks in here.items():
        if isinstance(masks, str):
            assert there[kind] == masks
            continue
        assert there[kind].keys() == masks.keys()
        if alike:
            assert all(torch.equal(there[kind][n].cpu(), mask) for n, mask in masks.items())


@pytest.mark.parametrize("name", device_walk.DURING)
def test_a_training_that_prunes_goes_on_on_another_device(name, tmp_path):
    device_walk.train_and_resume(name, "cuda", tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fine_tuning_goes_on_on_another_device(optimizer, precision, tmp_path):
    device_walk.fine_tune("cuda", tmp_path, optimizer=optimizer, precision=precision)


@pytest.mark.parametrize("step", device_walk.STEPS_OF_WALK)
def test_step(step, tmp_path):
    device_walk.STEPS_OF_WALK[step]("cuda", tmp_path)


@pytest.mark.parametrize("name", device_walk.RUNS)
def test_run(name, tmp_path):
    result = device_walk.carry_out(device_walk.RUNS[name], "cuda", tmp_path)
    assert result.provenance.device == torch.cuda.get_device_name()
    if name == "timed":
        assert result.provenance.latency


@pytest.mark.parametrize("precision", ["float32", "bf16-mixed"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_training_learns_under_masks_in_every_layout(memory_format, precision):
    """Loss falls, zeros stay zeros, weights stay in full precision and in their layout."""
    module = place(ConvNet, "cuda", memory_format=memory_format)
    masks = prune(module, "global_magnitude", compression=2, input_shape=device_walk.SHAPE)
    masks.apply(module)
    data = Pictures("cuda")
    before = evaluate(module, data.test(), precision=precision)["loss"]
    settings = recipe(epochs=20, learning_rate=0.05, precision=precision)
    train(module, settings, data, seed=0, hooks=[Upholder(module, masks)])
    assert evaluate(module, data.test(), precision=precision)["loss"] < before
    assert all(not module.get_parameter(n)[~m].any() for n, m in masks.items())
    assert all(p.dtype == torch.float32 for p in module.parameters())
    assert module.stem.weight.is_contiguous(memory_format=memory_format)


def test_one_seed_gives_the_same_weights_again():
    found = []
    for _ in range(2):
        module = place(ConvNet, "cuda", memory_format=torch.channels_last)
        train(module, recipe(epochs=3), Pictures("cuda"), seed=5)
        found.append(module.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def compiled_training():
    """A network after 3 epochs of compiled steps, which are played from a CUDA graph."""
    compute_repeatably("cuda")
    module = place(ConvNet, "cuda", memory_format=torch.channels_last)
    masks = prune(module, "global_magnitude", compression=2, input_shape=device_walk.SHAPE)
    masks.apply(module)
    hooks = [Upholder(module, masks)]
    done = train(module, recipe(epochs=3), Pictures("cuda"), seed=5, hooks=hooks, compiled=True)
    assert done.uncompiled == ""
    assert all(not module.get_parameter(n)[~m].any() for n, m in masks.items())
    return module.state_dict()


def test_compiled_steps_give_the_weights_of_steps_as_they_are_and_the_same_again():
    first, again = compiled_training(), compiled_training()
    assert all(torch.equal(first[name], again[name]) for name in first)
    module = place(ConvNet, "cuda", memory_format=torch.channels_last)
    masks = prune(module, "global_magnitude", compression=2, input_shape=device_walk.SHAPE)
    masks.apply(module)
    train(module, recipe(epochs=3), Pictures("cuda"), seed=5, hooks=[Upholder(module, masks)])
    for name, value in module.state_dict().items():
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)


def test_trainings_that_share_a_program_hold_no_memory_of_each_other():
    """Each network lies elsewhere, and a graph is recorded for where it lies."""
    held = []
    for _ in range(12):
        compiled_training()
        gc.collect()
        held.append(torch.cuda.memory_allocated())
    assert held[-1] - held[3] < 1e6


def test_training_leaves_the_random_state_of_the_gpu():
    torch.cuda.manual_seed(3)
    before = torch.cuda.get_rng_state()
    train(place(ConvNet, "cuda"), recipe(epochs=1), Pictures("cuda"), seed=5)
    prune(place(ConvNet, "cuda"), "global_gradient", compression=2, batches=batches(1, 4))
    assert torch.equal(before, torch.cuda.get_rng_state())


@pytest.mark.parametrize("method", ["magnitude_2_4", "wanda_2_4", "sparsegpt_2_4"])
def test_masks_of_two_of_four_are_what_sparse_tensor_cores_take(method):
    torch.manual_seed(0)
    module = nn.Linear(128, 128, bias=False).cuda()
    data = [(torch.randn(64, 128), torch.randint(0, 128, (64,)))]
    masks = prune(
        module, method, compression=2, batches=data, input_shape=(128,), prune_classifier=True, one_shot=True
    )
    masks.apply(module)
    weight = module.weight.detach().half()
    sparse = torch.sparse.to_sparse_semi_structured(weight)
    assert torch.equal(sparse.to_dense(), weight)
    inputs = torch.randn(64, 128, device="cuda").half()
    expected = nn.functional.linear(inputs, weight).float()
    assert torch.allclose(nn.functional.linear(inputs, sparse).float(), expected, rtol=2e-2, atol=2e-2)


def test_wall_times_wait_for_the_gpu():
    """A larger batch of a larger network takes longer; without waiting both would be the time of a launch."""
    wide = nn.Sequential(*(nn.Conv2d(256, 256, 3, padding=1) for _ in range(8)))
    narrow = nn.Sequential(*(nn.Conv2d(256, 256, 3, padding=1) for _ in range(1)))
    times = time_forward(
        {"wide": wide, "narrow": narrow},
        (256, 64, 64),
        Conditions(batch_size=64, device="cuda"),
        rounds=3,
        seconds_per_round=0.05,
    )
    assert times["wide"].median > 4 * times["narrow"].median


def test_weights_of_one_device_are_read_on_the_other(tmp_path):
    module = place(ConvNet, "cuda")
    torch.save(module.state_dict(), tmp_path / "x.pt")
    other = seeded(ConvNet, 1)
    other.load_state_dict(torch.load(tmp_path / "x.pt", map_location="cpu", weights_only=True))
    require_there("cpu", other.state_dict())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_on_one_gpu(workers, tmp_path):
    fields = {
        "name": "gpu",
        "dataset": "digits",
        "model": "digits-cnn",
        "method": ["global_magnitude", "random"],
        "compression": [1, 4],
        "pretrain": {"epochs": 1},
        "finetune": {"epochs": 1},
        "train_images": 128,
        "seed": 0,
    }
    status = sweep(parse_value(ExperimentSpec, fields, where="test"), tmp_path, device="cuda", workers=workers)
    assert (status.done, status.failed, status.missing) == (status.total, 0, 0)
    results, _ = ResultStore(tmp_path).results()
    assert {result.provenance.device for result in results} == {torch.cuda.get_device_name()}
