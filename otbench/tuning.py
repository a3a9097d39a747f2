"""Choose a solver's parameters for a task, on seeds that no table reports (``otbench tune``).

Each setting is run on every tuning seed, the defaults first. It counts where all of its runs
succeeded, and those of a discrete solver converged (`otbench.scoring.convergence`). Of the
settings that count the one with the lowest mean error is chosen, the earliest of equals. Where
every parameter has a ladder, and the budget allows it, all combinations are tried; else Optuna's
tree-structured Parzen estimator proposes settings (Bergstra et al. 2011; Akiba et al. 2019).

Every run is recorded, so that the same command goes on where it was interrupted.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportReturnType=false
# (pandas' own annotations join all that an operation may return, so that they fit almost nothing)

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_type_hints

from rich.console import Console

from otbench.errors import UserError, nearest
from otbench.parameters import Ladder, Span
from otbench.registry import Selection, absent
from otbench.report.quantities import FIT, accuracy_of, quantity
from otbench.report.selected import select, timed_alone
from otbench.runner.run import Options, run, say
from otbench.runner.tuned import Tuned
from otbench.selection import format_value, parse_value
from otbench.statuses import NOT_CONVERGED, Status
from otbench.store import load


if TYPE_CHECKING:
    import pandas as pd
    from optuna.distributions import BaseDistribution

FIRST_SEED = 1000  # those below are reported
SEEDS = range(FIRST_SEED, FIRST_SEED + 3)

Space = Mapping[str, Ladder | Span]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One setting and what came of it.

    Attributes:
        params: of the solver, those that are searched.
        error: mean of the metric over the seeds; None where the setting does not count.
        loss: the same, turned so that lower is better; infinite where it does not count.
        seconds: mean time of a fit, of runs alone on their GPU; None where none succeeded.
        why: why it does not count.
    """

    params: Params
    error: float | None
    loss: float
    seconds: float | None
    why: str = ""


@dataclass(frozen=True)
class Tuning:
    """What was chosen, and all that was tried, the defaults first."""

    chosen: Tuned
    trials: Sequence[Trial]


def search_space(solver: Selection, texts: Sequence[str]) -> Space:
    """The values to search: those of the texts, else the solver's own.

    Args:
        solver: to tune.
        texts: ``name=v1,v2,...`` a ladder, ``name=low..high`` a span.

    Raises:
        UserError: an unknown parameter, values of another type, or nothing to search.
    """
    known, name = solver.entry.parameters, solver.entry.name
    types = get_type_hints(solver.entry.cls)
    space: dict[str, Ladder | Span] = {}
    for text in texts:
        parameter, _, values = (part.strip() for part in text.partition("="))
        if parameter not in known:
            raise UserError(
                f"--search {text}: unknown parameter {parameter!r} of {name}"
                f"{nearest(parameter, known)}"
            )
        if not values:
            raise UserError(
                f"--search {text}: write {parameter}=v1,v2,... or {parameter}=low..high"
            )
        low, dots, high = values.partition("..")
        parts = [low, high] if dots else re.split(r"\s*,\s*", values)
        parsed = [parse_value(name, parameter, part, types[parameter]) for part in parts]
        if not dots:
            space[parameter] = Ladder(tuple(dict.fromkeys(parsed)))
            continue
        if any(type(value) not in (int, float) for value in parsed):
            raise UserError(f"--search {text}: {parameter} is no number, list its values")
        try:
            space[parameter] = Span(*parsed)
        except ValueError as error:
            raise UserError(f"--search {text}: {error}") from error
    space = space or dict(solver.entry.cls.search)
    if not space:
        raise UserError(
            f"{name} names nothing to search: give --search name=v1,v2,... or name=low..high, once "
            "for each parameter"
        )
    return space


def tune(
    solver: Selection,
    task: Selection,
    space: Space,
    budget: int,
    options: Options,
    console: Console,
    metric: str | None = None,
) -> Tuning:
    """Try settings of a solver on a task, and choose one by the rule of this module.

    Args:
        solver: with the values of what is not searched.
        task: to tune it on.
        space: values of each searched parameter.
        budget: most settings to try, the defaults among them.
        options: seeds (by default `SEEDS`) and how runs are made.
        console: for progress.
        metric: to choose by; by default what the task is judged by.

    Raises:
        UserError: seeds below 1000, no setting that counts, or what a run raises.
        KeyboardInterrupt: it was interrupted; what ended is recorded.
    """
    seeds = SEEDS if options.seeds is None else options.seeds
    if min(seeds) < FIRST_SEED:
        raise UserError(
            f"seeds below {FIRST_SEED} are those that tables report: tune on others, such as "
            f"--seeds {SEEDS.start}:{SEEDS.stop}"
        )
    if solver.entry.cls.control:
        raise UserError(f"{solver.label} is given the answer: there is nothing to tune")
    options = replace(options, tasks=[task.label], seeds=seeds)
    trials: list[Trial] = []
    hashes = {"solver_hash": "", "task_hash": ""}
    for proposed in _proposals(solver, space, budget, trials):
        for i, params in enumerate(proposed, len(trials) + 1):
            say(console, f"trial {i} of at most {budget}: {shown(params)}")
        settings = [_with(solver, params) for params in proposed]
        planned = run(replace(options, solvers=[each.label for each in settings]), console)
        if planned.interrupted:
            raise KeyboardInterrupt
        runs = select(load(options.results).restricted(planned.keys).runs, None)
        for params, setting in zip(proposed, settings, strict=True):
            of_setting = runs[runs.solver_params == setting.params_json]
            metric = metric or accuracy_of(of_setting)
            trials.append(_judged(params, of_setting, metric))
        hashes = {name: str(runs[name].iloc[-1]) for name in hashes}
    best = min(trials, key=lambda trial: trial.loss)
    if best.error is None or metric is None:
        whys = "; ".join(dict.fromkeys(trial.why for trial in trials))
        raise UserError(f"no setting of {solver.label} on {task.label} counts: {whys}")
    chosen = Tuned(
        solver=solver.entry.name,
        task=task.label,
        params=dict(_with(solver, best.params).params),
        budget=len(trials),
        seeds=list(seeds),
        metric=metric,
        value=best.error,
        default_value=trials[0].error,
        **hashes,
    )
    return Tuning(chosen, trials)


def shown(params: Params) -> str:
    """The values in the words of the command line."""
    return ", ".join(f"{name}={format_value(value)}" for name, value in params.items())


def _with(solver: Selection, params: Params) -> Selection:
    """The solver with these values in place of its own."""
    return replace(solver, params=tuple({**dict(solver.params), **params}.items()))


def _judged(params: Params, runs: pd.DataFrame, metric: str | None) -> Trial:
    """The trial that these runs make."""
    ended = [status for status in runs.status if status != Status.OK]
    stopped = [reason for reason in runs.stopped if reason in NOT_CONVERGED]
    times = timed_alone(runs)[FIT].astype(float).dropna()
    seconds = float(times.mean()) if len(times) else None
    if ended or stopped or metric is None:
        reasons = dict.fromkeys([*ended, *stopped])
        said = [str(message) for message in runs.message if message and ended]
        why = ", ".join(reasons) or "nothing that it is judged by"
        return Trial(params, None, math.inf, seconds, ": ".join([why, *said[:1]]))
    wanted = quantity(metric, runs)
    if wanted.better is None:
        raise UserError(f"{metric} has no better or worse: choose another metric to tune by")
    values = runs[wanted.column].astype(float)
    if bool(values.isna().any()):
        return Trial(params, None, math.inf, seconds, f"{metric} is not defined")
    loss = float(wanted.loss(values).mean())
    return Trial(params, float(values.mean()), loss, seconds)


def _proposals(
    solver: Selection, space: Space, budget: int, trials: Sequence[Trial]
) -> Iterator[list[Params]]:
    """Settings to try next, given the trials that ended; the solver's own come first."""
    own = {name: dict(solver.params)[name] for name in space}
    ladders = [values.values for values in space.values() if isinstance(values, Ladder)]
    if len(ladders) == len(space):
        every = [dict(zip(space, values, strict=True)) for values in itertools.product(*ladders)]
        settings = [own, *(params for params in every if params != own)]
        if len(settings) <= budget:
            yield settings
            return
    proposals = _proposed_by_optuna(own, space, trials)
    yield from itertools.islice(proposals, budget)


def _proposed_by_optuna(
    own: Params, space: Space, trials: Sequence[Trial]
) -> Iterator[list[Params]]:
    if lacking := absent(("optuna",)):
        raise UserError(f"{lacking}; or give ladders whose combinations the budget allows")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    spans = {name: values for name, values in space.items() if isinstance(values, Span)}
    if all(span.low <= own[name] <= span.high for name, span in spans.items()):
        study.enqueue_trial(dict(own))
    else:
        yield [own]
    distributions = {name: _distribution(values, own[name]) for name, values in space.items()}
    while True:
        trial = study.ask(distributions)
        yield [dict(trial.params)]
        if math.isfinite(loss := trials[-1].loss):
            study.tell(trial, loss)
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def _distribution(values: Ladder | Span, own: Any) -> BaseDistribution:
    """Of Optuna; a ladder has the solver's own value, too."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(values, Ladder):
        return CategoricalDistribution(tuple(dict.fromkeys([own, *values.values])))
    log = values.low > 0
    if isinstance(own, int):
        return IntDistribution(round(values.low), round(values.high), log=log)
    return FloatDistribution(values.low, values.high, log=log)
