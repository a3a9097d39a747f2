"""Compare what two commits of a repository cost, by asv, in alternating rounds.

    python tests/perf/compare_commits.py BASE NEW [--factor 1.25] [--rounds 3] [--bench REGEX]
        [--repo DIR] [--save DIR]

The benchmarks are those of NEW, run against the code of both commits, each from a git worktree, in
the environment of this interpreter. For every benchmark and round the ratio is the best sample of
NEW over that of BASE: what disturbs a machine only ever adds to a sample. A regression is a
benchmark (a time, a peak memory, or a tracked value, of which lower is better) whose ratio is above
1 in every round and beyond the factor both in the median over the rounds and between the best
samples of all rounds.

Exit status: 0 no regression; 1 a regression, named; 2 nothing can be said (no such commit, asv
failed, a benchmark fails on NEW, nothing measured). A benchmark that fails on BASE alone is new: it
is shown, and not compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


Samples = dict[str, list[float] | None]  # by benchmark; None where it failed


class BrokenError(Exception):
    """Nothing can be said. The message says why."""


@dataclass(frozen=True)
class Comparison:
    """One benchmark on both commits: samples of each round."""

    name: str
    base: list[list[float]]
    new: list[list[float]]

    @property
    def ratios(self) -> list[float]:
        """New over base, of the best samples of each round."""
        return [_ratio(min(new), min(base)) for base, new in zip(self.base, self.new, strict=True)]

    def regressed(self, factor: float) -> bool:
        """Whether NEW is worse beyond the factor, and beyond noise (see the module's docstring)."""
        best = _ratio(min(map(min, self.new)), min(map(min, self.base)))
        return min(self.ratios) > 1 and statistics.median(self.ratios) > factor and best > factor


def _ratio(new: float, base: float) -> float:
    return new / base if base > 0 else 1.0 if new == base else math.inf


def main() -> int:
    """Exit status of the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("new", help="commit to judge")
    parser.add_argument(
        "--factor", type=float, default=1.25, help="ratio that is a regression (default: 1.25)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="measurements of each commit, in alternation (default: 3)",
    )
    parser.add_argument("--bench", default=".", metavar="REGEX", help="only these benchmarks")
    parser.add_argument(
        "--repo",
        type=Path,
        default=Path(__file__).parents[2],
        help="the repository (default: this one)",
    )
    parser.add_argument("--save", type=Path, metavar="DIR", help="keep asv's result files here")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worktrees are cleaned up
    try:
        comparisons, fresh = measure(
            options.repo, options.base, options.new, options.rounds, options.bench, options.save
        )
    except BrokenError as error:
        print(f"compare_commits: broken: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return report(comparisons, fresh, options.factor)


def report(comparisons: list[Comparison], fresh: list[str], factor: float) -> int:
    """Print the table and the verdict."""
    width = max(len(name) for name in [*fresh, *(c.name for c in comparisons)])
    print(f"{'benchmark':{width}}  {'base':>10}  {'new':>10}  ratio  of the rounds")
    for c in sorted(comparisons, key=lambda c: -statistics.median(c.ratios)):
        base, new = (
            statistics.median(s for samples in side for s in samples) for side in (c.base, c.new)
        )
        rounds = " ".join(f"{ratio:.2f}" for ratio in c.ratios)
        note = "  REGRESSION" if c.regressed(factor) else ""
        print(
            f"{c.name:{width}}  {base:10.4g}  {new:10.4g}  {statistics.median(c.ratios):5.2f}  "
            f"{rounds}{note}"
        )
    for name in fresh:
        print(f"{name:{width}}  {'fails':>10}  not compared")
    worse = [c.name for c in comparisons if c.regressed(factor)]
    print(
        f"\nregression beyond {factor:g}: {', '.join(worse)}"
        if worse
        else f"\nno regression beyond {factor:g}"
    )
    return 1 if worse else 0


def measure(
    repo: Path, base: str, new: str, rounds: int, bench: str, save: Path | None
) -> tuple[list[Comparison], list[str]]:
    """Samples of both commits, and the benchmarks that work on NEW alone.

    Raises:
        BrokenError: nothing can be said.
    """
    commits = {"base": resolve(repo, base), "new": resolve(repo, new)}
    collected: dict[str, list[Samples]] = {"base": [], "new": []}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        work = Path(folder)
        trees = {
            side: stack.enter_context(worktree(repo, commit, work / side))
            for side, commit in commits.items()
        }
        config = json.loads((trees["new"] / "asv.conf.json").read_text())
        # Outside both trees, so that neither is imported by standing beside them.
        benchmarks = work / "perf"
        shutil.copytree(trees["new"] / config["benchmark_dir"], benchmarks)
        for tree in trees.values():
            check_import(config["project"], tree, work)
        for number in range(rounds):
            for side in ("base", "new") if number % 2 == 0 else ("new", "base"):
                results = (save or work).absolute() / f"round{number}-{side}"
                settings = {
                    "version": 1,
                    "project": config["project"],
                    "repo": str(repo.absolute()),
                    "branches": [commits["new"]],
                }
                settings |= {
                    "environment_type": "existing",
                    "benchmark_dir": str(benchmarks),
                    "results_dir": str(results),
                    "env_dir": str(work / "env"),
                }
                (work / "asv.json").write_text(json.dumps(settings))
                print(
                    f"round {number + 1} of {rounds}: {side} {commits[side][:8]}",
                    file=sys.stderr,
                    flush=True,
                )
                collected[side].append(run_asv(work, trees[side], commits[side], bench, results))
    names = sorted(
        set.intersection(*(set(samples) for side in collected.values() for samples in side))
    )
    comparisons, fresh = [], []
    for name in names:
        sides = {
            side: [found for samples in collected[side] if (found := samples[name])]
            for side in collected
        }
        if len(sides["new"]) < rounds:
            raise BrokenError(f"benchmark {name} fails on {new}")
        if len(sides["base"]) < rounds:
            fresh.append(name)
        else:
            comparisons.append(Comparison(name, sides["base"], sides["new"]))
    if not comparisons:
        raise BrokenError("no benchmark was measured on both commits")
    return comparisons, fresh


def resolve(repo: Path, commit: str) -> str:
    """The full hash of a commit."""
    done = subprocess.run(
        ["git", "-C", str(repo), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BrokenError(f"no commit {commit!r} in {repo}")
    return done.stdout.strip()


@contextlib.contextmanager
def worktree(repo: Path, commit: str, path: Path) -> Iterator[Path]:
    """A checkout of ``commit``, removed at the end."""
    git = ["git", "-C", str(repo), "worktree"]
    try:
        done = subprocess.run(
            [*git, "add", "--detach", str(path), commit], capture_output=True, text=True
        )
        if done.returncode:
            raise BrokenError(f"git worktree: {done.stderr.strip()}")
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], capture_output=True)


def check_import(project: str, tree: Path, work: Path) -> None:
    """Make sure that the code measured is the worktree's, whatever is installed."""
    where = [sys.executable, "-c", f"import {project}; print({project}.__file__)"]
    done = subprocess.run(
        where, cwd=work, env=environment(tree, work), capture_output=True, text=True
    )
    if done.returncode:
        raise BrokenError(f"cannot import {project} from {tree}: {done.stderr.strip()}")
    if not Path(done.stdout.strip()).resolve().is_relative_to(tree.resolve()):
        raise BrokenError(f"{project} is imported from {done.stdout.strip()}, not from {tree}")


def environment(tree: Path, home: Path) -> Mapping[str, str]:
    """Variables under which the code of ``tree`` is imported, on one thread, and under which asv
    keeps its notes in ``home``.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # glibc gives memory back, and faults it in again, or does not, by the accidents of a process:
    # times that differ by a factor of two.
    malloc = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    return {
        **os.environ,
        **threads,
        **malloc,
        "PYTHONPATH": str(tree),
        "ASV_PYTHONPATH": str(tree),
        "HOME": str(home),
    }


def run_asv(work: Path, tree: Path, commit: str, bench: str, results: Path) -> Samples:
    """One round of one commit."""
    asv = [sys.executable, "-m", "asv", "--config", str(work / "asv.json")]
    subprocess.run(
        [*asv, "machine", "--yes", "--machine", "here"],
        cwd=work,
        env=environment(tree, work),
        capture_output=True,
    )
    command = [
        *asv,
        "run",
        "--python=same",
        "--machine",
        "here",
        "--set-commit-hash",
        commit,
        "--record-samples",
        "--show-stderr",
    ]
    command += ["--launch-method", "spawn", "--bench", bench, "-a", "rounds=1"]
    done = subprocess.run(
        command, cwd=work, env=environment(tree, work), capture_output=True, text=True
    )
    files = [file for file in results.glob("here/*.json") if file.name != "machine.json"]
    if len(files) != 1:
        raise BrokenError(
            "asv measured nothing (exit status "
            f"{done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}"
        )
    samples = read(files[0])
    for name in [name for name, found in samples.items() if found is None]:
        print(f"{name} failed:\n{done.stdout[-3000:]}", file=sys.stderr)
    return samples


def read(file: Path) -> Samples:
    """Samples by benchmark, from asv's result file; a tracked value or a peak is one sample."""
    content = json.loads(file.read_text())
    found: Samples = {}
    for name, values in content["results"].items():
        row = dict(zip(content["result_columns"], values, strict=False))
        results = row["result"] or [None]
        samples = row.get("samples") or [None] * len(results)
        for i, (result, series) in enumerate(zip(results, samples, strict=True)):
            label = name if len(results) == 1 else f"{name}#{i}"
            found[label] = None if result is None or math.isnan(result) else series or [result]
    return found


if __name__ == "__main__":
    sys.exit(main())
