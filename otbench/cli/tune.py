"""``otbench tune``."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from otbench.cli.options import Command, add_limits, add_plugins, add_setting, count, seeds
from otbench.errors import UserError
from otbench.parameters import cut


DEFAULT = Path("results/tuning")


def _arguments(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("solver", help="name[param=value]: what is set here is not searched")
    add("-t", "--task", required=True, help="the task to tune it on: name[param=value]")
    text = "most settings to try, the defaults among them (default: 20)"
    add("--budget", type=count, default=20, metavar="N", help=text)
    text = (
        "values of a parameter: eps=0.1,0.03,0.01 (each of them) or lr=1e-5..1e-2 (between them, "
        "on a logarithmic scale); may be given again (default: those that the solver names)"
    )
    add("--search", action="append", default=[], metavar="NAME=VALUES", help=text)
    add("--metric", help="metric to choose by (default: the task's own measure of accuracy)")
    text = "tuning seeds A ... B-1, from 1000 on (default: 1000:1003)"
    add("--seeds", type=seeds, metavar="A:B", help=text)
    add_setting(sub)
    add_limits(sub)
    text = f"folder of the tuning runs, beside those that are reported (default: {DEFAULT})"
    add("--results", type=Path, default=DEFAULT, help=text)
    text = "file of the chosen setting (default: RESULTS/tuned/SOLVER--TASK.json)"
    add("-o", "--output", type=Path, metavar="FILE", help=text)
    add_plugins(sub)


def _tune(options: argparse.Namespace) -> int:
    from rich.console import Console

    from otbench.report.quantities import number
    from otbench.report.tables import Table, markdown
    from otbench.runner.executor import Limits
    from otbench.runner.plan import select
    from otbench.runner.run import Options
    from otbench.tuning import search_space, shown, tune

    plugins = tuple(options.plugins)
    solver, *others = select("solver", [options.solver], plugins)
    task, *tasks = select("task", [options.task], plugins)
    if others or tasks:
        raise UserError("tune takes one solver and one task: give one value of each parameter")
    space = search_space(solver, options.search)
    runs = Options(
        seeds=options.seeds,
        device=options.device,
        dtype=options.dtype,
        jobs=options.jobs,
        together=options.together,
        limits=Limits(options.timeout, options.memory),
        results=options.results,
        plugins=plugins,
    )
    console = Console(highlight=False, stderr=True)
    tuning = tune(solver, task, space, options.budget, runs, console, options.metric)
    chosen = tuning.chosen
    name = "".join(c if c.isalnum() or c in "-+_=." else "-" for c in task.label).strip("-")
    path = options.output or options.results / "tuned" / f"{chosen.solver}--{name}.json"
    chosen.write(path)

    rows = [
        [
            str(i + 1),
            shown(trial.params),
            cut(trial.why) if trial.error is None else number(trial.error),
            "" if trial.seconds is None else number(trial.seconds),
        ]
        for i, trial in enumerate(tuning.trials)
    ]
    title = f"{solver.label} on {task.label}, seeds {chosen.seeds[0]} to {chosen.seeds[-1]}"
    table = Table(title, ["trial", "setting", chosen.metric, "fit_s"], rows)
    losses = [trial.loss for trial in tuning.trials]
    table.best.add((losses.index(min(losses)), 2))
    print(markdown([table], []))
    default = "none" if chosen.default_value is None else number(chosen.default_value)
    print(f"chosen: {chosen.metric} {number(chosen.value)}, defaults {default}; {path}")
    words = ["-t", task.label, "-s", chosen.solver, "--tuned", str(path), "--dtype", options.dtype]
    words += [word for plugin in plugins for word in ("--plugins", plugin)]
    print(f"on reported seeds: otbench run {shlex.join(words)}")
    return 0


COMMANDS = (
    Command(
        "tune",
        "Choose a solver's parameters for a task, on seeds that no table reports.",
        _arguments,
        _tune,
    ),
)
