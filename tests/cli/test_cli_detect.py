"""`shrinkbench detect`, as a person types it, on the made set."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest
import torch
from made_voc import classifier, write_voc
from typer.testing import CliRunner

from shrinkbench.cli.detect import app
from shrinkbench.datasets.voc_detection import DetectionData, read_voc
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.metrics import count_parameters
from shrinkbench.models import build, read_state_dict
from shrinkbench.network.coupling import couple
from shrinkbench.pruning import Masks
from shrinkbench.pruning.structures.channel_masks import masks_of_units
from shrinkbench.results.frame import to_frame
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import verify_store
from shrinkbench.runner import detection
from shrinkbench.runner.detection import DetectionRun, decide_by_masks, detect
from shrinkbench.surgery.folders import NetworkDescription, save_network
from shrinkbench.surgery.shrinking import plan_and_shrink
from shrinkbench.training import RECIPES

RESNET18 = 11_689_512
MODEL = "torchvision/resnet18"
QUICK = (
    "--set",
    "epochs=1",
    "--min-size",
    96,
    "--max-size",
    128,
    "--train-split",
    "two",
    "--test-split",
    "two",
    "--json",
)
TWICE = tuple("epochs=2" if word == "epochs=1" else word for word in QUICK)
pytestmark = pytest.mark.skipif(
    find_spec("torchmetrics") is None or find_spec("pycocotools") is None,
    reason="the extra 'detection' is not installed",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    voc = write_voc(tmp_path_factory.mktemp("voc"))
    (voc / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main" / "two.txt").write_text("000000\n000001")
    return voc


@pytest.fixture(scope="module")
def halving(tmp_path_factory):
    """Makes a file of masks that halve the group of a layer, and says how many weights they remove."""
    module = classifier()
    coupling = couple(module, (3, 64, 64))

    def halve(layer):
        group = coupling.group_of(layer)
        masks = masks_of_units(module, coupling, {group.layer: torch.arange(group.units) % 2 == 0})
        path = tmp_path_factory.mktemp("masks") / "masks.safetensors"
        masks.save(path)
        return path, masks.total - masks.kept

    return halve


@pytest.fixture(scope="module")
def half(halving):
    """A file of masks that halve one inner layer, and how many weights they remove."""
    return halving("layer2.0.conv1")


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def run_of(folder, root, **fields):
    images = read_voc(folder, "two")
    recipe = RECIPES.get("voc-faster-rcnn").model_copy(update={"epochs": 1})
    common = {"root": root, "model": MODEL, "weights": None, "recipe": recipe}
    data = DetectionData(train_images=images, test_images=images, sides=(96, 128))
    return DetectionRun(**{**common, "data": data, **fields})


def results_of(out):
    results, problems = ResultStore(out).results()
    assert problems == []
    return {result.key: result for result in results}


@pytest.mark.slow
def test_a_classifier_pruned_before_the_transfer(folder, tmp_path):
    common = (folder, "--model", MODEL, "--method", "channel_l1", "--compression", 3, "--out", tmp_path)
    report = json.loads(call(*common, *QUICK))
    assert report["variant"] == "prune-c"
    assert report["classifier_parameters"] == RESNET18
    assert report["classifier_parameters_left"] == pytest.approx(RESNET18 / 3, rel=0.01)
    assert len(report["losses"]) == report["recipe"]["epochs"] == 1
    assert 0 <= report["mean_average_precision"] <= 1
    assert report["average_precision"].keys() <= {"car", "person"}
    (result,) = results_of(tmp_path).values()
    assert (result.key, result.spec.task.objective.name) == (report["key"], "detection")
    assert (result.spec.method.name, result.spec.amount.label) == ("channel_l1", "3x")
    assert result.spec.task.weights.kind == "random"
    assert result.headline == report["mean_average_precision"]
    assert result.size.parameters - result.size.parameters_kept > 0.5 * RESNET18
    assert result.size.theoretical_speedup > 1
    assert result.references["dataset"] == "everingham2010pascal"
    assert not list(tmp_path.rglob("checkpoint*"))


@pytest.mark.slow
def test_a_folder_of_a_masked_classifier_is_pruned_before_the_transfer(folder, half, tmp_path, monkeypatch):
    """As a sweep keeps it: of other classes than the card's, with its masks beside it."""
    carried = {}
    monkeypatch.setattr("shrinkbench.runner.detection.detect", lambda run, **_: carried.setdefault("run", run))
    monkeypatch.setattr("shrinkbench.cli.detect._describe", lambda run, result: {})
    module = build(MODEL, num_classes=10, seed=4)
    masks = Masks.load(half[0])
    masks.apply(module)
    net = tmp_path / "net"
    save_network(net, module, NetworkDescription(MODEL, 10, (3, 64, 64)), masks=masks)
    call(folder, "--model", net, "--out", tmp_path / "results", *QUICK)
    run = carried["run"]
    assert (run.classes, run.weights.path) == (10, net / "weights.safetensors")
    start = detection._start(run, None)
    assert sum(layer.total - layer.kept for layer in start.layers.values()) == half[1]
    assert start.size.parameters - start.size.parameters_kept == half[1]
    kept = start.detector.classifier.state_dict()
    assert torch.equal(kept["conv1.weight"], module.state_dict()["conv1.weight"])
    _, surgery = plan_and_shrink(module.eval(), masks, (3, 64, 64))
    small, _ = plan_and_shrink(module, masks, (3, 64, 64))
    save_network(tmp_path / "small", small, NetworkDescription(MODEL, 10, (3, 64, 64), surgery))
    for arguments, sentence in (
        (("--model", tmp_path / "small"), "was cut out"),
        (("--model", net, "--method", "channel_l1"), "brings its masks"),
        (("--model", net, "--weights", "w.pth"), "leave --weights out"),
    ):
        with pytest.raises(ShrinkbenchError, match=sentence):
            call(folder, *arguments, "--out", tmp_path / "results", *QUICK)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run of the unpruned detector, two epochs long, and its result."""
    recipe = RECIPES.get("voc-faster-rcnn").model_copy(update={"epochs": 2})
    run = run_of(folder, tmp_path_factory.mktemp("results"), recipe=recipe)
    return run, detect(run)


@pytest.fixture(scope="module")
def pruned_after_transfer(folder, half, whole):
    """The folder of a run of Prune-D, which begins with the whole detector there, and what was printed."""
    out = whole[0].root
    common = (folder, "--model", MODEL, "--prune", "detector", "--masks", half[0], "--out", out)
    return out, common, json.loads(call(*common, *TWICE))


@pytest.mark.slow
def test_a_detector_pruned_after_training(pruned_after_transfer, half):
    out, _, report = pruned_after_transfer
    assert report["variant"] == "prune-d"
    assert RESNET18 - report["classifier_parameters_left"] == half[1]
    assert report["parameters"] - report["parameters_left"] == half[1]
    assert 0 <= report["before_pruning"] <= 1
    assert count_parameters(classifier()) == RESNET18
    results = results_of(out)
    pruned = results.pop(report["key"])
    (whole,) = results.values()
    assert whole.spec.is_control
    assert whole.headline == report["before_pruning"]
    assert (pruned.spec.task.weights.kind, pruned.spec.task.weights.recipe) == ("pretrain", whole.spec.recipe)
    assert pruned.spec.task != whole.spec.task
    assert sum(layer.total - layer.kept for layer in pruned.layers.values()) == half[1]


@pytest.mark.slow
def test_what_is_done_is_not_run_again(pruned_after_transfer, monkeypatch):
    out, common, report = pruned_after_transfer
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr("shrinkbench.runner.detection.train", lambda *_, **__: pytest.fail("trained again"))
    assert json.loads(call(*common, *TWICE)) == report
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_the_folder_is_one_of_results_like_any_other(pruned_after_transfer):
    from shrinkbench.cli.report import app as reading

    out, _, report = pruned_after_transfer
    told = CliRunner().invoke(reading, ["status", str(out), "--json"])
    assert json.loads(told.stdout) == {"total": 2, "done": 2, "failed": 0, "missing": 0}
    assert verify_store(ResultStore(out)) == []
    frame = to_frame(results_of(out).values())
    assert sorted(frame["map50"]) == sorted([report["mean_average_precision"], report["before_pruning"]])
    assert frame["top1"].isna().all()
    assert frame["task"].nunique() == 2  # of two weights before pruning
    assert set(frame["method"]) == {"control", "masks"}


@pytest.mark.slow
def test_a_key_follows_from_everything_that_decides_a_number(folder, half, tmp_path):
    common = run_of(folder, tmp_path)
    decision = decide_by_masks(half[0], network=MODEL)
    other = tmp_path / "other.safetensors"
    module = classifier()
    coupling = couple(module, (3, 64, 64))
    group = coupling.group_of("layer2.0.conv1")
    masks_of_units(module, coupling, {group.layer: torch.arange(128) < 64}).save(other)
    longer = common.recipe.model_copy(update={"epochs": 2})
    larger = DetectionData(
        train_images=common.data.train_images, test_images=common.data.test_images, sides=(100, 128)
    )
    runs = [
        common,
        run_of(folder, tmp_path, seed=1),
        run_of(folder, tmp_path, recipe=longer),
        run_of(folder, tmp_path, data=larger),
        run_of(folder, tmp_path, model="torchvision/resnet34"),
        run_of(folder, tmp_path, after_transfer=True),
        run_of(folder, tmp_path, pruned=decision),
        run_of(folder, tmp_path, pruned=decide_by_masks(other, network=MODEL)),
        run_of(folder, tmp_path, pruned=decision, after_transfer=True),
    ]
    assert len({run.spec.key for run in runs}) == len(runs)
    assert run_of(folder, tmp_path / "elsewhere", device="cuda").spec == common.spec
    for after in (False, True):
        pruned = run_of(folder, tmp_path, pruned=decision, after_transfer=after)
        assert pruned.spec.control == run_of(folder, tmp_path, after_transfer=after).spec


@pytest.mark.slow
def test_interrupted_and_resumed_equals_uninterrupted(folder, whole, tmp_path):
    """The process dies in the second epoch of the first training; what remains is its checkpoint."""
    complete, expected = whole

    class Killed(BaseException):
        pass

    def die(record):
        raise Killed

    resumed = run_of(folder, tmp_path / "halves", recipe=complete.recipe)
    with pytest.raises(Killed):
        detect(resumed, on_epoch=die)
    assert results_of(tmp_path / "halves") == {}
    epochs = []
    found = detect(resumed, on_epoch=lambda record: epochs.append(record.epoch))
    assert epochs == [2]
    same = expected.model_dump(exclude={"provenance"})
    assert found.model_dump(exclude={"provenance"}) == same
    first, second = (read_state_dict(run.trained_weights) for run in (complete, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_failed_training_is_stored_told_and_tried_again(folder, tmp_path):
    run = run_of(folder, tmp_path)
    run = run_of(folder, tmp_path, recipe=run.recipe.model_copy(update={"learning_rate": 1e30, "epochs": 2}))
    for _ in range(2):
        with pytest.raises(ShrinkbenchError, match="training diverged"):
            detect(run)
        (result,) = results_of(tmp_path).values()
        assert (result.key, result.status) == (run.spec.key, "failed")
        assert "lower the learning rate" in result.error


def test_what_is_in_the_way_is_told_and_no_failure_is_stored(folder, tmp_path):
    run = run_of(folder, tmp_path)
    (tmp_path / "shared").mkdir(exist_ok=True)
    (tmp_path / "shared" / "detector").write_text("x")
    with pytest.raises(ShrinkbenchError, match="detector is a file, where a folder belongs; move it away"):
        detect(run)
    assert results_of(tmp_path) == {}


def test_bad_input_is_told_before_anything_is_trained(folder, halving, tmp_path):
    resnet = ("--model", MODEL, "--out", tmp_path / "out")
    with pytest.raises(ShrinkbenchError, match=r"download VOCtrainval_06-Nov-2007\.tar and VOCtest"):
        call(tmp_path, *resnet)
    with pytest.raises(ShrinkbenchError, match="pass one of them"):
        call(folder, *resnet, "--masks", "some", "--method", "channel_l1")
    with pytest.raises(ShrinkbenchError, match="'thinet' looks at data; write its masks"):
        call(folder, *resnet, "--method", "thinet", *QUICK)
    with pytest.raises(ShrinkbenchError, match="'lottery_ticket' trains between its steps"):
        call(folder, *resnet, "--method", "lottery_ticket", *QUICK)
    with pytest.raises(ShrinkbenchError, match="compression 1 prunes nothing"):
        call(folder, *resnet, "--method", "channel_l1", "--compression", 1, *QUICK)
    with pytest.raises(ShrinkbenchError, match="build a detector from a residual network"):
        call(folder, "--model", "torchvision/squeezenet1_1", "--out", tmp_path / "out", *QUICK)
    with pytest.raises(ShrinkbenchError, match="prune inner channels of blocks alone"):
        call(folder, *resnet, "--masks", halving("layer3.0.conv2")[0], "--prune", "detector", *QUICK)
    assert not (tmp_path / "out").exists()


def test_a_missing_metric_is_told_before_anything_is_trained(folder, monkeypatch):
    monkeypatch.setattr("shrinkbench.tasks.detection.find_spec", lambda name: None)
    monkeypatch.setattr("shrinkbench.runner.detection.detect", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(ShrinkbenchError, match=r"needs torchmetrics and pycocotools; install them with"):
        call(folder, "--model", "torchvision/resnet18", *QUICK)
