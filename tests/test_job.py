"""RunSpec, Job, Result and Row: to and from JSON, and rows of an older schema."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import otbench
from otbench import store
from otbench.job import COLUMNS, FIXED, SCHEMA, Job, Result, Row, RunSpec, Saving
from otbench.runner import plan
from otbench.store import RunFolder


def spec(solver: str = "identity") -> RunSpec:
    tasks, solvers = plan.select("task", ["gaussian"], ()), plan.select("solver", [solver], ())
    return plan.expand(tasks, solvers, [3], "cpu", "float32")[0]


def through_json(values: dict) -> dict:
    return json.loads(json.dumps(values))


def test_a_job_is_the_same_after_json():
    saving = Saving("fits", 5.0)
    job = Job((spec(), replace(spec(), seed=4)), ("a.py",), "run", (0, 1), 2, "out", None, saving)
    assert Job.from_json(through_json(job.to_json())) == job
    bare = Job((spec(),))
    assert Job.from_json(through_json(bare.to_json())) == bare


def test_the_key_is_of_what_the_run_is_and_not_of_its_code():
    run = spec()
    assert replace(run, task_hash="x", solver_hash="y", scoring_hash="z").key == run.key
    for change in ({"seed": 4}, {"device": "cuda"}, {"task_params": "{}"}, {"solver": "linear"}):
        assert replace(run, **change).key != run.key
    assert replace(run, solver="linear").problem_key == run.problem_key


def test_a_row_is_the_same_after_json():
    measured = {"threads": 2, "machine": "m", "fit_cold_s": 0.5, "fit_warm_s": None}
    curve = [{"step": 1, "seconds": 0.1, "l2_uvp": 9.0}]
    result = Result("ok", "", measured, {"l2_uvp": 3.0}, {"eps": 0.1, "fid": "no weights"}, curve)
    row = Row.of(spec(), result, "batch", "now")
    flat = through_json(row.to_json())
    assert Row.from_json(flat) == row
    assert flat["metric_l2_uvp"] == 3.0 and flat["info_eps"] == 0.1 and flat["schema"] == SCHEMA
    assert "fit_warm_s" not in flat and flat["key"] == spec().key


def test_what_is_no_column_is_refused():
    with pytest.raises(TypeError, match="no columns of a row: fit_sold_s"):
        Result("ok", "", {"fit_sold_s": 1.0})


def test_every_column_says_what_it_is_and_names_its_unit():
    assert set(FIXED) <= set(COLUMNS) == set(store.COLUMNS)
    units = {"_s": "(s)", "_mib": "(MiB)", "_ms": "(ms)", "_us_per_point": "(µs)"}
    for name in FIXED:
        assert COLUMNS[name]
        unit = next((unit for end, unit in units.items() if name.endswith(end)), "")
        assert COLUMNS[name].endswith(unit), name


def test_rows_of_an_older_schema_are_read_and_are_stale(tmp_path: Path):
    run = spec()
    new = Row.of(run, Result("ok", metrics={"l2_uvp": 1.0}), "b", "2026-01-02").to_json()
    old = {name: value for name, value in new.items() if name not in ("schema", "scoring_hash")}
    old |= {"seed": 4, "key": replace(run, seed=4).key, "column_of_old": 1}
    folder = RunFolder(tmp_path, "test", {})
    folder.append(new)
    folder.append(old)
    folder.close()
    schema = otbench.load(tmp_path).runs.set_index("seed").schema
    assert schema.to_dict() == {3: SCHEMA, 4: 1}
    rows = {key: Row.from_json(row) for key, row in store.latest_rows(tmp_path).items()}
    runs = [run, replace(run, seed=4)]
    assert [left.seed for left in plan.pending(runs, rows, "changed")] == [4]
    assert not plan.pending(runs, rows, "missing")
