"""Learned potentials: training data, predictions, and how these are scored."""

# pyright: reportMissingImports=false

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from otbench import SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, FitContext, MissingError, Truth
from otbench.methods.amortized.slices import Slices
from otbench.methods.entropic import Entropic, entropic_truth
from otbench.registry import registry
from otbench.scoring.plans import score_plans
from otbench.solvers.mean_slice import MeanSlice
from otbench.solvers.oa_ot import OaOt
from otbench.solvers.ra_ot import RaOt
from otbench.solvers.sinkhorn_steps import SinkhornSteps
from otbench.tasks.digit_pairs import DigitPairs
from otbench.tasks.weight_pairs import WeightPairs
from tests.conftest import rows


pytestmark = pytest.mark.usefixtures("one_thread")


PEEKING = '''
"""Looks for the answers."""

from dataclasses import dataclass
from typing import ClassVar

from otbench import Solver, Transport


@dataclass(frozen=True)
class Peeking(Solver):
    """The true plan where it can be seen, else the independent one."""

    name: ClassVar[str] = "peeking"

    def fit(self, problem, run):
        seen = sum(pair.truth.plan is not None for pair in problem.test)

        def plan(pair):
            return pair.a[:, None] * pair.b if pair.truth.plan is None else pair.truth.plan

        return Transport(plan=plan, info={"seen": seen})
'''


def build(task, seed: int = 0, dtype: torch.dtype = torch.float64) -> AmortizedProblem:
    problem = task.problem(np.random.default_rng(seed), device="cpu", dtype=dtype)
    assert isinstance(problem, AmortizedProblem)
    return problem


def run(dtype: torch.dtype = torch.float64) -> FitContext:
    return FitContext("cpu", dtype, 0, torch.Generator().manual_seed(7))


def scores(solver, problem: AmortizedProblem) -> dict[str, float]:
    transport = solver.fit(problem, run(problem.test[0].x.dtype))
    assert transport.plan is not None
    return score_plans(problem.test, [transport.plan(pair) for pair in problem.test], transport)


DIGITS = DigitPairs(data="digits", train=30, test=10)


@pytest.fixture(scope="module")
def digits() -> AmortizedProblem:
    return build(DIGITS)


def test_learned_potentials_beat_an_iteration_from_zero_and_the_mean_slice(digits):
    trivial = scores(SinkhornSteps(), digits), scores(MeanSlice(), digits)
    for solver in (RaOt(), OaOt(), OaOt(objective="two_sided")):
        learned = scores(solver, digits)
        for name in ("plan_rmse", "barycentric_uvp", "plan_tv", "marginal_l1"):
            assert learned[name] < min(of[name] for of in trivial), (solver, name)
        assert learned["iters_to_tol"] < learned["iters_from_zero"]


def line_pairs(number: int, n: int, seed: int) -> list[DiscreteProblem]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(number):
        x, y = (
            torch.rand(n, 1, generator=generator, dtype=torch.float64) + shift for shift in (0, 0.5)
        )
        a, b = (torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(2))
        pair = DiscreteProblem(x, a / a.sum(), y, b / b.sum(), SQEUCLIDEAN, Truth("none"), 0.002)
        pairs.append(replace(pair, truth=entropic_truth(pair)))
    return pairs


@pytest.mark.parametrize(
    "solver", [RaOt(slices=3, ridge=1e-6), OaOt(slices=3)], ids=lambda solver: solver.name
)
def test_on_a_line_the_slice_is_the_potential(solver):
    """All directions are the same up to sign, and so are their potentials: the weights must sum to
    one.
    """
    problem = AmortizedProblem(
        line_pairs(20, 30, 0), line_pairs(3, 40, 1), SQEUCLIDEAN, Truth("entropic")
    )
    transport = solver.fit(problem, run())
    assert transport.info["omega_sum"] == pytest.approx(1, abs=0.02)
    for pair in problem.test:
        assert pair.truth.plan is not None and transport.plan is not None
        assert float((transport.plan(pair) - pair.truth.plan).abs().sum()) / 2 < 0.1


def test_the_weights_of_oa_maximise_the_dual_of_the_training_pairs(digits):
    solver = OaOt(steps=100)
    slices = Slices.draw(20, digits.train[0], torch.Generator().manual_seed(0))
    problems = [Entropic(pair) for pair in digits.train]
    best, _ = solver.weigh(slices, problems, run())

    def dual(omega: torch.Tensor) -> float:
        values = [(problem, slices.features(problem) @ omega) for problem in problems]
        return float(
            sum(problem.a @ f + problem.b @ problem.target_potential(f) for problem, f in values)
        ) / len(problems)

    others = [
        RaOt().weigh(slices, problems, run())[0],
        MeanSlice().weigh(slices, problems, run())[0],
    ]
    generator = torch.Generator().manual_seed(3)
    others += [
        best + 0.01 * torch.randn(20, generator=generator, dtype=torch.float64) for _ in range(5)
    ]
    assert all(dual(best) > dual(other) for other in others)
    adam = OaOt(optimizer="adam", steps=300, lr=0.02)
    assert dual(adam.weigh(slices, problems, run())[0]) == pytest.approx(dual(best), rel=0.01)


def test_the_regression_of_ra_is_ridge_regression(digits):
    """Against the stacked rows, as the authors have it: all points, centred in each pair."""
    problems = [Entropic(pair) for pair in digits.train[:4]]
    slices = Slices.draw(10, digits.train[0], torch.Generator().manual_seed(0))
    solver = RaOt(weights="uniform", ridge=0.7, ridge_rule="absolute", tolerance=1e-9)
    omega, info = solver.weigh(slices, problems, run())
    features = torch.cat([slices.features(problem, everywhere=True) for problem in problems])
    response = torch.cat([(f := problem.solve().everywhere()) - f.mean() for problem in problems])
    stacked = (
        torch.cat([features, 0.7**0.5 * torch.eye(10, dtype=torch.float64)]),
        torch.cat([response, response.new_zeros(10)]),
    )
    torch.testing.assert_close(omega, torch.linalg.lstsq(*stacked).solution, rtol=1e-6, atol=1e-9)
    left = (response - features @ omega).square().sum() / response.square().sum()
    assert info["r2"] == pytest.approx(1 - float(left))


@pytest.mark.parametrize("name", ["ra-ot", "oa-ot[steps=5]", "mean-slice"])
def test_a_pair_of_another_size_is_predicted(name, digits):
    """One weight for each line does not depend on the number of points."""
    (selection,) = registry("solver").select(name)
    transport = selection.build().fit(digits, run())
    finer = build(DigitPairs(data="digits", train=0, test=3, test_side=12))
    for pair in finer.test:
        problem, optimal = Entropic(pair), pair.truth.plan
        assert len(pair.x) == 144 and optimal is not None
        plan, trivial = (
            transport.plan(pair),
            problem.on_all_points(problem.plan_from(torch.zeros_like(problem.a))),
        )
        torch.testing.assert_close(plan.sum(1), pair.a)
        assert float((plan - optimal).abs().sum()) < 0.6 * float((trivial - optimal).abs().sum())


def test_points_of_another_dimension_are_refused(digits):
    transport = RaOt().fit(digits, run())
    (pair,) = line_pairs(1, 5, 0)
    with pytest.raises(
        ValueError, match="lines in dimension 2 cannot project points of dimension 1"
    ):
        assert transport.plan is not None
        transport.plan(pair)


def test_solvers_say_why_they_do_not_take_a_problem(digits):
    exact = build(WeightPairs(side=4, train=2, test=1))
    assert "takes pairs with an eps only" in str(RaOt().supports(exact))
    assert "none to train on" in str(OaOt().supports(replace(digits, train=[])))
    assert MeanSlice().supports(replace(digits, train=[])) is None, "nothing is learnt"
    (gaussian,) = registry("task").select("gaussian")
    measures = gaussian.build().problem(np.random.default_rng(0), device="cpu", dtype=torch.float64)
    assert "takes the amortized setting only, not map" in str(RaOt().supports(measures))


def test_the_eps_of_a_problem_is_that_of_the_solver(digits):
    (selection,) = registry("solver").select("pot-sinkhorn[eps=100,max_iters=20000,tolerance=1e-8]")
    assert scores(selection.build(), digits)["plan_tv"] < 1e-5


def test_the_excess_over_the_entropic_optimum_is_a_divergence(digits):
    """<C, P> + eps KL(P | ab') exceeds its minimum by eps KL(P | P*) for every coupling P."""
    pair = digits.test[0]
    plan, optimal = SinkhornSteps(max_iters=5).fit(pair, run()).plan(pair), pair.truth.plan  # type: ignore[misc]
    assert optimal is not None and pair.truth.cost is not None
    from otbench.metrics import rounding

    rows_, columns, u, v = rounding(plan, pair.a, pair.b)
    rounded = rows_[:, None] * plan * columns + u[:, None] * v / u.sum()
    held = (rounded > 0) & (optimal > 0)
    divergence = float((rounded[held] * (rounded[held] / optimal[held]).log()).sum())
    assert score_plans([pair], [plan])["entropic_gap"] == pytest.approx(
        pair.eps * divergence / pair.truth.cost, rel=1e-6
    )


def test_the_true_plan_scores_perfectly_and_a_cheaper_one_does_not(digits):
    pair = digits.test[0]
    assert pair.truth.plan is not None
    perfect = score_plans([pair], [pair.truth.plan])
    for name in (
        "cost_gap",
        "entropic_gap",
        "barycentric_uvp",
        "plan_rmse",
        "plan_tv",
        "marginal_l1",
    ):
        assert perfect[name] == pytest.approx(0, abs=1e-7), name
    (emd,) = registry("solver").select("pot-emd")
    cheapest = score_plans([pair], [emd.build().fit(pair, run()).plan(pair)])
    assert cheapest["cost_gap"] > 0.03 and cheapest["entropic_gap"] > 0.03
    # a mixture with the independent plan that costs what the true plan does is no better for it
    plans = {
        name: registry("solver").select(name)[0].build().fit(pair, run()).plan(pair)
        for name in ("pot-emd", "independent")
    }
    costs = {
        name: float((plan * SQEUCLIDEAN.matrix(pair.x, pair.y)).sum())
        for name, plan in plans.items()
    }
    assert pair.truth.cost is not None
    share = (pair.truth.cost - costs["pot-emd"]) / (costs["independent"] - costs["pot-emd"])
    mixed = score_plans([pair], [(1 - share) * plans["pot-emd"] + share * plans["independent"]])
    assert mixed["cost_gap"] < 1e-6 and mixed["entropic_gap"] > 0.03


def test_what_rounding_leaves_below_zero_does_not_switch_off_a_metric(digits):
    pair = digits.test[0]
    assert pair.truth.plan is not None
    plan = pair.truth.plan.clone()
    plan[0, 0] -= 1e-9
    assert score_plans([pair], [plan])["entropic_gap"] == pytest.approx(0, abs=1e-6)


def test_a_solver_does_not_see_the_answers(otbench_here, tmp_path):
    plugin = tmp_path / "peeking.py"
    plugin.write_text(PEEKING)
    otbench_here(
        "run",
        "-t",
        "weight-pairs[side=4,train=2,test=2]",
        "-s",
        "peeking",
        "--seeds",
        1,
        "--plugins",
        plugin,
        "--results",
        "out",
    )
    (recorded,) = rows(tmp_path / "out")
    assert (
        recorded["status"] == "ok"
        and recorded["info_seen"] == 0
        and recorded["metric_plan_tv"] > 0.1
    )


def test_a_warm_start_from_the_answer_takes_an_iteration(digits):
    class Answer(MeanSlice):
        def learn(self, problems, context):
            return lambda problem: problem.solve().f, {}

    known = scores(Answer(), digits)
    assert known["iters_to_tol"] == 1 and known["plan_tv"] < 1e-6 and known["iters_from_zero"] > 10


def images(problem: AmortizedProblem, part: str) -> set[bytes]:
    return {
        weights.numpy().tobytes() for pair in getattr(problem, part) for weights in (pair.a, pair.b)
    }


def test_digits_are_split_and_held_out_pairs_do_not_depend_on_the_others(digits):
    other = build(DigitPairs(data="digits", train=200, test=200))
    assert not images(other, "train") & images(other, "test")
    again = build(replace(DIGITS, train=3))
    for one, two in zip(again.test, digits.test, strict=True):
        assert torch.equal(one.a, two.a) and torch.equal(one.b, two.b)
    for one, two in zip(again.train, digits.train, strict=False):
        assert torch.equal(one.a, two.a), "training sets are nested"
    assert all(pair.x is digits.test[0].x for pair in digits.test), "the grid is one"


def test_digits_keep_their_mass_when_resized_and_turned():
    plain, coarse, turned = (
        build(DigitPairs(data="digits", train=1, test=5, **changes))
        for changes in ({}, {"test_side": 4}, {"rotation": 90.0})
    )
    for pair, small, rotated in zip(plain.test, coarse.test, turned.test, strict=True):
        assert len(small.a) == 16 and float(small.a.sum()) == pytest.approx(1)
        torch.testing.assert_close(
            small.a.view(4, 4), pair.a.view(4, 2, 4, 2).sum((1, 3)), rtol=1e-5, atol=1e-7
        )
        image = pair.a.view(8, 8)
        turns = [torch.rot90(image, k) for k in (1, 3)]
        assert any(float((rotated.a.view(8, 8) - turn).abs().max()) < 1e-3 for turn in turns)
    assert plain.test[0].x[0].tolist() == [0, 0] and plain.test[0].x[-1].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"test": 0}, "test must be at least 1, got 0"),
        ({"train": -1}, "train must be at least 0, got -1"),
        ({"eps": -0.1}, "eps must be at least 0, got -0.1"),
        ({"side": 1}, "side must be from 2 to 64, or 0, got 1"),
    ],
)
def test_bad_parameters_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        DigitPairs(**parameters)


@pytest.mark.parametrize(
    ("solver", "words"), [(RaOt, "ridge"), (OaOt, "steps"), (MeanSlice, "slices")]
)
def test_bad_settings_are_refused(solver, words):
    with pytest.raises(ValueError, match=f"{words} must be"):
        solver(**{words: 0})


def test_files_that_are_absent_or_damaged_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"no data file mnist/t10k-images-idx3-ubyte\.gz"):
        build(DigitPairs())
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(b"not an archive")
    with pytest.raises(MissingError, match="is not a gzipped IDX file of bytes"):
        build(DigitPairs())
    assert DigitPairs(data="digits").files == () and len(DigitPairs().files) == 4


def mnist(seed: int) -> AmortizedProblem:
    try:
        return build(DigitPairs(train=50, test=40), seed)
    except MissingError as error:
        pytest.skip(str(error))


def test_trivial_rows_on_mnist_are_those_measured_independently():
    """Plan errors of three trivial plans; between sets of 40 pairs the mean varies by a tenth, that
    of ten iterations by more.
    """
    problem = mnist(0)
    assert [len(pair.x) for pair in problem.test] == [784] * 40
    (independent,) = registry("solver").select("independent")
    assert scores(independent.build(), problem)["plan_rmse"] == pytest.approx(2.16e-5, rel=0.1)
    assert scores(SinkhornSteps(), problem)["plan_rmse"] == pytest.approx(1.02e-5, rel=0.15)
    assert 1e-6 < scores(SinkhornSteps(max_iters=10), problem)["plan_rmse"] < 2.2e-6


@pytest.mark.slow
def test_learned_potentials_on_mnist():
    problem = mnist(1)
    valid, autograd = (scores(RaOt(**RaOt.presets[name]), problem) for name in ("valid", "paper"))  # type: ignore[arg-type]
    learned, optimised = scores(RaOt(), problem), scores(OaOt(), problem)
    assert learned["plan_rmse"] < 3.4e-6 and optimised["plan_rmse"] < 3.4e-6
    assert learned["plan_rmse"] < valid["plan_rmse"] < autograd["plan_rmse"] < 5e-6


def test_predictions_do_not_depend_on_the_units():
    """Coordinates ten times as large, costs and eps a hundred times."""
    plain = build(WeightPairs(side=5, train=10, test=2, eps=0.02))

    def scaled(pair: DiscreteProblem) -> DiscreteProblem:
        return replace(pair, x=10 * pair.x, y=10 * pair.y, eps=100 * pair.eps)

    larger = replace(
        plain,
        train=[scaled(pair) for pair in plain.train],
        test=[scaled(pair) for pair in plain.test],
    )
    first, second = (RaOt().fit(problem, run()).plan for problem in (plain, larger))
    for one, two in zip(plain.test, larger.test, strict=True):
        torch.testing.assert_close(first(one), second(two), rtol=1e-6, atol=1e-9)  # type: ignore[misc]


def test_a_response_that_cannot_be_explained_is_said(digits):
    hard = Entropic(replace(digits.train[0], eps=1e-4))
    _, info = RaOt(tolerance=1e-12).weigh(
        Slices.draw(3, digits.train[0], torch.Generator()), [hard], run()
    )
    assert info["unsolved"] == 1
    lone = [
        replace(pair, x=pair.x[:1], a=torch.ones(1, dtype=torch.float64))
        for pair in line_pairs(2, 5, 0)
    ]
    _, info = RaOt().weigh(
        Slices.draw(3, lone[0], torch.Generator()), [Entropic(pair) for pair in lone], run()
    )
    assert "r2" not in info


def test_a_run_records_training_and_inference(otbench_here, tmp_path):
    command = (
        "run",
        "-t",
        "digit-pairs[data=digits,train=5,test=3]",
        "-s",
        "ra-ot",
        "sinkhorn-steps",
        "--seeds",
        1,
        "--results",
        "out",
    )
    done = otbench_here(*command)
    assert done.returncode == 0, done.stderr
    recorded = {row["solver"]: row for row in rows(tmp_path / "out")}
    assert {row["status"] for row in recorded.values()} == {"ok"}, [
        row["message"] for row in recorded.values()
    ]
    learned = recorded["ra-ot"]
    assert (
        learned["fit_cold_s"] > 0
        and learned["infer_ms_per_pair"] > 0
        and 0 < learned["info_r2"] < 1
    )
    assert (
        learned["metric_iters_to_tol"] >= 1
        and "metric_iters_to_tol" not in recorded["sinkhorn-steps"]
    )
    assert {"metric_entropic_gap", "metric_barycentric_uvp", "metric_cost_gap"} <= learned.keys()
