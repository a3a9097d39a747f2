"""The store: appending durably, and loading a thousand rows."""

import json
import tempfile
from pathlib import Path

from otbench.store import RunFolder, load


def row(seed: int) -> dict[str, object]:
    """A row as wide as a real one."""
    measured = dict.fromkeys(
        (
            "import_s",
            "problem_s",
            "fit_cold_s",
            "fit_warm_s",
            "push_cold_s",
            "push_us_per_point",
            "score_s",
        ),
        0.1,
    )
    metrics = {
        f"metric_{name}": 1.5
        for name in ("l2_uvp", "cos", "cost_ratio", "target_gap", "target_noise")
    }
    curve = [{"step": step, "seconds": 0.1 * step, "l2_uvp": 1.0} for step in range(5)]
    identity = {
        "task": "gaussian",
        "task_params": '{"dim": 2}',
        "solver": "identity",
        "solver_params": "{}",
        "seed": seed,
        "status": "ok",
    }
    return {
        "key": f"{seed:016x}",
        **identity,
        **measured,
        **metrics,
        "curve": curve,
        "when": "2025-01-01T00:00:00.000+00:00",
    }


class Store:
    """One run folder."""

    repeat, sample_time = (10, 50, 1.0), 0.005

    def setup(self) -> None:
        """A folder to append to and one of 1000 rows."""
        self.folder = tempfile.TemporaryDirectory()
        self.empty = RunFolder(Path(self.folder.name, "empty"), "perf", {})
        full = RunFolder(Path(self.folder.name, "full"), "perf", {})
        with open(full.path / "rows.jsonl", "a") as file:
            file.writelines(json.dumps(row(seed)) + "\n" for seed in range(1000))
        full.close()
        self.row = row(0)

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.empty.close()
        self.folder.cleanup()

    def time_append(self) -> None:
        """One row, on the disk when it returns."""
        self.empty.append(self.row)

    def time_load(self) -> None:
        """Into tidy frames."""
        assert len(load(Path(self.folder.name, "full")).runs) == 1000
