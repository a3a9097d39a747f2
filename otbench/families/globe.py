"""Suppliers and consumers on the globe: where they are, what they have and need, and the base of
the tasks about them.

Points are unit vectors. Consumers are drawn from a population, suppliers without regard to it:

* ``synthetic``: the mixture of von Mises-Fisher distributions `REGIONS`, suppliers uniform on the
  sphere. No data needed.
* ``raster``: Gridded Population of the World 4.11 of 2020 on cells of 1/4 degree, suppliers uniform
  over its land. A cell is drawn with the probability density x area (area ~ cos latitude; coastal
  cells count as land wholly), a point uniformly within it.

The raster is found by `otbench.data.files` as
``world_population/gpw_v4_population_density_rev11_2020_15_min.tif`` (CIESIN, CC BY 4.0). The papers
draw pixels of the rectangular map by density alone, which favours high latitudes, and take their
centres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench.data.catalogue import find_checked
from otbench.problem import Task


if TYPE_CHECKING:
    import numpy as np

RASTER = "world_population/gpw_v4_population_density_rev11_2020_15_min.tif"
REGIONS = (
    (80.0, 23.0, 40.0, 0.25),  # South Asia
    (113.0, 32.0, 40.0, 0.20),  # East Asia
    (112.0, 5.0, 30.0, 0.10),  # South-East Asia
    (15.0, 48.0, 25.0, 0.10),  # Europe
    (40.0, 34.0, 40.0, 0.08),  # Middle East
    (5.0, 9.0, 60.0, 0.07),  # West Africa
    (34.0, -5.0, 20.0, 0.08),  # East and Southern Africa
    (-90.0, 35.0, 20.0, 0.06),  # North America
    (-60.0, -12.0, 15.0, 0.06),  # South America
)

LARGEST_LP = 4_000_000  # entries of the cost matrix, a second for the simplex

Population = Literal["synthetic", "raster"]


@dataclass(frozen=True)
class GlobeTask(Task):
    """Base of the tasks with suppliers and consumers on the globe.

    Attributes:
        supply: number of suppliers.
        demand: number of consumers.
        eps: entropic regularisation in radians; 0 asks for the linear program.
        population: ``synthetic``, or ``raster``, which needs its file.
    """

    needs: ClassVar[tuple[str, ...]] = ("ot",)
    supply: int
    demand: int
    eps: float
    population: Population

    def __post_init__(self) -> None:
        """Refuse empty clouds, unknown populations, and a linear program that is too large."""
        self.require(at_least_one=("supply", "demand"), not_negative=("eps",))
        if self.eps == 0 and self.supply * self.demand > LARGEST_LP:
            raise ValueError(
                f"supply * demand must be at most {LARGEST_LP} for the linear program, got "
                f"{self.supply * self.demand}: give an eps above 0"
            )
        if self.population not in ("synthetic", "raster"):
            raise ValueError(f"population must be synthetic or raster, got {self.population!r}")

    @property
    def files(self) -> tuple[str, ...]:
        """The raster, where it is asked for."""
        return (RASTER,) if self.population == "raster" else ()

    def draw_points(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Suppliers ``(supply, 3)`` and consumers ``(demand, 3)``.

        Raises:
            MissingError: the raster is absent, or is another.
        """
        if self.population == "raster":
            density = population_density()
            return draw_from_cells(rng, self.supply, density >= 0), draw_from_cells(
                rng, self.demand, density.clip(0)
            )
        return draw_uniform(rng, self.supply), draw_regions(rng, self.demand)

    def draw_weights(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Stocks ``(supply,)`` ~ Bernoulli(1/2) U(0, 1), not all zero, and needs ``(demand,)`` ~
        U(0, 1), normalised.
        """
        import numpy as np

        a = np.zeros(self.supply)
        while not a.any():
            a = rng.integers(0, 2, self.supply) * rng.random(self.supply)
        b = rng.random(self.demand)
        return a / a.sum(), b / b.sum()


def draw_uniform(rng: np.random.Generator, n: int) -> np.ndarray:
    """``(n, 3)`` points, uniform on the unit sphere."""
    import numpy as np

    return on_sphere(rng.uniform(-np.pi, np.pi, n), rng.uniform(-1, 1, n))


def draw_regions(rng: np.random.Generator, n: int) -> np.ndarray:
    """``(n, 3)`` points of the synthetic population."""
    import numpy as np

    *columns, shares = np.array(REGIONS).T
    longitude, latitude, kappa = np.array(columns)[:, rng.choice(len(shares), n, p=shares)]
    return draw_von_mises_fisher(
        rng, on_sphere(np.deg2rad(longitude), np.sin(np.deg2rad(latitude))), kappa
    )


def draw_von_mises_fisher(
    rng: np.random.Generator, mean: np.ndarray, kappa: np.ndarray
) -> np.ndarray:
    """``(n, 3)`` points of density ~ exp(kappa <mean, x>): the cosine w = <mean, x> by inversion,
    the rest uniform about the mean.

    w has the density ~ exp(kappa w) on [-1, 1] (Ulrich 1984). Takes unit vectors ``(n, 3)`` and
    concentrations ``(n,)``.
    """
    import numpy as np

    u = rng.random(len(mean))
    w = (1 + np.log(u + (1 - u) * np.exp(-2 * kappa)) / kappa)[:, None]
    tangent = draw_uniform(rng, len(mean))
    tangent -= (tangent * mean).sum(1, keepdims=True) * mean
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    return w * mean + np.sqrt(1 - w**2) * tangent


def draw_from_cells(rng: np.random.Generator, n: int, density: np.ndarray) -> np.ndarray:
    """``(n, 3)`` points of a density per area on ``(rows, columns)`` cells equal in degrees, from
    the north pole and longitude -180.
    """
    import numpy as np

    rows, columns = density.shape
    edges = np.cos(np.linspace(0, np.pi, rows + 1))  # sines of the latitudes; their steps are areas
    mass = (density * -np.diff(edges)[:, None]).ravel()
    row, column = np.divmod(rng.choice(mass.size, n, p=mass / mass.sum()), columns)
    sine = edges[row] + (edges[row + 1] - edges[row]) * rng.random(n)
    return on_sphere(2 * np.pi * (column + rng.random(n)) / columns - np.pi, sine)


def on_sphere(longitude: np.ndarray, sine: np.ndarray) -> np.ndarray:
    """``(n, 3)`` unit vectors of longitudes in radians and sines of latitudes."""
    import numpy as np

    cosine = np.sqrt(1 - sine**2)
    return np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), sine], 1)


def population_density() -> np.ndarray:
    """``(720, 1440)`` people per square kilometre of land; negative where there is no land.

    Raises:
        MissingError: the file is absent, or is another.
    """
    import numpy as np
    from PIL import Image

    with Image.open(find_checked(RASTER)) as image:
        return np.asarray(image, dtype=np.float64)
