"""Text or tokens in files of Hugging Face datasets: Parquet, and the folders that ``save_to_disk`` writes.

Both are read by pyarrow; the library ``datasets`` is not needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shrinkbench.datasets.arrow_files import find_saved
from shrinkbench.datasets.card import DATASETS, Dataset, DatasetCard
from shrinkbench.datasets.own import InMemoryExamples
from shrinkbench.datasets.parquet import PART_PREFIXES, find_parquet
from shrinkbench.datasets.revision import content_digest, revision_of
from shrinkbench.errors import ShrinkbenchError, one_line

BLOCK = 128
"""Tokens in a block."""
_LARGEST = 1 << 31  # tokens of a split
_COLUMNS = ("input_ids", "text")
_MASK = "attention_mask"


def load(data: Path | None) -> Dataset:
    """Blocks of the tokens in ``data``, a Parquet file or a folder of Parquet or Arrow files."""
    if data is None or not data.exists():
        raise ShrinkbenchError(
            "text-files needs --data: a Parquet file or folder, or one that datasets' save_to_disk wrote, with "
            "a column input_ids (whole numbers) or text"
        )
    files = _find(data)
    if not files:
        raise ShrinkbenchError(
            f"{data} holds no Parquet or Arrow file; write plain text as one, a row per text in a column text"
        )
    read = {part: _blocks(paths) for part, paths in files.items()}
    splits = _splits({part: blocks for part, (blocks, _) in read.items()}, data)
    kinds = {known for _, known in read.values()}
    if len(kinds) > 1:
        raise _of_two_kinds(data)
    known = max(kinds)
    vocabulary = max(known, 1 + max(int(split.max()) for split in splits))
    parts = [InMemoryExamples(tokens, tokens) for tokens in splits]
    return Dataset(
        card=TEXT_FILES,
        train=parts[0],
        validation=parts[1],
        test=parts[2],
        revision=revision_of(TEXT_FILES, *map(content_digest, splits)),
        class_names=tuple(map(str, range(vocabulary))),
        example=splits[0][:1],
    )


def _find(data: Path) -> dict[str, tuple[Path, ...]]:
    """Files by split; a folder of ``save_to_disk`` is one split, or has a folder for each."""
    if data.is_file() or not any(data.rglob("*.arrow")):
        return find_parquet(data, "text-files")
    found: dict[str, tuple[Path, ...]] = {}
    saved = {path for paths in find_saved(data).values() for path in paths}
    stated = {path.parent for path in saved}
    for path in sorted(data.rglob("*.arrow")):
        # What datasets has computed, or an earlier save has left, is no data of its own.
        if path.name.startswith("cache-") or (path.parent in stated and path not in saved):
            continue
        name = path.parent.name.lower() if path.parent != data else "train"
        part = next((part for part, names in PART_PREFIXES.items() if name.startswith(names)), None)
        if part is None:
            raise ShrinkbenchError(
                f"{path.parent} could belong to any split; call it train, validation or test, or name it alone"
            )
        found[part] = (*found.get(part, ()), path)
    return found


def _splits(blocks: dict[str, Tensor], data: Path) -> list[Tensor]:
    """Train, validation and test; what is not there is cut from train: of every ten blocks the 9th and 10th."""
    for part, tokens in blocks.items():
        if not len(tokens):
            raise ShrinkbenchError(
                f"the split {part} of {data} holds less than a block of {BLOCK} tokens; add text"
            )
    if "train" not in blocks:
        raise ShrinkbenchError(f"{data} has no split train; name its files or folders train, validation, test")
    rest = torch.arange(len(blocks["train"])) % 10
    held = {"validation": rest == 8, "test": rest == 9}
    stays = torch.ones(len(rest), dtype=torch.bool)
    found = {}
    for part, rows in held.items():
        found[part] = blocks[part] if part in blocks else blocks["train"][rows]
        stays &= torch.ones_like(rows) if part in blocks else ~rows
    splits = [blocks["train"][stays], found["validation"], found["test"]]
    if not all(map(len, splits)):
        raise ShrinkbenchError(
            f"{data} holds {len(rest)} blocks of {BLOCK} tokens, too few to be cut into three; give ten or more"
        )
    return splits


def _blocks(files: Sequence[Path]) -> tuple[Tensor, int]:
    """All tokens of the rows, one behind the other, cut into whole blocks (N, 128).

    Beside them how many tokens there are to tell apart, where that is known: 256 of bytes, else 0.
    """
    pieces: list[Tensor] = []
    kinds: set[int] = set()
    count = 0
    for path in files:
        for column, mask in _columns(path):
            text = _is_text(column)
            tokens = _bytes(column) if text else _tokens(column, mask, path)
            count += len(tokens)
            if count > _LARGEST:
                raise ShrinkbenchError(f"{path}: more than {_LARGEST:,} tokens do not fit; give a part of them")
            if len(tokens):
                kinds.add(256 if text else 0)
                pieces.append(tokens)
        if len(kinds) > 1:
            raise _of_two_kinds(path.parent)
    tokens = torch.cat(pieces) if pieces else torch.empty(0, dtype=torch.int64)
    return tokens[: len(tokens) // BLOCK * BLOCK].reshape(-1, BLOCK), max(kinds, default=0)


def _of_two_kinds(where: Path) -> ShrinkbenchError:
    return ShrinkbenchError(
        f"of the files in {where} some hold tokens and some text, whose bytes would be other tokens of the "
        "same numbers; give all of one kind"
    )


def _columns(path: Path) -> Iterator[tuple[Any, Any]]:
    """The column of tokens or text, piece by piece, with that of which tokens count, where there is one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix == ".parquet":
            opened = pq.ParquetFile(path)
            yield from _read(path, opened.schema_arrow.names, lambda c: opened.iter_batches(1000, columns=c))
            return
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
            yield from _read(path, stream.schema.names, lambda _: stream)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, ShrinkbenchError):
            raise
        raise ShrinkbenchError(f"cannot read {path} ({one_line(str(error), 100)}); fetch it again") from None


def _read(
    path: Path, names: Sequence[str], batches: Callable[[list[str]], Iterable[Any]]
) -> Iterator[tuple[Any, Any]]:
    name = _column(names, path)
    masked = name == _COLUMNS[0] and _MASK in names
    for batch in batches([name, *([_MASK] if masked else [])]):
        yield _plain(batch[name]), batch[_MASK] if masked else None


def _plain(column: Any) -> Any:
    """``column`` without the ways of storing it that say nothing about what it holds."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    return column.cast(pa.large_string()) if pa.types.is_string_view(column.type) else column


def _column(names: Sequence[str], path: Path) -> str:
    found = next((name for name in _COLUMNS if name in names), None)
    if found is None:
        raise ShrinkbenchError(
            f"{path} has the columns {one_line(', '.join(names), 80)}; it needs {' or '.join(_COLUMNS)}"
        )
    return found


def _is_text(column: Any) -> bool:
    import pyarrow as pa

    kind = column.type  # rows that are all missing have no type
    return any(
        bool(is_kind(kind)) for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_null)
    )


def _bytes(column: Any) -> Tensor:
    """The bytes (UTF-8) of rows of text, one behind the other, a line break after each."""
    text = "".join(f"{row}\n" for row in column.to_pylist() if row is not None).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8).long() if text else torch.empty(0).long()


def _tokens(column: Any, mask: Any, path: Path) -> Tensor:
    """Tokens of rows of lists, one behind the other, without those that ``mask`` says do not count."""
    if not _is_listed(column.type):
        raise ShrinkbenchError(
            f"the tokens in {path} are of type {one_line(str(column.type), 40)}; give lists of whole numbers, "
            "or text"
        )
    flat = column.flatten()
    if mask is not None:
        flat = flat.filter(_counting(column, mask, path))
    found = torch.tensor(flat.drop_null().to_pylist(), dtype=torch.int64)
    if len(found) and (int(found.min()) < 0 or int(found.max()) >= 1 << 24):
        raise ShrinkbenchError(f"{path} holds the token {int(found.min())} or above 2^24; tokens count from 0")
    return found


def _counting(column: Any, mask: Any, path: Path) -> Any:
    """Which of the tokens count; padding, which a tokeniser has added, does not."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lengths = [pc.list_value_length(one).cast(pa.int64()) for one in (column, mask) if _is_listed(one.type)]
    if len(lengths) < 2 or not lengths[0].equals(lengths[1]):
        raise ShrinkbenchError(
            f"the columns {_COLUMNS[0]} and {_MASK} of {path} do not go together; give one number of the mask "
            "for each token, 1 where it counts and 0 where it does not, or leave that column out"
        )
    return pc.fill_null(mask.flatten().cast(pa.bool_()), False)


def _is_listed(kind: Any) -> bool:
    """Whether a column holds lists of whole numbers or truth values, however long."""
    import pyarrow as pa

    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(lists and (pa.types.is_integer(kind.value_type) or pa.types.is_boolean(kind.value_type)))


TEXT_FILES = DATASETS.add(
    "text-files",
    DatasetCard(
        name="text-files",
        description="text or tokens in Parquet files, or in a folder of Hugging Face datasets' save_to_disk: a "
        "column input_ids, or text, whose UTF-8 bytes are the tokens; rows one behind the other (a line break "
        "after each text), in blocks of 128",
        reference="",
        licence="that of the text",
        num_classes=None,
        image_shape=(BLOCK,),
        splits="those of the files or folders train, validation, test; what is missing is cut from train: of "
        "every ten blocks, in order, the 9th is validation and the 10th test",
        recipe="text-finetune",
        pretrain_recipe="text-train",
        task="language_modelling",
        load=load,
    ),
)
