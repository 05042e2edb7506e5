"""Tasks handed to an executor in the order of their needs, repeated where that helps, until all have ended."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from typing import Literal

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.runner.dependencies import Graph
from shrinkbench.runner.executors.protocol import Ending, Executor, Task

Stop = Literal["go on", "finish", "checkpoint", "stop"]
_POLL = 0.5  # seconds
_LOOK_AGAIN = 2.0  # seconds between looks at what other processes hold
_TELL_AGAIN = 60.0
_IN_A_ROW = 3  # tasks that fail by their environment, before the sweep gives up
_FAILED = {
    "pretraining": "pretraining failed",
    "control": "the control failed",
    "search": "the training that prunes failed",
    "rounds": "the method whose proportions this control has failed",
}


@dataclass
class Dispatcher:
    """Carries the tasks of a graph out by an executor.

    An attempt that died, or that its environment failed, is made again up to ``retries`` times. ``on_end`` is
    told of each task once, with how it ended: of one that lacks what it needs, too. ``on_note`` is told what a
    person should know meanwhile, ``stopping`` is asked whether to go on, and ``is_free`` whether a task that
    another process held is worth another attempt, unless ``find_done`` tells how it has ended there.
    """

    graph: Graph
    executor: Executor
    retries: int
    on_end: Callable[[Task, Ending], None]
    on_note: Callable[[str], None]
    stopping: Callable[[], Stop]
    is_free: Callable[[Task], bool] = lambda task: True
    find_done: Callable[[Task], Ending | None] = lambda task: None
    _ended: dict[Task, Ending] = field(default_factory=dict)
    _tries: dict[Task, list[str]] = field(default_factory=lambda: defaultdict(list))
    _held: dict[Task, str] = field(default_factory=dict)
    _running: set[Task] = field(default_factory=set)
    _in_a_row: int = 0
    _looked: float = 0.0
    _told: float = 0.0

    def carry_out(self) -> None:
        """Return when every task has ended, or when what runs has, after a request to finish."""
        sorter: TopologicalSorter[Task] = TopologicalSorter(self.graph)
        sorter.prepare()
        while sorter.is_active():
            wish = self.stopping()
            if wish in ("stop", "checkpoint"):
                return
            if wish == "finish":
                self._running.difference_update(self.executor.drain())
                if not self._running:
                    return
            else:
                self._begin(sorter)
            self._hear(sorter)

    def _begin(self, sorter: TopologicalSorter[Task]) -> None:
        """Hand over what can start now, and settle what cannot."""
        ready = list(sorter.get_ready())
        for task in ready:
            ending = self._lack_of(task)
            if ending is not None:
                self._settle(task, ending, sorter)
        self._submit([task for task in ready if task not in self._ended])
        if self._held and time.monotonic() > self._looked + _LOOK_AGAIN:
            self._look_at_held(sorter)

    def _look_at_held(self, sorter: TopologicalSorter[Task]) -> None:
        """Settle what its holders have brought to an end, and try what they have given up."""
        self._tell_of_held()
        again: list[Task] = []
        for task in list(self._held):
            ending = self.find_done(task)
            if ending is None and not self.is_free(task):
                continue
            del self._held[task]
            if ending is None:
                again.append(task)
            else:
                self._settle(task, ending, sorter)
        self._looked = time.monotonic()
        self._submit(again)

    def _submit(self, tasks: Sequence[Task]) -> None:
        if tasks:
            self._running.update(tasks)
            self.executor.submit(tasks)

    def _hear(self, sorter: TopologicalSorter[Task]) -> None:
        if not self._running:
            time.sleep(_POLL if self._held else 0)
            return
        for task, ending in self.executor.completed(_POLL):
            self._running.discard(task)
            for note in ending.notes:
                self.on_note(note)
            if ending.kind == "unprepared":
                raise ShrinkbenchError(ending.sentence)
            if ending.kind == "held":
                self._held[task] = ending.sentence
            elif ending.kind in ("done", "failed"):
                self._in_a_row = 0
                self._settle(task, ending, sorter)
            elif self.stopping() == "go on":
                self._try_again(task, ending, sorter)

    def _try_again(self, task: Task, ending: Ending, sorter: TopologicalSorter[Task]) -> None:
        found = self.find_done(task)
        if found is not None:  # its process died after it had stored what it was for
            self._settle(task, found, sorter)
            return
        tries = self._tries[task]
        tries.append(ending.sentence)
        if len(tries) <= self.retries:
            self.on_note(f"{task.kind} {task.label}: {ending.sentence}; tried again")
            self._submit([task])
            return
        if ending.kind == "died":
            self._settle(task, Ending("failed", say_tries(tries)), sorter)
            return
        self._settle(task, Ending("environment", ending.sentence), sorter)
        self._in_a_row += 1
        if self._in_a_row >= _IN_A_ROW:
            raise ShrinkbenchError(
                f"{_IN_A_ROW} tasks in a row could not be carried out here ({one_line(ending.sentence, 130)}); "
                "finished runs are stored: mend this, and give the same command again"
            )

    def _settle(self, task: Task, ending: Ending, sorter: TopologicalSorter[Task]) -> None:
        self._ended[task] = ending
        sorter.done(task)
        self.on_end(task, ending)

    def _lack_of(self, task: Task) -> Ending | None:
        """How a task ends that lacks something shared: it fails with it, or is left for another time."""
        for need in self.graph.get(task, ()):
            ending = self._ended[need]
            if need.kind == "run" or ending.kind == "done":
                continue  # a run that others wait for has left behind what it could
            if task.kind == "run" and ending.kind == "failed":
                return Ending("failed", f"{_FAILED[need.kind]}: {ending.sentence}")
            return ending
        return None

    def _tell_of_held(self) -> None:
        if time.monotonic() < self._told + _TELL_AGAIN or self._running:
            return
        self._told = time.monotonic()
        holders = sorted(set(self._held.values()))
        rest = f" and {len(holders) - 1} others" if len(holders) > 1 else ""
        count = len(self._held)
        self.on_note(f"waiting for {count} task{'s' * (count != 1)} that {holders[0]}{rest} carries out")


def say_tries(tries: Sequence[str]) -> str:
    """What became of the worker, each time.

    >>> say_tries(["died by SIGSEGV", "died by SIGSEGV"])
    'worker died by SIGSEGV twice'
    >>> say_tries(["died by SIGSEGV", "called sys.exit(1)"])
    'worker died by SIGSEGV, then called sys.exit(1)'
    """
    if len(set(tries)) > 1 or len(tries) == 1:
        return f"worker {', then '.join(tries)}"
    return f"worker {tries[0]} {'twice' if len(tries) == 2 else f'{len(tries)} times'}"
