"""Solvers that tell of the GPU they were given, or find no room on it. Read as a plugin by the
tests of the runner on GPUs, which have none.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from otbench import Solver, Transport


@dataclass(frozen=True)
class OnGpu(Solver):
    """Reports what it sees of the GPUs, or fails as ``act`` says.

    Attributes:
        act: ``crowded`` finds no room the first time, ``short`` never; ``abort`` dies of it the
            first time, as JAX does.
        path: of the file that the first time leaves.
    """

    name: ClassVar[str] = "on-gpu"
    batched: ClassVar[bool] = True
    act: str = "tell"
    path: str = ""

    def fit(self, problem, context) -> Transport:
        """Tell or fail."""
        import torch

        first = not (self.path and Path(self.path).exists())
        if self.path:
            Path(self.path).touch()
        if self.act == "short" or (self.act == "crowded" and first):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if self.act == "abort" and first:
            print("RESOURCE_EXHAUSTED: Out of memory while trying to allocate", flush=True)
            os.abort()
        time.sleep(0.1)
        names = ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_PREALLOCATE", "JAX_PLATFORMS")
        told = {name.lower(): os.environ.get(name, "unset") for name in names}
        return Transport(push=lambda x: x.clone(), info=told)

    def fit_together(self, problems, contexts) -> list:
        """Each by itself."""
        return [self.fit(*each) for each in zip(problems, contexts, strict=True)]
