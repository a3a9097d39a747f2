"""Every way a run or a command can fail on purpose. Messages say what, where and how to mend it, in
one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input to a command: shown as one line, exit status 2."""


class MissingError(Exception):
    """Something the run needs is absent here (a data file, a package). The message names the
    remedy; the run ends ``missing``.
    """


class DivergedError(Exception):
    """The solver's numbers are not finite, or it noticed that it diverged. The run ends
    ``diverged``.
    """


class InvalidOutputError(Exception):
    """A solver returned something that is not what the problem asks for. The run ends ``error``."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``; did you mean ...?`` with the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
