"""The data sets that tasks read: what they are and on which terms, where they come from, and
whether the files that are here are whole.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from otbench.data.files import checksum, folders, present
from otbench.data.images import (
    ATTRIBUTES,
    FACES,
    PARTITION,
    decoded,
    each,
    entries,
    faces,
    is_picture,
)
from otbench.errors import MissingError, UserError, nearest
from otbench.scoring.features.networks import INCEPTION, VGG


if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class File:
    """One file of a data set.

    Attributes:
        path: inside a data folder.
        checksum: of the official file, ``sha256:...`` or ``md5:...``; None where there is no one
            such file.
        url: where it is downloaded from; None where it must be got by hand.
        stand_ins: finds all that will do in its place, itself included, where it is not the only
            one that will.
    """

    path: str
    checksum: str | None = None
    url: str | None = None
    stand_ins: Callable[[], Sequence[Path]] | None = None

    def found(self) -> Sequence[Path]:
        """Where it is, in the order in which places are searched."""
        return self.stand_ins() if self.stand_ins else present([self.path])

    def state(self, path: Path) -> tuple[str, str]:
        """What `fault` says of a file that was found."""
        return fault(path, self.checksum if path.name == Path(self.path).name else None)


@dataclass(frozen=True)
class Dataset:
    """A set of files with one source and one licence.

    Attributes:
        what: it is, in a line.
        terms: of use, in a sentence.
        source: the page of its authors.
        files: that tasks read.
        by_hand: how to get the files that have no URL.
    """

    what: str
    terms: str
    source: str
    files: tuple[File, ...]
    by_hand: str = ""


def _files(folder: str, checksums: Mapping[str, str], url: str | None = None) -> tuple[File, ...]:
    """Files of a folder; what stands before ``url`` and a name downloads it."""
    return tuple(
        File(f"{folder}/{name}", known, url and url + name) for name, known in checksums.items()
    )


DATASETS: Mapping[str, Dataset] = {
    "mnist": Dataset(
        "Handwritten digits: 60,000 to learn from and 10,000 to test on, 28 x 28, grey (LeCun, Cortes & Burges).",
        "CC BY-SA 3.0, as usually stated: share alike, and name the authors.",
        "http://yann.lecun.com/exdb/mnist/",
        _files(
            "mnist",
            {
                "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            },
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ),
    ),
    "fashion-mnist": Dataset(
        "Articles of clothing: as MNIST in number, size and format (Xiao, Rasul & Vollgraf 2017).",
        "MIT licence, Zalando SE.",
        "https://github.com/zalandoresearch/fashion-mnist",
        _files(
            "fashion-mnist",
            {
                "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
                "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
                "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
            },
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
    ),
    "celeba": Dataset(
        "Aligned faces of celebrities: 202,599 of 178 x 218, in colour, with 40 attributes (Liu, Luo, Wang & Tang 2015).",
        "Non-commercial research only; the images are not to be redistributed or published.",
        "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        (
            File(FACES[0], stand_ins=faces),
            File(
                ATTRIBUTES[0],
                "md5:75e246fa4810816ffd6ee81facbd244c",
                stand_ins=lambda: present(ATTRIBUTES),
            ),
            File(
                PARTITION, "sha256:fc955bcb3ef8fbdf7d5640d9a8693a8431b5f2ee291a5c1449a1549e7e073fe7"
            ),
        ),
        "agree to the terms on that page and take img_align_celeba.zip (of Img), list_attr_celeba.txt (of Anno) and "
        "list_eval_partition.txt (of Eval) from the drive it links to",
    ),
    "world-population": Dataset(
        "Density of the world's population in 2020, on cells of 1/4 degree (Gridded Population of the World 4.11).",
        "CC BY 4.0, CIESIN, Columbia University: name the authors.",
        "https://doi.org/10.7927/H49C6VHW",
        _files(
            "world_population",
            {
                "gpw_v4_population_density_rev11_2020_15_min.tif": "sha256:"
                "6be604e349c381b4a2b7c55b29b71e70d3dcea2bffdbb426c9e9428010c40911",
            },
        ),
        "log in there (an Earthdata account is free), and take population density of 2020 at 15 minutes as GeoTIFF",
    ),
    "photographs": Dataset(
        "Five photographs of POT's examples, whose colours are transferred (Flamary et al. 2021).",
        "MIT licence, the authors of POT.",
        "https://pythonot.github.io",
        tuple(
            File(
                f"color_transfer/pot_{name}.jpg",
                f"sha256:{known}",
                f"https://raw.githubusercontent.com/PythonOT/POT/3f46a247b174918e24e2e448b21de21bb0037b2c/data/{name}.jpg",
            )
            for name, known in {
                "autumn": "b5deb993080efd59746555d37ac51b10182aaca49b9ec93f8acf00f41d1bc0ca",
                "fallingwater": "279f4ec8408abe8c165cbc3db3ed4512c8eb271795443d01c0df1ce2804b9d08",
                "ocean_day": "084ae49297ef39834e9ccfbfd8b138aa28db0ad8dc8dd05c1b304598edb1c506",
                "ocean_sunset": "616462bfa6f82c1eba1f3395a95aedc4ff57916ea6e9bcc871fe3747f2894dd1",
                "woods": "ed1d58603b5262218bf4eb71c3f2f53844374cbc94c46a67a6ac05730866fb73",
            }.items()
        ),
    ),
    "w2-benchmark": Dataset(
        "Pairs of the Wasserstein-2 benchmark in dimensions 2, 4, 16 and 64 (Korotin et al. 2021).",
        "MIT licence, A. Korotin.",
        "https://github.com/iamalexkorotin/Wasserstein2Benchmark",
        _files(
            "w2_benchmark",
            {
                "Mix3toMix10/2_v1.pt": "sha256:12fbf72953af1371002cb4a0b67757bd63b335e923fc5f7d4076fbeb81ee72b5",
                "Mix3toMix10/2_v2.pt": "sha256:28d161bf7b352d678fb77f512b51266574da06455d3eabf9173695813efc1716",
                "frozen_D2.npz": "sha256:80ea24fdcafdb016483a6d2514e44282c1e4e8293dc28e0ff791978ff153c08a",
                "Mix3toMix10/4_v1.pt": "sha256:edbe9ff24297c685d070811930f2d17b63f0fd299cba0f792617798211e1bbc2",
                "Mix3toMix10/4_v2.pt": "sha256:ec2a061e00be682b5212cfd9801d6d874768bd8b7ba3c2a80e2dc48d5a473425",
                "frozen_D4.npz": "sha256:4c0a0788823456d3b211715b33dbb80002c684a6d5b9c4bd6f1b38f19c7e0e40",
                "Mix3toMix10/16_v1.pt": "sha256:d50a23710ca3b71a01007cd53c6b578de087c9879e0506866bac9196357e1891",
                "Mix3toMix10/16_v2.pt": "sha256:722088932a1a0dbbf9cc1e90a6b9d86df0536f4520caf205b33161c74c0dd574",
                "frozen_D16.npz": "sha256:f05043a11dbf09eff4865afef09116b1228cc56b9005414bd875c62b724f5309",
                "Mix3toMix10/64_v1.pt": "sha256:ea8778313115151315cdc4a60198fea41e18800295559391c97e9a49b5b8f56c",
                "Mix3toMix10/64_v2.pt": "sha256:2bbc6d8e5c7f29a6e188e23ea10b811e1b07b1bd0f355cc8916356eed2e7428b",
                "frozen_D64.npz": "sha256:cc2c6fee630a50e2802d49e4b2dc3bd29ad1ad775bc5920d2bca69f0c8e1a0db",
            },
        ),
        "the repository says where its networks {dim}_v1.pt and {dim}_v2.pt are; frozen_D{dim}.npz keeps what its code draws at random, "
        "laid out as tasks/mix3tomix10.py says",
    ),
    "w1-benchmark": Dataset(
        "Pairs of the Wasserstein-1 benchmark: 4 or 64 funnels in dimensions 2 to 128 (Korotin, Kolesov & Burnaev 2022).",
        "MIT licence, A. Korotin.",
        "https://github.com/iamalexkorotin/Wasserstein1Benchmark",
        _files(
            "w1_benchmark/nd",
            {
                "dim_2/width_4/deg_8_seed_987.pt": "sha256:c9c8361014f34d583412f137e06f48f7ece753b3a443a6fd293354bb874954a5",
                "dim_2/width_64/deg_8_seed_987.pt": "sha256:c1b19097a6d69aa40cc1461b6a9d314222896d7879b997f747f2e9eac8475d0d",
                "dim_4/width_4/deg_8_seed_987.pt": "sha256:dc4b5ef2e8120b266bb88d160ef2cc47f57a777b2d73144c6459cca0e59c96a6",
                "dim_4/width_64/deg_8_seed_987.pt": "sha256:6fd58e18ee477d4a46afe502a2fa6d373ddb25c68dca4e0be524808ac2d65d05",
                "dim_8/width_4/deg_8_seed_987.pt": "sha256:e2b59b6d0b9119f93b2667393a9708784c69a92f85c796dc1e0a9ec441458468",
                "dim_8/width_64/deg_8_seed_987.pt": "sha256:9968f17242eef5db86259397bc5f602ae83a0d78af67f9a1aec8a2f567567162",
                "dim_16/width_4/deg_8_seed_987.pt": "sha256:2e67f37dc1b180d8496eaccf274fa21ab5300fbd1dc44893973a6344d22cd4ee",
                "dim_16/width_64/deg_8_seed_987.pt": "sha256:1a956e1fcadb0a453f2b84dd1518e1d1c912bbd7dd320d118eb0e8302a109666",
                "dim_64/width_4/deg_8_seed_987.pt": "sha256:fb4198a29d1093e4d51bf10518069ad271753960ef38987a35944af4ce1c010a",
                "dim_64/width_64/deg_8_seed_987.pt": "sha256:f7f06031ce278a9ddd493a77702ebb796bf53455d0e60a3c72b9ba26850a409e",
                "dim_128/width_4/deg_8_seed_987.pt": "sha256:37d3e0f294f04f43f1e36e29a827aff984b0eb1f12bc9af9f56967c80023ba1f",
                "dim_128/width_64/deg_8_seed_987.pt": "sha256:12adf4288b829f4be332532ad111494e34b1b2e5aab4a1e702325e690bced99d",
            },
        ),
        "the repository says where its funnels, the folder nd, are",
    ),
    "weights": Dataset(
        "Weights of the networks that the metrics fid and lpips look at images with: torch-fidelity's Inception, torchvision's VGG16.",
        "Apache 2.0 (torch-fidelity, after TensorFlow's) and BSD (torchvision).",
        "https://github.com/toshas/torch-fidelity",
        (File(INCEPTION), File(VGG)),
        "torch-fidelity and torchvision download them into torch's hub folder at first use: copy them from there",
    ),
}


def chosen(names: Iterable[str]) -> list[str]:
    """The names, all of them where none is given.

    Raises:
        UserError: one is unknown.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in DATASETS:
            raise UserError(
                f"unknown data set {name!r}{nearest(name, DATASETS)} (`otbench data list` shows them)"
            )
    return names or list(DATASETS)


def listed(names: Iterable[str]) -> Table:
    """The data sets, where they are here, and their terms."""
    from rich import box
    from rich.table import Column, Table

    table = Table("name", "what", Column("where", overflow="fold"), "terms", box=box.SIMPLE)
    for name in names:
        dataset = DATASETS[name]
        table.add_row(name, dataset.what, _where(dataset), dataset.terms)
    return table


def _where(dataset: Dataset) -> str:
    found = [path for file in dataset.files for path in file.found()[:1]]
    if not found:
        return "absent"
    places = [folder for folder in folders() if any(path.is_relative_to(folder) for path in found)]
    part = (
        ""
        if len(found) == len(dataset.files)
        else f"{len(found)} of {len(dataset.files)} files in "
    )
    return part + " and ".join(map(str, places))


def verify(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """State (``absent``, or what `fault` says), path and reason of each file of the data sets, one
    after another.
    """
    for name in names:
        for file in DATASETS[name].files:
            found = file.found()
            if not found:
                yield "absent", file.path, ""
            for path in found:
                state, reason = file.state(path)
                yield state, str(path), reason


def fault(path: Path, expected: str | None) -> tuple[str, str]:
    """``ok``, ``truncated``, ``unreadable`` or ``wrong checksum``, and the reason.

    Args:
        path: a file; archives of which no checksum is known are read to the end and their pictures
            decoded, as are those of a folder.
        expected: its checksum, as in `File`.
    """
    algorithm, _, digest = (expected or "").partition(":")
    if expected and checksum(path, algorithm) == digest:
        return "ok", ""
    try:
        damaged = _damage(path)
    except EOFError as error:
        return "truncated", str(error)
    except MissingError as error:
        with open(path, "rb") as file:
            begins_well = b"PK\3\4".startswith(file.read(4))
        return (
            ("truncated", "the archive ends early") if begins_well else ("unreadable", str(error))
        )
    except (OSError, zlib.error) as error:
        return "unreadable", str(error)
    if damaged:
        return "unreadable", damaged[0] + (f", and {len(damaged) - 1} more" if damaged[1:] else "")
    return ("wrong checksum", f"its {algorithm} is not {digest}") if expected else ("ok", "")


def _damage(path: Path) -> list[str]:
    """Read an archive or a folder to the end; what is wrong with which file in it."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(2**20):
                pass
    elif path.is_dir() or path.suffix in (".zip", ".npz", ".pt"):
        return _damaged_entries(path)
    return []


def _damaged_entries(place: Path) -> list[str]:
    """What is wrong with which file of an archive or folder."""
    with entries(place) as (names, read):

        def wrong(name: str) -> str | None:
            try:
                content = read(name)
                if is_picture(name):
                    decoded(content)
            except (
                Exception
            ) as error:  # whatever zipfile, its decompressors and Pillow make of damaged content
                reason = str(error).split("\n")[0]
                return f"{name}: {reason}"
            return None

        return [text for text in each(wrong, names) if text is not None]
