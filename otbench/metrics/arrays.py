"""The arrays that metrics take: a registry of their names, shapes, units and meanings.

A parameter of a metric is the name of an array here. Scoring provides those that are known of a run
(`otbench.scoring`), and a metric applies exactly where all of its arrays are known.

Shapes are words apart: ``tests`` is the number of test points, of which a checkpoint takes the
first; ``*source`` and ``*target`` are the shapes of one point; other words are sizes that say what
they count. A plain number has no shape. Units are those of `otbench.metrics.Metric`, or what the
registry says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from otbench.errors import nearest


@dataclass(frozen=True)
class Array:
    """One array or number.

    Attributes:
        name: what metrics call it.
        shape: such as ``tests *target``; empty for a plain number.
        unit: of its entries.
        meaning: what it holds. T is the solver's map, T* the optimal one; a *mapped* point is T(x),
            or a draw from the plan where the solver has one.
    """

    name: str
    shape: str
    unit: str
    meaning: str

    @property
    def per_test(self) -> bool:
        """Whether it has one entry for each test point."""
        return self.shape.split()[:1] == ["tests"]


_ALL = (
    # Points and maps
    Array("start", "tests *target", "distance", "test points x, or Q(x) in the target's space"),
    Array("ray_start", "tests *target", "distance", "test points where the cost is ||x - y||"),
    Array("pushed", "tests *target", "distance", "T(x); where the solver has a plan, its push"),
    Array("mapped", "tests *target", "distance", "T(x), or one draw from the solver's plan"),
    Array("optimal", "tests *target", "distance", "T*(x)"),
    Array("partner", "tests *target", "distance", "what each test point was made from"),
    Array("atoms", "atoms *target", "distance", "the points that a discrete target consists of"),
    Array("trivial_defects", "maps", "1", "the largest defect of each trivial map"),
    Array("target_variance", "", "distance^2", "total variance of the target"),
    Array("target_scale", "", "distance^2", "the target gap that counts as a whole one"),
    # Costs
    Array("cost_mapped", "tests", "cost", "c(x, y) of each x and its mapped point y"),
    Array("cost_optimal", "tests", "cost", "c(x, T*(x)), or the optimal cost alone as one number"),
    Array("cost_error", "", "cost", "standard error of cost_optimal where it is an estimate"),
    Array("cost_power", "", "1", "the cost scales as this power of the distance"),
    Array("cost_scale", "", "cost", "cost of moving by the square root of target_scale"),
    # Samples of the push-forward and of the target
    Array("mapped_sample", "sample *target", "distance", "mapped points"),
    Array("target_sample", "sample *target", "distance", "target points, as many"),
    Array("target_discrepancies", "kinds", "distance^2", "W2^2 between the two samples"),
    Array("mapped_floors", "kinds", "distance^2", "W2^2 between two samples of mapped points"),
    Array("target_floors", "pairs kinds", "distance^2", "W2^2 between fresh target samples"),
    Array("largest_slice", "", "1", "W2^2 along the direction where it is largest, over variance"),
    Array("largest_slice_floors", "pairs", "1", "the same of pairs of fresh target samples"),
    Array("plugin_discrepancy", "", "distance^2", "W2^2 between 1,024 mapped and target points"),
    Array("plugin_floor", "", "distance^2", "the same between fresh target samples"),
    # Flows
    Array("path", "times points *target", "distance", "way of some test points at equal times"),
    Array("flow_mapped", "sample *target", "distance", "mapped points of a flow"),
    Array("flow_target", "sample *target", "distance", "target points, as many"),
    Array("flow_fresh", "sample *target", "distance", "other target points, as many"),
    # Plans that send x to many points, as the probes of a problem see them
    Array("branch_position", "tests", "1", "place of y on the line through both branches, -1 to 1"),
    Array("branch_rest", "tests", "distance^2", "squared distance of y from that line"),
    Array("branch_draws", "points draws", "1", "branch_position of several draws for one x"),
    Array("circle_places", "tests 2", "radii", "place of y in the plane of the circle"),
    Array("circle_draws", "points draws 2", "radii", "circle_places of several draws for one x"),
    # Potentials and saddles
    Array("gradient", "points *source", "1", "gradient of the potential f where c = ||x - y||"),
    Array("optimal_gradient", "points *source", "1", "gradient of the true potential there"),
    Array("source_values", "points", "cost", "f(x) where c = ||x - y||"),
    Array("target_side_values", "pool", "cost", "g(y) there, -f(y) where only f is given"),
    Array("inner_values", "points", "cost", "c(x, T(x)) - g(T(x)), g the target potential"),
    Array("target_values", "pool", "cost", "g(y) of target points"),
    Array("c_transform", "points", "cost", "min_y c(x, y) - g(y)"),
    Array("saddle_cost", "", "cost", "optimal cost of the problem that the saddle is of"),
    Array("earlier_saddle_value", "", "cost", "saddle value at nine tenths of the training"),
    # Points that are images
    Array("mapped_images", "tests channels height width", "pixels", "mapped points"),
    Array("start_images", "tests channels height width", "pixels", "test points"),
    Array("partner_images", "tests channels height width", "pixels", "what each was made from"),
    Array("image_costs", "tests", "cost", "cost_mapped where points are images"),
    Array("scattering_mapped", "sample features", "1", "scattering features of mapped points"),
    Array("scattering_start", "sample features", "1", "those of test points"),
    Array("scattering_target", "sample features", "1", "those of target images"),
    Array("scattering_fresh", "sample features", "1", "those of other target images"),
    Array("inception_mapped", "sample features", "1", "Inception features of mapped points"),
    Array("inception_target", "sample features", "1", "those of target images"),
    Array("inception_fresh", "sample features", "1", "those of other target images"),
    Array("perceptual_distance", "", "1", "mean LPIPS of test points and their mapped points"),
    # Plans of discrete problems
    Array("plan", "n m", "mass", "the plan P as it was returned"),
    Array("optimal_plan", "n m", "mass", "the optimal plan P*"),
    Array("a", "n", "mass", "weights of the source points"),
    Array("b", "m", "mass", "weights of the target points"),
    Array("rounded_cost", "", "cost", "<C, P>, P rounded to the marginals"),
    Array("ot_cost", "", "cost", "<C, P*>"),
    Array("cost_bound", "", "cost", "a lower bound of <C, P*>, where that is out of reach"),
    Array("rounded_map", "n dim", "distance", "mean of y given each x under P, rounded"),
    Array("optimal_map", "n dim", "distance", "mean of y given each x under P*"),
    Array("rounded_objective", "", "cost", "<C, P> + eps KL(P | a b'), P rounded"),
    Array("optimal_objective", "", "cost", "the same of P*"),
    Array("warm_iterations", "", "1", "iterations of Sinkhorn's algorithm from a predicted start"),
    Array("cold_iterations", "", "1", "the same from zero"),
)

ARRAYS: Mapping[str, Array] = {array.name: array for array in _ALL}


def check_names(names: Iterable[str], by: str) -> None:
    """Refuse names that are not registered.

    Args:
        names: of arrays.
        by: who names them.

    Raises:
        ValueError: one of them is unknown.
    """
    for name in names:
        if name not in ARRAYS:
            raise ValueError(
                f"{by} names {name!r}, no array of otbench.metrics.arrays{nearest(name, ARRAYS)}"
            )
