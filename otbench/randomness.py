"""The random streams of a seed: of the problem, of the algorithm and of the test points."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from otbench.solver import FitContext


if TYPE_CHECKING:
    import numpy as np
    import torch

OTHER = 2**40  # beyond the seeds that are asked for


class Randomness:
    """Three independent random streams of one seed: of problem, algorithm and test points.

    All solvers see the same problem and the same test points, whatever they draw themselves.
    """

    def __init__(self, seed: int, device: str, dtype: torch.dtype) -> None:
        import numpy as np

        self.seed, self.device, self.dtype = seed, device, dtype
        self._problem, self._algorithm, self._test = np.random.SeedSequence(seed).spawn(3)

    def other(self) -> Randomness:
        """Streams of no seed that is asked for: of another draw of everything."""
        return Randomness(self.seed + OTHER, self.device, self.dtype)

    def problem(self) -> np.random.Generator:
        """The stream that a task builds its problem from."""
        import numpy as np

        return np.random.default_rng(self._problem)

    def test_points(self) -> torch.Generator:
        """The stream of the test points."""
        import torch

        return torch.Generator(self.device).manual_seed(int(self._test.generate_state(1)[0]))

    def context(self) -> FitContext:
        """The algorithm's stream from its beginning, every generator with a seed of its own.

        The global generators of Python, NumPy and torch are seeded, too: a solver may use them.
        """
        import numpy as np
        import torch

        states = map(int, self._algorithm.generate_state(5))
        seed, of_generator, of_torch, of_numpy, of_python = states
        random.seed(of_python)
        np.random.seed(of_numpy)  # noqa: NPY002  (libraries that draw from numpy's global state)
        if self.device == "cpu":  # torch.manual_seed notes a stack trace for a CUDA that may come
            torch.default_generator.manual_seed(of_torch)
        else:
            torch.manual_seed(of_torch)
        generator = torch.Generator(self.device).manual_seed(of_generator)
        return FitContext(self.device, self.dtype, seed, generator)
