"""The registry of arrays: metrics take nothing else, and scoring provides all of it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from otbench import AmortizedProblem, DiscreteProblem, MapProblem, Problem, Transport, metrics
from otbench.metrics import ARRAYS, METRICS, Metric, metric
from otbench.metrics.arrays import Array
from otbench.metrics.table import table
from otbench.registry import registry
from otbench.scoring.maps import MapScoring
from otbench.scoring.plans import score_plans
from tests.truths import generator


def problem(text: str) -> Problem:
    task = registry("task").select(text)[0].build()
    return task.problem(np.random.default_rng(0), device="cpu", dtype=torch.float64)


def scored(text: str) -> None:
    """Score a checkpoint and the run of a solver that returns all that a solver can."""
    posed = problem(text)
    assert isinstance(posed, MapProblem)
    at_start = posed.target.sample(1, generator(0))
    transport = Transport(
        push=lambda x: at_start.expand(len(x), -1).clone(),
        sample=lambda x, k: at_start.expand(len(x), k, -1).clone(),
        potential=lambda x: x.norm(dim=1),
        target_potential=lambda y: -y.norm(dim=1),
        path=lambda x: torch.stack([posed.cost.embed(x), at_start.expand(len(x), -1)]),
    )
    scoring = MapScoring(posed, generator(1))
    assert transport.push is not None
    scoring.score_checkpoint(transport)
    scoring.score(transport, transport.push(scoring.x), earlier=1.0)


@pytest.fixture(scope="module")
def provided() -> dict[str, list[Any]]:
    """What scoring provided for each name, on problems that together know everything."""
    given: dict[str, list[Any]] = {}

    def note(arrays: dict[str, Any], curve_only: bool = False) -> dict[str, float]:
        for name, value in arrays.items():
            given.setdefault(name, []).append(value)
        return {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "score", note)
        patch.setattr("otbench.scoring.maps.FLOORS", 2)
        patch.setattr("otbench.scoring.maps.GAP_POINTS", 32)
        patch.setattr("otbench.scoring.maps.SLICED_GAP_POINTS", 32)
        features = "otbench.scoring.pictures.inception_features"
        patch.setattr(features, lambda images: images.flatten(1)[:, :4])
        patch.setattr("otbench.scoring.pictures.perceptual_distance", lambda x, y: 0.5)
        vectors = ("funnel-atoms", "one-to-many", "one-to-many[dim=20]")
        for text in (*vectors, "hue-colorization", "image-restoration"):
            scored(text)
        posed = problem("weight-pairs[side=5,train=1,test=1,eps=0.05]")
        assert isinstance(posed, AmortizedProblem)
        (pair,) = posed.test
        assert pair.truth.plan is not None
        zero = Transport(pair_potential=lambda pair: torch.zeros_like(pair.a))
        score_plans([pair], [pair.truth.plan], zero)
        patch.setattr("otbench.methods.discrete.SOLVED", 1)
        unsolved = problem("point-clouds[n=4,m=4]")
        assert isinstance(unsolved, DiscreteProblem)
        score_plans([unsolved], [torch.full((4, 4), 1 / 16, dtype=torch.float64)], Transport())
    return given


def test_scoring_provides_every_registered_array_and_no_other(provided) -> None:
    assert provided.keys() == ARRAYS.keys()


def test_every_registered_array_is_taken_by_a_metric() -> None:
    taken = {name for entry in METRICS.values() for name in entry.needs}
    assert taken == ARRAYS.keys() - {"partner"}  # which scoring turns into partner_images


def dimensions(array: Array, value: Any) -> Iterator[int]:
    """How many dimensions a value may have, each ``*shape`` being that of a vector here."""
    yield len(array.shape.split())
    if array.name == "cost_optimal":  # alone
        yield 0


def test_what_is_provided_has_the_shape_that_the_registry_says(provided) -> None:
    for name, values in provided.items():
        for value in values:
            assert getattr(value, "ndim", 0) in dimensions(ARRAYS[name], value), name


def test_metrics_take_tensors_where_the_registry_has_a_shape() -> None:
    for entry in METRICS.values():
        for name, parameter in inspect.signature(entry.function).parameters.items():
            assert (parameter.annotation == "Tensor") is bool(ARRAYS[name].shape), (
                entry.name,
                name,
            )


def test_the_table_has_every_metric_of_the_package() -> None:
    modules = [
        importlib.import_module(f"otbench.metrics.{info.name}")
        for info in pkgutil.iter_modules(metrics.__path__)
    ]
    found = [entry for module in modules for entry in vars(module).values()]
    assert {entry.name for entry in found if isinstance(entry, Metric)} == METRICS.keys()


def test_a_metric_of_an_unknown_array_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"metric far names 'pushd'.*did you mean 'pushed'\?"):

        @metric(unit="1", better="lower")
        def far(pushd: torch.Tensor) -> float:
            return 0.0


def test_scores_of_an_unknown_array_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"names 'circle_place'.*did you mean 'circle_places'\?"):
        metrics.score({"circle_place": torch.zeros(3, 2)})


def test_metrics_of_one_name_or_without_a_direction_are_refused() -> None:
    with pytest.raises(ValueError, match="two metrics are named l2_uvp"):
        table((metrics.maps, types.SimpleNamespace(**vars(metrics.maps))))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="better is lower, higher, one or None"):
        metric(unit="1", better="highr")(lambda pushed: 0.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes no array"):
        metric(unit="1", better="lower")(lambda: 0.0)
