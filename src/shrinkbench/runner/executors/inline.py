"""Tasks one after another, in this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from shrinkbench.runner.executors.performing import perform
from shrinkbench.runner.executors.protocol import Ending, Setting, Task, empty


class InProcess:
    """Carries tasks out here: methods defined in a notebook work, but a crash of one is that of the sweep."""

    def __init__(self) -> None:
        self._queue: deque[Task] = deque()
        self._setting: Setting | None = None

    def start(self, setting: Setting, *, tasks: int) -> None:
        """Keep the setting."""
        self._setting = setting

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue the tasks."""
        self._queue.extend(tasks)

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """Carry out the next task, however long that takes."""
        if not self._queue or self._setting is None:
            return ()
        task = self._queue.popleft()
        return ((task, perform(task, self._setting)),)

    def drain(self) -> Sequence[Task]:
        """Give back what waits."""
        return empty(self._queue)

    def close(self, grace: float = 0) -> None:
        """Forget what waits."""
        self._queue.clear()
