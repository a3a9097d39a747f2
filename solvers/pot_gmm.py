"""Transport between Gaussian mixtures, of which each pair of components has its affine map (Delon &
Desolneux 2020), POT's ``ot.gmm``, in float64 on the host.

    min_w    sum_kl w_kl W_2^2(N(m_k, S_k), N(m'_l, S'_l))

over couplings w of the weights of the components. The mixtures are fitted to samples by expectation
maximisation, scikit-learn's ``GaussianMixture`` with full covariances. T(x) is the mean of the
images of x under the maps of all pairs of components, weighted by how likely x is of the first
(``T_bary`` of the paper, ``gmm_ot_apply_map``); draws are from these images (``T_rand``), and they
alone have the target mixture as their law. With one component this is the affine map between
Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from otbench import FitContext, MapProblem, Problem, Transport
from otbench.methods.sample_maps import SampleMap


if TYPE_CHECKING:
    import numpy as np
    import torch

LARGEST = 1024  # dimensions: a component has a covariance of as many rows and columns


@dataclass(frozen=True)
class PotGmm(SampleMap):
    """Coupled components of two fitted Gaussian mixtures.

    Attributes:
        components: of each mixture; fewer where a sample has fewer different points.
    """

    name: ClassVar[str] = "pot-gmm"
    needs: ClassVar[tuple[str, ...]] = ("ot", "sklearn")
    tuning: ClassVar[str] = (
        "n and components: gaussian in dimensions 2 and 16, log-sum-exp and mix3tomix10, seed "
        "1000, 5 numbers of components, 2 of points"
    )
    n: int = 16384
    components: int = 10

    def __post_init__(self) -> None:
        """Check the parameters."""
        super().__post_init__()
        self.require(at_least_one=("components",))

    def supports(self, problem: Problem) -> str | None:
        """As the base, in dimensions whose covariances can be held."""
        reason = super().supports(problem)
        if reason is None and isinstance(problem, MapProblem) and problem.source.dim > LARGEST:
            return f"takes at most {LARGEST} dimensions, not {problem.source.dim}"
        return reason

    def between(self, x: torch.Tensor, y: torch.Tensor, context: FitContext) -> Transport:
        """Fit both mixtures from ``context.seed``, couple their components."""
        import numpy as np
        import torch
        from ot import gmm
        from sklearn.mixture import GaussianMixture

        def fitted(points: np.ndarray) -> GaussianMixture:
            components = min(self.components, len(np.unique(points, axis=0)))
            mixture = GaussianMixture(components, max_iter=1000, random_state=context.seed)
            return mixture.fit(points)

        source, target = (fitted(points.cpu().numpy()) for points in (x, y))
        mixtures = (
            *(source.means_, target.means_),
            *(source.covariances_, target.covariances_),
            *(source.weights_, target.weights_),
        )
        plan = gmm.gmm_ot_plan(*mixtures)

        def moved(points: torch.Tensor, method: str) -> torch.Tensor:
            with np.errstate(over="ignore"):  # the odds of a component at a point far from it
                images = gmm.gmm_ot_apply_map(
                    points.cpu().numpy(), *mixtures, plan=plan, method=method, seed=context.seed
                )
            return torch.as_tensor(images).to(points)

        return Transport(
            push=lambda new: moved(new, "bary"),
            sample=lambda new, k: moved(new.repeat_interleave(k, 0), "rand").unflatten(0, (-1, k)),
            estimates_map=True,
            info={"iterations_source": source.n_iter_, "iterations_target": target.n_iter_},
        )
