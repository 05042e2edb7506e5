"""Own results for an overlay: the table that ``shrinkbench report`` writes, task by task."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from shrinkbench.cells import from_text
from shrinkbench.errors import ShrinkbenchError
from shrinkbench.files import is_folder, require_regular
from shrinkbench.literature.curves import CHANGES, PublishedCurve, PublishedPoint
from shrinkbench.literature.tables import lies_at

OWN_COLUMNS = {
    "compression": "compression",
    "speedup": "theoretical_speedup",
    "top1_change": "top1",
    "top5_change": "top5",
}
"""Metric of a panel -> column of the result table."""
_MOST = sys.float_info.max
_SHARE = (0.0, 1.0, "a share from 0 to 1")
BOUNDS = {
    "top1": _SHARE,
    "top5": _SHARE,
    "compression": (1.0, _MOST, "original over kept, 1 or more"),
    "theoretical_speedup": (sys.float_info.min, _MOST, "original over kept, above 0"),
}
"""What a column can hold: percentages, densities and the like would be drawn as something else."""
KEYS = ("key", "task_key", "method_key", "recipe_key", "control_key")
IMAGES = {"train_images": "training", "validation_images": "validation", "test_images": "test"}
COLUMNS = (
    *KEYS,
    *("task", "dataset", "model", "method", "amount", "control", "seed", "status"),
    *IMAGES,
    "compression_target",
    *OWN_COLUMNS.values(),
)


@dataclass(frozen=True, eq=False)
class OwnTask:
    """Own results on one task: a value of dataset (subset included), network and initial weights.

    ``published_as`` is what papers call the network, as its card said when it ran; empty where none is stored.
    ``controls`` are the unpruned networks by name, one row for each seed; ``pruned`` has the runs whose control
    is among them, with their changes from it. ``failed`` and ``without_control`` count the other runs.
    """

    name: str
    dataset: str
    model: str
    published_as: tuple[str, ...]
    images: Mapping[str, int]
    controls: Mapping[str, pd.DataFrame]
    pruned: pd.DataFrame
    failed: int
    without_control: int

    def curves(self, x: str, y: str) -> tuple[PublishedCurve, ...]:
        """One curve per method, from its control at ratio 1: mean and sample deviation over seeds."""
        columns = ["label", "amount", "compression_target", OWN_COLUMNS[x], y]
        curves = []
        known = self.pruned[columns].dropna(subset=[OWN_COLUMNS[x], y])
        for label, rows in known.groupby("label", sort=True):
            points = []
            for _, cell in rows.groupby(["amount", "compression_target"], dropna=False):
                ys = [float(value) for value in cell[y]]
                spread = stdev(ys) if len(ys) > 1 else None
                points.append(PublishedPoint(fmean(cell[OWN_COLUMNS[x]]), fmean(ys), spread, len(ys)))
            points.sort(key=lambda point: point.x)
            curves.append(PublishedCurve(f"{label} (own)", "", 0, (PublishedPoint(1.0, 0.0, None, 1), *points)))
        return tuple(curves)


def read_own(path: Path) -> pd.DataFrame:
    """Read ``results.csv`` or ``results.parquet``, or either from a folder (or its ``report`` folder).

    Raises ``ShrinkbenchError`` where there is none, or where it is no result table.
    """
    if is_folder(path):
        places = [
            folder / name for folder in (path, path / "report") for name in ("results.parquet", "results.csv")
        ]
        found = next((place for place in places if lies_at(place)), None)
        if found is None:
            raise ShrinkbenchError(
                f"{path} holds no results.csv or results.parquet; run `shrinkbench report` on its results first"
            )
        path = found
    try:
        require_regular(path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        # A name that ends in .zip makes no zip, and a key of digits alone is no number.
        own = pd.read_csv(path, compression=None, dtype=dict.fromkeys(KEYS, str))
        texts = [str(name) for name in own if pd.api.types.is_string_dtype(own[name])]
        return own.assign(**{name: own[name].map(from_text, na_action="ignore") for name in texts})
    except FileNotFoundError:
        raise ShrinkbenchError(
            f"{path} does not exist; give the table that `shrinkbench report` writes"
        ) from None
    except (OSError, ValueError) as error:
        problem = str(error).splitlines()[0]
        raise ShrinkbenchError(
            f"{path} cannot be read as a result table ({problem}); write it again with `shrinkbench report`"
        ) from None


def own_tasks(own: pd.DataFrame) -> Iterator[OwnTask]:
    """The tasks of a result table that have finished runs, in order of their names.

    Raises ``ShrinkbenchError`` for a table without the needed columns, with texts in place of numbers or with
    numbers that a column cannot hold, or without finished runs.
    """
    own = _checked(own)
    is_done = (own["status"] == "done").to_numpy(dtype=bool)
    if not is_done.any():
        raise ShrinkbenchError("the result table holds no finished run; finish some before overlaying them")
    failed = own[~is_done].groupby("task_key")["key"].nunique()
    done = own[is_done]
    labels = _told_apart(done, "task", ["task_key"])
    for name, rows in done.assign(label=labels).groupby("label", sort=True):
        yield _task(str(name), rows, failed=int(failed.get(rows["task_key"].iloc[0], 0)))


def _checked(own: pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in COLUMNS if name not in own.columns]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise ShrinkbenchError(
            f"the result table lacks the column{'s' if len(missing) > 1 else ''} {shown}: it is none, or an "
            "older version wrote it; write it again with `shrinkbench report`"
        )
    numbers = ["compression_target", *OWN_COLUMNS.values(), *IMAGES]
    own = own.assign(**{name: _as_numbers(own[name]) for name in numbers})
    for name, (low, high, what) in BOUNDS.items():
        within = own[name].between(low, high) | own[name].isna()
        if not within.all():
            row = int((~within).to_numpy().argmax())
            raise ShrinkbenchError(
                f"the result table's column {name} holds {own[name].iloc[row]:g} in row {row + 1}, and it is "
                f"{what}; write it again with `shrinkbench report`"
            )
    return own


def _as_numbers(column: pd.Series) -> pd.Series:
    """The column as floats; an error names the first value that is none, and its row."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = (values.isna() & column.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise ShrinkbenchError(
            f"the result table's column {column.name} holds {column.iloc[row]!r} in row {row + 1}; "
            "write it again with `shrinkbench report`"
        )
    return values


def _told_apart(rows: pd.DataFrame, label: str, keys: list[str]) -> list[str]:
    """Labels of rows; what several tables call alike is told apart by the digests of its values."""
    labels = rows[label].astype(str)
    for key in keys:
        several = rows.groupby(labels.to_numpy())[key].transform("nunique") > 1
        labels = labels.where(~several.to_numpy(), labels + " " + rows[key].astype(str).str[:6])
    return labels.to_list()


def _task(name: str, rows: pd.DataFrame, *, failed: int) -> OwnTask:
    is_control = rows["compression_target"] == 1
    controls = rows[is_control].drop_duplicates("control_key")  # every method lists the control that it shares
    references = controls.set_index("control_key")
    pruned = rows[~is_control].drop_duplicates("key")
    has_control = pruned["control_key"].isin(references.index)
    compared = pruned[has_control].copy()
    for change in CHANGES:
        column = OWN_COLUMNS[change]
        reference = references[column].reindex(compared["control_key"]).to_numpy()
        compared[change] = compared[column].to_numpy() - reference
    compared["label"] = _told_apart(compared, "method", ["method_key", "recipe_key"])
    # Runs that differ only in what else was measured are one.
    compared = compared.drop_duplicates(["label", "amount", "compression_target", "seed"])
    used = controls[controls["control_key"].isin(compared["control_key"])]
    first = rows.iloc[0]
    return OwnTask(
        name=name,
        dataset=str(first["dataset"]),
        model=str(first["model"]),
        published_as=_names_in_papers(rows),
        images={kind: int(first[column]) for column, kind in IMAGES.items() if pd.notna(first[column])},
        controls={str(control): part for control, part in used.groupby("control", sort=True)},
        pruned=compared,
        failed=failed,
        without_control=int((~has_control).sum()),
    )


def _names_in_papers(rows: pd.DataFrame) -> tuple[str, ...]:
    """Every name in the column ``published_as``, which older tables lack."""
    cells = rows["published_as"].dropna() if "published_as" in rows else ()
    return tuple(dict.fromkeys(name for cell in cells for name in str(cell).split("; ") if name))
