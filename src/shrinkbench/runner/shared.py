"""What runs share, looked at before it is used: whole, or set aside so that it is made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.layout import set_aside
from shrinkbench.runner.execution import read_control
from shrinkbench.runner.executors.performing import file_of
from shrinkbench.runner.executors.protocol import Task
from shrinkbench.runner.pretraining import epoch_file, epoch_key
from shrinkbench.runner.sealing import load_sealed, read_card
from shrinkbench.spec import PretrainSpec

Check = tuple[Path, Callable[[], object]]


def is_there(task: Task, root: Path, on_note: Callable[[str], None]) -> bool:
    """Whether what ``task`` makes lies in ``root``, unharmed; damaged files become ``NAME.damaged-...``.

    Kept weights of single epochs are no reason to train anew: who needs one makes it.
    """
    mark = file_of(task, root)
    if not mark.exists():
        return False
    broken = [path for path, read in _parts_of(task, root) if not _is_whole(read)]
    for path in broken:
        on_note(f"{path} is not what was written there; it is set aside, and made again")
        set_aside(path)
    epochs = {epoch_file(mark.parent, epoch) for epoch in task.keep}
    if set(broken) <= epochs:
        return True
    set_aside(mark)
    return False


def _parts_of(task: Task, root: Path) -> Iterator[Check]:
    """The files of ``task``, and how each is read."""
    folder, key = file_of(task, root).parent, task.key
    if task.kind == "control":
        yield folder / "result.json", partial(read_control, folder / "result.json")
        return
    yield folder / "card.json", partial(read_card, folder / "card.json", key=key)
    names = {"pretraining": ["weights"], "search": ["weights", "masks"]}.get(task.kind, [])
    for path in (folder / f"{name}.safetensors" for name in names):
        yield path, partial(load_sealed, path, key=key)
    if isinstance(task.spec, PretrainSpec):
        for epoch in task.keep:
            path, own = epoch_file(folder, epoch), epoch_key(task.spec, epoch)
            if path.exists():
                yield path, partial(load_sealed, path, key=own)


def _is_whole(read: Callable[[], object]) -> bool:
    try:
        read()
    except ShrinkbenchError:
        return False
    return True
