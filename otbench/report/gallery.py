"""The commands `otbench show` and `otbench gallery`: what a task asks, how its answer is known,
what the trivial solvers score.

Nothing here knows a task by name: the text is the docstring of its module, the facts are those of
its problem.
"""

from __future__ import annotations

import inspect
import json
import math
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from otbench import docstrings
from otbench.data.catalogue import fetch_named
from otbench.errors import MissingError, UserError, nearest
from otbench.problem import DiscreteProblem, MapProblem, Problem
from otbench.randomness import Randomness
from otbench.registry import Entry, Registry, Selection, absent, registry
from otbench.report.images import UNPUBLISHED
from otbench.report.pictures import draw, png
from otbench.report.quantities import number
from otbench.report.styles import slug
from otbench.report.tables import pipe_table
from otbench.report.verdicts import judged


if TYPE_CHECKING:
    import pandas as pd

CERTIFICATES: Mapping[str, str] = {
    "closed_form": "a formula for the map, for the cost or for both",
    "brenier": (
        "the map is the gradient of an explicit convex potential, hence optimal (Brenier 1991)"
    ),
    "dual_certificate": (
        "explicit potentials f(x) + g(y) <= c(x, y) with equality on the plan: no plan costs less"
    ),
    "lp": "the exact linear program on the given points",
    "entropic": (
        "the entropic problem, solved to high precision: its plan is the blurred one, by definition"
    ),
    "none": (
        "the optimal map is not known; solvers are scored against the hidden partner of each test "
        "image, where there is one"
    ),
}
CONTROLS = ("oracle",)  # shown on the page beside the trivial solvers
SCORES = ("l2_uvp", "cost_ratio", "target_gap", "target_noise")
MARKUP = re.compile(
    r"[\\*]|(?<![A-Za-z0-9])_|<(?=[A-Za-z/!?])"
)  # what Markdown would not show as it stands
SETTINGS: Mapping[str, str] = {
    "map": "Maps",
    "discrete": "Plans between clouds",
    "amortized": "Many pairs",
}
INTRODUCTION = """# Tasks

A task is a family of transport problems, most of which have a known answer. Problems of the setting
*map* ask for a map T that pushes the source to the target at the least cost E c(x, T(x)), given
samples of both; *discrete* ones for a plan between two weighted clouds; *amortized* ones for the
plans of many pairs, fast, after training on others.

Every picture shows the problem of seed 0 at default parameters, except that tasks of more than
three dimensions are drawn in the fewest that they allow; its title says so. `otbench show
'NAME[param=value]'` draws any other. Dots are sized by weight; they have the colour of the
direction in which they start, or of the atom to which they go, and keep it on the way. Lines lead
from where they start. Pairs of images are shown on their way, palettes as the pictures they are of.
Of measures on images some images are shown: of the source, what those were made from where that is
known, and of the target.

The certificate of a task says why its answer is known to be optimal, which a test proves again on
samples, or that none is known:

{certificates}

Where the optimal map is unique almost everywhere, solvers are scored against it (`l2_uvp`, `cos`).
Where it is not unique, or none exists, they are scored by their cost and their push-forward alone.
`target_gap` is W2^2 between the push-forward and the target (above dimension 16 estimated by
slices) less what two samples of one measure show; `target_noise` is that of the target. Costs are
in the units of `c`, which has no 1/2.

This page is made by `otbench gallery`.
"""


def show(
    tasks: Sequence[str], seed: int, out: Path, plugins: tuple[str, ...] = ()
) -> Iterator[str]:
    """Draw the selected tasks as ``<out>/<slug>.png`` and describe them; the texts to print, as
    they come.

    Raises:
        UserError: an unknown task, one that cannot be built here (a data file or a package is
            absent), or ``out`` cannot be written.
    """
    found = registry("task", plugins)
    for selection in dict.fromkeys(selection for text in tasks for selection in found.select(text)):
        try:
            problem = _build(selection, seed)
        except MissingError as error:
            raise UserError(f"{selection.label}: {error}") from None
        path = out / f"{slug(selection.label)}.png"
        _write(path, png(draw(problem, selection.label, seed)))
        facts = [f"{name + ':':15}{value}" for name, value in _facts(problem).items()]
        yield "\n".join(
            [str(path), "", selection.label, "", _docstring(selection.entry), "", *facts, ""]
        )


def gallery(
    results: Sequence[Path], out: Path, tasks: Sequence[str] = (), plugins: tuple[str, ...] = ()
) -> Iterator[str]:
    """Write ``<out>/README.md`` and ``<out>/pictures/*.png``; a line for each picture, and for each
    task that has none.

    Args:
        results: folders whose rows of trivial solvers are shown; may be empty.
        out: the folder, made if need be.
        tasks: names to restrict the page to; by default every task of the registry.
        plugins: files with more tasks.

    Raises:
        UserError: an unknown task, or ``out`` cannot be written.
    """
    from otbench.store import load

    found = registry("task", plugins)
    unknown = [name for name in tasks if name not in found.entries]
    if unknown:
        raise UserError(f"unknown task {unknown[0]!r}{nearest(unknown[0], found.entries)}")
    runs = load(*results).runs if results else None
    certificates = "\n".join(f"- `{name}`: {_inline(text)}" for name, text in CERTIFICATES.items())
    contents, sections = [INTRODUCTION.format(certificates=certificates).strip(), "## Contents"], []
    for setting, heading in SETTINGS.items():
        entries = [
            found.entries[name]
            for name in sorted(set(tasks) or found.entries)
            if found.entries[name].cls.setting == setting
        ]
        lines = [f"- [{entry.name}](#{entry.name}): {_inline(entry.summary)}" for entry in entries]
        contents += [f"**{heading}**", "\n".join(lines)] if entries else []
        for entry in entries:
            path = out / "pictures" / f"{entry.name}.png"
            facts, absence = _drawn(found, entry, path)
            yield f"{entry.name}: no picture: {absence}" if absence else str(path)
            picture = (
                f"*No picture: {_inline(absence)}.*"
                if absence
                else f"![{entry.name}](pictures/{path.name})"
            )
            sections += _section(entry, picture, facts, runs)
    _write(out / "README.md", ("\n\n".join([*contents, *sections]) + "\n").encode())
    yield str(out / "README.md")


def _build(selection: Selection, seed: int) -> Problem:
    """The problem that `otbench run` gives solvers for this seed, in float64 on the CPU.

    Raises:
        MissingError: a data file or a package is absent.
    """
    lacking = absent(("torch", *selection.entry.cls.needs))
    if lacking:
        raise MissingError(lacking)
    import torch

    stream = Randomness(seed, "cpu", torch.float64).problem()
    task = selection.build()
    with fetch_named(task.files):
        return task.problem(stream, device="cpu", dtype=torch.float64)


def _drawn(found: Registry, entry: Entry, path: Path) -> tuple[Mapping[str, str], str]:
    """Draw a task for the page; the facts of its default problem, and why there is no picture."""
    try:
        default = found.select(entry.name)[0]
        problem = _build(default, 0)
        facts = _facts(problem)
        if any(file.partition("/")[0] in UNPUBLISHED for file in entry.cls().files):
            return facts, "the terms of its data forbid showing it"
        selection = _clearest(found, entry)
        figure = draw(problem if selection == default else _build(selection, 0), selection.label)
    except UserError as error:
        return {}, str(error).removeprefix(f"task {entry.name}: ")
    except MissingError:
        return (
            {},
            "absent when this page was made: "
            f"{', '.join(entry.cls().files) or absent(entry.cls.needs)}",
        )
    _write(path, png(figure))
    return facts, ""


def _clearest(found: Registry, entry: Entry) -> Selection:
    """Default parameters, where ``dim`` is above three with the least from two that the task
    accepts.
    """
    default = entry.parameters.get("dim")
    for dim in range(2, default) if isinstance(default, int) and default > 3 else ():
        try:
            return found.select(f"{entry.name}[dim={dim}]")[0]
        except UserError:
            continue
    return found.select(entry.name)[0]


def _facts(problem: Problem) -> dict[str, str]:
    """What is known of the answer, by name."""
    truth = problem.truth
    known = CERTIFICATES.get(truth.certificate, "")
    facts = {"certificate": truth.certificate + (f" ({known})" if known else "")}
    if truth.cost is not None:
        error = f" ± {truth.cost_error:.2g} (standard error)" if truth.cost_error else ""
        facts["optimal cost"] = f"{truth.cost:.6g}{error}, {problem.cost.convention}"
    if truth.unsolved:
        facts["optimal cost"] = truth.unsolved
    if isinstance(problem, MapProblem):
        facts["optimal map"] = truth.no_map or (
            "is not known"
            if truth.certificate == "none" and truth.map is None
            else "known and unique"
        )
        if truth.spurious is not None:
            facts["spurious map"] = "known: optimal against the true potential, wrong target"
    elif isinstance(problem, DiscreteProblem):
        facts["points"] = (
            f"{len(problem.x)} to {len(problem.y)}, dimension {math.prod(problem.x.shape[1:])}"
        )
    else:
        facts["pairs"] = f"{len(problem.train)} to train on, {len(problem.test)} held out"
    return facts


def _section(
    entry: Entry, picture: str, facts: Mapping[str, str], runs: pd.DataFrame | None
) -> list[str]:
    """The paragraphs on a task."""
    summary, rest = docstrings.parts(_docstring(entry))
    meaning = " ".join((entry.cls.__doc__ or "").partition("\n\n")[0].split())
    listed = "\n".join(f"- {name}: {_inline(value)}" for name, value in facts.items())
    parts = [
        f"## {entry.name}",
        f"**{_inline(summary)}** {_inline(meaning)}",
        picture,
        as_markdown(rest),
        listed,
        _parameters(entry),
    ]
    return [part for part in [*parts, _scores(entry, runs)] if part]


def _parameters(entry: Entry) -> str:
    """Table of parameters, defaults and meanings, from docstrings of the class and its bases."""
    if not entry.parameters:
        return "It has no parameters."
    meanings = {}
    for cls in reversed(entry.cls.__mro__):
        _, _, attributes = textwrap.dedent(cls.__doc__ or "").partition("Attributes:\n")
        meanings |= re.findall(r"^ {4,8}(\w+): (.*(?:\n {9,}.*)*)", attributes, re.MULTILINE)
    rows = [
        [f"`{name}`", f"`{value}`", _inline(" ".join(meanings.get(name, "").split()))]
        for name, value in entry.parameters.items()
    ]
    return pipe_table([["parameter", "default", ""], *rows])


def _scores(entry: Entry, runs: pd.DataFrame | None) -> str:
    """Means over the seeds of what trivial solvers and controls score at default parameters, and
    today's verdicts.
    """
    if runs is None or runs.empty:
        return ""
    chosen = (
        (runs.task == entry.name)
        & (runs.task_params == json.dumps(entry.parameters, sort_keys=True))
        & (runs.status == "ok")
    )
    kept = runs.loc[chosen & (runs.trivial.astype(bool) | runs.solver.isin(CONTROLS))]
    if kept.empty:
        return ""
    kept = kept.assign(verdict=judged(kept).verdict).dropna(axis=1, how="all")
    names = [name for name in SCORES if f"metric_{name}" in kept]
    if not names:
        return ""
    uneven = kept.groupby("solver_label").size().nunique() > 1
    rows = [["solver", *["seeds"] * uneven, *names, *(["verdict"] if "verdict" in kept else [])]]
    for solver, group in kept.groupby("solver_label"):
        means = [float(group[f"metric_{name}"].mean()) for name in names]
        verdicts = [", ".join(sorted(set(group.verdict.dropna())))] if "verdict" in kept else []
        rows.append(
            [
                str(solver),
                *[str(len(group))] * uneven,
                *("" if math.isnan(mean) else number(mean) for mean in means),
                *verdicts,
            ]
        )
    return pipe_table(rows)


def _docstring(entry: Entry) -> str:
    """The docstring of the module of a task."""
    return inspect.getdoc(sys.modules[entry.cls.__module__]) or inspect.getdoc(entry.cls) or ""


def as_markdown(text: str) -> str:
    """A docstring as Markdown: paragraphs flow, what is indented is code, lists stay lists."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        if block.startswith("    "):
            blocks.append(f"```\n{textwrap.dedent(block)}\n```")
        elif re.match(r"\s*[*-] ", block):
            items = re.split(r"^\s*[*-] ", block, flags=re.MULTILINE)[1:]
            blocks.append("\n".join(f"- {_inline(' '.join(item.split()))}" for item in items))
        else:
            blocks.append(_inline(" ".join(block.split())))
    return "\n\n".join(blocks)


def _inline(text: str) -> str:
    """Plain text with marked code as Markdown: outside the code nothing is read as emphasis or as a
    tag.
    """
    parts = re.split(r"(``.+?``|`.+?`)", text)
    return "".join(
        f"`{part.strip('`')}`" if part.startswith("`") else MARKUP.sub(r"\\\g<0>", part)
        for part in parts
    )


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise UserError(
            f"cannot write to {path.parent}: {error.strerror or error}; name another folder"
        ) from error
