"""``shrinkbench sweep``: a grid of runs with a progress display."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shrinkbench.cli.options import Data, Device, Plugins, load_plugins, parse_data, parse_settings
from shrinkbench.errors import ShrinkbenchError

if TYPE_CHECKING:
    from shrinkbench.results.store import Status
    from shrinkbench.runner import Progress
    from shrinkbench.spec import ExperimentSpec

app = typer.Typer()


def experiment_folder() -> Path:
    """Where the experiments that come with the package lie: inside it, or in its source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parents[1] / "experiments"


def find_experiment(name: str) -> Path:
    """The file ``name``, or the experiment of that name that comes with the package."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = experiment_folder() / f"{name}.toml"
    if shipped.is_file():
        return shipped
    known = ", ".join(sorted(p.stem for p in experiment_folder().glob("*.toml")))
    raise ShrinkbenchError(f"there is no experiment file or name '{name}'; known names: {known}")


@app.command()
def sweep(
    experiment: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="Experiment name or TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; by default results/NAME.")] = None,
    workers: Annotated[int, typer.Option(help="Processes; each gets its share of the threads.")] = 1,
    device: Device = "auto",
    data: Data = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: seed=[0,1], finetune.epochs=2."),
    ] = None,
    plugins: Plugins = None,
    retry_failed: Annotated[bool, typer.Option(help="Run failed runs again.")] = False,
    parts: Annotated[
        list[str] | None, typer.Option("--part", help="Only this part of an experiment that has several.")
    ] = None,
) -> None:
    """Run every cell of a grid that is not done yet; finished runs are skipped."""
    specs, name = _choose(experiment, parse_settings(settings), parts or [])
    target = out or Path("results") / name
    load_plugins(plugins)
    from shrinkbench.runner import sweep as run_sweep

    with _Display() as display:
        try:
            status = run_sweep(
                specs,
                target,
                workers=workers,
                device=device,
                data=parse_data(data),
                plugins=plugins or (),
                retry_failed=retry_failed,
                on_plan=display.start,
                on_progress=display.advance,
                on_note=display.note,
            )
        except KeyboardInterrupt:
            display.stop()
            typer.echo("\ninterrupted; finished runs are stored, the same command goes on", err=True)
            sys.exit(130)
    _tell(status, target)
    if status.failed:
        raise typer.Exit(1)


def _choose(
    experiment: str, settings: dict[str, Any], parts: list[str]
) -> tuple[tuple[ExperimentSpec, ...], str]:
    """The experiments of a file, or those ``parts`` of it, and the name of their output folder."""
    from shrinkbench.spec import read_experiments

    path = find_experiment(experiment)
    specs = read_experiments(path, settings)
    if len(specs) == 1 and not parts:
        return specs, specs[0].name
    name = str(settings.get("name", path.stem))
    by_part = {spec.name.removeprefix(f"{name}-"): spec for spec in specs}
    for part in parts:
        if part not in by_part or len(specs) == 1:
            known = f"; its parts are {', '.join(by_part)}" if len(specs) > 1 else ", it has none"
            raise ShrinkbenchError(f"--part {part}: {path} has no such part{known}")
    return tuple(spec for part, spec in by_part.items() if part in parts or not parts), name


def _tell(status: Status, target: Path) -> None:
    typer.echo(f"{status.done} of {status.total} runs done, {status.failed} failed -> {target}")
    if status.failed:
        typer.echo("failed runs are listed in the report; run them again with --retry-failed", err=True)
    typer.echo(f"next: shrinkbench report {target}")


class _Display:
    """A progress bar with time left on a terminal, one line per finished task elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("planning", total=None)

    def __enter__(self) -> _Display:
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def start(self, total: int, todo: int) -> None:
        """The plan is made."""
        self._console.print(f"{total} runs planned, {todo} to do", highlight=False)

    def note(self, sentence: str) -> None:
        """Something to know before it starts."""
        self._console.print(f"note: {sentence}", highlight=False, markup=False, soft_wrap=True)

    def advance(self, progress: Progress) -> None:
        """One task has ended."""
        text = _line(progress)
        failed = progress.result is not None and progress.result.status == "failed"
        if failed or not self._console.is_terminal:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        self._bar.update(self._task, completed=progress.done, total=progress.total, description=progress.label)


def _line(progress: Progress) -> str:
    text = f"[{progress.done}/{progress.total}] {progress.kind} {progress.label}"
    result = progress.result
    if result is not None and result.after is not None:
        text += (
            f": {result.spec.task.objective.headline} {result.headline:.4f}, {result.provenance.seconds:.1f} s"
        )
    elif result is not None and result.error:
        text += f": failed: {result.error}"
    return text
