"""Solvers that play for a better number than they deserve, one game each."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import ClassVar

import torch

from otbench import (
    AmortizedProblem,
    DiscreteProblem,
    FitContext,
    MapProblem,
    MissingError,
    Problem,
    Solver,
    Transport,
)
from otbench.methods.gaussian_maps import gaussian_map


WORK_S = 0.6
REMEMBERED: list[Transport] = []
ENTERED: list[torch.inference_mode] = []  # which a mode leaves when it is forgotten


@dataclass(frozen=True)
class Game(Solver):
    """Plays what ``play`` names."""

    name: ClassVar[str] = "game"
    play: str = "turned"

    def supports(self, problem: Problem) -> str | None:
        """Take all, some after long thought."""
        if self.play == "ponder":
            time.sleep(WORK_S)
        return None

    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Play."""
        return getattr(self, "_" + self.play)(problem, context)

    def _turned(self, problem: MapProblem, context: FitContext) -> Transport:
        """The linear map, then a rotation under which a Gaussian target stays what it is."""
        x, y = (m.sample(16384, context.generator) for m in (problem.source, problem.target))
        to_target, d = gaussian_map(x, y), x.shape[1]
        white = gaussian_map(y, torch.randn(16384, d, generator=context.generator))
        back = gaussian_map(torch.randn(16384, d, generator=context.generator), y)
        turn = torch.linalg.qr(torch.randn(d, d, generator=context.generator))[0]
        return Transport(push=lambda x: back(white(to_target(x)) @ turn))

    def _idle(self, problem: MapProblem, context: FitContext) -> Transport:
        """Leave every point where it is."""
        return Transport(push=lambda x: x.clone())

    def _fling(self, problem: MapProblem, context: FitContext) -> Transport:
        """Do nothing but send one point in two thousand far away."""

        def push(x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[::2000] += 1e4
            return y

        return Transport(push=push)

    def _lazy(self, problem: MapProblem, context: FitContext) -> Transport:
        """Work in the first push."""
        done: list[bool] = []

        def push(x: torch.Tensor) -> torch.Tensor:
            if not done:
                time.sleep(WORK_S)
                done.append(True)
            return x.clone()

        return Transport(push=push)

    def _lazy_checkpoint(self, problem: MapProblem, context: FitContext) -> Transport:
        """Work in the push of a checkpoint, while the clock stands still."""
        transport = self._lazy(problem, context)
        context.checkpoint(1, transport)
        return transport

    def _lazy_sample(self, problem: MapProblem, context: FitContext) -> Transport:
        """Work in the first draw."""
        push = self._lazy(problem, context).push
        assert push is not None
        sample = lambda x, k: push(x)[:, None].expand(-1, k, *x.shape[1:])  # noqa: E731
        return Transport(push=lambda x: x.clone(), sample=sample)

    def _remember(self, problem: MapProblem, context: FitContext) -> Transport:
        """Work once for all."""
        if not REMEMBERED:
            time.sleep(WORK_S)
            shift = torch.randn(1, generator=context.generator)
            REMEMBERED.append(Transport(push=lambda x: x + shift))
        return REMEMBERED[0]

    def _peek(self, problem: MapProblem, context: FitContext) -> Transport:
        """Read the answer."""
        return Transport(push=problem.truth.map)

    def _study_the_questions(self, problem: AmortizedProblem, context: FitContext) -> Transport:
        """Solve the held-out pairs before they are asked."""
        seen = len(problem.test)

        def plan(pair: DiscreteProblem) -> torch.Tensor:
            return torch.outer(pair.a, pair.b)

        return Transport(plan=plan, info={"seen": seen})

    def _hide(self, problem: MapProblem, context: FitContext) -> Transport:
        """Call a failure something that is missing."""
        raise MissingError("no luck today")

    def _hide_in_push(self, problem: MapProblem, context: FitContext) -> Transport:
        """Call a failure of the map something that is missing."""

        def push(x: torch.Tensor) -> torch.Tensor:
            raise MissingError("no luck today")

        return Transport(push=push)

    def _ponder(self, problem: MapProblem, context: FitContext) -> Transport:
        """Have worked before the fit."""
        return self._idle(problem, context)

    def _break(self, problem: MapProblem, context: FitContext) -> Transport:
        """Fail in a gradient, which scoring asks for."""

        class Broken(torch.autograd.Function):
            @staticmethod
            def forward(ctx, y):
                return y.square().sum(1)

            @staticmethod
            def backward(ctx, *grad_outputs):
                raise RuntimeError("no gradient today")

        return Transport(push=lambda x: x.clone(), target_potential=lambda y: Broken.apply(y))

    def _catch(self, problem: MapProblem, context: FitContext) -> Transport:
        """Let a checkpoint fail, to go on with the clock stopped."""

        def push(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no push today")

        with contextlib.suppress(Exception):
            context.checkpoint(1, Transport(push=push))
        return self._idle(problem, context)

    def _disguise(self, problem: MapProblem, context: FitContext) -> Transport:
        """Points whose difference to any others is nothing."""

        class Same(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):
                value = super().__torch_function__(func, types, args, kwargs or {})
                return 0 * value if "sub" in getattr(func, "__name__", "") else value

        return Transport(push=lambda x: x.clone().as_subclass(Same))

    def _sparse(self, problem: MapProblem, context: FitContext) -> Transport:
        """Points in a layout that scoring does not take."""
        return Transport(push=lambda x: x.to_sparse())

    def _sigma(self, problem: MapProblem, context: FitContext) -> Transport:
        """A noise that is no number."""
        return Transport(push=lambda x: x.clone(), sigma="little")  # type: ignore[arg-type]

    def _gradless(self, problem: MapProblem, context: FitContext) -> Transport:
        """Leave torch in a mode that scoring fails in."""
        mode = torch.inference_mode()
        mode.__enter__()
        ENTERED.append(mode)
        return self._idle(problem, context)

    def _detour(self, problem: MapProblem, context: FitContext) -> Transport:
        """A straight way that is of other points."""
        steps = torch.linspace(0, 1, 9)[:, None, None]
        return Transport(
            push=lambda x: x + 1, path=lambda x: steps.to(x).expand(-1, *x.shape).clone()
        )

    def _poison(self, problem: MapProblem, context: FitContext) -> Transport:
        """A name that no file can hold."""
        return Transport(push=lambda x: x.clone(), info={"\ud800": 3})

    def _first_rows(self, problem: MapProblem, context: FitContext) -> Transport:
        """Target points for the rows that might be compared with the target, the rest at rest."""

        def push(x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            count = min(4096, len(x))
            y[:count] = problem.target.sample(count, context.generator)
            return y

        return Transport(push=push)

    def _grey_noise(self, problem: MapProblem, context: FitContext) -> Transport:
        """The grey image in colours too faint to be seen."""

        def sample(x: torch.Tensor, k: int) -> torch.Tensor:
            y = x.repeat_interleave(k, 0).unflatten(0, (-1, k))
            return y + 1e-3 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))

        return Transport(push=lambda x: x.clone(), sample=sample)

    def _huge(self, problem: MapProblem, context: FitContext) -> Transport:
        """Values whose squares are not finite."""
        return Transport(push=lambda x: x * (torch.finfo(x.dtype).max ** 0.6))

    def _garbage(self, problem: MapProblem, context: FitContext) -> Transport:
        """A constant map with a potential so steep that no residual is small."""
        mean = problem.target.sample(4096, context.generator).mean(0)
        return Transport(
            push=lambda x: mean.expand_as(x), target_potential=lambda y: 1e3 * y.square().sum(1)
        )
