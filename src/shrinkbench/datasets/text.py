"""Text that every installation of Python brings along: the source of its standard library, as bytes."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.own import InMemoryExamples
from shrinkbench.datasets.revision import content_digest, revision_of
from shrinkbench.errors import ShrinkbenchError

BLOCK = 128
"""Tokens in a block; each is one byte."""


def _load(data: Path | None) -> Dataset:
    """The text of the running Python, or of the files ``*.py`` in the folder ``data``."""
    folder = data or Path(sysconfig.get_path("stdlib"))
    try:
        contents = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    except OSError as error:
        raise ShrinkbenchError(
            f"cannot read the text in {folder} ({error.strerror or error}); put it back"
        ) from None
    splits = [
        _blocks([text for number, text in enumerate(contents) if number % 10 in rests])
        for rests in (range(8), (8,), (9,))
    ]
    if not all(map(len, splits)):
        raise ShrinkbenchError(
            f"{folder} holds {len(contents)} files *.py with too little text for three splits; give a folder "
            f"of ten files or more, each of {BLOCK} bytes or more, as --data"
        )
    train, validation, test = (InMemoryExamples(tokens, tokens) for tokens in splits)
    return Dataset(
        card=PYTHON_TEXT,
        train=train,
        validation=validation,
        test=test,
        revision=revision_of(PYTHON_TEXT, *map(content_digest, splits)),
        class_names=tuple(str(byte) for byte in range(256)),
        example=splits[0][:1],
    )


def _blocks(texts: Sequence[bytes]) -> Tensor:
    """Whole blocks (N, 128) of the texts, the first of every text before the second of any."""
    cut = [
        torch.frombuffer(bytearray(text), dtype=torch.uint8)[: len(text) // BLOCK * BLOCK].view(-1, BLOCK)
        for text in texts
        if len(text) >= BLOCK
    ]
    blocks = list(_in_turn(cut))
    return torch.stack(blocks).long() if blocks else torch.empty(0, BLOCK, dtype=torch.int64)


def _in_turn(cut: Sequence[Tensor]) -> Iterator[Tensor]:
    for number in range(max(map(len, cut), default=0)):
        yield from (blocks[number] for blocks in cut if number < len(blocks))


PYTHON_TEXT = DATASETS.add(
    "python-text",
    DatasetCard(
        name="python-text",
        description="the source of the running Python's standard library (files *.py at its top) as bytes, in "
        "blocks of 128; another version of Python is another text, and has another revision",
        reference="python",
        licence="PSF License Version 2",
        num_classes=256,
        image_shape=(BLOCK,),
        splits="files in order of their names, counted from 0: file i is validation for i mod 10 = 8, test "
        "for 9, else train; whole blocks, the first of every file before the second of any",
        recipe="text-finetune",
        pretrain_recipe="text-train",
        task="language_modelling",
        load=_load,
    ),
)
