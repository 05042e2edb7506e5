"""What every test starts from, and what tests of several folders share."""

import os
from functools import cache, partial

import pytest
from hypothesis import settings

# Two processes with as many threads as cores each are slower than two with one, and the order of sums, so the
# last digits, follow from the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config):
    """What the default run says follows from the code alone; new examples are sought by the slow runs."""
    settings.register_profile("the same examples", derandomize=True)
    if config.option.markexpr == "not slow":
        settings.load_profile("the same examples")


@pytest.fixture(scope="session", autouse=True)
def _commands_made_once():
    """typer makes all commands anew for every call; none of them keeps anything of a call."""
    import typer.testing

    once = cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.main.get_command", once)
        patch.setattr("typer.testing._get_command", once)
        yield


@pytest.fixture(scope="module")
def sweeps_here():
    """`sweep` carries runs out in this process: where it is of no matter, no second one has to begin."""
    from shrinkbench.runner.executors import InProcess

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shrinkbench.runner.executors.LocalProcesses", lambda workers, **_: InProcess())
        patch.setattr("shrinkbench.cli.placing.begin_fork_server", lambda device: "spawn")
        yield


@pytest.fixture
def without_figures(monkeypatch):
    """Reports beside a leaderboard draw nothing, where nobody looks at what they would draw."""
    from shrinkbench.report import leaderboard

    monkeypatch.setattr(leaderboard, "write_report", partial(leaderboard.write_report, figures="none"))
