"""``python -m otbench``: the command line."""

import sys

from otbench.cli.main import main


if __name__ == "__main__":
    sys.exit(main())
