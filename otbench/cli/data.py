"""``otbench data list | fetch | verify``: the real data that tasks read."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from otbench.cli.options import Command


ACTIONS = (
    ("list", "*", "Show data sets, where they are here, and their terms of use."),
    (
        "fetch",
        "+",
        "Download data sets, once their terms are accepted.",
    ),
    (
        "verify",
        "*",
        "Read and check every file that is here; exit status 1 where one is damaged.",
    ),
)


def _arguments(sub: argparse.ArgumentParser) -> None:
    actions = sub.add_subparsers(required=True, metavar="ACTION", dest="action")
    for action, number, text in ACTIONS:
        sub = actions.add_parser(action, help=text, description=text)
        every = " (default: all of them)" if number == "*" else ""
        sub.add_argument("names", nargs=number, metavar="NAME", help=f"data set{every}")
        if action == "fetch":
            sub.add_argument(
                "--accept-terms",
                action="store_true",
                help="do not ask whether the terms are accepted",
            )


def _data(options: argparse.Namespace) -> int:
    from otbench.data import catalogue

    names = catalogue.named(options.names)
    if options.action == "list":
        _list(names)
        return 0
    if options.action == "fetch":
        from otbench.data.download import fetch

        return 0 if fetch(names, options.accept_terms) else 1
    from otbench.data.verify import verify

    wrong = 0
    for state, path, reason in verify(names):
        wrong += state not in ("ok", "absent")
        print(f"{state:14} {path}" + (f": {reason}" if reason else ""), flush=True)
    return 1 if wrong else 0


def _list(names: Iterable[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from otbench.data.catalogue import DATASETS

    table = Table("name", "what", Column("where", overflow="fold"), "terms", box=box.SIMPLE)
    for name in names:
        dataset = DATASETS[name]
        table.add_row(name, dataset.what, Text(dataset.where()), dataset.terms)
    Console(highlight=False).print(table)


COMMANDS = (
    Command(
        "data",
        "The real data that tasks read: the terms of use, where it is here, downloads, and "
        "whether it is whole.",
        _arguments,
        _data,
    ),
)
