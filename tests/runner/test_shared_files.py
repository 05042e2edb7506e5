"""Every kind of file that runs share: whole as the runner writes it, told where it is damaged or in the way."""

import os
import shutil

import pytest

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import verify_store
from shrinkbench.runner import sweep
from shrinkbench.runner.executors import InProcess
from shrinkbench.spec import ExperimentSpec, parse_value

TICKET = "lottery_ticket[finetuning=rewind-weights-1]"
METHODS = [
    "global_magnitude[finetuning=rewind-weights-step-3]",
    TICKET,
    f"random@{TICKET}",
    "network_slimming",
]
TINY = {
    "name": "shared",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": METHODS,
    "compression": [1.5, 2],
    "seed": [0],
    "train_images": 64,
    "validation_images": 32,
    "test_images": 32,
    "keep": "weights",
    "pretrain": {"epochs": 2, "batch_size": 16},
    "finetune": {"epochs": 1},
}
KINDS = {
    *(f"pretrained/{name}" for name in ("weights.safetensors", "card.json", "epoch-1.safetensors")),
    *("pretrained/step-3.safetensors", "pretrained/step-3.json", "rounds/card.json"),
    *(f"{kind}/{name}" for kind in ("search", "states") for name in ("weights.safetensors", "card.json")),
    *(f"{kind}/masks.safetensors" for kind in ("search", "states", "control")),
    *(f"control/{name}" for name in ("result.json", "weights.safetensors", "network.json")),
}


def tiny(**fields):
    return parse_value(ExperimentSpec, {**TINY, **fields}, where="test")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with every kind of file that runs share."""
    root = tmp_path_factory.mktemp("shared") / "made"
    status = sweep(tiny(compression=[1, 1.5, 2]), root, device="cpu")
    assert (status.failed, status.missing) == (0, 0)
    return root


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def first(root, place):
    kind, name = place.split("/")
    return sorted(root.glob(f"shared/{kind}/*/{name}"))[0]


def test_all_that_the_runner_writes_is_whole(made):
    found = {f"{p.parent.parent.name}/{p.name}" for p in made.glob("shared/*/*/*") if p.name != "log.txt"}
    assert found == KINDS
    assert verify_store(ResultStore(made)) == []


def test_each_that_is_damaged_is_named(root):
    for place in sorted(KINDS):
        path = first(root, place)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        assert path in [problem.path for problem in verify_store(ResultStore(root))], place
        path.write_bytes(content)


def _file(path):
    shutil.rmtree(path)
    path.write_text("x")


def _folder(path):
    path.unlink()
    path.mkdir()


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _loop(path):
    path.unlink()
    path.symlink_to(path.name)


def _again(root, method):
    """The same runs with their results gone."""
    shutil.rmtree(root / "runs")
    (root / "index.jsonl").unlink()
    return tiny(method=method, keep="none")


IN_THE_WAY = {
    "shared": (_file, "shared", METHODS),
    "pretrained": (_file, "shared/pretrained", METHODS),
    "search": (_file, "shared/search/*", ["network_slimming"]),
    "rounds": (_file, "shared/rounds/*", METHODS[1:3]),
    "states": (_file, "shared/states/*", METHODS[1:2]),
    "card": (_folder, "shared/states/*/card.json", METHODS[1:2]),
    "pipe": (_pipe, "shared/pretrained/*/step-3.safetensors", METHODS[:1]),
    "loop": (_loop, "shared/pretrained/*/weights.safetensors", METHODS[:1]),
}


@pytest.mark.parametrize("case", IN_THE_WAY)
def test_what_is_in_the_way_is_told_before_anything_runs(root, case):
    put, place, method = IN_THE_WAY[case]
    path = sorted(root.glob(place))[0]
    experiment = _again(root, method)
    plan = (root / "plan.json").read_bytes()
    put(path)
    with pytest.raises(ShrinkbenchError, match="belongs; move it away") as error:
        sweep(experiment, root, device="cpu")
    assert str(path.relative_to(root)) in str(error.value)
    assert not (root / "runs").exists()
    assert (root / "plan.json").read_bytes() == plan
    assert path in [problem.path for problem in verify_store(ResultStore(root))]


@pytest.mark.parametrize("case", sorted(IN_THE_WAY))
def test_what_gets_in_the_way_later_fails_no_run(root, case, monkeypatch):
    put, place, method = IN_THE_WAY[case]
    path = sorted(root.glob(place))[0]
    experiment = _again(root, method)

    class Late(InProcess):
        def start(self, setting, *, tasks):
            put(path)
            super().start(setting, tasks=tasks)

    notes = []
    try:
        sweep(experiment, root, device="cpu", executor=Late(), max_retries=0, on_note=notes.append)
    except ShrinkbenchError as error:
        notes.append(str(error))
    results, problems = ResultStore(root).results()
    assert not problems
    assert [r.error for r in results if r.status == "failed"] == []
    assert any("could not be carried out" in note for note in notes) or len(results) == 2 * len(method)
