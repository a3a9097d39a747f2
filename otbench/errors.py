"""Every way a run or a command can fail on purpose. Messages say what, where and how to mend it, in one line."""


class UserError(Exception):
    """Bad input to a command: shown as one line, exit status 2."""


class MissingError(Exception):
    """Something the run needs is absent here (a data file, a package). The message names the remedy; the run ends ``missing``."""


class DivergedError(Exception):
    """The solver's numbers are not finite, or it noticed that it diverged. The run ends ``diverged``."""


class InvalidOutputError(Exception):
    """A solver returned something that is not what the problem asks for. The run ends ``error``."""
