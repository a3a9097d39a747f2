"""``otbench env``: Python environments of solvers whose packages conflict with those of others."""

from __future__ import annotations

import argparse

from otbench.cli.options import Command, add_plugins
from otbench.environments import create, interpreter, remove
from otbench.errors import MissingError, UserError, nearest
from otbench.registry import registry


def _arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("action", choices=("create", "list", "remove"))
    text = "a solver that names an environment (`otbench env list` names them)"
    sub.add_argument("solver", nargs="?", help=text)
    add_plugins(sub)


def _env(options: argparse.Namespace) -> int:
    entries = registry("solver", tuple(options.plugins)).entries
    own = {name: entry.cls.environment for name, entry in entries.items() if entry.cls.environment}
    if options.action == "list":
        for name, requirements in sorted(own.items()):
            print(f"{name}: {', '.join(requirements)}: {_state(name, requirements)}")
        return 0
    name = options.solver
    if name is None:
        raise UserError(f"env {options.action} needs a solver: {', '.join(sorted(own)) or 'none'}")
    if name not in own:
        known = "needs no environment of its own" if name in entries else "is unknown"
        raise UserError(f"solver {name!r} {known}{nearest(name, own)}; `otbench env list`")
    if options.action == "remove":
        print(f"removed {remove(name)}")
        return 0
    print(f"installing {', '.join(own[name])}", flush=True)
    print(f"{name} runs in {create(name, own[name])}")
    return 0


def _state(name: str, requirements: tuple[str, ...]) -> str:
    try:
        return interpreter(name, requirements)
    except MissingError as error:
        return str(error)


COMMANDS = (
    Command(
        "env",
        "Make, list or remove the Python environment of a solver that needs one of its own.",
        _arguments,
        _env,
    ),
)
