"""Signals while runs are carried out: what was asked for, and with which exit code it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Literal

import typer

from shrinkbench.processes import hear_alone

Stop = Literal["go on", "finish", "checkpoint", "stop"]
_ORDER: tuple[Stop, ...] = ("go on", "finish", "checkpoint", "stop")  # each ends sooner than the one before
_REQUESTS = {
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if hasattr(signal, name)
}  # some systems have fewer
_GRACE = 20.0  # seconds after one of them in which a run may end its epoch


class Ended(SystemExit):
    """The end that a signal has asked for; that of ``sys.exit`` in somebody's code is another."""


class Stopping:
    """Ctrl-C once: what runs is finished; twice: all stops. The others: runs stop after their epoch.

    These are SIGTERM, SIGUSR1 and SIGHUP, of a terminal that is closed. What this process was started to
    ignore, as by ``nohup``, it ignores.
    Whatever comes later makes no stop a weaker one, and the exit code of a request stays.
    Signals before ``begin`` end the command at once, as nothing runs yet. With ``in_process``, the function
    that makes the run of this process stop after its epoch, the process ends itself after the grace time.
    ``on_signal`` is told of each of them, Ctrl-C too.
    """

    def __init__(
        self, in_process: Callable[[], None] | None = None, on_signal: Callable[[], None] = lambda: None
    ) -> None:
        self.code = 0
        self._wish: Stop = "go on"
        self._begun = False
        self._interrupts = 0
        self._pid = os.getpid()
        self._in_process, self._on_signal = in_process, on_signal
        self._before: dict[int, Any] = {}

    def __call__(self) -> Stop:
        """What has been asked for by now."""
        return self._wish

    def __enter__(self) -> Stopping:
        heard = {number for number in signal.valid_signals() if signal.getsignal(number) != signal.SIG_IGN}
        for number in heard & _REQUESTS:
            self._before[number] = signal.signal(number, self._on_request)
        hear_alone(*self._before)
        if signal.SIGINT in heard:
            self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def begin(self) -> None:
        """From now on there is something to finish."""
        self._begun = True

    def _ask(self, wish: Stop) -> None:
        self._wish = max(self._wish, wish, key=_ORDER.index)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a copy that somebody's code has forked of it goes on as this one does
            return
        self._on_signal()
        self._interrupts += 1
        self.code = self.code or 130
        again = self._interrupts > 1
        if not self._begun or (again and self._in_process is not None) or self._wish == "stop":
            raise KeyboardInterrupt
        self._ask("stop" if again else "finish")
        if again:
            told = "stopping; runs go on from their last whole epoch"
        elif self._wish == "checkpoint":
            told = "runs stop after their epoch already; Ctrl-C once more stops them now"
        else:
            told = "finishing the runs that are under way; Ctrl-C once more stops them"
        with contextlib.suppress(OSError):  # the terminal is closed
            typer.echo(told, err=True)

    def _on_request(self, number: int, frame: FrameType | None) -> None:
        self._on_signal()
        self.code = 128 + number
        if not self._begun:
            raise Ended(self.code)
        self._ask("checkpoint")
        if self._in_process is not None:
            self._in_process()
            timer = threading.Timer(_GRACE, os._exit, (self.code,))
            timer.daemon = True
            timer.start()
