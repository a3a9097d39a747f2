"""Scores of a map: test points, the points that a solver maps them to, and the named arrays that
metrics take of both (`otbench.metrics.arrays`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otbench import metrics
from otbench.errors import InvalidOutputError
from otbench.problem import EUCLIDEAN, MapProblem
from otbench.scoring.outputs import Outputs, check_output
from otbench.scoring.pictures import FRECHET_IMAGES, REFERENCE_IMAGES, TargetImages
from otbench.scoring.potentials import Calling, Saddle, dual_arrays
from otbench.scoring.samples import (
    IMAGES,
    VECTORS,
    Stream,
    at_most,
    fresh_floors,
    read_or_computed,
    two_samples,
)
from otbench.scoring.trivial import trivial_maps
from otbench.solver import Transport


if TYPE_CHECKING:
    import torch

    Tensor = torch.Tensor
    Arrays = dict[str, Any]

GAP_POINTS = 1024  # per sample of the target gap, exact W2^2
SLICED_GAP_POINTS = 4096  # per sample of the target gap, sliced W2^2
SLICE_POINTS = 8  # fewest of a sample whose worst direction is sought
FLOORS = 8  # pairs of fresh target samples
PATHS = 2000  # of test points whose way is measured
FLOW_POINTS = 4096  # per sample of the plug-in W2 of flows
PLUGIN_POINTS = 1024  # per sample of the plug-in W2^2; how many published tables took is not sure
REFERENCE_POINTS = 65536  # that an unknown variance of the target, or optimal cost, is estimated on
OFF_PATH = 1e-3  # of the target's variance, that a way may miss x and T(x)
DRAWS = 64  # of the plan, for one x


class MapScoring:
    """Test points of a map problem, drawn once per run from the test stream, and the arrays that do
    not depend on the solver.

    Args:
        problem: what is solved.
        generator: the test stream.
        shared: path whose name, with endings, files have that hold what is the same for every
            solver of this very problem and stream.
        calling: entered while gradients of a solver's potentials are computed.

    Attributes:
        x: the test points.
        apart: how many of them, the first, are independent of the target's held-out points: only
            they are compared with these.
        known: the arrays that do not depend on the solver, but for those of `after_fit`.
        many: target points that slices are taken of, ``known["target_sample"]`` or more.
        order: in which the first ``apart`` test points are compared with the target: no solver
            knows which of its points are.
        pool: target points that potentials are evaluated at.
        notes: why a metric could not be taken, by its name.
    """

    def __init__(
        self,
        problem: MapProblem,
        generator: torch.Generator,
        shared: Path | None = None,
        calling: Calling = contextlib.nullcontext,
    ) -> None:
        import torch

        self.problem, self.generator, self.shared = problem, generator, shared
        self.calling = calling
        target, test_points = problem.target, problem.truth.test_points
        self.sizes = VECTORS if target.image is None else IMAGES
        tests = at_most(self.sizes.test, problem)
        drawn_with: Mapping[str, Tensor] = {}
        if test_points is None:
            self.x = problem.source.sample_test(tests, generator)
            self.apart = len(self.x)
        else:
            self.x, drawn_with = test_points(tests, generator)
            self.apart = len(self.x) // 2
        self.known = self._of_tests(drawn_with) | {
            "cost_power": problem.cost.power,
            "target_variance": self._target_variance(),
            **self._optimum(),
        }
        many = min(at_most(SLICED_GAP_POINTS, problem), self.apart // 2)
        size = min(GAP_POINTS, many) if self.exact else many
        self.known["target_sample"], _ = two_samples(target, size, generator)
        self.many = self.known["target_sample"]
        if many > size:
            self.many, _ = two_samples(target, many, Stream.SLICES.generator(generator))
        stream = Stream.ORDER.generator(generator)
        self.order = torch.randperm(self.apart, generator=stream, device=stream.device)
        self.pool = target.sample_test(at_most(self.sizes.pool, problem), generator)
        self.notes: dict[str, str] = {}

    @property
    def exact(self) -> bool:
        """Whether distances to the target are exact ones, too."""
        return self.problem.target.dim <= metrics.EXACT_DIM

    @cached_property
    def after_fit(self) -> Arrays:
        """More arrays that do not depend on the solver, computed at the first score. Before the fit
        they would hide its peak memory, as the process keeps what it once took.
        """
        target, size = self.problem.target, len(self.known["target_sample"])
        floors = self._floors("floors", size, FLOORS, metrics.discrepancies)
        scale = self._target_scale(size, floors)
        arrays: Arrays = {
            "target_floors": floors,
            "target_scale": scale,
            "cost_scale": self.problem.cost.scale(scale),
        }
        if target.dim > 1 and target.image is None and len(self.many) >= SLICE_POINTS:
            slices = self._floors("slices", len(self.many), FLOORS, metrics.largest_slice)
            arrays["largest_slice_floors"] = slices
        if self.problem.cost.power == 2:
            few = min(PLUGIN_POINTS, size)
            of_few = (
                floors[:, 0]
                if self.exact
                else self._floors("few", few, 1, metrics.plugin_w2_squared)
            )
            arrays["plugin_floor"] = float(of_few.mean())
        defects = self._shared("trivial", lambda: self._trivial_defects(arrays))
        return arrays | {"trivial_defects": defects}

    @cached_property
    def target_images(self) -> TargetImages:
        """Features of the target, where its points are images; computed when `after_fit` is."""
        samples = self._fresh_samples(FRECHET_IMAGES, Stream.IMAGES)
        stream = Stream.REFERENCE_IMAGES.generator(self.generator)
        reference = self.problem.target.sample(REFERENCE_IMAGES, stream)
        target, fresh, reference = map(self._as_images, (*samples, reference))
        return TargetImages.of(self.known["start_images"], target, fresh, reference)

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
        outputs = self._outputs(transport)
        pushed = outputs.checked_push(pushed, self.x)
        mapped = outputs.mapped(self.x, pushed)
        compared = mapped[self.order]
        arrays = {
            **self.known,
            **self.after_fit,
            **self._mapped_arrays(self.x, pushed, mapped),
            "mapped_sample": compared[: len(self.known["target_sample"])],
            **self.target_arrays(compared, self.after_fit),
            **self._flow_arrays(transport, pushed, compared),
            **self._probe_arrays(outputs, mapped),
            **self._dual_arrays(transport),
        }
        if "mapped_images" in arrays:
            images = arrays["start_images"], arrays["mapped_images"]
            features, notes = self.target_images.compared(*images)
            arrays |= {**self.target_images.arrays, **features}
            self.notes = {**self.target_images.notes, **notes}
        if transport.target_potential is not None and "cost_optimal" in arrays:
            saddle = self._saddle(outputs, mapped)
            # A potential is not blamed for what an estimate of the cost may be too high.
            cost = float(arrays["cost_optimal"].mean()) - 3 * arrays["cost_error"]
            arrays |= {**saddle.terms(), **saddle.optimum(cost, self.calling)}
            if earlier is not None:
                arrays["earlier_saddle_value"] = earlier
        return metrics.score(arrays)

    def score_checkpoint(self, transport: Transport) -> dict[str, float]:
        """The metrics that are cheap enough to be curves, on the first test points."""
        outputs, x = self._outputs(transport), self.x[: self.sizes.checkpoint]
        pushed = outputs.push(x)
        mapped = outputs.mapped(x, pushed)
        arrays = {
            name: value[: len(x)] if metrics.ARRAYS[name].per_test and value.ndim else value
            for name, value in self.known.items()
        }
        arrays |= {**self._mapped_arrays(x, pushed, mapped), **self._dual_arrays(transport)}
        if transport.target_potential is not None:
            arrays |= self._saddle(outputs, mapped).terms()
        return metrics.score(arrays, metrics.CURVES)

    def outputs(self, transport: Transport, x: Tensor, pushed: Tensor) -> Tensor:
        """One mapped point of each x: a draw from the solver's plan, or of a map its ``pushed``."""
        return self._outputs(transport).mapped(x, pushed)

    def _outputs(self, transport: Transport) -> Outputs:
        return Outputs(self.problem, transport, Stream.NOISE.seed(self.generator))

    # Arrays that do not depend on the solver

    def _of_tests(self, drawn_with: Mapping[str, Tensor]) -> Arrays:
        """The test points, as what metrics take them for, and what they were drawn with."""
        arrays: Arrays = {"start": self.problem.cost.embed(self.x), **drawn_with}
        if self.problem.cost == EUCLIDEAN:
            arrays["ray_start"] = self.x
        if self.problem.target.image is not None:
            arrays["start_images"] = self._as_images(arrays["start"])
            if "partner" in arrays:
                arrays["partner_images"] = self._as_images(arrays["partner"])
        return arrays

    def _target_variance(self) -> float:
        target = self.problem.target
        if target.variance is not None:
            return target.variance
        points = target.sample(at_most(REFERENCE_POINTS, self.problem), self.generator)
        return float(points.double().flatten(1).var(0, correction=0).sum())

    def _optimum(self) -> Arrays:
        """The optimal map and cost, as far as they are known or can be estimated."""
        problem, truth = self.problem, self.problem.truth
        arrays: Arrays = {"cost_error": truth.cost_error}
        if truth.map is not None:
            optimal = truth.map(self.x)
            costs = problem.cost.pairwise(self.x.double(), optimal.double())
            arrays |= {"optimal": optimal, "cost_optimal": costs}
        elif truth.cost is not None:
            arrays["cost_optimal"] = self.x.double().new_tensor(truth.cost)
        elif truth.pairs is not None:
            pairs = truth.pairs(at_most(REFERENCE_POINTS, problem), self.generator)
            costs = problem.cost.pairwise(*pairs).double()
            arrays["cost_optimal"] = costs.mean()
            arrays["cost_error"] = float(costs.std()) / len(costs) ** 0.5
        if truth.atoms is not None:
            arrays["atoms"] = truth.atoms
        return arrays

    def _target_scale(self, size: int, target_floors: Tensor) -> float:
        """The target gap that counts as a whole one: the target's variance, or the gap of the known
        spurious map where that is less.
        """
        variance, spurious = self.known["target_variance"], self.problem.truth.spurious
        if spurious is None:
            return variance
        wrong = self._discrepancies(spurious(self.x[self.order[: 2 * size]]), size)
        gap = metrics.target_gap(**wrong, target_floors=target_floors)
        return min(variance, gap) if gap > 0 else variance

    def _floors(
        self, what: str, points: int, pairs: int, distance: Callable[[Tensor, Tensor], Any]
    ) -> Tensor:
        """Distances between fresh target samples, ``(pairs, ...)``."""
        target, stream = self.problem.target, Stream.FLOORS.generator(self.generator)
        return self._shared(what, lambda: fresh_floors(target, points, pairs, stream, distance))

    def _shared(self, what: str, compute: Callable[[], Tensor]) -> Tensor:
        """What is the same for every solver, computed by the first."""
        path = self.shared and self.shared.with_name(f"{self.shared.name}-{what}.json")
        return read_or_computed(path, compute)

    def _trivial_defects(self, arrays: Arrays) -> Tensor:
        """The largest defect of each trivial map; where the optimal map is known, its error."""
        import torch

        known, size = {**self.known, **arrays}, len(self.known["target_sample"])
        x, largest = self.x, []
        if "optimal" not in known:
            x = x[self.order[: 2 * max(size, len(self.many))]]
        for push in trivial_maps(self.problem, Stream.TRIVIAL.generator(self.generator)):
            y = push(x)
            if "optimal" in known:
                largest.append(metrics.map_defect(y, known["optimal"], known["target_scale"]))
                continue
            of_map = {"cost_mapped": self.problem.cost.pairwise(x.double(), y.double())}
            for probe in self.problem.truth.probes:
                of_map |= probe.measure(x, y)
            scores = metrics.score({**known, **of_map}, metrics.DEFECTS)
            # The gap to the target takes long, and only the least of the maps counts.
            if not largest or max(scores.values(), default=0.0) < min(largest):
                of_map |= self.target_arrays(y, arrays)
                scores = metrics.score({**known, **of_map}, metrics.DEFECTS)
            largest.append(max(scores.values(), default=math.nan))
        return torch.tensor(largest, dtype=torch.float64)

    def _fresh_samples(self, points: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """Two target samples, of as many points as there are test points to compare them with."""
        size = min(points, self.apart)
        return two_samples(self.problem.target, size, stream.generator(self.generator))

    # Arrays of what a solver returned

    def _mapped_arrays(self, x: Tensor, pushed: Tensor, mapped: Tensor) -> Arrays:
        costs = self.problem.cost.pairwise(x.double(), mapped.double())
        arrays: Arrays = {"pushed": pushed, "mapped": mapped, "cost_mapped": costs}
        if self.problem.target.image is not None:
            arrays |= {"mapped_images": self._as_images(mapped), "image_costs": costs}
        return arrays

    def target_arrays(self, mapped: Tensor, floors: Arrays) -> Arrays:
        """Distances of mapped points to the target; of those with a floor in ``floors``."""
        target = self.known["target_sample"]
        size, few = len(target), min(PLUGIN_POINTS, len(target))
        arrays = self._discrepancies(mapped, size)
        if "largest_slice_floors" in floors:
            arrays["largest_slice"] = metrics.largest_slice(mapped, self.many)
        if "plugin_floor" in floors:
            arrays["plugin_discrepancy"] = (
                float(arrays["target_discrepancies"][0])
                if self.exact
                else metrics.plugin_w2_squared(mapped[:few], target[:few])
            )
        return arrays

    def _discrepancies(self, mapped: Tensor, size: int) -> Arrays:
        """Of mapped points to the target and, as a floor, to other mapped points."""
        first, second = mapped[:size], mapped[size : 2 * size]
        return {
            "target_discrepancies": metrics.discrepancies(first, self.known["target_sample"]),
            "mapped_floors": metrics.discrepancies(first, second),
        }

    def _flow_arrays(self, transport: Transport, pushed: Tensor, mapped: Tensor) -> Arrays:
        """Of a solver that integrates a velocity: the way of some points, and samples to compare
        the mapped points with.
        """
        import torch

        if transport.path is None:
            return {}
        start = self.x[: min(PATHS, self.sizes.checkpoint)]
        path = transport.path(start.clone())
        steps = path.shape[0] - 1 if type(path) is torch.Tensor and path.ndim else 0
        shape = (max(steps, 1) + 1, len(start), *self.problem.target.shape)
        check_output("path", path, shape, like=self.x)
        self._check_ends(path.detach(), pushed[: len(start)])
        target, fresh = self._fresh_samples(FLOW_POINTS, Stream.FLOW)
        return {
            "path": path.detach(),
            "flow_mapped": mapped[: len(target)],
            "flow_target": target,
            "flow_fresh": fresh,
        }

    def _check_ends(self, path: Tensor, pushed: Tensor) -> None:
        """Refuse a way that does not lead from x to T(x)."""
        start = self.known["start"][: len(pushed)]
        ends = (("begins at x", path[0], start), ("ends at T(x)", path[-1], pushed))
        for what, at, should in ends:
            error = float((at.double() - should.double()).flatten(1).square().sum(1).mean())
            if error > OFF_PATH * self.known["target_variance"]:
                raise InvalidOutputError(f"path is no way that {what}: off by {error:.3g} squared")

    def _probe_arrays(self, outputs: Outputs, mapped: Tensor) -> Arrays:
        """What the problem's own probes say of one mapped point of each x, and of several draws;
        of a map, one is all.
        """
        probes, x, y, k = self.problem.truth.probes, self.x, mapped, 1
        arrays = {name: seen for probe in probes for name, seen in probe.measure(x, y).items()}
        if probes and outputs.stochastic:
            few, k = x[: self.sizes.drawn], DRAWS
            x, y = few.repeat_interleave(k, 0), outputs.draws(few, k)
        for probe in probes:
            seen = probe.measure(x, y)
            for name, one in probe.several.items():
                arrays[name] = seen[one].unflatten(0, (-1, k))
        return arrays

    def _dual_arrays(self, transport: Transport) -> Arrays:
        x = self.x[: self.sizes.gradient]
        return dual_arrays(self.problem, transport, x, self.pool, self.calling)

    def _saddle(self, outputs: Outputs, mapped: Tensor) -> Saddle:
        return Saddle.of(outputs, self.x[: self.sizes.saddle], mapped, self.pool)

    def _as_images(self, points: Tensor) -> Tensor:
        assert self.problem.target.image is not None
        return points.unflatten(1, self.problem.target.image)
