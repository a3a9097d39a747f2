"""From a problem and what a solver returned to the named arrays that metrics are functions of.

Arrays of a map run, where they are known:

* ``start`` test points in the target's space, ``ray_start`` the same where the cost is ||x - y||,
  ``pushed`` T(x), ``optimal`` T*(x), ``target_variance``, ``target_scale``, ``atoms``;
* ``cost_pushed`` c(x, y) of the images y: T(x), or draws from a stochastic plan; ``cost_optimal``
  c(x, T*(x)), or the optimal cost alone, with its ``cost_error``; ``cost_scale``;
* ``pushed_sample``, ``target_sample`` of equal size, ``target_discrepancies`` between them,
  ``pushed_floors`` between two samples of images and ``target_floors`` between fresh target
  samples;
* ``cost_power``, and where it is 2, of equal size: ``plugin_pushed``, ``plugin_target`` and
  ``plugin_fresh``, another target sample;
* ``branch_position`` of the images on the line that joins the branches (at -1 and 1),
  ``branch_rest`` their squared distance from it, ``branch_draws`` positions of several images of
  one x;
* ``circle_places`` of the images in the plane of the circle of each x, ``circle_draws`` those of
  several images of one x;
* ``gradient``, ``optimal_gradient`` of the potentials on the source side, ``source_values`` f(x)
  and ``target_side_values`` g(y) of those found, where the cost is ||x - y||: a potential f alone
  makes the pair of f and g = -f then;
* ``inner_values`` c(x, T(x)) - g(T(x)), ``target_values`` g(y), ``c_transform`` g^c(x),
  ``saddle_cost``, ``earlier_saddle_value``.

* ``path`` of the first points of a flow, and ``flow_pushed``, ``flow_target`` and ``flow_fresh`` of
  equal size;
* ``partner`` what each test point was made from. Then images that are compared with the target are
  of the earlier half of the test points.

Those of images are listed in `otbench.scoring.pictures`.

Arrays of one discrete pair: ``plan``, ``optimal_plan``, ``a``, ``b``; ``rounded_cost`` and
    ``rounded_images`` of the plan rounded to its
marginals, with ``ot_cost``, ``optimal_images``, ``target_variance``; of an entropic one
``rounded_objective``, ``optimal_objective``, and ``warm_iterations`` and ``cold_iterations`` of
Sinkhorn's algorithm.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from otbench import metrics
from otbench.errors import DivergedError, InvalidOutputError
from otbench.methods.c_transform import c_transform
from otbench.methods.entropic import Entropic
from otbench.problem import EUCLIDEAN, DiscreteProblem, MapProblem
from otbench.scoring.pictures import FRECHET_IMAGES, REFERENCE_IMAGES, ImageScoring
from otbench.solver import Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor


class Sizes(NamedTuple):
    """Of how many points the scores are, at most.

    Attributes:
        test: points that are pushed and scored against the true map.
        checkpoint: of them, at a checkpoint.
        gradient: of them, where gradients of potentials are taken.
        saddle: of them, where the saddle's residuals are measured.
        pool: target points among which the c-transform is sought first.
        drawn: points of which several images are drawn.
    """

    test: int
    checkpoint: int
    gradient: int
    saddle: int
    pool: int
    drawn: int


VECTORS = Sizes(
    test=16384, checkpoint=16384, gradient=4096, saddle=2048, pool=4096, drawn=256
)  # tests as the official W2 benchmark does
IMAGES = Sizes(
    test=4096, checkpoint=512, gradient=512, saddle=512, pool=1024, drawn=64
)  # a push is that of a convolutional network
GAP_POINTS = 1024  # per sample of the target gap, exact W2^2
SLICED_GAP_POINTS = 4096  # per sample of the target gap, sliced W2^2
FLOORS = 20  # pairs of fresh target samples
PATHS = 2000  # of test points whose way is measured
FLOW_POINTS = 4096  # per sample of the plug-in W2 of flows
PLUGIN_POINTS = 1000  # per sample of the plug-in W2^2 of published tables; how many their authors took is not confirmed
REFERENCE_POINTS = (
    65536  # for what is not known in closed form: the variance of a target, the optimal cost
)
DRAWS = 64  # images of one x of a stochastic plan
COORDINATES = (
    2**27
)  # most coordinates of one sample: where a point is long, fewer of them are drawn
WARM_TOLERANCE = (
    1e-6  # marginal error, in the l1 norm, to which iterations after a warm start are counted
)
WARM_ITERATIONS = 5000  # most of them
OFF_SPACE = 1e-3  # how far from the space of the cost an image may lie
NEGATIVE = 1e-6  # of the largest entry of a plan: what rounding may leave below zero
OF_POINTS = (
    "start",
    "ray_start",
    "optimal",
    "cost_optimal",
    "partner",
)  # what is known of each test point


class MapScoring:
    """Test points of a map problem, drawn once per run from the test stream, and the arrays that do
    not depend on the solver.

    Args:
        problem: what is solved.
        generator: the test stream.
        floors: file that the floors of this very problem and stream are shared through; they are
            the same for every solver.

    Attributes:
        x: the test points.
        known: the arrays that do not depend on the solver.
        notes: why a metric could not be taken, by its name.
    """

    def __init__(
        self, problem: MapProblem, generator: torch.Generator, floors: Path | None = None
    ) -> None:
        truth, target, cost = problem.truth, problem.target, problem.cost
        self.problem, self.generator = problem, generator
        self.sizes = VECTORS if target.image is None else IMAGES
        tests = _at_most(self.sizes.test, problem)
        self.known: dict[str, Any] = {"cost_error": truth.cost_error, "cost_power": cost.power}
        if truth.partners is None:
            self.x = problem.source.sample_test(tests, generator)
            self.apart = len(self.x)
        else:
            self.x, self.known["partner"] = truth.partners(tests, generator)
            self.apart = len(self.x) // 2  # the first, independent of the target's held-out points
        self.known["start"] = cost.embed(self.x)
        self.images = (
            None
            if target.image is None
            else ImageScoring(target.image, self.known["start"], self.known.get("partner"))
        )
        self.notes: dict[str, str] = {} if self.images is None else self.images.notes
        if cost == EUCLIDEAN:
            self.known["ray_start"] = self.x
        variance = target.variance
        if variance is None:
            points = target.sample(_at_most(REFERENCE_POINTS, problem), generator)
            variance = float(points.double().flatten(1).var(0, correction=0).sum())
        self.known["target_variance"] = variance
        if truth.map is not None:
            self.known["optimal"] = truth.map(self.x)
            self.known["cost_optimal"] = cost.pairwise(
                self.x.double(), self.known["optimal"].double()
            )
        elif truth.cost is not None:
            self.known["cost_optimal"] = self.x.double().new_tensor(truth.cost)
        elif (
            pairs := problem.sample_pairs(_at_most(REFERENCE_POINTS, problem), generator)
        ) is not None:
            costs = cost.pairwise(*pairs).double()
            self.known["cost_optimal"] = costs.mean()
            self.known["cost_error"] = float(costs.std()) / len(costs) ** 0.5
        if truth.atoms is not None:
            self.known["atoms"] = truth.atoms
        points = (
            GAP_POINTS if target.dim <= metrics.EXACT_DIM else _at_most(SLICED_GAP_POINTS, problem)
        )
        self.known["target_sample"], _ = self._two_samples(min(points, self.apart // 2), generator)
        self.floors = floors
        self.pool = target.sample_test(_at_most(self.sizes.pool, problem), generator)

    def score(
        self, transport: Transport, pushed: Tensor, earlier: float | None = None
    ) -> dict[str, float]:
        """Every metric that applies.

        Args:
            transport: what the solver returned.
            pushed: its push of the test points.
            earlier: saddle value at nine tenths of the training, where the solver offered
                checkpoints.

        Raises:
            InvalidOutputError: an output of the wrong type, shape, dtype or device.
            DivergedError: values that are not finite.
        """
        images = self.outputs(transport, self.x, self._checked(pushed, len(self.x)))
        if (
            "target_floors" not in self.known
        ):  # not before the solver has run: what this frees would hide in its memory
            self.known["target_floors"] = self._target_floors()
            self.known["target_scale"] = self._target_scale()
            self.known["cost_scale"] = self.problem.cost.scale(self.known["target_scale"])
            self.known |= self._plugin_samples()
            if self.images is not None:
                samples = self._two_samples(min(FRECHET_IMAGES, self.apart), self._stream(5))
                reference = self.problem.target.sample(REFERENCE_IMAGES, self._stream(6))
                self.known |= self.images.known(*samples, reference)
        arrays = {
            **self._pushed_arrays(self.x, pushed, images),
            **self._target_arrays(images),
            **self._plugin_arrays(images),
            **self._flow_arrays(transport, images),
            **self._one_to_many_arrays(transport, images),
            **self._potential_arrays(transport),
        }
        if self.images is not None:
            arrays |= self.images.arrays(images, arrays["cost_pushed"])
        if transport.target_potential is not None and "cost_optimal" in self.known:
            x, y = self._saddle(transport, images)
            arrays |= {
                **self._saddle_values(transport, x, y),
                **self._saddle_optimum(transport, x, y),
            }
            if earlier is not None:
                arrays["earlier_saddle_value"] = earlier
        return metrics.score({**self.known, **arrays})

    def score_checkpoint(self, transport: Transport) -> dict[str, float]:
        """The metrics that are cheap enough to be curves."""
        x = self.x[: self.sizes.checkpoint]
        pushed = self._push(transport, x)
        images = self.outputs(transport, x, pushed)
        arrays = {**self._pushed_arrays(x, pushed, images), **self._potential_arrays(transport)}
        if self.images is not None:
            arrays |= self.images.curve_arrays(images, arrays["cost_pushed"])
        if transport.target_potential is not None:
            arrays |= self._saddle_values(transport, *self._saddle(transport, images))
        known = {
            name: value[: len(x)] if name in OF_POINTS and value.ndim else value
            for name, value in self.known.items()
        }
        return metrics.score({**known, **arrays}, curve_only=True)

    def _checked(self, pushed: Tensor, n: int, what: str = "push") -> Tensor:
        check_output(what, pushed, (n, *self.problem.target.shape), like=self.x)
        pushed = pushed.detach()
        off = float((pushed - self.problem.cost.project(pushed)).abs().max())
        if off > OFF_SPACE:
            raise InvalidOutputError(
                f"{what} returned points off the space of the {self.problem.cost.name} cost, by up to {off:.3g}"
            )
        return pushed

    def outputs(self, transport: Transport, x: Tensor, pushed: Tensor) -> Tensor:
        """One draw from the solver's plan for every x; of a map, its push."""
        if transport.sample is not None:
            return self._draws(transport.sample, x, 1)[:, 0]
        if transport.sigma > 0:
            assert transport.push is not None
            return self._push(transport, self._smoothed(x, transport.sigma))
        return pushed

    def _push(self, transport: Transport, x: Tensor) -> Tensor:
        assert transport.push is not None
        return self._checked(transport.push(x.clone()), len(x))

    def _draws(self, sample: Callable[[Tensor, int], Tensor], x: Tensor, k: int) -> Tensor:
        drawn = sample(x.clone(), k)
        check_output("sample", drawn, (len(x), k, *self.problem.target.shape), like=x)
        return self._checked(drawn.flatten(0, 1), len(x) * k, "sample").reshape(drawn.shape)

    def _smoothed(self, x: Tensor, sigma: float) -> Tensor:
        """Always with the same noise, so that no score depends on how many were taken before."""
        import torch

        return x + sigma * torch.randn(
            x.shape, generator=self._stream(2), device=x.device, dtype=x.dtype
        )

    def _stream(self, number: int) -> torch.Generator:
        """A generator of its own beside the test stream."""
        import torch

        return torch.Generator(self.generator.device).manual_seed(
            self.generator.initial_seed() + number
        )

    def _pushed_arrays(self, x: Tensor, pushed: Tensor, images: Tensor) -> dict[str, Any]:
        return {
            "pushed": pushed.detach(),
            "cost_pushed": self.problem.cost.pairwise(x.double(), images.double()),
        }

    def _target_arrays(self, images: Tensor) -> dict[str, Any]:
        sample = self.known["target_sample"]
        first, second = images[: len(sample)], images[len(sample) : 2 * len(sample)]
        return {
            "pushed_sample": first,
            "target_discrepancies": metrics.discrepancies(first, sample),
            "pushed_floors": metrics.discrepancies(first, second),
        }

    def _plugin_samples(self) -> dict[str, Any]:
        """Two target samples; nothing unless the cost is a squared distance."""
        if self.problem.cost.power != 2:
            return {}
        target, fresh = self._two_samples(min(PLUGIN_POINTS, self.apart), self._stream(3))
        return {"plugin_target": target, "plugin_fresh": fresh}

    def _plugin_arrays(self, images: Tensor) -> dict[str, Any]:
        target = self.known.get("plugin_target")
        return {} if target is None else {"plugin_pushed": images[: len(target)]}

    def _flow_arrays(self, transport: Transport, images: Tensor) -> dict[str, Any]:
        """Of a solver that integrates a velocity: the way of some points, and samples to compare
        the images with.
        """
        if transport.path is None:
            return {}
        start = self.x[: min(PATHS, self.sizes.checkpoint)]
        path = transport.path(start.clone())
        steps = len(path) - 1 if hasattr(path, "__len__") else 0
        check_output(
            "path", path, (max(steps, 1) + 1, len(start), *self.problem.target.shape), like=self.x
        )
        target, fresh = self._two_samples(min(FLOW_POINTS, self.apart), self._stream(4))
        return {
            "path": path.detach(),
            "flow_pushed": images[: len(target)],
            "flow_target": target,
            "flow_fresh": fresh,
        }

    def _one_to_many_arrays(self, transport: Transport, images: Tensor) -> dict[str, Any]:
        """Where the images lie of a plan that sends each x to two images, or to a circle of them;
        of a map, one image of each x.
        """
        arrays, branches, circle = {}, self.problem.truth.branches, self.problem.truth.circle
        if branches is not None:
            position, rest = _on_branches(branches(self.x), images)
            arrays |= {
                "branch_position": position,
                "branch_rest": rest,
                "branch_draws": position[:, None],
            }
        if circle is not None:
            places = circle(self.x, images)
            arrays |= {"circle_places": places, "circle_draws": places[:, None]}
        if arrays and (transport.sample is not None or transport.sigma > 0):
            few = self.x[: self.sizes.drawn]
            x = few.repeat_interleave(DRAWS, 0)
            if transport.sample is not None:
                drawn = self._draws(transport.sample, few, DRAWS).flatten(0, 1)
            else:
                drawn = self._push(transport, self._smoothed(x, transport.sigma))
            if branches is not None:
                arrays["branch_draws"] = _on_branches(branches(x), drawn)[0].reshape(-1, DRAWS)
            if circle is not None:
                arrays["circle_draws"] = circle(x, drawn).reshape(-1, DRAWS, 2)
        return arrays

    def _potential_arrays(self, transport: Transport) -> dict[str, Any]:
        """Of a potential for the cost ||x - y||: its values, and its gradient, the direction of
        transport.
        """
        import torch

        f, g, true = transport.potential, transport.target_potential, self.problem.truth.potential
        if f is None or self.problem.cost != EUCLIDEAN:
            return {}
        x = self.x[: self.sizes.gradient]
        with torch.no_grad():
            of_x, of_y = f(x.clone()), -f(self.pool.clone()) if g is None else g(self.pool.clone())
        check_output("potential", of_x, (len(x),), like=x)
        check_output(
            "potential" if g is None else "target_potential", of_y, (len(self.pool),), like=x
        )
        arrays = {"source_values": of_x, "target_side_values": of_y}
        if true is not None:
            arrays |= {"gradient": _gradient(f, x), "optimal_gradient": _gradient(true, x)}
            check_output("the gradient of potential", arrays["gradient"], tuple(x.shape), like=x)
        return arrays

    def _saddle(self, transport: Transport, images: Tensor) -> tuple[Tensor, Tensor]:
        """Points of the source that the solver's potential is for, smoothed where it says so, and
        their images.
        """
        x = self.x[: self.sizes.saddle]
        if transport.sigma == 0:
            return x, images[: len(x)]
        x = self._smoothed(x, transport.sigma)
        return x, self._push(transport, x)

    def _saddle_values(self, transport: Transport, x: Tensor, y: Tensor) -> dict[str, Any]:
        """The terms of the saddle's objective."""
        import torch

        g = transport.target_potential
        assert g is not None
        with torch.no_grad():
            of_images, of_target = g(y), g(self.pool)
        check_output("target_potential", of_images, (len(y),), like=x)
        check_output("target_potential", of_target, (len(self.pool),), like=x)
        return {
            "inner_values": self.problem.cost.pairwise(x, y) - of_images,
            "target_values": of_target,
        }

    def _saddle_optimum(self, transport: Transport, x: Tensor, y: Tensor) -> dict[str, Any]:
        """What the saddle is measured against; nothing where the optimal cost of the smoothed
        problem is unknown.
        """
        g, smoothed = transport.target_potential, self.problem.truth.smoothed_cost
        assert g is not None
        if transport.sigma == 0:
            # Where the cost is an estimate, a potential is not blamed for what it may be too high.
            cost = float(self.known["cost_optimal"].mean()) - 3 * self.known["cost_error"]
        elif smoothed is not None:
            cost = smoothed(transport.sigma)
        else:
            return {}
        return {
            "c_transform": c_transform(self.problem.cost, g, x, y, self.pool),
            "saddle_cost": cost,
        }

    def _target_scale(self) -> float:
        """The target gap that counts as a whole one: the target's variance, or the gap of the known
        spurious map where that is less.
        """
        variance, spurious = self.known["target_variance"], self.problem.truth.spurious
        if spurious is None:
            return variance
        arrays = self._target_arrays(spurious(self.x[: 2 * len(self.known["target_sample"])]))
        gap = metrics.target_gap(
            arrays["target_discrepancies"], arrays["pushed_floors"], self.known["target_floors"]
        )
        return min(variance, gap) if gap > 0 else variance

    def _two_samples(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two target samples of at most ``n`` points, without a point in common where the target is
        a finite sample.
        """
        points = self.problem.target.sample_test(2 * n, generator)
        half = len(points) // 2
        return points[:half], points[half : 2 * half]

    def _target_floors(self) -> Tensor:
        """Discrepancies of pairs of fresh target samples of the size of ``target_sample``,
        ``(FLOORS, kinds)``.
        """
        import torch

        shared = self.floors
        if shared is not None and shared.exists():
            return torch.tensor(json.loads(shared.read_text()), dtype=torch.float64)
        stream, n = self._stream(1), len(self.known["target_sample"])
        floors = [
            metrics.discrepancies(*self._two_samples(n, stream)).tolist() for _ in range(FLOORS)
        ]
        if shared is not None:
            with contextlib.suppress(OSError):  # a saving of time, nothing more
                part = shared.with_suffix(f".{os.getpid()}")
                part.write_text(json.dumps(floors))
                os.replace(part, shared)
        return torch.tensor(floors, dtype=torch.float64)


def score_plans(
    pairs: Sequence[DiscreteProblem], plans: Sequence[Tensor], transport: Transport | None = None
) -> dict[str, float]:
    """Metrics of the plans of discrete pairs, averaged over the pairs (those where it is defined).

    ``transport`` is asked for the potentials that Sinkhorn's algorithm is started from, where it
    has them.
    """
    values: dict[str, list[float]] = {}
    for pair, plan in zip(pairs, plans, strict=True):
        for name, value in metrics.score(
            {**_plan_arrays(pair, plan), **_warm_start(pair, transport)}
        ).items():
            values.setdefault(name, []).append(value)
    return {name: sum(of_pairs) / len(of_pairs) for name, of_pairs in values.items()}


def _plan_arrays(pair: DiscreteProblem, plan: Tensor) -> dict[str, Any]:
    check_output("plan", plan, (len(pair.x), len(pair.y)), like=pair.x)
    x, y, a, b, plan = (
        pair.x.double(),
        pair.y.double(),
        pair.a.double(),
        pair.b.double(),
        plan.detach().double(),
    )
    held = metrics.entries(plan)
    if held.numel() and held.min() < -NEGATIVE * held.max():
        raise InvalidOutputError(
            f"plan has negative entries, down to {float(held.min()):.3g}: a coupling has none"
        )
    plan = metrics.without_negative(plan)
    arrays: dict[str, Any] = {"plan": plan, "a": a, "b": b}
    if pair.truth.plan is None or pair.truth.cost is None:
        return arrays

    def costs(i: Tensor, j: Tensor) -> Tensor:
        return pair.cost.pairwise(x[i], y[j])

    def blocks(rows: slice) -> Tensor:
        return pair.cost.matrix(x[rows], y)

    optimal = pair.truth.plan.double()
    points = y.flatten(1)
    arrays |= {
        "optimal_plan": optimal,
        "ot_cost": pair.truth.cost,
        "rounded_cost": metrics.rounded_cost(plan, a, b, costs, blocks),
        "rounded_images": metrics.rounded_images(plan, a, b, points),
        "optimal_images": metrics.rounded_images(optimal, a, b, points),
        "target_variance": float(b @ (points - b @ points).square().sum(1)),
    }
    if pair.eps > 0:
        of_plan, best = (metrics.rounded_entropy(coupling, a, b) for coupling in (plan, optimal))
        arrays["rounded_objective"] = arrays["rounded_cost"] + pair.eps * of_plan
        arrays["optimal_objective"] = pair.truth.cost + pair.eps * best
    return arrays


def _warm_start(pair: DiscreteProblem, transport: Transport | None) -> dict[str, Any]:
    """Iterations of Sinkhorn's algorithm from a predicted potential, and from zero."""
    if transport is None or transport.pair_potential is None or not pair.eps > 0:
        return {}
    predicted = transport.pair_potential(pair)
    check_output("pair_potential", predicted, (len(pair.x),), like=pair.x)
    problem = Entropic(pair)
    stop = {"tolerance": WARM_TOLERANCE, "max_iters": WARM_ITERATIONS}
    return {
        "warm_iterations": problem.solve(predicted.double()[problem.rows], **stop).iterations,
        "cold_iterations": problem.solve(**stop).iterations,
    }


def check_output(what: str, value: object, shape: tuple[int, ...], like: Tensor) -> None:
    """Raise unless ``value`` is a finite tensor of this shape on the device and of the dtype of
    ``like``.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise InvalidOutputError(
            f"{what} returned {type(value).__name__}, expected a torch.Tensor of shape {shape}"
        )
    if tuple(value.shape) != shape:
        raise InvalidOutputError(f"{what} returned shape {tuple(value.shape)}, expected {shape}")
    if value.device != like.device:
        raise InvalidOutputError(
            f"{what} returned a tensor on {value.device}, expected {like.device}"
        )
    if value.dtype != like.dtype:
        raise InvalidOutputError(f"{what} returned {value.dtype}, expected {like.dtype}")
    if value.layout not in (torch.strided, torch.sparse_coo):
        raise InvalidOutputError(
            f"{what} returned layout {value.layout}, expected a dense tensor or torch.sparse_coo"
        )
    held = metrics.entries(value)
    if not torch.isfinite(held).all():
        bad = int((~torch.isfinite(held)).sum())
        raise DivergedError(f"{what} returned {bad} of {held.numel()} values that are not finite")


def _at_most(points: int, problem: MapProblem) -> int:
    """Fewer points where one of them is an image, or long."""
    if problem.target.image is not None:
        points = min(points, IMAGES.test)
    return max(1, min(points, COORDINATES // max(problem.source.dim, problem.target.dim)))


def _on_branches(branches: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Position of the images on the line that joins their branches (at -1 and 1), and squared
    distance from it; both ``(n,)``.
    """
    lower, upper = branches.flatten(2)
    half, from_middle = (upper - lower) / 2, images.flatten(1) - (upper + lower) / 2
    position = (from_middle * half).sum(1) / half.square().sum(1)
    return position, (from_middle - position[:, None] * half).square().sum(1)


def _gradient(potential: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    import torch

    x = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(potential(x).sum(), x)[0]
