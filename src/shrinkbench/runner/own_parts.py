"""Networks, datasets, recipes and tasks that an experiment names by their file or folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.models import get_model
from shrinkbench.models.hugging_face import is_folder_name
from shrinkbench.pruning import load_plugin
from shrinkbench.results.layout import plugin_file
from shrinkbench.results.store import Plan, ResultStore
from shrinkbench.sources import bare_reference, file_of_reference, is_remembered, split_reference
from shrinkbench.spec import ExperimentSpec

_FIELDS = ("dataset", "model", "recipe", "pretrain_recipe", "task")


def take_own_parts(
    experiments: Iterable[ExperimentSpec], plugins: Sequence[Path] = ()
) -> tuple[tuple[ExperimentSpec, ...], tuple[Path, ...]]:
    """The experiments with files named without their folder, and all files that a worker has to load.

    Where a file lies is in no key and no plan. The plug-ins of an experiment are loaded here.
    """
    files = {Path(plugin): None for plugin in plugins}
    places: dict[str, Path] = {}
    taken = []
    for experiment in experiments:
        for plugin in experiment.plugin:
            load_plugin(plugin)
            files[Path(plugin)] = None
        update: dict[str, Any] = {"plugin": ()}
        for field in _FIELDS:
            value = getattr(experiment, field)
            for text in _texts(value):
                file = file_of_reference(text)
                if file is not None:
                    _require_one_place(text, file, places)
                    files[file] = None
            update[field] = tuple(map(_bare, value)) if isinstance(value, tuple) else _bare(value)
        taken.append(experiment.model_copy(update=update))
    known: dict[Path, Path] = {}
    for file in files:
        known.setdefault(file.resolve(), file)
    return tuple(taken), tuple(known.values())


def _require_one_place(text: str, file: Path, places: dict[str, Path]) -> None:
    """Refuse copies of one file in two folders: results name neither's folder, and each reads its own."""
    named = Path((split_reference(text) or (text, ""))[0])
    given = (file if named.name == str(named) else named).expanduser().resolve()
    first = places.setdefault(file.name, given)
    if first != given:
        raise ShrinkbenchError(
            f"{str(first)[-80:]} and {str(given)[-80:]} are copies of one file, and results name it without "
            "its folder; rename one of them, so that what each reads beside itself is told apart"
        )


def _texts(value: object) -> list[str]:
    return [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, str)]


def _bare(value: object) -> object:
    if not isinstance(value, str):
        return value
    return get_model(value).name if is_folder_name(value) else bare_reference(value)


def require_own_parts(plan: Plan, store: ResultStore) -> None:
    """Refuse to plan again with files that nobody has named: what a stored plan says is not run unasked."""
    for experiment in plan.experiments:
        for field in _FIELDS:
            for text in _texts(getattr(experiment, field)):
                split = split_reference(text)
                if split is None or is_remembered(text):
                    continue
                digests = sorted({digest for run in plan.runs for digest in run.spec.sources})
                copies = [c for d in digests if (c := store.root / plugin_file(d, split[0])).is_file()]
                copy = f"; the results keep a copy, {copies[0]}" if len(copies) == 1 else ""
                raise ShrinkbenchError(
                    f"the plan names '{text[:60]}', code from outside; load it with --plugin FILE{copy}"
                )
