"""What a sweep asks of the place where its tasks run."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.record import RunResult
from shrinkbench.runner.workspace import Workspace
from shrinkbench.spec import PretrainSpec, RunSpec

Kind = Literal["pretraining", "control", "search", "rounds", "run"]


@dataclass(frozen=True)
class Task:
    """One thing to do, known by kind and key: a run, or something that several runs share.

    ``keep`` are epochs whose weights a pretraining keeps. ``before`` is the digest of the result that a run
    replaces: where another one lies by now, somebody else has carried the run out.
    """

    kind: Kind
    key: str
    spec: RunSpec | PretrainSpec = field(compare=False, repr=False)
    keep: tuple[int, ...] = field(default=(), compare=False)
    before: str | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """What it is, for people."""
        spec = self.spec
        name = f"{spec.data.name} {spec.model.name}"
        if isinstance(spec, RunSpec):
            name += " control" if spec.is_control else f" {spec.method.name} {spec.amount.label}"
        return f"{name} seed {spec.seed}"


@dataclass(frozen=True)
class Ending:
    """How one attempt at a task ended; ``sentence`` says why where it is not ``done``.

    ``done``: what was asked for is stored. ``failed``: by the method or its settings; stored for a run.
    ``environment``: disk, memory, a lost machine; nothing is stored. ``died``: the process is gone, or the code
    has tried to end it. ``held``: another process has claimed the task. ``interrupted``: it was told to stop,
    and goes on from its last whole epoch. ``unprepared``: plug-ins or the folder are not what was planned with.
    ``notes`` are what a person should know besides: damaged files that were made again. ``unfit``: the process
    that tells it can do no more, and should be replaced where it can be.
    """

    kind: Literal["done", "failed", "environment", "died", "held", "interrupted", "unprepared"]
    sentence: str = ""
    result: RunResult | None = None
    notes: tuple[str, ...] = ()
    unfit: bool = False


@dataclass(frozen=True)
class Setting:
    """What a process needs besides the tasks; it can be pickled. ``plugins`` are files with their digests."""

    workspace: Workspace
    plugins: Mapping[Path, str | None] = field(default_factory=dict)


LONGEST = 366 * 24 * 3600.0
"""Seconds that a time limit has at most."""


def check_time_limit(seconds: float | None) -> None:
    """Refuse a time limit that no run can keep, or no scheduler."""
    if seconds is None or 0 < seconds <= LONGEST:
        return
    if seconds > LONGEST:
        raise ShrinkbenchError(
            f"a time limit of {seconds:g} s is longer than a year, {LONGEST / 60:.0f} minutes; give less"
        )
    raise ShrinkbenchError(f"a time limit of {seconds:g} s ends every run; give more than 0 minutes")


def empty(queue: deque[Task]) -> tuple[Task, ...]:
    """Take everything out of ``queue``."""
    left = tuple(queue)
    queue.clear()
    return left


class Executor(Protocol):
    """Carries tasks out somewhere; each call of ``submit`` adds some, ``completed`` says which have ended.

    Whether an attempt is repeated, and what it means for other tasks, is the sweep's to decide.
    """

    def start(self, setting: Setting, *, tasks: int) -> None:
        """Make ready for up to so many ``tasks``; called once, before the first of them."""
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Take tasks on, which need not wait for each other."""
        ...

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """What has ended since the last call; waits for up to ``seconds`` where nothing has."""
        ...

    def drain(self) -> Sequence[Task]:
        """Begin no further task, and return those that are given back; what runs goes on."""
        ...

    def close(self, grace: float = 0) -> None:
        """Stop what runs, which may end its epoch within ``grace`` seconds; it keeps its last whole epoch."""
        ...
