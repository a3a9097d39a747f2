"""The command ``otbench``: its parser, and errors as one line."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from otbench import __version__
from otbench.cli import author, data, describe, environments, reports, run, solve, tune
from otbench.errors import UserError


COMMANDS = (
    *run.COMMANDS,
    *solve.COMMANDS,
    *describe.COMMANDS,
    *data.COMMANDS,
    *reports.COMMANDS,
    *tune.COMMANDS,
    *environments.COMMANDS,
    *author.COMMANDS,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script; the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not have every character
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        return options.command(options)
    except UserError as error:
        print(f"otbench: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stdout = None  # the reader of a pipe went away: nothing to say, and nothing to flush
        return 0
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command and option."""
    top = argparse.ArgumentParser(
        prog="otbench", description="A benchmark suite for optimal transport map solvers."
    )
    top.add_argument("--version", action="version", version=f"otbench {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.text, description=command.text)
        command.arguments(sub)
        sub.set_defaults(command=command.run)
    return top
