"""What a solver is, what it is given beside the problem, and what it returns: Solver, FitContext,
Transport, Coupling.
"""

from __future__ import annotations

import copy
import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from otbench.errors import DivergedError
from otbench.parameters import Ladder, Parameters, Span
from otbench.problem import DiscreteProblem, Problem


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor

Info = Mapping[str, float | int | str | bool]


@dataclass(frozen=True)
class Coupling:
    """What a discrete method finds for one pair of clouds.

    Attributes:
        plan: ``(n, m)``, dense or sparse COO, approximately with marginals a and b.
        g: potential on the target points, ``(m,)``, in cost units: an optimum of the dual linear
            program, or with eps such that ``P_ij = a_i b_j exp((f_i + g_j - C_ij) / eps)``; of no
            consequence where b is zero.
        eps: entropic regularisation in cost units.
        push: the library's own map for new points, ``(k, *shape) -> (k, *shape)``.
        info: as in `Transport`.
    """

    plan: Tensor
    g: Tensor | None = None
    eps: float | None = None
    push: Callable[[Tensor], Tensor] | None = None
    info: Info = field(default_factory=dict)


@dataclass(frozen=True)
class Coupled:
    """A coupling with its clouds and what its solver stops at, for its convergence to be certified
    (`otbench.scoring.convergence`).

    Attributes:
        pair: the clouds.
        coupling: of them.
        tolerance: of the marginals, in the l1 norm.
        exhausted: whether as many iterations were made as are allowed.
    """

    pair: DiscreteProblem
    coupling: Coupling
    tolerance: float
    exhausted: bool = False


@dataclass(frozen=True)
class Transport:
    """What a solver returns. Whatever it does not have stays None.

    Attributes:
        push: the map, ``(n, *source shape) -> (n, *target shape)``; required in the map setting. It
            must act point by point.
        sample: draws from the plan given x: ``sample(x, k)`` is ``(n, k, *target shape)``. Where
            given, the push-forward and the cost are scored on draws, and ``push`` only where the
            optimal map is unique.
        potential: Kantorovich potential f on the source side in cost units, ``(n, *shape) ->
            (n,)``, differentiable by autograd.
        target_potential: potential g on the target side likewise, f(x) + g(y) <= c(x, y) for all y,
            on the target or off it; makes the saddle residuals measurable.
        sigma: the saddle (``push``, ``target_potential``) is of the source convolved with N(0,
            sigma^2 I).
        path: the way of the points, ``(n, *source shape) -> (steps + 1, n, *target shape)`` at
            equal times from 0 to 1, x first and T(x) last, for solvers that integrate a velocity.
        plan: the coupling of a discrete problem, ``(n, m)``, dense or sparse COO; required in the
            discrete and amortized settings.
        pair_potential: for entropic pairs the potential f on the source points that the plan is
            made from, ``(n,)`` in cost units and of no consequence where there is no mass;
            Sinkhorn's algorithm is started from it to count what it saves.
        info: plain numbers, strings and booleans worth a column (``info_<name>``), units in the
            names.
        coupled: the clouds that were coupled, and how; a list that grows as plans are asked for,
            where each pair is solved by itself.
        estimates_map: ``push`` is as much of an answer as ``sample``: the barycentres of a plan,
            which estimate the optimal map where there is one. Draws are then scored only where the
            problem says that its optimal plan is no map (`Truth.plan_is_map`).
    """

    push: Callable[[Tensor], Tensor] | None = None
    sample: Callable[[Tensor, int], Tensor] | None = None
    potential: Callable[[Tensor], Tensor] | None = None
    target_potential: Callable[[Tensor], Tensor] | None = None
    sigma: float = 0.0
    path: Callable[[Tensor], Tensor] | None = None
    plan: Callable[[DiscreteProblem], Tensor] | None = None
    pair_potential: Callable[[DiscreteProblem], Tensor] | None = None
    info: Info = field(default_factory=dict)
    coupled: Sequence[Coupled] = ()
    estimates_map: bool = False

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle it: functions made inside others, as those of fits are, by cloudpickle.

        Raises:
            TypeError: something cannot be pickled; it says what can be saved instead.
        """
        try:
            pickle.dumps(vars(self), protocol)
        except Exception as error:
            return _unpickled, (_pickled(vars(self), error),)
        return super().__reduce_ex__(protocol)

    def __copy__(self) -> Transport:
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Transport:
        return replace(self, **copy.deepcopy(vars(self), memo))


def _pickled(values: Mapping[str, Any], reason: Exception) -> bytes:
    """The values as cloudpickle saves them; ``reason`` is why pickle does not."""
    try:
        import cloudpickle  # pyright: ignore[reportMissingImports]

        return cloudpickle.dumps(dict(values))
    except ImportError:
        remedy = "pip install cloudpickle, or save"
    except Exception as error:
        remedy, reason = "save", error
    raise TypeError(
        f"a Transport cannot be pickled ({reason}): {remedy} what it gives, such as "
        "torch.save(transport.push(x), path), or solve again with the same seed"
    ) from reason


def _unpickled(saved: bytes) -> Transport:
    return Transport(**pickle.loads(saved))


@dataclass
class FitContext:
    """What a solver is given beside the problem.

    Attributes:
        device, dtype: where tensors must live.
        seed: integer seed of the algorithm's own randomness (for JAX and numpy).
        generator: torch generator on the device for the algorithm's randomness, a stream apart from
            those of ``seed`` and of torch itself.
        on_checkpoint, on_save, on_restore: the runner's ends of the methods.
    """

    device: str
    dtype: torch.dtype
    seed: int
    generator: torch.Generator
    on_checkpoint: Callable[[int, Transport], None] | None = field(default=None, repr=False)
    on_save: Callable[[Callable[[], Any]], None] | None = field(default=None, repr=False)
    on_restore: Callable[[], Any] | None = field(default=None, repr=False)

    def checkpoint(self, step: int, transport: Transport) -> None:
        """Offer the state after ``step`` steps for scoring. The clock stands still meanwhile."""
        if self.on_checkpoint is not None:
            self.on_checkpoint(step, transport)

    def save(self, state: Callable[[], Any]) -> None:
        """Offer the state of a long fit, as often as one likes: it is asked for and written where
        saving is due. The clock stands still.

        A state is made of tensors, plain numbers and strings in dicts, lists and tuples; that of
        ``generator`` is saved beside it. Does nothing unless saving was asked for (``otbench run
        --save-fits``), or where seeds are solved as one.
        """
        if self.on_save is not None:
            self.on_save(lambda: {"generator": self.generator.get_state(), "solver": state()})

    def restored(self) -> Any:
        """What this very fit saved last before it was interrupted, tensors on their devices,
        ``generator`` as it was then; else None.

        To be asked once, after all that the state replaces has been set up.
        """
        if self.on_restore is None or (state := self.on_restore()) is None:
            return None
        self.generator.set_state(state["generator"])
        return state["solver"]


TUNED_BELOW_1000 = (
    "defaults and presets of this suite: on seeds below 1000, some of which are reported"
)


class Solver(Parameters, ABC):
    """A way to solve problems. Subclass as a frozen dataclass; its annotated fields are the
    parameters.

    Class attributes:
        name: kebab-case, unique in the registry.
        needs: import names that must be installed; they are imported before the clock starts.
        environment: pip requirements of a Python environment of its own, where those of ``needs``
            conflict with the packages of others, see `otbench.environments`.
        trivial: True for rows that a real method must beat (identity, constant, linear).
        presets: named values of parameters, selected as ``name[preset=...]``.
        learns: True for a solver that learns from the training pairs of an amortized problem before
            it answers.
        batched: True for a solver that has ``fit_together``: then the seeds of a task may be solved
            as one (``otbench run --together``).
        control: True for a solver that is given the answer, to show what the scores and verdicts of
            a known map are; it is never ranked.
        search: where `otbench tune` looks for values of parameters.
        tuning: on what its defaults and the presets of this suite were chosen: tasks, seeds,
            budget; written into every row. Seeds from 1000 on are for choosing.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    environment: ClassVar[tuple[str, ...]] = ()
    trivial: ClassVar[bool] = False
    learns: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, float | int | str | bool]]] = {}
    batched: ClassVar[bool] = False
    control: ClassVar[bool] = False
    search: ClassVar[Mapping[str, Ladder | Span]] = {}
    tuning: ClassVar[str] = ""

    @property
    def solvers(self) -> tuple[str, ...]:
        """Other solvers that it calls, as on the command line; their code counts as its own."""
        return ()

    def supports(self, problem: Problem) -> str | None:
        """None if this solver takes the problem, else the reason why not (the run ends
        ``skipped``).
        """
        return None

    @abstractmethod
    def fit(self, problem: Problem, context: FitContext) -> Transport:
        """Solve the problem. The caller owns the clock, the seeds (``context.generator``,
        ``context.seed``) and the device.
        """

    def fit_together(
        self, problems: Sequence[Problem], contexts: Sequence[FitContext]
    ) -> list[Transport | DivergedError]:
        """Solve the problems of several seeds of one task as one; each outcome as ``fit`` would
        have it, up to rounding.

        Only solvers that are ``batched`` are asked.
        """
        raise NotImplementedError
