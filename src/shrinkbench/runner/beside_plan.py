"""What runs need besides their plan, so that any process can carry one out: ``workspace.json``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from shrinkbench.errors import ShrinkbenchError, is_unicode
from shrinkbench.files import absolute, write_atomically
from shrinkbench.results.layout import BESIDE_NAME, set_aside
from shrinkbench.results.locking import hold_lock
from shrinkbench.results.reading import read_beside_plan
from shrinkbench.runner.executors.protocol import Setting
from shrinkbench.spec.value import TimedBatch, Value

Key = TypeVar("Key")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Beside(Value):
    """Folders of data by dataset, weights files by digest, plug-ins with theirs, batch sizes to time, device,
    whether smaller networks are trained and steps compiled, and what is kept of a run's network, by its key.

    Paths are absolute. ``device`` is as it was asked for: each machine resolves ``auto`` for itself.
    """

    schema_version: Literal[1] = 1
    data: dict[str, Path] = Field(default_factory=dict)
    weights: dict[Digest, Path] = Field(default_factory=dict)
    plugins: dict[Path, Digest | None] = Field(default_factory=dict)
    device: str = "auto"
    latency: tuple[TimedBatch, ...] = ()
    train_smaller: bool = False
    compiled: bool = False
    keep: dict[Digest, Literal["masks", "weights"]] = Field(default_factory=dict)


def check_names(setting: Setting) -> None:
    """Refuse places of data, weights and plug-ins whose names could not be stored."""
    workspace = setting.workspace
    for path in (*setting.plugins, *workspace.data.values(), *workspace.weights.values()):
        if not is_unicode(absolute(path)):
            raise ShrinkbenchError(
                f"the path {path} is not UTF-8, in which it would be stored; rename what is so named"
            )


def write_beside(setting: Setting, *, device: str, planned: Collection[str] = ()) -> None:
    """Store what ``setting`` says, with what earlier sweeps into the folder have said.

    What is kept of the runs ``planned`` is what ``setting`` says, be it nothing.
    """
    workspace = setting.workspace
    path = workspace.root / BESIDE_NAME
    with hold_lock(workspace.root):
        try:
            earlier = read_beside(workspace.root)
        except ShrinkbenchError:  # what earlier sweeps said, perhaps of a newer version, is not lost
            set_aside(path)
            earlier = Beside()
        fresh = Beside(
            data={**earlier.data, **_absolute(workspace.data)},
            weights={**earlier.weights, **_absolute(workspace.weights)},
            plugins={**earlier.plugins, **{path.resolve(): digest for path, digest in setting.plugins.items()}},
            device=device,
            latency=workspace.latency,
            train_smaller=workspace.train_smaller,
            compiled=workspace.compiled,
            keep={k: v for k, v in earlier.keep.items() if k not in planned} | dict(workspace.keep),
        )
        if fresh != earlier or not path.exists():
            write_atomically(path, fresh.as_json())


def read_beside(root: Path) -> Beside:
    """What was stored beside the plan in ``root``; nothing where no sweep has stored it."""
    path = root / BESIDE_NAME
    try:
        return Beside.model_validate_json(read_beside_plan(path))
    except FileNotFoundError:
        return Beside()
    except (OSError, ValueError):
        raise ShrinkbenchError(f"{path} cannot be read; give the sweep again to rewrite it") from None


def _absolute(places: Mapping[Key, Path]) -> dict[Key, Path]:
    return {key: Path(path).resolve() for key, path in places.items()}
