"""Planning: the registry, selections, grids and what is left to do."""

from otbench.job import Result, Row
from otbench.registry import Registry, registry
from otbench.runner import plan


TASK = "gaussian[dim=[1,2,4,8,16],condition=[1.0,10.0]]"
SOLVERS = ("identity", "constant", "linear", "pot-emd[n=[64,128,256,512,1024,2048,4096]]")


class Planning:
    """A grid of 10 x 10 x 10 runs."""

    repeat, sample_time = (10, 50, 0.5), 0.005

    def setup(self) -> None:
        """Expand it once."""
        self.tasks, self.solvers = (
            plan.select("task", [TASK], ()),
            plan.select("solver", SOLVERS, ()),
        )
        self.runs = plan.expand(self.tasks, self.solvers, range(10), "cpu", "float32")
        assert len(self.runs) == 1000
        self.recorded = {run.key: Row.of(run, Result("ok"), "", "") for run in self.runs[::2]}

    def time_registry(self) -> None:
        """Enter every task and solver, the files being imported already."""
        for kind in ("task", "solver"):
            Registry(kind)

    def time_select(self) -> None:
        """Parse a sweep."""
        registry("task").select(TASK)

    def time_expand_and_key(self) -> None:
        """Make the runs and hash what they are."""
        runs = plan.expand(self.tasks, self.solvers, range(10), "cpu", "float32")
        assert len({run.key for run in runs}) == 1000

    def time_pending(self) -> None:
        """Half of the runs are recorded."""
        assert len(plan.pending(self.runs, self.recorded, "changed")) == 500
