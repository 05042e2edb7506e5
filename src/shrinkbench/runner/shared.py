"""What runs share, looked at before it is used: whole, or set aside so that it is made again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from shrinkbench.errors import DamagedWarning
from shrinkbench.results.layout import set_aside
from shrinkbench.runner.execution import check_control
from shrinkbench.runner.executors.performing import file_of_task
from shrinkbench.runner.executors.protocol import Task
from shrinkbench.runner.pretraining import epoch_file, epoch_key
from shrinkbench.runner.retraining import SEARCHED
from shrinkbench.runner.sealing import is_whole
from shrinkbench.spec import PretrainSpec


def look_at_shared(task: Task, root: Path, on_note: Callable[[str], None]) -> bool:
    """Whether what ``task`` makes lies in ``root``, unharmed; damaged files become ``NAME.damaged-...``.

    Kept weights of single epochs are no reason to train anew: who needs one makes it.
    """
    mark = file_of_task(task, root)
    if not mark.exists():
        return False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DamagedWarning)
        looks = [look() for look in _parts_of(task, mark.parent)]  # each: all that is damaged is set aside
        if isinstance(task.spec, PretrainSpec):
            for epoch in task.keep:
                is_whole(epoch_file(mark.parent, epoch), key=epoch_key(task.spec, epoch))
    for warning in caught:
        on_note(str(warning.message))
    if not all(looks) and mark.exists():  # so that nobody takes the rest for all of it
        set_aside(mark)
    return all(looks)


def _parts_of(task: Task, folder: Path) -> Iterator[Callable[[], bool]]:
    """A look at each file of ``task``."""
    if task.kind == "control":
        yield partial(is_whole, folder / "result.json", key=task.key, check=check_control)
        return
    parts = {"pretraining": ("weights.safetensors", "card.json"), "search": SEARCHED}
    for name in parts.get(task.kind, ("card.json",)):
        yield partial(is_whole, folder / name, key=task.key)
