"""``shrinkbench sweep`` and ``run``: a grid of runs with a progress display, and single ones of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shrinkbench.cli.options import (
    Compile,
    Data,
    Device,
    Devices,
    LogTo,
    NumNodes,
    Plugins,
    SweepsCompile,
    SweepsDevice,
    SweepsTrainSmaller,
    TrainSmaller,
    load_plugins,
    parse_data,
    parse_settings,
)
from shrinkbench.cli.placing import RunPlace, executor_of
from shrinkbench.cli.plans import compiling_pays, print_plan
from shrinkbench.cli.progress import Display
from shrinkbench.cli.stopping import Stopping
from shrinkbench.errors import ShrinkbenchError, escaped, one_line, some_of
from shrinkbench.files import check_folder, exists, is_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shrinkbench.results.store import Status
    from shrinkbench.spec import ExperimentSpec

app = typer.Typer()

RetryFailed = Annotated[bool, typer.Option(help="Run failed runs again.")]
MaxRetries = Annotated[
    int,
    typer.Option(min=0, help="Further attempts where a process died, or disk or memory failed."),
]


def experiment_folder() -> Path:
    """Where the experiments that come with the package lie: inside it, or in its source tree."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "experiments"
    return inside if inside.is_dir() else package.parents[1] / "experiments"


def find_experiment(name: str) -> Path:
    """The file ``name``, or the experiment of that name that comes with the package."""
    path = Path(name)
    if is_file(path):
        return path
    shipped = experiment_folder() / f"{name}.toml"
    if is_file(shipped):
        return shipped
    if exists(path):
        raise ShrinkbenchError(f"the experiment {name} is no plain file; give a TOML file")
    names = (p.stem for p in experiment_folder().glob("*.toml"))
    known = some_of(names, name, more="`shrinkbench list experiments`")
    raise ShrinkbenchError(f"there is no experiment file or name '{one_line(name, 80)}'; known names: {known}")


@app.command()
def sweep(
    experiment: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="Experiment name or TOML file.")],
    out: Annotated[Path | None, typer.Option(help="Output folder; by default results/NAME.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes; each gets its share of the cores. By default one, or one per GPU."),
    ] = None,
    device: Device = "auto",
    data: Data = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key: seed=[0,1], finetune.epochs=2."),
    ] = None,
    plugins: Plugins = None,
    retry_failed: RetryFailed = False,
    parts: Annotated[
        list[str] | None, typer.Option("--part", help="Only this part of an experiment that has several.")
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Tell runs, epochs and time; train nothing.")] = False,
    write_plan: Annotated[
        bool,
        typer.Option(help="Store the plan for `shrinkbench run`, and print the keys to do; train nothing."),
    ] = False,
    executor: Annotated[
        Literal["local", "ray", "submitit"], typer.Option(help="Where runs are carried out (docs/clusters.md).")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Ray: address of a cluster, or auto.")] = None,
    cluster: Annotated[
        Literal["slurm", "local"] | None, typer.Option(help="submitit: by default Slurm where there is one.")
    ] = None,
    partition: Annotated[str | None, typer.Option("--slurm-partition", help="submitit: partition.")] = None,
    cpus: Annotated[int, typer.Option("--cpus-per-run", min=1, help="Ray and submitit: cores of a run.")] = 1,
    gpus: Annotated[int, typer.Option("--gpus-per-run", min=0, help="Ray and submitit: GPUs of a run.")] = 0,
    runs_per_job: Annotated[
        int, typer.Option(min=1, help="submitit: runs that one job carries out, one after another.")
    ] = 1,
    time_limit: Annotated[
        float | None,
        typer.Option(metavar="MINUTES", help="The longest that an attempt at a run may take."),
    ] = None,
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    log_to: LogTo = None,
    train_smaller: TrainSmaller = False,
    compiling: Compile = "off",
    max_retries: MaxRetries = 1,
    until_decided: Annotated[
        bool,
        typer.Option("--until-decided", help="Add seeds until the comparison is decided (docs/statistics.md)."),
    ] = False,
    compare: Annotated[
        str | None,
        typer.Option(metavar="METHOD,METHOD", help="Until these are; by default best against rest."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Points below which methods count as alike, which decides too.")
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Chance of a false difference; by default 0.05.")] = None,
    max_seeds: Annotated[int | None, typer.Option(help="The most seeds; by default 10.")] = None,
    spending: Annotated[
        Literal["obrien-fleming", "kim-demets", "pocock"] | None,
        typer.Option(help="How alpha is spent over the looks; large leads are named soonest by the last."),
    ] = None,
) -> None:
    """Run every cell of a grid that is not done yet; finished runs are skipped."""
    specs, name = _choose(experiment, parse_settings(settings), parts or [])
    rules = {
        "compare": tuple(compare.split(",")) if compare is not None else None,
        "margin": None if margin is None else margin / 100,
        "alpha": alpha,
        "max_seeds": max_seeds,
        "spending": spending,
    }
    specs = _with_rules(specs, {k: v for k, v in rules.items() if v is not None}, asked=until_decided)
    target = out or Path("results") / name
    check_folder(target)
    place = RunPlace(
        executor,
        workers,
        device,
        time_limit,
        address,
        cluster,
        partition,
        cpus,
        gpus,
        runs_per_job,
        devices,
        num_nodes,
    )
    chosen = executor_of(place, soon=not (plan or write_plan))
    load_plugins(plugins)
    from shrinkbench.runner import doubting
    from shrinkbench.runner import sweep as run_sweep
    from shrinkbench.runner.tracking import check_tracker

    check_tracker(log_to)
    places = parse_data(data)
    common: dict[str, Any] = {
        "device": device,
        "data": places,
        "plugins": plugins or (),
        "retry_failed": retry_failed,
        "train_smaller": train_smaller,
        "compiled": compiling == "on",
    }
    if compiling == "auto":
        common["compiled"] = compiling_pays(specs, target, common)
    if plan:
        print_plan(specs, target, common, processes=devices * num_nodes)
        return
    if write_plan:
        from shrinkbench.runner import prepare_sweep, store_plan
        from shrinkbench.runner.sweeping import check_shares

        prepared = prepare_sweep(specs, target, **common)
        check_shares(prepared.todo, devices * num_nodes)
        store_plan(prepared, device=device)
        typer.echo("\n".join(spec.key for spec in prepared.todo))
        return
    with doubting() as doubt, Stopping(on_signal=doubt) as stopping, Display() as display:

        def start(total: int, todo: int) -> None:
            stopping.begin()
            display.start(total, todo)

        carry_out = partial(
            run_sweep,
            specs,
            target,
            devices=devices,
            num_nodes=num_nodes,
            log_to=log_to,
            max_retries=max_retries,
            on_plan=start,
            on_progress=display.advance,
            on_note=display.note,
            stopping=stopping,
            **common,
        )
        if specs[0].until_decided is None:
            status = carry_out(executor=chosen)
        else:
            status = _until_decided(
                specs[0], target, lambda only: carry_out(executor=executor_of(place), only=only), display.note
            )
    _tell(status, target)
    if stopping.code:
        typer.echo("interrupted; finished runs are stored, the same command goes on", err=True)
        raise typer.Exit(stopping.code)
    if status.failed or status.missing:
        raise typer.Exit(1)


def _with_rules(
    specs: tuple[ExperimentSpec, ...], rules: dict[str, Any], *, asked: bool
) -> tuple[ExperimentSpec, ...]:
    """The experiment with the rules by which its seeds are added, where that is asked for."""
    if rules and not asked:
        raise ShrinkbenchError(
            f"--{next(iter(rules)).replace('_', '-')} is a rule of --until-decided; give that as well"
        )
    if not asked:
        return specs
    from shrinkbench.spec import ExperimentSpec, parse_value

    if len(specs) > 1:
        raise ShrinkbenchError(
            f"--until-decided decides one comparison, and this experiment has {len(specs)} parts; name one "
            "with --part"
        )
    given = specs[0].model_dump(mode="python", exclude_unset=True)
    known = dict(given.get("until_decided") or {}) | rules
    most = known.get("max_seeds", 10)
    if not 2 <= most <= 1000:
        raise ShrinkbenchError(f"--max-seeds {most}: give 2 to 1,000")
    seeds = [*specs[0].seed[:most]]
    seeds += [seed for seed in range(2 * most) if seed not in seeds][: most - len(seeds)]
    given |= {"until_decided": known, "seed": seeds}
    return (parse_value(ExperimentSpec, given, where="--until-decided"),)


def _until_decided(
    experiment: ExperimentSpec, target: Path, sweep: Callable[[Any], Status], note: Callable[[str], None]
) -> Status:
    """Sweep look by look; tell how each comparison stands after it."""
    from shrinkbench.report.deciding import decide
    from shrinkbench.results.store import ResultStore

    def tell(sentences: Sequence[str]) -> None:
        for sentence in sentences:
            note(sentence)

    decide(experiment, ResultStore(target), sweep=sweep, on_look=tell)
    return ResultStore(target).status()


@app.command(name="run")
def run_planned(
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY ...", help="Keys of planned runs, or how they begin.")
    ],
    store: Annotated[Path, typer.Option("--store", help="Output folder of the sweep that planned them.")],
    device: SweepsDevice = None,
    data: Data = None,
    plugins: Plugins = None,
    retry_failed: RetryFailed = False,
    devices: Devices = 1,
    num_nodes: NumNodes = 1,
    log_to: LogTo = None,
    train_smaller: SweepsTrainSmaller = None,
    compiling: SweepsCompile = None,
    max_retries: MaxRetries = 1,
) -> None:
    """Carry out single planned runs, in this process: what any scheduler can start, in any number at once."""
    places = parse_data(data)
    load_plugins(plugins)
    from shrinkbench.runner import doubting, run_stored, stop_after_this_epoch

    with doubting() as doubt, Stopping(stop_after_this_epoch, doubt) as stopping, Display() as display:
        stopping.begin()
        states = run_stored(
            keys,
            store,
            device=device,
            data=places,
            plugins=plugins or (),
            retry_failed=retry_failed,
            devices=devices,
            num_nodes=num_nodes,
            log_to=log_to,
            train_smaller=train_smaller,
            compiled=None if compiling is None else compiling == "on",
            max_retries=max_retries,
            on_progress=display.advance,
            on_note=display.note,
            stopping=stopping,
        )
    for key, state in states.items():
        typer.echo(f"{key[:12]} {state}")
    if stopping.code:
        raise typer.Exit(stopping.code)
    if set(states.values()) != {"done"}:
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
    missing = f", {status.missing} missing" if status.missing else ""
    typer.echo(
        escaped(f"{status.done} of {status.total} runs done, {status.failed} failed{missing} -> {target}")
    )
    if status.failed:
        typer.echo("failed runs are listed in the report; run them again with --retry-failed", err=True)
    typer.echo(escaped(f"next: shrinkbench report {target}"))
