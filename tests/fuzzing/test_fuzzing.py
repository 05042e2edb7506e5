"""Whatever is read is accepted, or refused in one sentence: nothing falls, hangs or leaves a file behind."""

import pytest
from fuzzing.targets import TARGETS, walk

# A sample in every run; the slow one has 11,000 inputs. Inputs are told apart by number, so a failure repeats.
FEW = dict.fromkeys(TARGETS, 40) | {"command_line": 25}
MANY = {"experiment": 3000, "result": 2000, "planned": 1000, "bundle": 1500, "masks": 1000, "weights": 1500}
MANY |= {"corpus": 1000, "command_line": 400}


@pytest.mark.parametrize("target", TARGETS)
def test_a_sample_is_accepted_or_refused(target, capsys):
    counts, _ = walk(target, FEW[target])
    assert counts["fallen"] == 0, capsys.readouterr().out
    assert counts["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_all_are_accepted_or_refused(target, capsys):
    counts, _ = walk(target, MANY[target], first=1000)
    assert counts["fallen"] == 0, capsys.readouterr().out
