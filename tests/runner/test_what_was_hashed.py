"""A run reads what its key says: weights, images and further splits that were replaced since are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from shrinkbench.errors import InputError, ShrinkbenchError
from shrinkbench.models import build, load_weights, locate_weights
from shrinkbench.pruning import save_tensors
from shrinkbench.results.store import ResultStore
from shrinkbench.runner import workspace as workspaces
from shrinkbench.runner.execution import run
from shrinkbench.runner.executors import InProcess
from shrinkbench.runner.planning import plan
from shrinkbench.runner.pretraining import initial_network
from shrinkbench.runner.sweeping import carry_out, opener, prepare_sweep, store_plan
from shrinkbench.runner.workspace import BoundData, Workspace
from shrinkbench.spec import ExperimentSpec


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    """An own cache, and no dataset loaded before: as a worker process starts."""
    monkeypatch.setenv("SHRINKBENCH_CACHE", str(tmp_path / "cache"))
    forget()
    yield
    forget()


def forget():
    workspaces._load.cache_clear()
    workspaces._load_extra.cache_clear()


def experiment(**fields):
    return ExperimentSpec(
        **{
            "name": "swapped",
            "dataset": "digits",
            "model": "digits-cnn",
            "weights": "random",
            "method": "random",
            "compression": 2,
            "train_images": 20,
            "test_images": 20,
            "finetune": {"epochs": 0},
            **fields,
        }
    )


def write_weights(path, seed):
    save_tensors(build("digits-cnn", num_classes=10, seed=seed).state_dict(), path)


def write_mnist(folder, seed):
    random = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 240), ("t10k", 40)):
        for kind, values in (
            ("images-idx3", random.integers(0, 256, (count, 28, 28), dtype=np.uint8)),
            ("labels-idx1", (np.arange(count) % 10).astype(np.uint8)),
        ):
            header = bytes((0, 0, 8, values.ndim)) + b"".join(n.to_bytes(4, "big") for n in values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + values.tobytes())


def test_weights_replaced_after_the_plan_are_refused(tmp_path):
    file = tmp_path / "w.safetensors"
    write_weights(file, 0)
    workspace = Workspace(root=tmp_path / "out")
    planned = plan(experiment(weights=str(file)), workspace)
    workspace = Workspace(root=tmp_path / "out", weights=planned.weights)
    (spec,) = planned.runs
    data = BoundData(workspace.dataset("digits"), spec.data, "cpu")
    initial_network(spec, workspace, data)
    write_weights(file, 1)
    with pytest.raises(ShrinkbenchError, match=r"w\.safetensors has changed since the run.*put the"):
        initial_network(spec, workspace, data)
    with pytest.raises(InputError, match="has changed since the run was planned"):
        run(spec, workspace)
    assert not ResultStore(workspace.root).has(spec.key)
    file.unlink()
    with pytest.raises(InputError, match="there is no weights file"):
        run(spec, workspace)
    write_weights(file, 0)
    initial_network(spec, workspace, data)


def swap_weights(path, there):
    write_weights(path / "w.safetensors", 0) if there else write_weights(path / "w.safetensors", 1)


def lose_weights(path, there):
    write_weights(path / "w.safetensors", 0) if there else (path / "w.safetensors").unlink()


def swap_data(path, there):
    write_mnist(path / "mnist", 0 if there else 1)


def lose_data(path, there):
    write_mnist(path / "mnist", 0) if there else shutil.rmtree(path / "mnist")


OF_FILE = {"weights": "w.safetensors"}
OF_FOLDER = {"dataset": "mnist", "model": "lenet-300-100"}


@pytest.mark.parametrize(
    ("change", "fields"),
    [(swap_weights, OF_FILE), (lose_weights, OF_FILE), (swap_data, OF_FOLDER), (lose_data, OF_FOLDER)],
)
def test_what_an_input_is_replaced_by_is_told_and_the_run_is_done_when_it_is_back(tmp_path, change, fields):
    """Nothing is stored of a run whose input is not as planned, and the same command carries it out later."""
    change(tmp_path, there=True)
    fields = {name: str(tmp_path / v) if name == "weights" else v for name, v in fields.items()}
    prepared = prepare_sweep(experiment(**fields), tmp_path / "out", data={"mnist": tmp_path / "mnist"})
    store_plan(prepared, device="cpu")
    store, told = ResultStore(tmp_path / "out"), []
    (spec,) = prepared.todo

    def go_on():
        forget()
        open_now = opener(prepared.setting.workspace, retry_failed=False)
        todo = tuple(filter(open_now, prepared.todo))
        carry_out(todo, prepared.setting, InProcess(), is_open=open_now, max_retries=0, on_note=told.append)

    change(tmp_path, there=False)
    go_on()
    assert not store.has(spec.key)
    assert len(told) == 1
    assert "could not be carried out, and is missing: " in told[0]
    change(tmp_path, there=True)
    go_on()
    assert store.read(spec.key).status == "done"


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_bytes_that_are_loaded_are_those_that_were_hashed(tmp_path, monkeypatch, suffix):
    """The file changes between finding its digest and reading it."""
    import torch

    file = tmp_path / f"w{suffix}"
    states = [build("digits-cnn", num_classes=10, seed=seed).state_dict() for seed in (0, 1)]
    write = (lambda s: save_tensors(s, file)) if suffix == ".safetensors" else (lambda s: torch.save(s, file))
    write(states[0])

    def locate_and_swap(*arguments, **named):
        found = locate_weights(*arguments, **named)
        write(states[1])
        return found

    module = build("digits-cnn", num_classes=10, seed=2)
    load_weights(module, file)
    monkeypatch.setattr("shrinkbench.models.weights.locate_weights", locate_and_swap)
    with pytest.raises(ShrinkbenchError, match="has changed"):
        load_weights(module, file)


def test_a_dataset_replaced_before_the_worker_starts_is_refused(tmp_path):
    write_mnist(tmp_path / "mnist", 0)
    workspace = Workspace(root=tmp_path / "out", data={"mnist": tmp_path / "mnist"})
    (spec,) = plan(experiment(dataset="mnist", model="lenet-300-100"), workspace).runs
    BoundData(workspace.dataset("mnist"), spec.data, "cpu")
    write_mnist(tmp_path / "mnist", 1)
    forget()
    with pytest.raises(ShrinkbenchError) as caught:
        BoundData(workspace.dataset("mnist"), spec.data, "cpu")
    sentence = str(caught.value)
    assert sentence.startswith("the dataset 'mnist' has changed since the run was planned")
    assert spec.data.revision[:12] in sentence
    assert workspace.dataset("mnist").revision[:12] in sentence
    assert "put the old data back" in sentence
    assert len(sentence) < 300


def test_data_that_its_file_draws_anew_each_time_is_told_to_be_seeded(tmp_path):
    file = tmp_path / "drawn_anew.py"
    file.write_text(
        "import numpy as np\n\n\ndef make():\n"
        "    images, labels = np.random.rand(40, 1, 8, 8).astype('float32'), np.arange(40) % 10\n"
        "    return (images, labels), (images, labels)\n"
    )
    workspace = Workspace(root=tmp_path / "out")
    (spec,) = plan(experiment(dataset=f"{file}:make"), workspace).runs
    forget()
    with pytest.raises(ShrinkbenchError, match="or seed what its file draws at random") as caught:
        BoundData(workspace.dataset(spec.data.name), spec.data, "cpu")
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_parquet_replaced_before_the_worker_starts_is_refused(tmp_path, parquet):
    shutil.copytree(parquet[0], tmp_path / "data")
    workspace = Workspace(root=tmp_path / "out", data={"parquet": tmp_path / "data"})
    (spec,) = plan(experiment(dataset="parquet", model="resnet20"), workspace).runs
    BoundData(workspace.dataset("parquet"), spec.data, "cpu")
    shutil.copy(parquet[1] / "train.parquet", tmp_path / "data" / "train.parquet")
    forget()
    with pytest.raises(ShrinkbenchError, match="the dataset 'parquet' has changed since the run was planned"):
        BoundData(workspace.dataset("parquet"), spec.data, "cpu")


@pytest.fixture
def parquet(tmp_path):
    """Two folders that differ in one pixel."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    folders = []
    for copy in range(2):
        folder = tmp_path / f"parquet-{copy}"
        folder.mkdir()
        for part, count in (("train", 40), ("test", 20)):
            pixels = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            pixels[0, 0, 0, 0] = copy
            cells = []
            for image in pixels:
                stream = io.BytesIO()
                Image.fromarray(image).save(stream, format="PNG")
                cells.append({"bytes": stream.getvalue()})
            table = pa.table({"image": cells, "label": [i % 2 for i in range(count)]})
            pq.write_table(table, folder / f"{part}.parquet")
        folders.append(folder)
    return folders


def test_a_further_split_replaced_after_the_plan_is_refused(tmp_path):
    def write(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        np.save(tmp_path / "cifar10.1_v6_data.npy", pixels)
        np.save(tmp_path / "cifar10.1_v6_labels.npy", np.arange(20) % 10)

    write(0)
    workspace = Workspace(root=tmp_path / "out", data={"cifar10.1": Path(tmp_path)})
    planned = workspace.extra("cifar10.1").revision
    write(1)
    workspace.extra("cifar10.1", revision=planned)  # loaded before: what was hashed is what is used
    forget()
    with pytest.raises(ShrinkbenchError, match=r"extra evaluation 'cifar10\.1' has changed since"):
        workspace.extra("cifar10.1", revision=planned)
