"""The store: durable rows, torn lines, disks that are full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import otbench
from otbench import store
from otbench.errors import UserError


def row(key: str, when: str = "2026-01-01T00:00:00", **more) -> dict:
    return {"key": key, "when": when, "status": "ok", "task": "t", "solver": "s", "seed": 0, **more}


def filled(results: Path, *rows: dict) -> store.RunFolder:
    folder = store.RunFolder(results, "test", {"cpu": "x"})
    for one in rows:
        folder.append(one)
    return folder


def test_frames_are_tidy(tmp_path):
    curve = [
        {"step": 1, "seconds": 0.5, "l2_uvp": 9.0},
        {"step": 2, "seconds": 1.0, "l2_uvp": 4.0, "cos": 0.5},
    ]
    filled(
        tmp_path,
        row("a", metric_l2_uvp=3.5, metric_cos=0.9, curve=curve, info_eps=0.1),
        row("b", status="timeout", curve=[]),
    ).close()
    results = otbench.load(tmp_path)
    assert list(results.runs["key"]) == ["a", "b"] and results.runs.loc[0, "info_eps"] == 0.1
    assert {tuple(r) for r in results.metrics.itertuples(index=False)} == {
        ("a", "l2_uvp", 3.5),
        ("a", "cos", 0.9),
    }
    assert len(results.curves) == 3 and set(results.curves.columns) == {
        "key",
        "step",
        "seconds",
        "metric",
        "value",
    }
    documented = [name for name in store.COLUMNS if not name.endswith("*") and name != "curve"]
    assert list(results.runs.columns[: len(documented)]) == documented


def test_the_last_record_of_a_key_counts(tmp_path):
    filled(tmp_path, row("a", "2026-01-02T00:00:00", message="new")).close()
    filled(tmp_path, row("a", "2026-01-01T00:00:00", message="old"), row("b")).close()
    runs = otbench.load(tmp_path).runs.set_index("key")
    assert len(runs) == 2 and runs.loc["a", "message"] == "new"


def test_no_rows_are_empty_frames(tmp_path):
    filled(tmp_path).close()
    results = otbench.load(tmp_path)
    assert results.runs.empty and results.metrics.empty and "status" in results.runs.columns


@settings(max_examples=25)
@given(cut=st.integers(1, 60))
def test_a_line_torn_anywhere_is_passed_over_and_repaired(tmp_path_factory, cut):
    results = tmp_path_factory.mktemp("results")
    folder = filled(results, row("a"), row("b"))
    folder.close()
    file = folder.path / "rows.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    kept = [r["key"] for r in store.read_rows(folder.path)]
    assert kept == ["a"]
    assert store.repair(results) == [file]
    assert file.read_bytes() == whole[: whole.index(b"\n") + 1]
    assert store.repair(results) == []


def test_a_file_being_written_is_not_repaired(tmp_path):
    folder = filled(tmp_path, row("a"))
    with open(folder.path / "rows.jsonl", "a") as other:
        other.write('{"half')
    assert store.repair(tmp_path) == []
    folder.close()
    assert len(store.repair(tmp_path)) == 1


def test_garbage_inside_is_named_with_its_line(tmp_path):
    folder = filled(tmp_path, row("a"))
    folder.close()
    with open(folder.path / "rows.jsonl", "a") as file:
        file.write("garbage\n" + json.dumps(row("b")) + "\n")
    with pytest.raises(UserError, match=r"rows.jsonl:2 is not JSON"):
        otbench.load(tmp_path)


def test_folders_that_are_not_there():
    with pytest.raises(UserError, match="no results folder"):
        otbench.load("/nowhere/at/all")


def test_invocations_in_one_second_get_folders_of_their_own(tmp_path):
    folders = [filled(tmp_path) for _ in range(5)]
    assert len({folder.path for folder in folders}) == 5


def test_a_full_disk_is_one_line_and_takes_the_half_written_row_back(tmp_path):
    """The limit on a file's size stands in for the disk: the write stops short in the same way."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from otbench import store
from otbench.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = store.RunFolder(Path({str(tmp_path)!r}), "test", {{}})
folder.append({{"key": "a", "when": "1"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    folder.append({{"key": "b", "text": "x" * 500}})
except UserError as error:
    print(error)
folder.append({{"key": "c", "when": "2"}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "cannot write results" in done.stdout
        and "--results" in done.stdout
        and done.stdout.count("\n") == 1
    ), done.stderr
    assert [
        json.loads(line)["key"]
        for line in next(tmp_path.rglob("rows.jsonl")).read_text().splitlines()
    ] == ["a", "c"]


@pytest.mark.skipif(
    os.geteuid() == 0 and not os.path.exists("/proc/sys"), reason="needs a path nobody can write"
)
def test_a_folder_nobody_can_write(otbench):
    done = otbench(
        "run", "-t", "gaussian", "-s", "identity", "--seeds", 1, "--results", "/proc/sys/otbench"
    )
    assert done.returncode == 2
    assert (
        done.stderr.startswith("otbench: error: cannot write results to /proc/sys/otbench/")
        and done.stderr.count("\n") == 1
    )


def edited(results: Path, line: str) -> Path:
    """A folder of three rows, of which the second was edited by hand."""
    folder = filled(results, row("a"), row("b"), row("c"))
    folder.close()
    file = folder.path / "rows.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], line, lines[2], ""]))
    return file


NO_ROWS = [
    ({"status": "fine"}, 'has status = "fine", expected one of ok, skipped'),
    ({"fit_cold_s": "fast"}, 'has fit_cold_s = "fast", expected float or none'),
    ({"fit_cold_s": float("nan")}, "has fit_cold_s = NaN, expected float or none"),
    ({"seed": 1.5}, "has seed = 1.5, expected int"),
    ({"seed": -1}, "has seed = -1, expected a whole number from 0 on"),
    ({"seed": True}, "has seed = true, expected int"),
    ({"threads": 10**30}, "has threads = 1000000000000000000000000000000, expected int or none"),
    ({"trivial": "no"}, 'has trivial = "no", expected bool'),
    ({"began": "yesterday"}, 'has began = "yesterday", expected a time in ISO 8601'),
    ({"when": "2026-13-01"}, 'has when = "2026-13-01", expected a time in ISO 8601'),
    ({"task_params": "{"}, 'has task_params = "{", expected a JSON object'),
    ({"solver_params": "[1]"}, 'has solver_params = "[1]", expected a JSON object'),
    ({"metric_l2_uvp": "3"}, 'has metric_l2_uvp = "3", expected a number'),
    ({"metric_l2_uvp": float("inf")}, "has metric_l2_uvp = Infinity, expected a number"),
    ({"info_eps": [1]}, "has info_eps = [1], expected a number, string or boolean"),
    ({"curve": 3}, "has curve = 3, expected a list of checkpoints"),
    ({"curve": [{"step": 1}]}, "expected checkpoints with step and seconds"),
    ({"curve": [{"step": 1, "seconds": "2"}]}, "expected numbers in a checkpoint"),
    ({"key": None}, "has no key"),
    ({"solver": None}, "has no solver"),
    ({"message": "x" * 10**5, "status": 3}, "has status = 3, expected str"),
]


@pytest.mark.parametrize(("change", "words"), NO_ROWS, ids=[words for _, words in NO_ROWS])
def test_a_line_that_is_no_row_is_named(tmp_path, change, words):
    file = edited(tmp_path, json.dumps({**row("b"), **change}))
    with pytest.raises(UserError) as error:
        otbench.load(tmp_path)
    assert str(error.value).startswith(f"{file}:2 ") and words in str(error.value)
    assert str(error.value).endswith(": mend or delete that line") and len(str(error.value)) < 500


@pytest.mark.parametrize(
    "line", ["3", "[]", "null", '"key"', "{", '{"key": "b"', "\ufeff{}", "[" * 10**5, "9" * 10**4]
)
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    file = edited(tmp_path, line)
    with pytest.raises(UserError) as error:
        otbench.load(tmp_path)
    assert str(error.value).startswith(f"{file}:2 ") and "\n" not in str(error.value)


def test_empty_lines_and_unknown_columns_are_let_be(tmp_path):
    edited(tmp_path, json.dumps(row("b", colour=[1, {}], message=None)) + "\n  \n")
    assert list(otbench.load(tmp_path).runs.key) == ["a", "b", "c"]


REPORTS = ("leaderboard", "verdicts", "rejudged", "amortization", "status", "export", "plot")


@pytest.mark.parametrize("report", [*REPORTS, "compare", "run"])
def test_every_command_names_the_line(report, monkeypatch, tmp_path, capsys):
    from otbench.cli.main import main

    monkeypatch.chdir(tmp_path)
    file = edited(tmp_path / "out", json.dumps(row("b", status="fine")))
    given = {"compare": ["out", "out"], "run": ["--results", "out", "-s", "identity"]}
    assert main([report, *given.get(report, ["out"])]) == 2
    assert f"{file.relative_to(tmp_path)}:2 has status" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_rows_that_cannot_be_read_are_said(tmp_path):
    file = edited(tmp_path, json.dumps(row("b")))
    file.chmod(0)
    with pytest.raises(UserError, match="Permission denied; make it readable"):
        otbench.load(tmp_path)
