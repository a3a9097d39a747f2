"""The whole command on runs that do nothing: start, fork server, ten isolated runs, store,
leaderboard.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from .overhead import PLUGIN


class TenRuns:
    """Through the command line, whose form changes less than the code behind it."""

    number, repeat, warmup_time = 1, 2, 0.0

    def setup(self) -> None:
        """A plugin with a trivial problem and solver."""
        self.folder = tempfile.TemporaryDirectory()
        Path(self.folder.name, "nothing.py").write_text(PLUGIN)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.folder.cleanup()

    def time_run(self) -> None:
        """`otbench run` of ten seeds."""
        command = [
            sys.executable,
            "-m",
            "otbench",
            "run",
            "-t",
            "nothing",
            "-s",
            "product",
            "--seeds",
            "10",
            "--device",
            "cpu",
        ]
        command += ["--plugins", "nothing.py", "--rerun", "all", "--results", "runs"]
        subprocess.run(command, cwd=self.folder.name, check=True, capture_output=True)
