"""Palette pairs: learn from transport between the colours of pictures to recolour new pictures at
once.

A picture is a measure on the cube [0, 1]^3 of red, green and blue: the centres of clusters of its
pixels, weighted by their shares. Asked for is the entropic plan between the palettes of two
pictures, for the cost ||x - y||^2 (Truong & Nguyen 2026):

    min <C, P> + eps KL(P | a b')    over P >= 0 with P 1 = a and P' 1 = b.

Pairs are random ordered pairs of two different pictures. The held-out ones are of pictures that no
training pair shows: of three of the ten that come with scikit-image and scikit-learn, trained on
the other seven, or of five photographs of POT's documentation, trained on all ten. So few pictures
make few pairs, most of which are seen again with every seed.

The truth of the held-out pairs is Sinkhorn's algorithm in float64, to a marginal error of 1e-9, or
with eps = 0 the exact linear program (network simplex, POT's ``ot.emd``), on values as rounded to
the dtype asked for. Training pairs are not solved.

Hard for predictors: points and weights both change from pair to pair, point i of one palette has
nothing to do with point i of another, and at so small an eps Sinkhorn's algorithm takes more
than five hundred iterations from zero.

Palettes are found by mini-batch k-means (Sculley 2010) of the pictures at a longest side of 256
pixels, the same for all pairs and seeds. The photographs are found by `otbench.data.files` as
``color_transfer/pot_*.jpg`` (MIT licence, as POT). Of the built-in pictures that are shown,
``china`` is by danielbuechele (flickr.com/photos/danielbuechele, CC BY 2.0), ``coffee`` by Rachel
Michetti and ``rocket`` by SpaceX (CC0).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from otbench import SQEUCLIDEAN, AmortizedProblem, DiscreteProblem, MissingError, Task, Truth
from otbench.data.catalogue import find_checked
from otbench.methods.discrete import certificate, solved


if TYPE_CHECKING:
    import numpy as np
    import torch

    Tensor = torch.Tensor

# Where the packages keep them.
BUILT_IN = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "chelsea": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "immunohistochemistry": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
PHOTOGRAPHS = {
    name: f"color_transfer/pot_{name.replace('-', '_')}.jpg"
    for name in ("autumn", "fallingwater", "ocean-day", "ocean-sunset", "woods")
}
HELD_OUT = ("china", "coffee", "rocket")  # of the built-in ones

COLOURS = 500
SIDE = 256  # longest side of a picture in pixels
MOST_COLOURS = 4096  # of a palette

Names = tuple[str, str]


@dataclass(frozen=True)
class PalettePairs(Task):
    """Pairs of palettes of pictures.

    Attributes:
        colours: points of a palette.
        eps: entropic regularisation in cost units; 0 asks for the linear program.
        train: training pairs.
        test: held-out pairs, the same for every ``train``.
        held_out: pictures of the held-out pairs: three ``built-in`` ones, or five ``photographs``,
            which need their files.
    """

    name: ClassVar[str] = "palette-pairs"
    setting: ClassVar[str] = "amortized"
    needs: ClassVar[tuple[str, ...]] = ("ot", "skimage", "sklearn", "PIL")
    colours: int = COLOURS
    eps: float = 0.005
    train: int = 40
    test: int = 6
    held_out: Literal["built-in", "photographs"] = "built-in"

    def __post_init__(self) -> None:
        """Refuse palettes of one colour, unknown pictures, and more pairs than there are."""
        if not 2 <= self.colours <= MOST_COLOURS:
            raise ValueError(f"colours must be from 2 to {MOST_COLOURS}, got {self.colours}")
        self.require(not_negative=("eps",))
        if self.held_out not in ("built-in", "photographs"):
            raise ValueError(f"held_out must be built-in or photographs, got {self.held_out!r}")
        for field, least, names in (("train", 0, self.pictures[0]), ("test", 1, self.pictures[1])):
            number, most = getattr(self, field), len(names) * (len(names) - 1)
            if number < least:
                raise ValueError(f"{field} must be at least {least}, got {number}")
            if number > most:
                raise ValueError(
                    f"{field} must be at most {most}, the number of ordered pairs of {len(names)} "
                    f"pictures, got {number}"
                )

    @property
    def files(self) -> tuple[str, ...]:
        """The photographs, where they are asked for."""
        return tuple(PHOTOGRAPHS.values()) if self.held_out == "photographs" else ()

    @property
    def pictures(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the pictures of the training pairs and of the held-out ones."""
        held_out = HELD_OUT if self.held_out == "built-in" else tuple(PHOTOGRAPHS)
        return tuple(name for name in BUILT_IN if name not in held_out), held_out

    def draw_names(self, rng: np.random.Generator) -> tuple[list[Names], list[Names]]:
        """Pictures of the training pairs and of the held-out ones, in order, without repetition."""

        def draw(stream: np.random.Generator, names: tuple[str, ...], number: int) -> list[Names]:
            pairs = list(itertools.permutations(names, 2))
            return [pairs[i] for i in stream.permutation(len(pairs))[:number]]

        train, test = rng.spawn(
            2
        )  # so that held-out pairs do not depend on the number of training pairs
        return draw(train, self.pictures[0], self.train), draw(test, self.pictures[1], self.test)

    def problem(
        self, rng: np.random.Generator, *, device: str, dtype: torch.dtype
    ) -> AmortizedProblem:
        """Draw the pairs from ``rng`` and find the palettes.

        Raises:
            MissingError: a picture is absent, or is another.
        """
        import numpy as np
        import torch

        @functools.cache
        def palette(name: str) -> tuple[Tensor, Tensor, Tensor]:
            _, labels, centres = _clustered(_path(name), self.colours)
            shares = np.bincount(labels.ravel(), minlength=self.colours) / labels.size
            points, weights = (
                torch.tensor(values, device=device, dtype=dtype) for values in (centres, shares)
            )
            return points, weights, torch.tensor(labels, device=device, dtype=torch.int64)

        def pair(names: Names) -> DiscreteProblem:
            (x, a, pixels), (y, b, target_pixels) = map(palette, names)
            return DiscreteProblem(
                x, a, y, b, SQEUCLIDEAN, Truth("none"), self.eps, pixels, target_pixels
            )

        train, test = ([pair(names) for names in drawn] for drawn in self.draw_names(rng))
        held_out = [solved(pair) for pair in test]
        return AmortizedProblem(train, held_out, SQEUCLIDEAN, Truth(certificate(self.eps)))


def picture_and_labels(name: str, colours: int = COLOURS) -> tuple[np.ndarray, np.ndarray]:
    """A picture ``(h, w, 3)`` with values in [0, 1], and of each pixel ``(h, w)`` the index of its
    colour in the palette, to recolour it.

    Raises:
        MissingError: the picture is absent, or is another.
        KeyError: there is none of this name.
    """
    picture, labels, _ = _clustered(_path(name), colours)
    return picture, labels


def _path(name: str) -> Path:
    """Where a picture is.

    Raises:
        MissingError: it is absent, or is another.
    """
    if name in PHOTOGRAPHS:
        return find_checked(PHOTOGRAPHS[name])
    package, file = BUILT_IN[name]
    path = Path(str(files(package))) / file
    if not path.is_file():
        raise MissingError(f"no picture {path}: install a release of {package} that ships it")
    return path


@functools.cache
def _clustered(path: Path, colours: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture ``(h, w, 3)``, the colour of each pixel ``(h, w)``, and the colours ``(colours,
    3)``; none of them can be written to.
    """
    import numpy as np
    from PIL import Image, ImageOps
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    with Image.open(path) as image:
        picture = np.asarray(ImageOps.contain(image.convert("RGB"), (SIDE, SIDE))) / 255
    clusters = MiniBatchKMeans(colours, n_init=4, batch_size=4096, random_state=0)  # type: ignore[arg-type]
    with threadpool_limits(1):  # so that rounding does not depend on their number
        labels = clusters.fit_predict(picture.reshape(-1, 3)).reshape(picture.shape[:2])
    found = picture, labels, np.clip(clusters.cluster_centers_, 0, 1)
    for array in found:
        array.setflags(write=False)
    return found
