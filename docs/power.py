"""Measure what the test of the push-forward can see, and write docs/power.md.

    OTBENCH_DATA=... python docs/power.py

Defects are planted into fresh target samples, which are what a perfect map would give; the smallest
size is sought that is flagged in every repeat. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

import otbench
from otbench import MapProblem, metrics
from otbench.methods.gaussian_maps import gaussian_map
from otbench.metrics.maps import energy_distance
from otbench.report.tables import pipe_table
from otbench.scoring.maps import MapScoring
from otbench.scoring.verdict import TAU


Tensor = torch.Tensor
Defect = Callable[[Tensor, float, torch.Generator], Tensor]
Smallest = Mapping[str, Mapping[str, float]]  # sizes by defect and test

PAGE = Path(__file__).parent / "power.md"
TASKS = (
    *(f"perpendicular[dim={dim}]" for dim in (2, 4, 16, 64, 256)),
    *(f"one-to-many[dim={dim}]" for dim in (2, 16, 64, 256)),
    *(f"low-dim-manifold[dim={dim}]" for dim in (2, 16, 256)),
    *(f"gaussian[dim={dim}]" for dim in (2, 16, 64, 256)),
    *(f"mix3tomix10[dim={dim}]" for dim in (2, 4, 16, 64)),
    "sphere-denoising",
    "hyperbola",
)
SIZES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
SEED = 1000  # of the problems and of the first repeat
NULLS = 8  # fresh samples that say what a test shows of a perfect push-forward
DASH = "–"  # noqa: RUF001


def shift(y: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Along a random direction, in standard deviations (the mean one of a direction)."""
    return y + size * _unit(y) * _direction(y, generator)


def lost(y: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """A share of the spread along a random direction."""
    along = _direction(y, generator)
    return y - size * ((y - y.mean(0)) @ along)[:, None] * along


def dropped(y: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """A share of the mass, furthest along the first principal axis, in whose place others stand."""
    centred = y - y.mean(0)
    order = (centred @ torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]).argsort()
    kept = order[: max(1, round((1 - size) * len(y)))]
    return y[kept[torch.randint(len(kept), (len(y),), generator=generator)]]


def gaussian(y: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """A share of the points, in whose place stand draws of the Gaussian of the same moments."""
    normal = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    chosen = torch.rand(len(y), 1, generator=generator) < size
    return torch.where(chosen, gaussian_map(normal, y)(normal), y)


def noise(y: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """Gaussian, in standard deviations."""
    return y + size * _unit(y) * torch.randn(y.shape, generator=generator, dtype=y.dtype)


def shuffled(y: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """A share of the points, whose coordinates are exchanged among them, each for itself."""
    count = round(size * len(y))
    order = torch.rand(count, y.shape[1], generator=generator).argsort(0)
    return torch.cat([y[:count].gather(0, order), y[count:]])


DEFECTS: Mapping[str, Defect] = {
    "shift": shift,
    "lost direction": lost,
    "lost mass": dropped,
    "Gaussian instead": gaussian,
    "noise": noise,
    "shuffled": shuffled,
}


def classifier(x: Tensor, y: Tensor) -> float:
    """Accuracy above a half of a network that tells the samples apart, on points it has not seen
    (Lopez-Paz & Oquab 2017).
    """
    points = torch.cat([x, y]).float()
    points = (points - points.mean(0)) / points.std().clamp(min=1e-12)
    labels = torch.arange(len(points)) >= len(x)
    seen = torch.arange(len(points)) % 2 == 0
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(points.shape[1], 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(200):
            batch = torch.nonzero(seen)[torch.randint(int(seen.sum()), (512,)), 0]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                net(points[batch])[:, 0], labels[batch].float()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right = (net(points[~seen])[:, 0] > 0) == labels[~seen]
    return float(right.float().mean()) - 0.5


class Bench:
    """The tests on one problem, each with what it shows of fresh samples."""

    def __init__(self, problem: MapProblem) -> None:
        self.scoring = MapScoring(problem, torch.Generator().manual_seed(SEED))
        self.target = self.scoring.known["target_sample"].double()
        fresh = [self.fresh(seed) for seed in range(NULLS)]
        self.tests: dict[str, Callable[[Tensor], float]] = {
            "energy": lambda x: energy_distance(x[: len(self.target)], self.target),
            "classifier": lambda x: classifier(x[: len(self.target)], self.target),
        }
        nulls = {
            name: torch.tensor([test(x) for x in fresh], dtype=torch.float64)
            for name, test in self.tests.items()
        }
        # What a further value stays below, 99 times of 100 (Student).
        self.bounds = {name: metrics.direction_visible(of) for name, of in nulls.items()}

    def fresh(self, repeat: int) -> Tensor:
        """What a perfect map gives: two samples."""
        generator = torch.Generator().manual_seed(SEED + 1 + repeat)
        return self.scoring.problem.target.sample(2 * len(self.scoring.many), generator).double()

    def flags(self, x: Tensor) -> dict[str, bool]:
        """Which tests see something wrong in a push-forward."""
        arrays = {**self.scoring.known, **self.scoring.after_fit}
        arrays |= self.scoring.target_arrays(x, self.scoring.after_fit)
        scores = metrics.score(arrays, [metrics.METRICS[name] for name in DEFECT_METRICS])
        seen: dict[str, bool] = {
            "slices": scores["target_defect"] > scores["target_visible"],
            "before": scores["target_defect"] > max(TAU, scores["target_visible"]),
        }
        share, visible = scores["direction_defect"], scores["direction_visible"]
        seen["largest"] = share > visible
        seen["after"] = seen["before"] or share > max(TAU, visible)
        return seen | {name: test(x) > self.bounds[name] for name, test in self.tests.items()}

    def smallest(self, defect: Defect, repeats: int) -> dict[str, float]:
        """The smallest size that each test flags in every repeat; those that flag none are absent.
        Sizes are sought by bisection: a larger defect is taken to be seen where a smaller one is.
        """
        found: dict[str, float] = {}
        seen: dict[float, dict[str, bool]] = {}
        for name in COLUMNS:
            low, high = 0, len(SIZES)
            while low < high:
                middle = (low + high) // 2
                size = SIZES[middle]
                if size not in seen:
                    seen[size] = self.in_all(defect, size, repeats)
                low, high = (low, middle) if seen[size][name] else (middle + 1, high)
            if low < len(SIZES):
                found[name] = SIZES[low]
        return found

    def in_all(self, defect: Defect, size: float, repeats: int) -> dict[str, bool]:
        """Which tests flag the defect in every repeat."""
        flagged: dict[str, bool] = dict.fromkeys(COLUMNS, True)
        for repeat in range(repeats):
            generator = torch.Generator().manual_seed(SEED + 100 + repeat)
            x = defect(self.fresh(NULLS + repeat), size, generator)
            seen = self.flags(x)
            flagged = {name: flagged[name] and seen[name] for name in COLUMNS}
        return flagged


COLUMNS: tuple[str, ...] = ("before", "after", "slices", "largest", "energy", "classifier")
DEFECT_METRICS = ("target_defect", "target_visible", "direction_defect", "direction_visible")


def page(found: Mapping[str, Smallest], repeats: int) -> str:
    """The page from the smallest sizes, by task, defect and test."""

    def table(cell: Callable[[Mapping[str, float]], str]) -> str:
        rows = [[task, *map(cell, of_task.values())] for task, of_task in found.items()]
        return pipe_table([["task", *DEFECTS], *rows]) + "\n"

    def size(sizes: Mapping[str, float], name: str) -> str:
        return f"{sizes[name]:g}" if name in sizes else DASH

    def verdict(sizes: Mapping[str, float]) -> str:
        return f"{size(sizes, 'before')} → {size(sizes, 'after')}"

    def tests(sizes: Mapping[str, float]) -> str:
        return " / ".join(size(sizes, name) for name in COLUMNS[2:])

    defects = [f"* *{name}*: {_first_line(defect)}" for name, defect in DEFECTS.items()]
    return TEMPLATE.format(
        defects="\n".join(defects),
        verdicts=table(verdict),
        tests=table(tests),
        repeats=repeats,
        sizes=", ".join(f"{value:g}" for value in SIZES),
        dash=DASH,
    )


TEMPLATE = """# What the test of the push-forward can see

Where the optimal map is known, its error is a defect of the verdict and nothing hides from it.
Where it is not, the verdict rests on the push-forward and the cost. This page says how large a
defect of the push-forward has to be to be flagged, cost and map error left aside. Defects are
planted into fresh target samples; the tables give the smallest size that is flagged in every one of
{repeats} repeats, {dash} where none is, among {sizes}.

{defects}

## By the verdict

Above a tenth of the variance, and above what sampling may show: *before → after*, by the distance
in all directions alone (512 random slices, up to dimension 16 exact W2² as well), and with the
direction of the largest slice (`direction_defect`).

{verdicts}
## By the tests side by side

Seen at all, at one false alarm of a hundred, however small: the distance in all directions / the
largest slice / energy distance / a classifier. The verdict needs a distance, which a classifier
does not give: it tells a map of one percent error from the target as surely as a wrong one. So the
largest slice judges, and the energy distance stands beside as a metric.

{tests}
What no line sees: laws whose projections on every line are near those of the target, such as 16
independent rings in 32 dimensions, for which a Gaussian has a largest slice of .005 although W2² is
.22 of the variance. There the map or the cost has to tell.

Made by `python docs/power.py`.
"""


def _direction(y: Tensor, generator: torch.Generator) -> Tensor:
    direction = torch.randn(y.shape[1], generator=generator, dtype=y.dtype)
    return direction / direction.norm()


def _unit(y: Tensor) -> float:
    """Root of the mean variance in a direction."""
    return float(y.var(0).mean()) ** 0.5


def _first_line(function: Callable[..., object]) -> str:
    return " ".join((function.__doc__ or "").split())


def measured(task: str, repeats: int) -> Smallest:
    """What is seen on one task."""
    problem = otbench.get_task(task).problem(
        np.random.default_rng(SEED), device="cpu", dtype=torch.float32
    )
    assert isinstance(problem, MapProblem)
    bench = Bench(problem)
    smallest = {name: bench.smallest(defect, repeats) for name, defect in DEFECTS.items()}
    print(json.dumps({task: smallest}), file=sys.stderr, flush=True)
    return smallest


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {task: measured(task, options.repeats) for task in options.tasks}
    PAGE.write_text(page(found, options.repeats))


if __name__ == "__main__":
    main()
