"""The controls that must come out right before any verdict is believed, over the whole registry of
map tasks.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from otbench import FitContext, MapProblem, MissingError, Transport
from otbench.errors import UserError
from otbench.methods.discrete import DiscreteSolver
from otbench.registry import Selection, registry
from otbench.scoring import maps as scoring
from otbench.scoring.maps import MapScoring
from otbench.scoring.verdict import Verdict, judge
from otbench.solvers.linear import Linear
from otbench.solvers.oracle import Oracle
from otbench.solvers.ott_sinkhorn import OttSinkhorn
from otbench.solvers.planted import Planted
from otbench.solvers.pot_emd import PotEmd
from otbench.solvers.pot_sinkhorn import PotSinkhorn
from otbench.solvers.pot_sliced_plan import PotSlicedPlan
from tests.truths import branches, build_map, generator


FAILURES = ("perpendicular", "one-to-many", "parallel-segments", "low-dim-manifold", "atom")
VARIANTS = (
    *(f"{name}[dim=2]" for name in FAILURES),
    "perpendicular[sigma=0.2]",
    "one-to-many[sigma=0.2]",
    "hyperbola[cost=sqeuclidean]",
    "sphere-denoising[cost=sqeuclidean]",
    "gaussian[dim=64]",
    "petals[eps=0]",
    "one-to-many[dim=256]",
    "continuous-control[dim=16]",
)
ALIKE = (
    "perpendicular[dim=256]",
    *(f"{name}[dim={dim}]" for name in FAILURES for dim in (4, 16)),
    *(f"{name}[sigma=0.2]" for name in FAILURES[2:]),
)


def map_tasks() -> Iterator[Any]:
    """Every task of the map setting that its defaults define, and variants."""
    tasks = registry("task")
    for name, entry in sorted(tasks.entries.items()):
        try:
            tasks.select(name)
        except UserError:
            continue
        if entry.cls.setting == "map":
            yield name
    yield from VARIANTS
    for text in ALIKE:
        yield pytest.param(text, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def smaller_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer points of the target gap: a quarter of the time, and less power, which only makes the
    controls harder.
    """
    monkeypatch.setattr(scoring, "GAP_POINTS", 512)
    monkeypatch.setattr(scoring, "SLICED_GAP_POINTS", 1024)
    torch.set_num_threads(1)


def problem_of(text: str, dtype: torch.dtype = torch.float32) -> MapProblem:
    selection: Selection = registry("task").select(text)[0]
    try:
        return build_map(selection.build(), dtype=dtype)
    except MissingError as error:
        pytest.skip(str(error))


def scores_of(problem: MapProblem, transport: Transport) -> dict[str, float]:
    assert transport.push is not None
    judged = MapScoring(problem, generator(1))
    return judged.score(transport, transport.push(judged.x.clone()))


def a_run(problem: MapProblem) -> FitContext:
    return FitContext("cpu", torch.float32, 0, generator(2))


@pytest.mark.parametrize("text", list(map_tasks()))
def test_the_controls(text: str) -> None:
    """The true map is ok, a planted spurious map is spurious, and where the map is not identifiable
    nothing is scored against one.
    """
    problem = problem_of(text)
    truth = problem.truth
    if truth.map is not None:
        assert not truth.no_map
        assert Oracle().supports(problem) is None
        scores = scores_of(problem, Oracle().fit(problem, a_run(problem)))
        assert judge(scores) is Verdict.OK, scores
        assert scores["l2_uvp"] == pytest.approx(0, abs=1e-6) and scores[
            "cost_ratio"
        ] == pytest.approx(1, abs=1e-4)
        assert max(scores.get("dual_gap", 0), scores.get("inner_gap", 0)) < 0.05, scores
    else:
        known = truth.pairs is not None or (
            truth.no_map.startswith("unknown") and truth.cost_error > 0
        )
        assert truth.no_map and known is (truth.certificate != "none")
        assert Oracle().supports(problem) is not None
        guess = problem.target.sample(1, generator(0))[0]
        scores = scores_of(
            problem, Transport(push=lambda x: guess.expand(len(x), *guess.shape).clone())
        )
        assert not {"l2_uvp", "cos", "wrong_atom"} & scores.keys()
        assert ("cost_ratio" in scores) is known and "target_gap" in scores
    if truth.spurious is not None:
        scores = scores_of(problem, Planted().fit(problem, a_run(problem)))
        assert judge(scores) is Verdict.SPURIOUS, scores
        unsuspecting = scores_of(problem, Transport(push=truth.spurious))
        assert judge(unsuspecting) is Verdict.INACCURATE


@pytest.mark.parametrize(
    "text", ["continuous-control[dim=2]", "continuous-control[dim=16]", "gaussian[dim=64]"]
)
def test_an_absolutely_continuous_source_is_ok_for_a_solver_that_solves_it(text: str) -> None:
    problem = problem_of(text)
    assert judge(scores_of(problem, Linear().fit(problem, a_run(problem)))) is Verdict.OK


@pytest.mark.parametrize(
    "text", ["perpendicular[dim=2,sigma=0.2]", "one-to-many[dim=2]", "parallel-segments[dim=2]"]
)
def test_exact_couplings_solve_the_plane(text: str) -> None:
    """No solver is condemned by the task itself: enough points of an exact coupling pass."""
    problem = problem_of(text)
    scores = scores_of(problem, PotEmd(n=1024).fit(problem, a_run(problem)))
    assert judge(scores) is Verdict.OK, scores


@pytest.mark.parametrize(
    ("text", "solver"),
    [
        ("perpendicular", PotSinkhorn()),
        ("one-to-many", PotSinkhorn()),
        ("one-to-many", OttSinkhorn()),
        ("perpendicular", PotSlicedPlan(plan="expected")),
        ("atom", PotEmd()),
    ],
    ids=lambda case: case if isinstance(case, str) else case.name,
)
def test_the_draws_of_a_plan_are_ok_where_its_means_are_not(
    text: str, solver: DiscreteSolver
) -> None:
    problem = problem_of(text)
    transport = solver.fit(problem, a_run(problem))
    scores = scores_of(problem, transport)
    assert judge(scores) is Verdict.OK, scores
    if text == "one-to-many":
        assert scores["branch_entropy"] > 0.95 and scores["branch_off"] == 0
    means = scores_of(problem, replace(transport, sample=None))
    assert judge(means) is Verdict.INACCURATE, means


@pytest.mark.parametrize("text", ["gaussian", "mix3tomix10", "flow-toy", "sphere-denoising"])
def test_a_plan_is_judged_by_its_means_where_the_optimal_plan_may_be_a_map(text: str) -> None:
    problem = problem_of(text)
    transport = PotSinkhorn(n=256).fit(problem, a_run(problem))
    scores = scores_of(problem, transport)
    assert scores == scores_of(problem, replace(transport, sample=None))
    assert scores != scores_of(problem, replace(transport, estimates_map=False))


def test_draws_from_the_plan_are_ok_where_no_map_exists() -> None:
    problem = problem_of("one-to-many[dim=16]")
    images_of, stream = branches(problem), generator(5)

    def sample(x: torch.Tensor, k: int) -> torch.Tensor:
        images = images_of(x)
        return torch.stack(
            [torch.where(torch.rand(len(x), 1, generator=stream) < 0.5, *images) for _ in range(k)],
            1,
        )

    scores = scores_of(problem, Transport(push=lambda x: images_of(x).mean(0), sample=sample))
    assert judge(scores) is Verdict.OK, scores
    assert scores["branch_entropy"] > 0.97 and scores["branch_off"] == 0
    middle = scores_of(problem, Transport(push=lambda x: images_of(x).mean(0)))
    assert (
        judge(middle) is Verdict.INACCURATE
        and middle["branch_off"] == 1
        and middle["branch_entropy"] == 0
    )


def test_a_failure_of_one_coordinate_is_seen_in_high_dimension() -> None:
    """One branch of one-to-many in d = 256 is 1 % of the target's variance, and the middle of both
    is invisible to slices.
    """
    problem = problem_of("one-to-many[dim=256]")
    spurious, images_of, variance = (
        problem.truth.spurious,
        branches(problem),
        problem.target.variance,
    )
    assert spurious is not None and variance is not None
    one = scores_of(problem, Transport(push=spurious))
    assert one["target_gap"] < 0.02 * variance and one["target_defect"] == pytest.approx(1)
    middle = scores_of(problem, Transport(push=lambda x: images_of(x).mean(0)))
    assert middle["target_defect"] < 0.1 and middle["branch_defect"] == pytest.approx(1)
    assert judge(one) is judge(middle) is Verdict.INACCURATE


@pytest.mark.parametrize(
    "text", ["gaussian[dim=16]", "w1-funnels", "rotated-product", "gaussian-ball[dim=16]"]
)
def test_a_shrunken_truth_is_not_ok_and_does_not_outrank_the_truth(text: str) -> None:
    """Less spread than the target's costs nothing against a floor between target samples alone."""
    problem = problem_of(text)
    mean = problem.target.sample(65_536, generator(8)).mean(0)
    gaps = []
    for scale in (1.0, 0.5):
        answers = generator(9)

        def push(
            x: torch.Tensor, scale: float = scale, answers: torch.Generator = answers
        ) -> torch.Tensor:
            return mean + scale * (problem.target.sample(len(x), answers) - mean)

        scores = scores_of(problem, Transport(push=push))
        gaps.append(scores["target_gap"])
        assert scale == 1 or scores["target_defect"] > 0.1
    assert gaps[0] < 0.1 * gaps[1]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("parallel-segments[dim=256]", marks=pytest.mark.slow),
        pytest.param("one-to-many[dim=256]", marks=pytest.mark.slow),
        "perpendicular[dim=256]",
        "atom[dim=64]",
    ],
)
def test_an_untrained_solver_has_not_converged_in_any_dimension(text: str) -> None:
    problem = problem_of(text)
    scores = scores_of(
        problem,
        Transport(push=lambda x: x.clone(), target_potential=lambda y: torch.zeros_like(y[:, 0])),
    )
    assert judge(scores) is Verdict.UNCONVERGED, scores
