"""Tasks one after another, each in several processes that train together (extra ``fabric``)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.runner.executors.inline import InProcess
from shrinkbench.runner.executors.performing import follow_head, prepare
from shrinkbench.runner.executors.protocol import Ending, Setting, Task
from shrinkbench.training.team import Team
from shrinkbench.training.together import FabricTeam, Places, team_of


class Together(InProcess):
    """This process is the head of a team at ``places``: it claims and writes, the others compute along.

    They are started with the first task, and see the output folder and the data as this one does.
    """

    def __init__(self, places: Places) -> None:
        super().__init__()
        self._places = places
        self._joined = ExitStack()
        self._team: FabricTeam | None = None

    def start(self, setting: Setting, *, tasks: int) -> None:
        """Start the other processes, and wait until all have joined."""
        self._team = self._joined.enter_context(team_of(self._places, Following(setting)))
        super().start(replace(setting, workspace=replace(setting.workspace, team=self._team)), tasks=tasks)

    def completed(self, seconds: float) -> Sequence[tuple[Task, Ending]]:
        """Carry out the next task; refuse to go on where the processes have not ended it alike."""
        found = super().completed(seconds)
        if self._team is not None and not self._team.whole:
            task, ending = found[0]
            raise ShrinkbenchError(
                f"the processes that train together have parted at {task.label} ({ending.sentence[:90]}); give "
                "the same command again"
            )
        return found

    def close(self, grace: float = 0) -> None:
        """Dismiss the other processes."""
        super().close(grace)
        if self._team is not None and self._team.whole:
            self._team.tell(None)
        self._team = None
        self._joined.close()


@dataclass(frozen=True)
class Following:
    """The life of every process but the head: it takes part in one task after another."""

    setting: Setting

    def __call__(self, team: Team) -> None:
        """Follow until the head has no more to do."""
        if threading.current_thread() is threading.main_thread():  # of another machine, as the command there
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the head's to handle
        prepare(self.setting)
        workspace = replace(self.setting.workspace, team=team, log_to=None)
        while (task := _next(team)) is not None:
            if not team.end(follow_head(task, workspace)):
                os._exit(1)  # the head waits for messages that this process will not send


def _next(team: Team) -> Task | None:
    """What the head begins."""
    told: Task | None = team.tell(None)
    return told
