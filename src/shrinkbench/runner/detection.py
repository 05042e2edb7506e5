"""Transfer to detection (Liu et al. 2019, Appendix B): a classifier under Faster R-CNN on PASCAL VOC.

Prune-C prunes the classifier before the transfer, Prune-D the trained detector, which is trained once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from shrinkbench.datasets import DATASETS
from shrinkbench.datasets.voc2007 import CLASSES
from shrinkbench.datasets.voc_detection import DetectionData
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import absolute, make_folder, remove_file, sha256_of
from shrinkbench.metrics import count_parameters, layer_densities
from shrinkbench.models import (
    MODELS,
    WeightsFile,
    build,
    get_model,
    load_weights,
    parameters_of,
)
from shrinkbench.models.faster_rcnn import Detector, build_detector, count_detector_multiply_adds
from shrinkbench.pruning import METHODS, Masks, carried_out, prune
from shrinkbench.results.places import check_places
from shrinkbench.results.record import RunResult
from shrinkbench.results.store import ResultStore
from shrinkbench.runner.execution import sentence_of
from shrinkbench.runner.outcomes import classify
from shrinkbench.runner.provenance import Stopwatch, provenance
from shrinkbench.runner.sealing import is_whole, load_sealed, save_sealed
from shrinkbench.spec import (
    CONTINUE,
    CONTROL_METHOD,
    UNPRUNED,
    AllocationSpec,
    Amount,
    Compression,
    MethodSpec,
    ModelSpec,
    Recipe,
    RunSpec,
    ScheduleSpec,
    ScoreSpec,
    StructureSpec,
    TaskSpec,
    WeightsSpec,
    detection_of,
)
from shrinkbench.spec.measures import EpochRecord, LayerDensity, Size
from shrinkbench.surgery.detector import shrink_detector
from shrinkbench.surgery.shrinking import shrink
from shrinkbench.tasks import task_of
from shrinkbench.tasks.detection import require_metric
from shrinkbench.training import evaluate, train

OnEpoch = Callable[[EpochRecord], None]


@dataclass(frozen=True)
class Decision:
    """What is pruned of the classifier, as a value, and the function that finds it."""

    method: MethodSpec
    amount: Amount
    masks: Callable[[nn.Module, int], Masks]
    reference: str = ""


def decide_by_method(name: str, *, compression: float, input_shape: tuple[int, ...]) -> Decision:
    """The masks of a registered method, which has to look at weights alone and to prune at once."""
    method = METHODS.get(name)
    if "data" in method.needs_to_decide or method.schedule.during:
        raise ShrinkbenchError(
            f"'{name}' looks at data; write its masks with `shrinkbench prune --masks-out`, and pass them with "
            "--masks"
        )
    mode = method.spec.finetuning.model_copy(update={"source": None})
    if not method.in_one_step or method.schedule.start != "trained" or mode != CONTINUE:
        raise ShrinkbenchError(
            f"'{name}' trains between its steps or from other weights, and a detector is pruned once and "
            "trained on; choose a method that prunes a trained network at once"
        )
    amount = method.amount or Compression(ratio=compression)
    if amount == UNPRUNED:
        raise ShrinkbenchError(
            f"'{name}' at compression 1 prunes nothing; leave --method out for the unpruned detector"
        )
    asked = None if method.amount is not None else compression

    def find(classifier: nn.Module, seed: int) -> Masks:
        generator = torch.Generator().manual_seed(seed)
        return prune(classifier, method, compression=asked, input_shape=input_shape, generator=generator)

    return Decision(carried_out(method, amount).spec, amount, find, method.reference)


def decide_by_masks(path: Path, *, network: str, classes: int | None = None) -> Decision:
    """The masks of a file: a method of which nothing is known but what it keeps.

    ``classes`` are those of the classifier, where they are not the card's.
    """
    masks = Masks.load(path, network=network)
    card = get_model(network)
    total = parameters_of(card) if classes is None else count_parameters(card.build(classes))
    ratio = total / max(total - masks.total + masks.kept, 1)
    if ratio == 1:
        raise ShrinkbenchError(
            f"the masks of {path} keep every weight; leave --masks out for the unpruned detector"
        )
    method = MethodSpec(
        base="masks",
        structure=StructureSpec(name="given"),
        score=ScoreSpec(name="given", parameters={"masks_sha256": sha256_of(path)}),
        allocation=AllocationSpec(name="given", scope="given"),
        schedule=ScheduleSpec(name="one-shot"),
        finetuning=CONTINUE,
    )
    return Decision(method, Compression(ratio=ratio), lambda _classifier, _seed: masks)


@dataclass(frozen=True, kw_only=True)
class DetectionRun:
    """One run with its files. ``model`` is the classifier and ``weights`` its file (``None``: initial ones).

    ``pruned`` is of the classifier before the transfer or, ``after_transfer``, of the trained detector, which
    is trained by the recipe once more. Without it, the run is the control of those that prune. ``classes`` are
    those that the weights' classifier tells apart, where they are not the card's; the detector leaves its
    last layer out.
    """

    root: Path
    model: str
    weights: WeightsFile | None
    data: DetectionData
    recipe: Recipe
    seed: int = 0
    pruned: Decision | None = None
    after_transfer: bool = False
    device: str = "cpu"
    classes: int | None = None

    @property
    def spec(self) -> RunSpec:
        """The run as a value."""
        card = get_model(self.model)
        name = self.weights.name if self.weights else "random"
        digest = self.weights.sha256 if self.weights else None
        weights = WeightsSpec(kind="file" if self.weights else "random", name=name, digest=digest)
        if self.after_transfer:
            weights = WeightsSpec(kind="pretrain", name=name, digest=digest, recipe=self.recipe)
        return RunSpec(
            task=TaskSpec(
                objective=detection_of(CLASSES),
                data=self.data.spec,
                model=ModelSpec(name=f"faster-rcnn/{card.name}", source=MODELS.source(card.name)),
                weights=weights,
            ),
            method=self.pruned.method if self.pruned else CONTROL_METHOD,
            amount=self.pruned.amount if self.pruned else UNPRUNED,
            seed=self.seed,
            recipe=self.recipe,
        )

    @property
    def transferred(self) -> DetectionRun:
        """The run that trains the whole detector: what Prune-D begins with, and Prune-C's control."""
        return replace(self, pruned=None, after_transfer=False)

    @property
    def store(self) -> ResultStore:
        """Where results lie."""
        return ResultStore(self.root)

    @property
    def trained_weights(self) -> Path:
        """The file of the detector's weights after training; kept of unpruned detectors."""
        return self.store.shared_dir("detector", self.spec.key) / "weights.safetensors"


def detect(run: DetectionRun, *, on_epoch: OnEpoch | None = None) -> RunResult:
    """The result of ``run``: the stored one, or that of carrying it out, which goes on where it was stopped.

    A failure of training is stored and raised; a later call tries again. Prune-D carries the run that it
    begins with out before, and stores its result too.
    """
    run = replace(run, root=absolute(run.root))  # a method may change to another folder
    stored = _find_done(run)
    if stored is not None:
        return stored
    require_metric()
    check_places(run.store.root, [run.spec.key])
    run.store.keep_sources([run.spec])
    start = _start(run, on_epoch)
    watch = Stopwatch()
    try:
        result = _train_and_measure(run, start, watch, on_epoch)
    except Exception as error:
        if classify(error) != "scientific":
            raise
        failed = RunResult(
            key=run.spec.key,
            spec=run.spec,
            status="failed",
            error=sentence_of(error),
            provenance=provenance(watch, run.device),
        )
        run.store.write(failed)
        raise
    run.store.write(result)
    remove_file(_checkpoint(run))
    return result


def _find_done(run: DetectionRun) -> RunResult | None:
    key = run.spec.key
    result = run.store.read(key) if run.store.has(key) else None
    return result if result is not None and result.status == "done" else None


def _checkpoint(run: DetectionRun) -> Path:
    return run.store.run_dir(run.spec.key) / "checkpoint-0.pt"


def _train_and_measure(
    run: DetectionRun, start: _Start, watch: Stopwatch, on_epoch: OnEpoch | None
) -> RunResult:
    spec = run.spec
    task = task_of(spec.task.objective)
    detector = start.detector.to(run.device)
    make_folder(run.store.run_dir(spec.key))
    training = train(
        detector,
        spec.recipe,
        run.data,
        seed=spec.seed + 1 if run.after_transfer else spec.seed,
        checkpoint=_checkpoint(run),
        on_epoch=on_epoch,
        task=task,
    )
    after = evaluate(detector, run.data.test(), precision=spec.recipe.precision, task=task)
    if spec.is_control and not run.after_transfer:
        save_sealed(detector.state_dict(), run.trained_weights, key=spec.key)
    return RunResult(
        key=spec.key,
        spec=spec,
        status="done",
        size=start.size,
        after=after,
        validation=training.validation,
        selected_epoch=training.selected_epoch,
        epochs_run=len(training.epochs),
        epochs=tuple(training.epochs),
        layers=start.layers,
        references=_references(run),
        provenance=provenance(watch, run.device),
    )


@dataclass(frozen=True)
class _Start:
    """The detector that is trained, its size beside that of the whole one, and what masks keep."""

    detector: Detector
    size: Size
    layers: dict[str, LayerDensity]


def _start(run: DetectionRun, on_epoch: OnEpoch | None) -> _Start:
    """Transfer and prune, in the order of the run, on the CPU."""
    whole = _build_detector(run, _load_classifier(run))
    if not run.after_transfer:
        return _prune(run, whole)
    _prune(run, whole)  # what cannot be pruned is told before the whole detector is trained
    whole.load_state_dict(_ensure_transferred(run.transferred, on_epoch))
    return _prune(run, whole)


def _prune(run: DetectionRun, whole: Detector) -> _Start:
    if run.pruned is None:
        return _Start(whole, _size(whole, whole), {})
    classifier, shape = whole.classifier, get_model(run.model).input_shape
    masks = run.pruned.masks(classifier, run.seed)
    if run.after_transfer:
        with torch.random.fork_rng(devices=[]):  # layers are drawn before they are given the trained weights
            small = shrink_detector(whole, masks, shape)
    else:
        small = _build_detector(run, shrink(classifier, masks, shape))
    return _Start(small, _size(whole, small), layer_densities(classifier, masks))


def _ensure_transferred(run: DetectionRun, on_epoch: OnEpoch | None) -> dict[str, torch.Tensor]:
    """The weights of the trained whole detector; trained again where its result alone is left, or whole."""
    path, key = run.trained_weights, run.spec.key
    if not is_whole(path, key=key):
        run.store.ask_again(key)
    detect(run, on_epoch=on_epoch)
    return load_sealed(path, key=key)


def _load_classifier(run: DetectionRun) -> nn.Module:
    module = build(run.model, num_classes=run.classes, seed=run.seed)
    if run.weights is not None:
        load_weights(module, run.weights.path, card=get_model(run.model), sha256=run.weights.sha256)
    module.eval()
    return module


def _build_detector(run: DetectionRun, classifier: nn.Module) -> Detector:
    """Faster R-CNN whose own layers are drawn from the run's seed."""
    least, most = run.data.sides
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(run.seed)
        return build_detector(classifier, num_classes=len(CLASSES) + 1, min_size=least, max_size=most)


def _size(whole: Detector, small: Detector) -> Size:
    parameters, kept = count_parameters(whole), count_parameters(small)
    multiply_adds, kept_adds = count_detector_multiply_adds(whole), count_detector_multiply_adds(small)
    return Size(
        parameters=parameters,
        parameters_kept=kept,
        compression=parameters / kept,
        multiply_adds=multiply_adds,
        multiply_adds_kept=kept_adds,
        theoretical_speedup=multiply_adds / kept_adds,
    )


def _references(run: DetectionRun) -> dict[str, str]:
    """What to cite; nobody says of which method the masks of a file are."""
    keys = {
        "method": run.pruned.reference if run.pruned else "",
        "model": get_model(run.model).reference,
        "dataset": DATASETS.get("voc2007").reference,
    }
    return {kind: key for kind, key in keys.items() if key}
