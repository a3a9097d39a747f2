"""Presets named `paper` are the papers': every value against a table, and none that is not in it.

Sources, read in the official code unless said otherwise: LituRout/OptimalTransportModeling (scripts
``otm_*``, the GO notebooks, and that of circles with a penalty),
iamalexkorotin/NeuralOptimalTransport (toy notebook in the plane),
mongemapfromkpot/Trust-the-Critics (networks, example scripts), justkolesov/Wasserstein1Benchmark
(notebook ``test_nd``), iamalexkorotin/Wasserstein2Benchmark (notebooks in high dimension), Amos et
al. 2023 (text), Truong & Nguyen 2026 (development code).
"""

# pyright: reportMissingImports=false
# (otbench.solvers is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from otbench import DivergedError, FitContext
from otbench.methods.neural import critics
from otbench.registry import registry
from otbench.solvers.ttc import Ttc


OTM_IMAGES: dict[str, Any] = {
    "batch": 64, "accumulate": 1, "beta1": 0.0, "beta2": 0.9, "decay": "none", "form": "plain",
    "start": "identity", "width": 256, "norm": "batch", "mixed": False, "clip": 0.0, "pull": 0.0,
    "ema": 0.0, "r1": 0.0,
}  # fmt: skip
OTM_RESTORATION = {
    **OTM_IMAGES, "steps": 423_206, "lr": 1e-4, "lr_potential": 1e-4, "map_updates": 5,
    "network": "otm-restoration", "depth": 4, "go": 0.0,
}  # fmt: skip
OTM_GENERATION = {
    **OTM_IMAGES, "steps": 94_637, "lr": 2e-4, "lr_potential": 2e-4, "map_updates": 2,
    "network": "otm-generation", "depth": 3, "go": 10.0,
}  # fmt: skip
TTC: dict[str, Any] = {
    "theta": 1.0, "estimate": "fresh", "tolerance": 0.0, "lr": 1e-4, "beta1": 0.5, "beta2": 0.999,
    "decay": "none", "ema": 0.0, "penalty": 1000.0, "sides": "one", "mixed": False, "accumulate": 1,
}  # fmt: skip
W1: dict[str, Any] = {
    "batch": 1024, "lr": 2e-4, "beta1": 0.9, "beta2": 0.999, "decay": "none", "ema": 0.0,
    "width": 0, "depth": 2,
}  # fmt: skip
NOT: dict[str, Any] = {
    "steps": 10_001, "accumulate": 1, "map_updates": 10, "lr": 1e-4, "lr_potential": 1e-4,
    "beta1": 0.9, "beta2": 0.999, "decay": "none", "form": "direct", "start": "identity",
    "network": "mlp", "width": 100, "depth": 3, "activation": "leaky-relu", "ema": 0.0,
    "pull": 0.0, "clip": 0.0, "r1": 0.0, "go": 0.0,
}  # fmt: skip
W2: dict[str, Any] = {
    "steps": 50_001, "batch": 1024, "map_updates": 15, "lr": 1e-3, "lr_potential": 1e-3,
    "beta1": 0.9, "beta2": 0.999, "decay": "none", "start": "identity", "rates": "equal",
    "pull": 0.0, "clip": 0.0, "ema": 0.0, "r1": 0.0, "go": 0.0,
}  # fmt: skip
PAPERS: dict[tuple[str, str], dict[str, Any]] = {
    ("otm", "paper"): {
        "steps": 10_001, "batch": 400, "map_updates": 16, "lr": 1e-3, "lr_potential": 1e-3,
        "beta1": 0.5, "beta2": 0.99, "decay": "none", "form": "plain", "network": "mlp",
        "width": 128, "depth": 3, "activation": "leaky-relu", "go": 1.0, "ema": 0.0, "pull": 0.0,
        "clip": 0.0, "r1": 0.0,
    },
    ("otm-gp", "paper"): {
        "steps": 10_001, "batch": 400, "map_updates": 16, "lr": 1e-3, "lr_potential": 1e-3,
        "beta1": 0.5, "beta2": 0.99, "decay": "none", "form": "plain", "network": "mlp",
        "width": 128, "depth": 3, "activation": "leaky-relu", "go": 0.0, "gp": 1.0, "ema": 0.0,
        "pull": 0.0, "clip": 0.0, "r1": 0.0,
    },
    ("not-strong", "paper"): {**NOT, "batch": 64},
    ("not-weak", "paper"): {**NOT, "batch": 256, "images": 4},
    ("otm", "paper-restoration"): OTM_RESTORATION,
    ("otm", "paper-inpainting"): {**OTM_RESTORATION, "map_updates": 2},
    ("otm", "paper-generation"): OTM_GENERATION,
    ("otm", "paper-generation-64"): {**OTM_GENERATION, "steps": 636_165, "depth": 4},
    ("ttc", "paper-generation"): {
        **TTC, "critics": 30, "moves": 2, "moves_until": 10, "steps": 1000, "batch": 128,
        "network": "infogan", "width": 64,
    },
    ("ttc", "paper-denoising"): {
        **TTC, "critics": 20, "moves": 1, "moves_until": 0, "steps": 2500, "batch": 32,
        "network": "ar-convnet", "width": 16,
    },
    ("ttc", "paper-translation"): {
        **TTC, "critics": 20, "moves": 1, "moves_until": 0, "steps": 2500, "batch": 32,
        "network": "sndcgan", "width": 64,
    },
    ("adversarial-regularizer", "paper-denoising"): {
        "lr": 1e-4, "beta1": 0.5, "beta2": 0.999, "decay": "none", "ema": 0.0, "penalty": 1000.0,
        "sides": "one", "steps": 2500, "batch": 32, "network": "ar-convnet", "width": 16,
        "descent": 200, "rate": 0.05, "weight": 1.0,
    },
    ("wgan-gp", "paper"): {**W1, "steps": 40_000, "penalty": 10.0, "sides": "two"},
    ("wgan-lp", "paper"): {**W1, "steps": 40_000, "penalty": 10.0, "sides": "one"},
    ("sn-gan", "paper"): {**W1, "steps": 5000, "penalty": 0.0},
    ("sort-out", "paper"): {**W1, "steps": 15_000, "penalty": 0.0, "group": 0},
    ("mm-r", "paper"): {**W2, "form": "gradient"},
    ("mmv2-r", "paper"): {**W2, "form": "convex"},
    ("enot", "paper"): {
        "steps": 150_000, "batch": 1024, "lr": 5e-4, "beta1": 0.9, "beta2": 0.99,
        "decay": "cosine", "network": "mlp", "width": 512, "depth": 3, "activation": "elu",
        "start": "identity", "expectile": 1.0, "weight": 0.5, "refine": 0, "pull": 0.0, "ema": 0.0,
    },
    ("ott-enot", "paper"): {
        "steps": 300_001, "batch": 1024, "lr": 5e-4, "width": 512, "depth": 3, "expectile": 1.0,
        "weight": 0.5,
    },
    ("meta-ot", "paper"): {
        "encoder": "weights", "width": 1024, "depth": 3, "pairs": "crossed", "steps": 50_000,
        "batch": 128, "lr": 1e-3, "decay": "none", "seconds": 0.0,
    },
    ("ra-ot", "paper"): {
        "slices": 100, "potentials": "autograd", "weights": "uniform", "ridge": 1e-3,
        "ridge_rule": "absolute", "ridge_sphere": 0.05, "tolerance": 1e-9,
    },
    ("oa-ot", "paper"): {
        "slices": 100, "potentials": "autograd", "objective": "two_sided", "optimizer": "adam",
        "steps": 5000, "lr": 1e-3,
    },
    ("ot-cfm", "paper"): {
        "eps": 0.1, "eps_rule": "absolute", "pretrain": 50, "sigma": 0.1, "steps": 20_000,
        "batch": 512, "lr": 1e-3, "decay": "none", "width": 64, "depth": 3, "activation": "selu",
        "ode_steps": 100,
    },
}  # fmt: skip


def test_presets_named_paper_are_those_of_the_table():
    named = {
        (solver, preset)
        for solver, entry in registry("solver").entries.items()
        for preset in entry.presets
        if preset.startswith("paper")
    }
    assert named == set(PAPERS)


@pytest.mark.parametrize(("solver", "preset"), PAPERS)
def test_a_preset_named_paper_has_the_settings_of_the_paper(solver, preset):
    (selection,) = registry("solver").select(f"{solver}[preset={preset}]")
    found, expected = dict(selection.params), PAPERS[solver, preset]
    assert {name: found[name] for name in expected} == expected


def test_epochs_are_as_many_rounds_as_the_data_have_batches():
    """101 epochs of the 60,000 digits, 201 of 202,599 faces, 301 of 90,000, batches of 64."""
    assert (101 * 937, 201 * 3165, 301 * 1406) == (94_637, 636_165, 423_206)


def test_ttc_takes_two_steps_down_each_of_ten_critics_then_one():
    ttc = Ttc(**Ttc.presets["paper-generation"])  # type: ignore[arg-type]
    assert [ttc.moves_of(n) for n in range(1, 31)] == [2] * 10 + [1] * 20
    assert [Ttc(moves=3).moves_of(n) for n in (1, 99)] == [3, 3]


def solved(solver: str, task: str, seeds: int = 1):
    problem = registry("task").select(task)[0].build().problem(
        np.random.default_rng(0), device="cpu", dtype=torch.float32
    )  # fmt: skip
    contexts = [
        FitContext("cpu", torch.float32, seed, torch.Generator().manual_seed(seed))
        for seed in range(seeds)
    ]
    built = registry("solver").select(solver)[0].build()
    assert built.supports(problem) is None
    return problem, built.fit_together([problem] * seeds, contexts)


FACES, DIGITS = "data=digits,side=64", "data=digits,side=32"
CUT = "width=4,batch=2,steps=2"
RUNS = [
    (f"otm[preset=paper-restoration,{CUT}]", f"image-restoration[{FACES}]"),
    (f"otm[preset=paper-inpainting,{CUT}]", f"image-restoration[{FACES},degradation=inpaint]"),
    (f"otm[preset=paper-generation,{CUT}]", f"image-generation[{DIGITS},latent=8,channels=3]"),
    (f"otm[preset=paper-generation-64,{CUT}]", f"image-generation[{FACES},latent=8]"),
    (
        f"ttc[preset=paper-generation,{CUT},critics=3,moves_until=1,pool=32]",
        f"image-generation[{DIGITS},cost=euclidean]",
    ),
    (
        f"ttc[preset=paper-denoising,{CUT},critics=2,pool=32]",
        f"image-restoration[{FACES},sigma=0.2,cost=euclidean]",
    ),
    (
        f"adversarial-regularizer[preset=paper-denoising,{CUT},descent=2]",
        f"image-restoration[{FACES},sigma=0.2,cost=euclidean]",
    ),
    (
        f"ttc[preset=paper-translation,{CUT},critics=2,pool=32]",
        f"image-restoration[{FACES},degradation=deblur,cost=euclidean]",
    ),
]


@pytest.mark.parametrize(("solver", "task"), RUNS)
def test_image_presets_start_and_step_for_two_seeds_at_once(solver, task, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(critics, "BOUND_POINTS", 64)
    problem, transports = solved(solver, task, 2)
    x = problem.source.sample(3, torch.Generator().manual_seed(0))
    pushed = []
    for transport in transports:
        assert not isinstance(transport, DivergedError)
        pushed.append(transport.push(x))
        assert pushed[-1].shape == (3, problem.target.dim) and pushed[-1].isfinite().all()
        if solver.startswith("ttc[preset=paper-generation"):
            assert transport.info["moves"] == 4
    if solver.startswith("adversarial"):  # which may not pull at all yet
        pushed = [transport.potential(x) for transport in transports]
    assert not torch.equal(*pushed)


def test_paper_generation_begins_with_192_numbers():
    problem = registry("task").select("image-generation[data=digits,side=32,latent=8,channels=3]")[
        0
    ].build().problem(np.random.default_rng(0), device="cpu", dtype=torch.float32)  # fmt: skip
    assert problem.source.dim == 192 and problem.target.image == (3, 32, 32)
    for points in (problem.target.sample, problem.target.held_out):
        red, green, blue = (
            points(4, torch.Generator().manual_seed(0)).unflatten(1, (3, 1024)).unbind(1)
        )
        assert torch.equal(red, green) and torch.equal(red, blue) and red.std() > 0.1


@pytest.mark.parametrize(("preset", "sphere"), [("paper", 0.05), ("valid", 1e-3)])
def test_the_ridge_of_ra_ot_on_the_sphere(preset, sphere):
    """Ridge regression on the globe is that with this ridge given for all problems."""
    from otbench.solvers.ra_ot import RaOt

    problem = registry("task").select("supply-demand-pairs[supply=10,demand=20,train=6,test=1]")[
        0
    ].build().problem(np.random.default_rng(0), device="cpu", dtype=torch.float64)  # fmt: skip
    settings = dict(RaOt.presets[preset])
    plans = []
    for more in ({}, {"ridge": sphere, "ridge_sphere": 0.0}, {"ridge_sphere": 10.0}):
        run = FitContext("cpu", torch.float64, 0, torch.Generator().manual_seed(1))
        transport = RaOt(**{**settings, **more}).fit(problem, run)  # type: ignore[arg-type]
        plans.append(transport.plan(problem.test[0]))
    assert torch.equal(plans[0], plans[1]) and not torch.equal(plans[0], plans[2])


def test_eps_of_ot_cfm_is_in_cost_units_or_a_multiple_of_the_mean_cost(monkeypatch):
    from otbench.methods.entropic import Entropic

    seen: set[float] = set()
    solve = Entropic.solve

    def recorded(self: Entropic, *given: Any, **more: Any) -> Any:
        seen.add(self.eps)
        return solve(self, *given, **more)

    monkeypatch.setattr(Entropic, "solve", recorded)
    cut = "steps=1,batch=32,pretrain=2,coupling=ra-ot,ode_steps=2"
    solved(f"ot-cfm[{cut},eps=5,eps_rule=absolute]", "flow-toy")
    assert seen == {5.0}
    seen.clear()
    solved(f"ot-cfm[{cut},eps=0.2]", "flow-toy")
    (eps,) = seen
    assert 2 < eps < 20  # a fifth of mean squared distances to Gaussians five away
