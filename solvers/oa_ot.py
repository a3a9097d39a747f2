"""OA-OT: sliced potentials weighted for the objective (Truong & Nguyen 2026).

One weight for each of L lines, such that the potentials f_omega = sum_l omega_l f_l of the training
pairs do best in the entropic dual, without solving any of them:

    semidual:    max_omega  mean_k  <a, f_omega> + <b, f_omega^c>
    two_sided:   the same plus <b, f_omega^c> + <a, f_omega^cc>, the dual half an iteration later,

where ^c is the soft c-transform. Both are concave in omega where the second c-transform is left
out, and have L unknowns: by default all pairs are taken at once by L-BFGS. The authors
(``preset=paper``) maximise the second by Adam, one pair at each of 5,000 steps, from derivatives of
the one-dimensional cost (see ``ra-ot``). Their learning rate for CIFAR-10, 0.01, is not in the
preset, nor are batches of images among the tasks; and every prediction becomes a plan in the same
way here (see `otbench.methods.amortized.solver`). All that is from their code: which numbers of
pairs their tables have is not confirmed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import FitContext
from otbench.methods.amortized.sliced import SlicedSolver
from otbench.methods.amortized.slices import Slices
from otbench.methods.amortized.solver import Info
from otbench.methods.entropic import Entropic


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

HISTORY = 20  # steps that L-BFGS remembers
LAST_RATE = 0.01  # of Adam's, at the end of its cosine


@dataclass(frozen=True)
class OaOt(SlicedSolver):
    """Maximisation of the entropic dual over the weights of lines.

    Attributes:
        objective: ``semidual`` or ``two_sided``.
        optimizer: ``lbfgs``, with all pairs at each step, or ``adam``, with one.
        steps: of the optimiser.
        lr: learning rate of Adam, down to a hundredth by a cosine; of no consequence for L-BFGS.
    """

    name: ClassVar[str] = "oa-ot"
    needs: ClassVar[tuple[str, ...]] = ("ot",)
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {
        "paper": {
            "potentials": "autograd",
            "objective": "two_sided",
            "optimizer": "adam",
            "slices": 100,
            "steps": 5000,
            "lr": 1e-3,
        },
    }

    objective: Literal["semidual", "two_sided"] = "semidual"
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    steps: int = 50
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("steps",), positive=("lr",))

    def weigh(
        self, slices: Slices, problems: Sequence[Entropic], context: FitContext
    ) -> tuple[Tensor, Info]:
        """Maximise from zero."""
        import torch

        omega = torch.zeros(
            len(slices.directions), dtype=torch.float64, device=context.device, requires_grad=True
        )
        pairs = [(problem, slices.features(problem)) for problem in problems]

        def ascend(chosen: Sequence[tuple[Entropic, Tensor]]) -> float:
            """The mean of minus the duals; its gradient, pair by pair lest all graphs be held at
            once, is that of omega.
            """
            value, omega.grad = 0.0, torch.zeros_like(omega)
            for problem, features in chosen:
                loss = -self._dual(problem, features @ omega) / len(chosen)
                omega.grad += torch.autograd.grad(loss, omega)[0]
                value += float(loss.detach())
            return value

        if self.optimizer == "lbfgs":
            optimizer = torch.optim.LBFGS(
                [omega], max_iter=self.steps, history_size=HISTORY, line_search_fn="strong_wolfe"
            )
            optimizer.step(lambda: ascend(pairs))
        else:
            optimizer = torch.optim.Adam([omega], lr=self.lr)
            for step in range(self.steps):
                part = (1 + math.cos(math.pi * step / self.steps)) / 2
                optimizer.param_groups[0]["lr"] = self.lr * (LAST_RATE + (1 - LAST_RATE) * part)
                chosen = int(
                    torch.randint(
                        len(pairs), (), generator=context.generator, device=context.device
                    )
                )
                ascend(pairs[chosen : chosen + 1])
                torch.nn.utils.clip_grad_norm_([omega], 1.0)
                optimizer.step()
        return omega.detach(), {}

    def _dual(self, problem: Entropic, f: Tensor) -> Tensor:
        g = problem.target_potential(f)
        value = problem.a @ f + problem.b @ g
        return (
            value
            if self.objective == "semidual"
            else value + problem.b @ g + problem.a @ problem.source_potential(g)
        )
