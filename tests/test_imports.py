"""A run that uses one library does not import the others."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import rows


LIBRARIES = ("jax", "ott", "ot", "geomloss", "flax", "optuna", "sklearn", "pandas", "seaborn")
SPY = '''
"""Runs another solver, and says what is imported then."""

from dataclasses import dataclass
from typing import ClassVar

import otbench
from otbench import Solver, Transport


@dataclass(frozen=True)
class Spy(Solver):
    name: ClassVar[str] = "spy"
    of: str = "identity"

    def fit(self, problem, context):
        import json
        import sys
        from dataclasses import replace

        found = otbench.get_solver(self.of).fit(problem, context)
        held = [name for name in %r if name in sys.modules]
        return replace(found, info={"held": json.dumps(held)})
'''
# `import ot` itself imports what of these is installed, and JAX flax.
OF_POT = {"ot", "jax", "geomloss", "sklearn", "pandas"}
ALLOWED = {
    "identity": set(),
    "sinkhorn[n=32]": set(),
    "geomloss[n=32]": {"geomloss"},
    "scipy-assignment[n=32]": set(),
    "pot-sinkhorn[n=32]": OF_POT,
    "ott-sinkhorn[n=32]": {"ott", "jax", "flax"},
}


def test_a_run_imports_its_own_library_alone(otbench, tmp_path: Path) -> None:
    plugin = tmp_path / "spy.py"
    plugin.write_text(SPY % (LIBRARIES,))
    solvers = [word for name in ALLOWED for word in ("-s", f"spy[of='{name}']")]
    where = ["--plugins", plugin, "--results", tmp_path / "out", "--seeds", "1"]
    assert otbench("run", "-t", "gaussian[dim=1]", *solvers, *where).returncode == 0
    found = {json.loads(row["solver_params"])["of"]: row for row in rows(tmp_path / "out")}
    assert set(found) == set(ALLOWED)
    for name, row in found.items():
        assert row["status"] == "ok", row["message"]
        assert set(json.loads(row["info_held"])) <= ALLOWED[name], name
