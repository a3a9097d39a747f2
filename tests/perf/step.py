"""Microseconds per update of neural training, beside a bare loop of the same networks and batch
written by hand.

    python tests/perf/step.py [--training max-min | critic] [--rounds 100] [--repeats 3] [--stack
        20]

The bare loop is what a paper's script looks like: `torch.nn` modules, one Adam each with its
defaults, fresh samples, no averages, no checks. Both run in alternation on one thread; ratios are
of medians. The last column is the cost of one seed in a stack, as a ratio to one alone: what
`otbench run --together` saves.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from otbench import FitContext, MapProblem
from otbench.registry import registry


SETTINGS = [(2, 64, 64), (2, 64, 256), (2, 128, 256), (16, 128, 256)]  # dimension, width, batch
MAP_UPDATES = 5


def network(
    dim: int, width: int, outputs: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Three hidden layers."""
    layers = [layer for _ in range(2) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(dim, width), activation(), *layers, nn.Linear(width, outputs))


def bare_max_min(problem: MapProblem, width: int, batch: int, rounds: int) -> None:
    """Residual map and potential, trained by the shortest code there is."""
    dim, generator = problem.source.dim, torch.Generator().manual_seed(0)
    push, potential = network(dim, width, dim, nn.SiLU), network(dim, width, 1, nn.SiLU)
    of_map, of_potential = (
        torch.optim.Adam(net.parameters(), 1e-3, (0.5, 0.9)) for net in (push, potential)
    )
    for _ in range(rounds):
        potential.requires_grad_(False)
        for _ in range(MAP_UPDATES):
            x = problem.source.sample(batch, generator)
            y = x + push(x)
            loss = (y.square().sum(1) / 2 + potential(y)[:, 0] - (x * y).sum(1)).mean()
            of_map.zero_grad()
            loss.backward()
            of_map.step()
        potential.requires_grad_(True)
        x, y = problem.source.sample(batch, generator), problem.target.sample(batch, generator)
        with torch.no_grad():
            image = x + push(x)
        loss = (y.square().sum(1) / 2 + potential(y)[:, 0]).mean() - (
            image.square().sum(1) / 2 + potential(image)[:, 0]
        ).mean()
        of_potential.zero_grad()
        loss.backward()
        of_potential.step()


def bare_critic(problem: MapProblem, width: int, batch: int, rounds: int) -> None:
    """A critic with a one-sided penalty, which is differentiated twice."""
    generator = torch.Generator().manual_seed(0)
    critic = network(problem.source.dim, width, 1, lambda: nn.LeakyReLU(0.1))
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3, (0.5, 0.999))
    for _ in range(rounds):
        x, y = problem.source.sample(batch, generator), problem.target.sample(batch, generator)
        z = torch.lerp(x, y, torch.rand(batch, 1, generator=generator)).requires_grad_()
        (slope,) = torch.autograd.grad(critic(z).sum(), z, create_graph=True)
        loss = (
            critic(y).mean()
            - critic(x).mean()
            + 100 * (slope.norm(dim=1) - 1).clamp(min=0).square().mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


TRAININGS = {  # the bare loop, our solver, a task, updates of a round
    "max-min": (bare_max_min, f"otm[map_updates={MAP_UPDATES},", "gaussian[dim=", MAP_UPDATES + 1),
    "critic": (bare_critic, "ttc-ray[", "sphere-denoising[sigma=0.3,dim=", 1),
}


def ours(solver: str, problem: MapProblem, width: int, batch: int, rounds: int, stack: int) -> None:
    """The solver, without a runner."""
    (selection,) = registry("solver").select(f"{solver}width={width},batch={batch},steps={rounds}]")
    runs = [
        FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))
        for seed in range(stack)
    ]
    selection.build().fit_together([problem] * stack, runs)


def seconds(call: Callable[[], None]) -> float:
    """Of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--training", choices=TRAININGS, default="max-min")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stack", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bare, solver, task, updates = TRAININGS[options.training]
    print(
        f"{'dim':>4} {'width':>6} {'batch':>6} {'bare us':>8} {'ours us':>8} {'ratio':>6} "
        f"{f'in a stack of {options.stack}':>18}"
    )
    for dim, width, batch in SETTINGS:
        (selection,) = registry("task").select(f"{task}{dim}]")
        problem = selection.build().problem(
            np.random.default_rng(0), device="cpu", dtype=torch.float32
        )
        calls = {
            "bare": lambda rounds: bare(problem, width, batch, rounds),  # noqa: B023  (called within the iteration)
            "ours": lambda rounds: ours(solver, problem, width, batch, rounds, 1),  # noqa: B023
            "stack": lambda rounds: ours(solver, problem, width, batch, rounds, options.stack),  # noqa: B023
        }
        for call in calls.values():
            call(5)
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.repeats):
            for name, call in calls.items():
                taken[name].append(seconds(lambda call=call: call(options.rounds)))
        one, other, many = (
            1e6 * statistics.median(taken[name]) / options.rounds / updates for name in calls
        )
        print(
            f"{dim:4} {width:6} {batch:6} {one:8.0f} {other:8.0f} {other / one:6.2f} "
            f"{many / options.stack / other:18.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
