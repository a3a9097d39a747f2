"""Microseconds per update of neural training, beside a bare loop of the same networks and batch
written by hand.

    python tests/perf/step.py [--training max-min | critic] [--device cpu | cuda] [--rounds 100]
        [--repeats 3] [--stack 20] [--settings 2,64,64 ...]

The bare loop is what a paper's script looks like: `torch.nn` modules, one Adam each with its
defaults, fresh samples, no averages, no checks. All run in alternation on one thread; ratios are
of medians. The last ratio is the cost of one seed in a stack, to one alone: what
`otbench run --together` saves.

On a GPU ``ours`` is timed twice: ``eager``, as it is written (`OTBENCH_CUDA_GRAPHS=0`), and as
CUDA ``graph``s, whose capture is in the time; the stack is as graphs, and the last columns are
milliseconds of a whole round, of one and of the stack.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import nn

from otbench import FitContext, MapProblem
from otbench.registry import registry


SETTINGS = {  # dimension, width, batch
    "cpu": ["2,64,64", "2,64,256", "2,128,256", "16,128,256"],
    "cuda": ["2,128,256", "16,128,256", "64,512,1024"],
}
MAP_UPDATES = 5


def network(
    dim: int, width: int, outputs: int, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Three hidden layers."""
    layers = [layer for _ in range(2) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(dim, width), activation(), *layers, nn.Linear(width, outputs))


def bare_max_min(problem: MapProblem, width: int, batch: int, rounds: int, device: str) -> None:
    """Residual map and potential, trained by the shortest code there is."""
    dim, generator = problem.source.dim, torch.Generator(device).manual_seed(0)
    push, potential = (network(dim, width, k, nn.SiLU).to(device) for k in (dim, 1))
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


def bare_critic(problem: MapProblem, width: int, batch: int, rounds: int, device: str) -> None:
    """A critic with a one-sided penalty, which is differentiated twice."""
    generator = torch.Generator(device).manual_seed(0)
    critic = network(problem.source.dim, width, 1, lambda: nn.LeakyReLU(0.1)).to(device)
    optimizer = torch.optim.Adam(critic.parameters(), 1e-3, (0.5, 0.999))
    for _ in range(rounds):
        x, y = problem.source.sample(batch, generator), problem.target.sample(batch, generator)
        z = torch.lerp(
            x, y, torch.rand(batch, 1, generator=generator, device=device)
        ).requires_grad_()
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


def ours(
    solver: str,
    problem: MapProblem,
    width: int,
    batch: int,
    rounds: int,
    device: str,
    stack: int = 1,
    graphs: bool = True,
) -> None:
    """The solver, without a runner."""
    (selection,) = registry("solver").select(f"{solver}width={width},batch={batch},steps={rounds}]")
    runs = [
        FitContext(device, torch.float32, seed, torch.Generator(device).manual_seed(seed))
        for seed in range(stack)
    ]
    os.environ["OTBENCH_CUDA_GRAPHS"] = "1" if graphs else "0"
    selection.build().fit_together([problem] * stack, runs)


def seconds(call: Callable[[], None], device: str) -> float:
    """Of one call and of the kernels that it has queued."""
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def medians(
    calls: Mapping[str, Callable[[int], None]], rounds: int, repeats: int, device: str
) -> dict[str, float]:
    """Microseconds of a round of each, timed in turn."""
    for call in calls.values():
        call(5)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(seconds(partial(call, rounds), device))
    return {name: 1e6 * statistics.median(times) / rounds for name, times in taken.items()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--training", choices=TRAININGS, default="max-min")
    parser.add_argument("--device", choices=SETTINGS, default="cpu")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stack", type=int, default=20)
    parser.add_argument("--settings", nargs="+", metavar="DIM,WIDTH,BATCH")
    options = parser.parse_args()
    device, stack = options.device, options.stack
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no CUDA device here")
    torch.set_num_threads(1)
    bare, solver, task, updates = TRAININGS[options.training]
    on_gpu = device == "cuda"
    names = ("eager", "graph") if on_gpu else ("ours",)
    head = f"{'dim':>4} {'width':>6} {'batch':>6} {'bare us':>8}"
    head += "".join(f" {f'{name} us':>8} {'ratio':>6}" for name in names)
    head += f" {f'in a stack of {stack}':>18}"
    print(head + (f" {'ms a round':>11} {'of the stack':>13}" if on_gpu else ""), flush=True)
    for setting in options.settings or SETTINGS[device]:
        dim, width, batch = map(int, setting.split(","))
        (selection,) = registry("task").select(f"{task}{dim}]")
        problem = selection.build().problem(
            np.random.default_rng(0), device=device, dtype=torch.float32
        )
        assert isinstance(problem, MapProblem)
        given = {"width": width, "batch": batch, "device": device}
        calls = {"bare": lambda rounds: bare(problem, rounds=rounds, **given)}  # noqa: B023
        for name in (*names, "stack"):
            calls[name] = lambda rounds, name=name: ours(
                solver,
                problem,  # noqa: B023  (called within the iteration)
                rounds=rounds,
                stack=stack if name == "stack" else 1,
                graphs=name != "eager",
                **given,  # noqa: B023
            )
        took = medians(calls, options.rounds, options.repeats, device)
        line = f"{dim:4} {width:6} {batch:6} {took['bare'] / updates:8.0f}"
        for name in names:
            line += f" {took[name] / updates:8.0f} {took[name] / took['bare']:6.2f}"
        line += f" {took['stack'] / stack / took[names[-1]]:18.2f}"
        if on_gpu:
            line += f" {took['graph'] / 1e3:11.2f} {took['stack'] / 1e3:13.2f}"
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
