"""Made result stores: accuracy, speed and history follow formulas, so faults can be planted in them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shrinkbench.results.record import (
    EpochRecord,
    LayerDensity,
    Provenance,
    Quality,
    RunResult,
    Size,
    WeightHistogram,
)
from shrinkbench.results.store import ResultStore
from shrinkbench.spec import (
    CONTINUE,
    IMAGENET_NORMALISATION,
    AllocationSpec,
    Amount,
    ChannelFraction,
    Compression,
    DataSpec,
    ExperimentSpec,
    FinetuningSpec,
    FractionPerLayer,
    MethodSpec,
    ModelSpec,
    Recipe,
    RunSpec,
    ScheduleSpec,
    ScoreSpec,
    StructureSpec,
    TaskSpec,
    WeightsSpec,
)
from shrinkbench.spec.axes import ScoreKind

FINETUNE = Recipe(
    name="cifar-finetune",
    reference="blalock2020state",
    optimizer="adam",
    learning_rate=3e-4,
    batch_size=64,
    epochs=5,
    selection="best-validation",
)
PRETRAIN = Recipe(
    name="cifar-pretrain",
    reference="he2016deep",
    optimizer="sgd",
    learning_rate=0.1,
    batch_size=128,
    epochs=160,
)
LAYERS = {"conv1.weight": 432, "layer1.weight": 20_000, "layer2.weight": 60_000, "layer3.weight": 180_000}
FREE = 1_568  # batch norm, biases, classifier: never pruned here
PARAMETERS = sum(LAYERS.values()) + FREE
POSITIONS = {"conv1.weight": 1024, "layer1.weight": 1024, "layer2.weight": 256, "layer3.weight": 64}
MULTIPLY_ADDS = sum(LAYERS[n] * POSITIONS[n] for n in LAYERS)


GLOBAL = AllocationSpec(name="global", scope="global")
LAYERWISE = AllocationSpec(name="layerwise", scope="layerwise", uniform=True)


def method(
    name: str,
    score: ScoreKind,
    allocation: AllocationSpec = GLOBAL,
    finetuning: FinetuningSpec = CONTINUE,
    **schedule: Any,
) -> MethodSpec:
    return MethodSpec(
        base=name,
        structure=StructureSpec(name="weights", unit="weight"),
        score=ScoreSpec(name=score, kind=score),
        allocation=allocation,
        schedule=ScheduleSpec(name="one-shot", **schedule),
        finetuning=CONTINUE,
    ).finetuned_by(finetuning)


GRADIENT = method("global_gradient", "gradient")
AS_GRADIENT = AllocationSpec(name="as:global_gradient", scope="given", like=GRADIENT)
METHODS = {
    m.name: m
    for m in (
        method("global_magnitude", "magnitude"),
        method("layerwise_magnitude", "magnitude", LAYERWISE),
        GRADIENT,
        method("layerwise_gradient", "gradient", LAYERWISE),
        method("random", "random"),
        method("random@global_gradient", "random", AS_GRADIENT),
        method("magnitude@global_gradient", "magnitude", AS_GRADIENT),
    )
}
SNIP = method("snip", "gradient", start="initialisation")
"""A method whose control is trained from initial weights."""
LAYER_BIAS = {"global_magnitude": 0.04, "global_gradient": 0.06}  # speeds differ little, so no order flips
FIGURE_6 = {"global_magnitude": 2.0, "global_gradient": 3.0}  # global methods keep the costly early layers
SKILL = {
    "global_magnitude": 0.006,
    "layerwise_magnitude": 0.010,
    "global_gradient": 0.003,
    "layerwise_gradient": 0.014,
    "random": 0.030,
    "random@global_gradient": 0.025,
    "magnitude@global_gradient": 0.0045,
}
"""Accuracy that a method loses with every doubling of compression."""


def achieved_ratio(spec: RunSpec) -> float:
    """The compression that a made run has: the one asked for, or one that follows from the amount."""
    amount = spec.amount
    if isinstance(amount, Compression):
        return amount.ratio
    return 1 / (1 - amount.fraction) if isinstance(amount, FractionPerLayer | ChannelFraction) else 3.0


def layer_densities(
    method: MethodSpec, compression: float, tilts: Mapping[str, float] = LAYER_BIAS
) -> dict[str, LayerDensity]:
    """Kept weights by layer; global methods keep more of the early layers."""
    budget = round(PARAMETERS / compression) - FREE
    bias = tilts.get((method.allocation.like or method).name, 0.0)
    tilt = dict(zip(LAYERS, (1 + 4 * bias, 1 + 3 * bias, 1 + 1.5 * bias, 1.0), strict=True))
    kept = dict.fromkeys(LAYERS, 0)
    for layer in LAYERS:  # in order of falling tilt, so a capped layer's surplus goes to the later ones
        rest = [other for other in LAYERS if not kept[other]]
        share = (budget - sum(kept.values())) / sum(LAYERS[other] * tilt[other] for other in rest)
        kept[layer] = min(LAYERS[layer], round(LAYERS[layer] * tilt[layer] * share))
    kept["layer3.weight"] += budget - sum(kept.values())
    return {layer: LayerDensity(kept=kept[layer], total=LAYERS[layer]) for layer in LAYERS}


def size_of(densities: dict[str, LayerDensity]) -> Size:
    kept = FREE + sum(d.kept for d in densities.values())
    adds = sum(d.kept * POSITIONS[n] for n, d in densities.items())
    return Size(
        parameters=PARAMETERS,
        parameters_kept=kept,
        compression=PARAMETERS / kept,
        multiply_adds=MULTIPLY_ADDS,
        multiply_adds_kept=adds,
        theoretical_speedup=MULTIPLY_ADDS / adds,
    )


Accuracy = Callable[[RunSpec], float]


def plain_accuracy(spec: RunSpec) -> float:
    """Falls with log compression at the method's rate, collapses at 32; a little noise by seed."""
    top = {"resnet20": 0.915, "resnet56": 0.935, "resnet18": 0.70}.get(spec.model.name, 0.95)
    ratio, name = achieved_ratio(spec), spec.method.name
    doublings = np.log2(ratio)
    rng = np.random.default_rng([spec.seed, len(name), int(ratio * 8), len(spec.model.name)])
    noise = 0.0005 * spec.seed if spec.is_control else 0.0008 * rng.standard_normal()
    fall = SKILL.get(name, 0.008) * doublings + (0.12 if doublings > 4 else 0.0)
    return float(np.clip(top - (0 if spec.is_control else fall) + noise, 0.001, 0.999))


def quality(top1: float, images: int = 10_000) -> Quality:
    top1 = max(0, round(top1 * images)) / images
    top5 = 1 - round((1 - top1) * 0.2 * images) / images
    metrics = {"top1": top1, "top5": top5, "loss": float(-np.log(max(top1, 1e-3)))}
    return Quality(metrics=metrics, examples=images)


def changed(quality: Quality, **metrics: float) -> Quality:
    """The same with other values of some metrics; bounds are not checked."""
    return quality.model_copy(update={"metrics": quality.metrics | metrics})


def revision(dataset: str) -> str:
    """A digest of content, another for each name."""
    return "ab" * 32 if dataset == "cifar10" else hashlib.sha256(dataset.encode()).hexdigest()


def make_spec(
    *,
    dataset: str = "cifar10",
    model: str = "resnet20",
    method: str | MethodSpec = "global_magnitude",
    compression: float = 4.0,
    amount: Amount | None = None,
    seed: int = 0,
    weights: str = "pretrain",
    recipe: Recipe = FINETUNE,
    **fields: Any,
) -> RunSpec:
    """A run; what is pruned is ``amount`` where that is given, else ``compression``."""
    return RunSpec(
        task=TaskSpec(
            data=DataSpec(name=dataset, revision=revision(dataset), normalisation=IMAGENET_NORMALISATION),
            model=ModelSpec(name=model),
            weights=WeightsSpec(
                kind="pretrain", name=weights, recipe=PRETRAIN.model_copy(update={"name": weights})
            ),
        ),
        method=METHODS[method] if isinstance(method, str) else method,
        amount=amount or Compression(ratio=compression),
        seed=seed,
        recipe=recipe,
        **fields,
    )


def make_result(
    spec: RunSpec,
    *,
    accuracy: Accuracy = plain_accuracy,
    failed: str | None = None,
    tilts: Mapping[str, float] = LAYER_BIAS,
) -> RunResult:
    provenance = Provenance(
        started="2026-01-01T00:00:00+00:00",
        seconds=12.5,
        host="made",
        device="cpu",
        threads=2,
        python="3.11.9",
        platform="Linux-x86_64",
        processor="Made CPU",
        versions={"torch": "2.13.0", "shrinkbench": "0.1.0", "torchvision": "0.28.0", "numpy": "2.3.0"},
        commit="0123456789abcdef0123456789abcdef01234567",
        command="shrinkbench sweep made",
    )
    if failed is not None:
        return RunResult(key=spec.key, spec=spec, status="failed", error=failed, provenance=provenance)
    shared = spec.control if spec.is_control else spec  # one run, whatever method stores it
    top1, doublings = accuracy(shared), np.log2(achieved_ratio(spec))
    unique = int(shared.key[:13], 16) / 16**13  # no two trainings agree
    densities = {n: LayerDensity(kept=t, total=t) for n, t in LAYERS.items()}
    if not spec.is_control:
        densities = layer_densities(spec.method, achieved_ratio(spec), tilts)
    images = spec.data.test_images or 10_000
    validation = quality(top1 - 0.002, spec.data.validation_images or 5_000)
    epochs = tuple(
        EpochRecord(
            epoch=e,
            learning_rate=spec.recipe.learning_rate,
            train_loss=0.5 / e + 0.1 * unique / e,
            validation={
                "top1": quality(validation["top1"] - 0.004 * (5 - e) / 5, validation.examples)["top1"],
                "loss": validation["loss"],
            },
        )
        for e in range(1, 6)
    )
    edges = np.linspace(-0.5, 0.5, 42)
    bell = np.exp(-0.5 * ((edges[1:] + edges[:-1]) / 2 / 0.12) ** 2)
    cut = np.abs((edges[1:] + edges[:-1]) / 2) > 0.03 * doublings
    left = np.where(cut.any(), bell * cut, bell)
    return RunResult(
        key=spec.key,
        spec=spec,
        status="done",
        size=size_of(densities),
        before=quality(top1 - (0.001 if spec.is_control else 0.05 * doublings), images),
        after=quality(top1, images),
        validation=validation,
        selected_epoch=5,
        epochs_run=5,
        epochs=epochs,
        layers=densities,
        weight_histogram=WeightHistogram(
            edges=tuple(edges),
            before=tuple((bell / bell.sum() * sum(d.total for d in densities.values())).astype(int)),
            after=tuple((left / left.sum() * sum(d.kept for d in densities.values())).astype(int)),
        ),
        provenance=provenance,
    )


def validated(result: RunResult, found: Quality) -> RunResult:
    """The same with another quality on validation, which every epoch had."""
    metrics = {name: found[name] for name in ("top1", "loss")}
    epochs = tuple(epoch.model_copy(update={"validation": metrics}) for epoch in result.epochs)
    return result.model_copy(update={"validation": found, "epochs": epochs})


PAIRS = (("cifar10", "resnet20"), ("cifar10", "resnet56"), ("imagenet", "resnet18"))


def make_results(
    *,
    pairs: Sequence[tuple[str, str]] = PAIRS,
    methods: Iterable[str] = tuple(METHODS),
    compressions: Sequence[float] = (1, 2, 4, 8, 16, 32),
    seeds: Sequence[int] = (0, 1, 2),
    weights: Sequence[str] = ("pretrain",),
    accuracy: Accuracy = plain_accuracy,
    recipe: Recipe = FINETUNE,
    tilts: Mapping[str, float] = LAYER_BIAS,
) -> list[RunResult]:
    """A complete grid; the control's numbers are equal for every method of a seed."""
    return [
        make_result(
            make_spec(
                dataset=dataset,
                model=model,
                method=name,
                compression=float(compression),
                seed=seed,
                weights=initial,
                recipe=recipe,
            ),
            accuracy=accuracy,
            tilts=tilts,
        )
        for dataset, model in pairs
        for initial in weights
        for name in methods
        for compression in compressions
        for seed in seeds
    ]


def write_store(root: Path, results: Sequence[RunResult], *, name: str = "made") -> ResultStore:
    """Store the results and a plan of exactly these runs."""
    store = ResultStore(root)

    def axis(pick: Callable[[RunSpec], Any]) -> tuple[Any, ...]:
        return tuple(dict.fromkeys(pick(r.spec) for r in results))

    experiment = ExperimentSpec(
        name=name,
        description="Made results.",
        dataset=axis(lambda s: s.data.name),
        model=axis(lambda s: s.model.name),
        weights=axis(lambda s: s.weights.name),
        method=axis(lambda s: s.method.name),
        compression=tuple(a.ratio for a in axis(lambda s: s.amount) if isinstance(a, Compression)) or (1.0,),
        seed=axis(lambda s: s.seed),
    )
    store.write_plan(experiment, [r.spec for r in results])
    for result in results:
        store.write(result)
    return store
