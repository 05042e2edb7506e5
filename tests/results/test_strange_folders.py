"""Files of a stranger's results folder: however large, they take little memory and time."""

import json
import resource
import subprocess
import sys

import pytest
from made_results import make_result, make_spec

from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.index import INDEX_NAME, read_index
from shrinkbench.results.seals import check_tensors
from shrinkbench.results.store import ResultStore
from shrinkbench.results.upkeep import compact_store
from shrinkbench.runner.beside_plan import read_beside
from shrinkbench.spec import ExperimentSpec
from shrinkbench.spec.value import parse_value

EXPERIMENT = {
    "name": "timed",
    "description": "",
    "dataset": "digits",
    "model": "digits-cnn",
    "method": "random",
    "compression": 2,
}
_READS = """
import sys
from pathlib import Path
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.results.damage import verify_store
from shrinkbench.results.store import ResultStore
store = ResultStore(Path(sys.argv[1]))
store.status()
verify_store(store)
told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(told["VmHWM"].split()[0]) >> 10)
"""


def _read_in_another_process(folder):
    """The peak memory in MiB and processor seconds of reading ``folder``."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    run = subprocess.run(
        [sys.executable, "-c", _READS, folder], check=True, timeout=120, capture_output=True, text=True
    )
    return int(run.stdout), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        (INDEX_NAME, b"\n"),
        (INDEX_NAME, b"{}\n"),
        (INDEX_NAME, b"[],"),
        ("workspace.json", b"[],"),
        ("workspace.json", b"1,"),
    ],
)
def test_a_large_file_of_a_stranger_takes_less_than_a_gibibyte(tmp_path, name, unit):
    (tmp_path / "runs").mkdir()
    begin = b'{"latency": [' if name == "workspace.json" else b"["
    with (tmp_path / name).open("wb") as file:
        file.write(begin)
        for _ in range(120):
            file.write(unit * ((1 << 20) // len(unit)))
    peak, seconds = _read_in_another_process(tmp_path)
    assert peak < 512
    assert seconds < 10


def test_what_stands_beside_the_plan_has_as_many_parts_as_a_plan_has_runs(tmp_path):
    places = {f"{number:x}": "b" for number in range(300_000)}
    (tmp_path / "workspace.json").write_text(json.dumps({"data": places}))
    with pytest.raises(ShrinkbenchError, match="give the sweep again to rewrite it"):
        read_beside(tmp_path)


def test_the_last_lines_of_a_long_index_count_and_compact_takes_the_rest_away(tmp_path):
    result = make_result(make_spec())
    store = ResultStore(tmp_path)
    store.write(result)
    line = (tmp_path / INDEX_NAME).read_bytes()
    (tmp_path / INDEX_NAME).write_bytes(b"\n" * (65 << 20) + line)
    assert list(read_index(tmp_path)) == [result.key]
    assert any("rewrote" in sentence for sentence in compact_store(store))
    assert (tmp_path / INDEX_NAME).read_bytes() == line


MINE = {"key": "0" * 64, "sha256": "1" * 64}
SAYS = [
    ({}, None, "holds no whole sealed tensors"),
    ({**MINE, "key": "f" * 64}, None, "was made for another key (ffffffffffff)"),
    (MINE, "2" * 64, "holds other tensors than its result names"),
]


@pytest.mark.parametrize(("metadata", "seal", "sentence"), SAYS)
def test_terabytes_that_say_of_themselves_that_they_are_others_are_not_hashed(
    tmp_path, metadata, seal, sentence
):
    path, size = tmp_path / "weights.safetensors", 1 << 40
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": metadata, "a": tensor}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    assert check_tensors(path, key="0" * 64, seal=seal) == sentence


def test_tensors_that_lie_upon_each_other_are_not_hashed_over_and_over(tmp_path):
    path, size = tmp_path / "weights.safetensors", 4 << 20
    tensors = {f"{n:x}": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]} for n in range(50_000)}
    header = json.dumps({"__metadata__": MINE, **tensors}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    assert check_tensors(path, key="0" * 64) == "holds no whole sealed tensors"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 5


PLACES = ["[0, 1e400]", "[0.0, 1.0]", '["0", "1"]', "[5, -5]", "[0]", "{}", "[[], []]", "[0, 2]"]


@pytest.mark.parametrize("places", PLACES)
def test_places_that_are_none_are_told(tmp_path, places):
    path = tmp_path / "weights.safetensors"
    tensor = f'{{"dtype": "U8", "shape": [1], "data_offsets": {places}}}'
    header = f'{{"__metadata__": {json.dumps(MINE)}, "a": {tensor}}}'.encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"1")
    assert check_tensors(path, key="0" * 64) == "holds no whole sealed tensors"


def test_a_card_is_of_bounded_size(tmp_path):
    from shrinkbench.results.seals import check_card

    path = tmp_path / "card.json"
    path.write_bytes(b'{"a": [' + b"[]," * (6 << 20) + b"[]]}")
    assert check_card(path, key="0" * 64) == "is no whole card"


@pytest.mark.parametrize("size", [-1, 0, 1_000_001, 10**20])
def test_no_batch_that_fits_no_machine_is_timed(tmp_path, size):
    (tmp_path / "workspace.json").write_text(json.dumps({"latency": [size]}))
    with pytest.raises(ShrinkbenchError, match="give the sweep again to rewrite it"):
        read_beside(tmp_path)
    with pytest.raises(ShrinkbenchError, match=r"latency\.0"):
        parse_value(ExperimentSpec, {**EXPERIMENT, "latency": [size]}, where="here")
