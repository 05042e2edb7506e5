"""Folders that Hugging Face's ``save_to_disk`` has written: Arrow streams, read without that library.

A folder of one split holds ``state.json`` and the files that it names; a folder of several holds one such
folder for each. Files beside them that no state names (caches of maps and filters) are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from shrinkbench.errors import ShrinkbenchError, one_line
from shrinkbench.files import parse_json, read_file

_LARGEST_STATE = 16 << 20


def find_saved(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Arrow files by the name of their split, in order; empty where ``folder`` holds no state.

    Raises ``ShrinkbenchError`` for a state that cannot be read, and for files that are not there.
    """
    found: dict[str, tuple[Path, ...]] = {}
    for state in sorted(folder.rglob("state.json")):
        split, names = _read_state(state)
        files = tuple(state.parent / name for name in names)
        absent = next((file for file in files if not file.is_file()), None)
        if absent is not None:
            raise ShrinkbenchError(f"{state} names {absent.name}, which is not there; save the dataset again")
        if split in found:
            raise ShrinkbenchError(
                f"{folder} holds two datasets of the split '{split}'; name the folder of one"
            )
        found[split] = files
    return found


def _read_state(state: Path) -> tuple[str, list[str]]:
    try:
        content = parse_json(read_file(state, most=_LARGEST_STATE))
        names = [str(entry["filename"]) for entry in content["_data_files"]]
        split = str(content.get("_split") or state.parent.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShrinkbenchError(
            f"{state} is no state of a saved dataset ({one_line(str(error), 60)}); save the dataset again"
        ) from None
    for name in names:
        if Path(name).name != name or not name.endswith(".arrow"):
            raise ShrinkbenchError(
                f"{state} names the file {one_line(name, 60)}, which is no .arrow file beside it; save the "
                "dataset again"
            )
    return split, names


class ArrowFile:
    """One Arrow stream, with what a Parquet file is asked for; raises what pyarrow raises."""

    def __init__(self, file: Path) -> None:
        import pyarrow as pa

        self._file = file
        with pa.OSFile(str(file)) as source:
            self.schema_arrow = pa.ipc.open_stream(source).schema

    def iter_batches(self, _: int, columns: Sequence[str]) -> Iterator[Any]:
        """Batches as they were written, of ``columns``."""
        import pyarrow as pa

        with pa.OSFile(str(self._file)) as source:
            for batch in pa.ipc.open_stream(source):
                yield batch.select(list(columns))

    def read(self, columns: Sequence[str]) -> Any:
        """A table of ``columns``."""
        import pyarrow as pa

        batches = list(self.iter_batches(0, columns))
        fields = [self.schema_arrow.field(name) for name in columns]
        return pa.Table.from_batches(batches, schema=pa.schema(fields))
