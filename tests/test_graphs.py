"""Rounds of training on buffers that stay where they are, as CUDA graphs read them, with a call in
place of the capture: the numbers are those of rounds that run as they are written.
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from otbench import AmortizedProblem, DivergedError, FitContext, MapProblem, Transport
from otbench.methods.neural import matching, training
from otbench.methods.neural.graphs import WARM_UP, Round, cuda_graph
from otbench.methods.neural.sampling import Stream
from otbench.methods.neural.solver import NeuralSolver
from otbench.registry import registry
from otbench.tasks.weight_pairs import WeightPairs
from tests.test_neural import problem


pytestmark = pytest.mark.usefixtures("one_thread")

ROUNDS = 9
SMALL = f"steps={ROUNDS},batch=8"
W1, W2 = "sphere-denoising", "gaussian"
FITS = {  # of all neural solvers, and of losses that have more terms
    f"adversarial-regularizer[{SMALL},width=8]": W1,
    f"diotm[{SMALL},width=8]": W2,
    f"enot[{SMALL},refine=2,expectile=0.9,weight=0.5]": W2,
    f"enot[{SMALL},network=mlp,width=8,start=identity]": W2,
    f"mm-r[{SMALL}]": W2,
    f"mmv2-r[{SMALL}]": W2,
    f"not-strong[{SMALL},width=8]": W2,
    f"not-weak[{SMALL},width=8]": W2,
    f"ot-cfm[{SMALL},width=8,pretrain=1,ode_steps=2]": W2,
    f"otm[{SMALL},width=8,accumulate=2,r1=0.1,go=1,clip=1]": W2,
    f"otm-s[{SMALL},width=8]": W2,
    "otm[preset=cpu-28,steps=5,batch=4,width=2]": "image-restoration[data=digits]",
    f"otm-gp[{SMALL},width=8]": W2,
    f"otp[{SMALL},width=8,noising=variance-preserving,sigma_max=0.9]": W2,
    f"otp-fixed[{SMALL},width=8]": W2,
    f"sort-out[{SMALL},width=8]": W1,
    f"ttc[{SMALL},width=8,critics=2,pool=32]": W1,
    f"ttc-ray[{SMALL},width=8]": W1,
    f"ttc-semidual[{SMALL},width=8,candidates=8,pool=32]": W1,
    f"uotm[{SMALL},width=8]": W2,
    f"wgan-gp[{SMALL},width=8]": W1,
    f"wgan-lp[{SMALL},width=8]": W1,
}
AS_WRITTEN = {"sn-gan"}  # its norms are waited for


@pytest.fixture(autouse=True)
def few_points() -> Iterator[None]:
    """Points that are matched at a time, so that they run out and are matched anew."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "POINTS", 64)
        yield


class Interrupted(Exception):
    """A fit was cut short."""


@pytest.fixture
def captured(monkeypatch) -> list[Callable[[], None]]:
    """What was captured; from now on all rounds are."""
    plays: list[Callable[[], None]] = []

    def capture(play: Callable[[], None]) -> Callable[[], None]:
        plays.append(play)
        return play

    monkeypatch.setattr(training, "capture_on", lambda device: capture)
    return plays


def context(seed: int, **others: Any) -> FitContext:
    return FitContext("cpu", torch.float64, seed, torch.Generator().manual_seed(seed), **others)


def fitted(text: str, posed: MapProblem, contexts: list[FitContext]) -> list[torch.Tensor]:
    (selection,) = registry("solver").select(text)
    solver = selection.build()
    assert isinstance(solver, NeuralSolver)
    x = posed.source.sample(20, torch.Generator().manual_seed(9))
    images = []
    for outcome in solver.fit_together([posed] * len(contexts), contexts):
        assert not isinstance(outcome, DivergedError)
        assert isinstance(outcome, Transport) and outcome.push is not None
        images.append(outcome.push(x))
    return images


def test_all_neural_solvers_are_here():
    neural = {
        name
        for name in registry("solver").entries
        if issubclass(type(registry("solver").select(name)[0].build()), NeuralSolver)
    }
    assert neural == {text.partition("[")[0] for text in FITS} | AS_WRITTEN


@pytest.mark.parametrize("text", FITS)
def test_rounds_on_buffers_give_the_same_maps(text, captured, monkeypatch):
    """Alone, as a stack, and gone on with after an interruption."""
    posed = problem(FITS[text], dtype=torch.float64)
    alone, stack = (fitted(text, posed, [context(seed) for seed in of]) for of in ([0], [0, 1]))
    assert captured
    saved: list[Any] = []

    def save(state: Callable[[], Any]) -> None:
        saved.append(copy.deepcopy(state()))
        if len(saved) == WARM_UP + 1:
            raise Interrupted

    resumed = alone
    try:
        fitted(text, posed, [context(0, on_save=save)])
    except Interrupted:
        resumed = fitted(text, posed, [context(0, on_restore=lambda: saved[-1])])
    monkeypatch.undo()
    written = fitted(text, posed, [context(0)]), fitted(text, posed, [context(0), context(1)])
    for images, expected in zip((alone, stack, resumed), (*written, written[0]), strict=True):
        for one, other in zip(images, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("text", ["meta-ot[steps=9,width=8]", "meta-ot[preset=set,steps=9]"])
def test_rounds_of_meta_ot_on_buffers_give_the_same_potentials(text, captured, monkeypatch):
    """Of pairs of images, also where the training is gone on with after an interruption."""
    rng = np.random.default_rng(0)
    posed = WeightPairs(side=4, train=6, test=1, eps=0.05).problem(
        rng, device="cpu", dtype=torch.float64
    )
    (selection,) = registry("solver").select(text)
    solver = selection.build()

    def potential(**others: Any) -> torch.Tensor:
        transport = solver.fit(posed, context(0, **others))
        assert isinstance(posed, AmortizedProblem) and transport.pair_potential is not None
        assert transport.info["steps"] == 9
        return transport.pair_potential(posed.test[0])

    alone, saved = potential(), []

    def save(state: Callable[[], Any]) -> None:
        saved.append(copy.deepcopy(state()))
        if len(saved) == WARM_UP + 1:
            raise Interrupted

    assert captured
    with pytest.raises(Interrupted):
        potential(on_save=save)
    resumed = potential(on_restore=lambda: saved[-1])
    monkeypatch.undo()
    written = potential(on_save=lambda state: saved.append(copy.deepcopy(state())))
    ended = potential(on_restore=lambda: saved[-1])
    for one in (alone, resumed, ended):
        assert torch.equal(one, written)


def test_a_capture_that_fails_leaves_its_stream(monkeypatch):
    class Graph:
        """As of torch, whose way out fails before the stream is given back."""

        def __init__(self, graph: object) -> None:
            pass

        def __enter__(self) -> None:
            current.append("of the capture")

        def __exit__(self, *_: object) -> None:
            raise RuntimeError("the capture was invalidated")

    current = ["default"]
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", Graph)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", current.append)
    with pytest.raises(RuntimeError, match="invalidated"):
        cuda_graph(lambda: None)
    assert current == ["default", "of the capture", "default"]


def test_a_round_that_cannot_be_captured_runs_as_it_is_written_and_warns():
    counter = itertools.count()
    stream = Stream(
        [lambda n, generator: torch.full((n, 1), float(next(counter)))],
        [torch.Generator()],
        2**15,
    )
    seen: list[float] = []

    def capture(play: Callable[[], None]) -> Callable[[], None]:
        play()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    one = Round(lambda: seen.append(float(stream.next().mean())), [stream], capture)
    reason = "operation not permitted when stream is capturing"
    with pytest.warns(UserWarning, match=f"^no CUDA graph of this training: {reason}$"):
        for _ in range(6):
            one()
    one.close()
    # A draw of one point tells the size of a chunk; the attempt saw the batch of its round.
    assert seen == [1, 3, 5, 7, 7, 9, 11] and stream.tape is None
