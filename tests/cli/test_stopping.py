"""Signals in any order: what was asked for only ever becomes stronger."""

import itertools
import os
import signal

import pytest

from shrinkbench.cli.stopping import Stopping

ORDER = ["go on", "finish", "checkpoint", "stop"]
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)


@pytest.mark.parametrize("numbers", itertools.product(NUMBERS, repeat=3), ids=str)
def test_no_signal_makes_a_stop_weaker(numbers, capsys):
    with Stopping() as stopping:
        stopping.begin()
        wishes = []
        try:
            for number in numbers:
                signal.raise_signal(number)
                wishes.append(stopping())
        except KeyboardInterrupt:
            assert wishes[-1] == "stop"
    assert wishes == sorted(wishes, key=ORDER.index)
    requests = [number for number in numbers[: len(wishes)] if number != signal.SIGINT]
    assert stopping.code == (128 + requests[-1] if requests else 130)
    assert "checkpoint" in wishes or "stop" in wishes or numbers.count(signal.SIGINT) < 2


def test_a_request_and_then_an_interrupt_stop_after_the_epoch(capsys):
    with Stopping() as stopping:
        stopping.begin()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert (stopping(), stopping.code) == ("checkpoint", 143)
        assert "already" in capsys.readouterr().err
        signal.raise_signal(signal.SIGINT)
        assert (stopping(), stopping.code) == ("stop", 143)


def test_before_anything_has_begun_a_request_ends_the_command():
    with Stopping(), pytest.raises(SystemExit) as ended:
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143


@pytest.mark.parametrize("number", NUMBERS)
def test_what_a_command_was_started_to_ignore_it_ignores(number):
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does, and a shell for what runs behind a script
    try:
        with Stopping() as stopping:
            signal.raise_signal(number)
        assert (stopping(), stopping.code) == ("go on", 0)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks nothing")
def test_a_copy_that_a_run_has_forked_leaves_ctrl_c_to_the_head(capfd):
    with Stopping() as stopping:
        stopping.begin()
        copy = os.fork()
        if not copy:
            signal.raise_signal(signal.SIGINT)
            os._exit(stopping() == "go on")
        assert os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]) == 1
    assert capfd.readouterr().err == ""
