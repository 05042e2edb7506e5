"""Reading results of schema 1, which knew methods, tasks and amounts by name only.

A migrated run keeps what was stored and says so: the versions of its axes are 0 (not recorded) and
``migrated_from`` holds its key of old, so that it is never taken for a run of today.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from shrinkbench.spec import CLASSIFICATION
from shrinkbench.spec.value import digest_of_fields

# What the built-in scores of schema 1 looked at; only the names of their functions were stored.
_KINDS = {
    "random": ("random",),
    "magnitude": ("magnitude", "square", "lamp", "batch_norm_scale", "smallest_scale", "branch_size"),
    "gradient": ("gradient", "taylor_2016", "taylor_2019", "channel_taylor", "movement", "snip", "synflow"),
    "activation": ("activation", "apoz", "hrank", "wanda", "thinet", "channel_regression"),
    "curvature": (
        *("obd_fisher", "obd_hutchinson", "early_brain_damage", "woodfisher", "obs", "grasp", "sparsegpt"),
    ),
}
_KIND_OF = {score: kind for kind, scores in _KINDS.items() for score in scores}
_SCOPES: dict[str, dict[str, Any]] = {
    "global": {"scope": "global"},
    "independent": {"scope": "global", "exact": False},
    "layerwise": {"scope": "layerwise", "uniform": True},
    "uniform-plus": {"scope": "layerwise", "uniform": True},
    "rowwise": {"scope": "layerwise"},
    "erdos-renyi-kernel": {"scope": "layerwise"},
    "lamp": {"scope": "layerwise"},
    "none": {"scope": "none"},
}
_FINETUNINGS: dict[str, dict[str, Any]] = {
    "continue": {},
    "none": {"recipe": "none"},
    "reinitialise": {"weights": "reinitialised", "recipe": "pretraining"},
    "scratch-e": {"weights": "scratch", "recipe": "pretraining"},
    "scratch-b": {"weights": "scratch", "recipe": "pretraining", "equal": "computation"},
}
_REWINDING: dict[str, dict[str, Any]] = {
    "rewind-weights-": {"weights": "rewound", "recipe": "pretraining"},
    "rewind-learning-rate-": {"recipe": "pretraining"},
}
_ROUNDS = {"one-shot": 1}  # how many there were by other schedules depended on their target
_SPEC = {"data", "model", "weights", "method", "compression", "seed", "recipe"}
_SPEC |= {"search", "prune_classifier", "prune_biases", "extra"}
_METHOD = {"name", "structure", "score", "allocation", "schedule", "finetuning", "start", "source"}
_METRICS = ("top1", "top5", "loss")
_UNRECORDED = 0  # the version of every axis of schema 1


def migrate_result(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result of schema 2 from the fields of one of schema 1.

    Raises ``ValueError`` where the key does not follow from the specification: schema 1 stored a key beside
    it. ``KeyError`` and ``TypeError`` mean that the fields are not those of schema 1.
    """
    spec, key = content["spec"], content["key"]
    result = {name: value for name, value in content.items() if name != "schema_version"}
    result["spec"] = migrate_run(spec, key)
    result["migrated_spec"] = spec
    for name in ("before", "after", "validation"):
        if result.get(name) is not None:
            result[name] = _quality(result[name])
    result["further"] = {name: _quality(value) for name, value in (content.get("further") or {}).items()}
    result["epochs"] = [_epoch(record) for record in content.get("epochs") or ()]
    return {**result, "schema_version": 2}


def migrate_run(spec: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The fields of a run of schema 2 from those of schema 1, stored under ``key``; errors as above."""
    if key not in [digest_of_fields(fields) for fields in (spec, _with_defaults(spec))]:
        raise ValueError("its key does not follow from its specification")
    _refuse_unknown(spec, _SPEC)
    _refuse_unknown(spec["method"], _METHOD)
    task = {
        "objective": {**_classification(), "version": _UNRECORDED},
        "data": spec["data"],
        "model": {"name": spec["model"], "version": _UNRECORDED},
        "weights": spec["weights"],
    }
    kept = {
        name: spec[name]
        for name in ("seed", "recipe", "search", "prune_classifier", "prune_biases", "extra")
        if name in spec
    }
    return {
        "task": task,
        "method": _method(spec["method"]),
        "amount": {"kind": "compression", "ratio": spec["compression"]},
        "migrated_from": key,
        **kept,
    }


def _method(method: Mapping[str, Any]) -> dict[str, Any]:
    source = method.get("source")

    def axis(name: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "version": _UNRECORDED, "source": source, **fields}

    scope = _SCOPES.get(method["allocation"], {})
    kind = "other" if source else _KIND_OF.get(method["score"], "other")
    return {
        "base": method["name"],
        "structure": axis(method["structure"]),
        "score": axis(method["score"], kind=kind),
        "allocation": axis(method["allocation"], **scope),
        "schedule": axis(
            method["schedule"], start=method.get("start", "trained"), rounds=_ROUNDS.get(method["schedule"])
        ),
        "finetuning": axis(method["finetuning"], **_finetuning(method["finetuning"])),
    }


def _finetuning(name: str) -> dict[str, Any]:
    """What a fine-tuning mode of schema 1 did; a plug-in's own counts as going on from the kept weights."""
    for prefix, fields in _REWINDING.items():
        head, epoch = name[: len(prefix)], name[len(prefix) :]
        if head == prefix and epoch.isdecimal():
            return {**fields, "epoch": int(epoch)}
    return _FINETUNINGS.get(name, {})


def _classification() -> dict[str, Any]:
    return CLASSIFICATION.model_dump(mode="json")


def _quality(quality: Mapping[str, Any]) -> dict[str, Any]:
    _refuse_unknown(quality, {*_METRICS, "images"})
    metrics = {name: quality[name] for name in _METRICS}
    return {"metrics": metrics, "examples": quality["images"]}


def _epoch(record: Mapping[str, Any]) -> dict[str, Any]:
    validation = {"top1": record["validation_top1"], "loss": record["validation_loss"]}
    kept = {name: value for name, value in record.items() if name not in {"validation_top1", "validation_loss"}}
    return {**kept, "validation": validation}


def _refuse_unknown(fields: Mapping[str, Any], known: Set[str]) -> None:
    """What the migration would leave out in silence is no field of schema 1."""
    unknown = sorted(fields.keys() - known)
    if unknown:
        raise ValueError(f"it has no field '{unknown[0]}'")


def _with_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The specification with the fields that later versions of schema 1 added, at their defaults."""
    filled = {"search": None, "prune_classifier": False, "prune_biases": False, "extra": [], **spec}
    filled["method"] = {"start": "trained", "source": None, **spec["method"]}
    return filled


def migrate_plan(content: Mapping[str, Any]) -> dict[str, Any]:
    """A plan of schema 2 from the fields of one of schema 1; runs keep their keys of old."""
    runs = [{**run, "spec": migrate_run(run["spec"], run["key"])} for run in content["runs"]]
    return {**content, "schema_version": 2, "runs": runs}
