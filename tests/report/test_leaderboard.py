"""Entries of a leaderboard are told apart by value, and stand together only where they answer one question."""

from __future__ import annotations

import re

import pytest
from made_results import FINETUNE, METHODS, make_result, make_spec, write_store

from shrinkbench.report.leaderboard import write_leaderboard
from shrinkbench.spec import CLASSIFICATION, WeightsSpec

MAGNITUDE = METHODS["global_magnitude"]
OTHER_CODE = MAGNITUDE.model_copy(update={"score": MAGNITUDE.score.model_copy(update={"source": "f" * 64})})


def grid(**changes):
    """A method at two compressions with its control; ``changes`` are of the task."""
    specs = [make_spec(compression=c) for c in (1, 2, 4)]
    return [s.model_copy(update={"task": s.task.model_copy(update=changes)}) for s in specs]


def boards(tmp_path, bundles):
    """The rows of every board: text of the method, and of weights and recipe."""
    stores = [
        write_store(tmp_path / str(n), list(map(make_result, specs)), name=str(n)).root
        for n, specs in enumerate(bundles)
    ]
    page = write_leaderboard(stores, tmp_path / "out").index.read_text(encoding="utf-8")
    tables = re.findall(r"<tbody>(.*?)</tbody>", page, flags=re.DOTALL)
    return [
        [
            (re.sub(r"<[^>]*>", "", row[0]), re.sub(r"<[^>]*>", "", row[1]))
            for row in re.findall(r'<th scope="row">(.*?)</th>.*<td class="text">(.*?)</td></tr>', table)
        ]
        for table in tables
    ]


DATA = make_spec().data
DIFFERING = {
    "subsets": [grid(), grid(data=DATA.model_copy(update={"train_images": 100}))],
    "files of weights of one name": [
        grid(weights=WeightsSpec(kind="file", name="w", digest=digit * 64)) for digit in "12"
    ],
    "recipes of one name": [
        grid(),
        [s.model_copy(update={"recipe": FINETUNE.model_copy(update={"epochs": 3})}) for s in grid()],
    ],
    "methods of one name": [grid(), [s.model_copy(update={"method": OTHER_CODE}) for s in grid()]],
}


@pytest.mark.parametrize("bundles", DIFFERING.values(), ids=DIFFERING)
def test_entries_of_one_board_are_told_apart(bundles, tmp_path):
    (board,) = boards(tmp_path, bundles)
    assert len(board) == len(set(board)) == len(bundles)


def test_another_objective_is_another_board(tmp_path):
    other = CLASSIFICATION.model_copy(update={"source": "a" * 64})
    assert [len(board) for board in boards(tmp_path, [grid(), grid(objective=other)])] == [1, 1]
