"""Data sets: downloads against a server of our own, files that are damaged, and the loaders of
images. Nothing here needs the network.
"""

# pyright: reportMissingImports=false
# (otbench.tasks is joined to the package at run time, see otbench/__init__.py)
from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image

import otbench
from otbench import MissingError
from otbench.cli.main import main
from otbench.data import images
from otbench.data.archives import decode, open_archive
from otbench.data.catalogue import (
    DATASETS,
    FACE_ATTRIBUTES,
    FACE_PARTITION,
    FACES_HALF_SIZE,
    Dataset,
    File,
    find_checked,
)
from otbench.data.download import fetch
from otbench.data.faces import face_attribute, faces
from otbench.data.files import find, folders, present
from otbench.data.verify import check, verify
from otbench.errors import UserError
from otbench.registry import registry
from otbench.tasks.blur_permutation import BlurPermutation


CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMPRESSED = gzip.compress(CONTENT)
ZIPPED_ATTRIBUTES = "celeba/list_attr_celeba.zip"
REAL = os.environ.get("OTBENCH_DATA")  # before a test sets it
FOLDERS = ("otbench", "tasks", "solvers", "tests")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data and cache folders of the test's own, empty; the first of them."""
    monkeypatch.setenv("OTBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data"


# Downloads


class Shop(ThreadingHTTPServer):
    """Serves ``content`` under any path, well or badly as ``manner`` says, and counts requests."""

    content = CONTENT
    manner = "good"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Counter)
        self.requests = self.sent = 0
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/toy.gz"


class Counter(BaseHTTPRequestHandler):
    """Manners: ``good``; ``breaks`` the connection half way; ``stalls`` there; ``absent``."""

    def do_GET(self) -> None:
        shop = cast(Shop, self.server)
        shop.requests += 1
        body = b"" if shop.manner == "absent" else shop.content
        self.send_response(404 if shop.manner == "absent" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if shop.manner in ("breaks", "stalls"):
            body = body[: len(body) // 2]
        self.wfile.write(body)
        shop.sent += len(body)
        if shop.manner == "stalls":
            shop.closing.wait(60)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A server whose file is the data set ``toy``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        toy = Dataset(
            "A toy.",
            "To be read aloud.",
            "http://example.org",
            (File("toy/toy.gz", f"sha256:{SHA256}", server.url),),
        )
        monkeypatch.setitem(cast(dict, DATASETS), "toy", toy)
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_download_that_broke_leaves_nothing_and_is_done_again(shop: Shop, folder: Path) -> None:
    shop.manner = "breaks"
    with pytest.raises(UserError, match="nothing was kept, give the same command again") as raised:
        fetch(["toy"], accept_terms=True)
    assert "\n" not in str(raised.value) and left(folder) == []
    shop.manner = "good"
    assert fetch(["toy"], accept_terms=True)
    assert left(folder) == ["toy.gz"] and (folder / "toy" / "toy.gz").read_bytes() == CONTENT


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_downloaded_file_has_the_mode_of_any_new_file(
    shop: Shop, folder: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        assert fetch(["toy"], accept_terms=True)
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (folder / "toy" / "toy.gz").stat().st_mode & 0o777 == mode


def test_a_wrong_file_is_refused(shop: Shop, folder: Path) -> None:
    shop.content = CONTENT[::-1]
    with pytest.raises(UserError, match="not the file expected, by its checksum") as raised:
        fetch(["toy"], accept_terms=True)
    assert "\n" not in str(raised.value)
    assert left(folder) == []


def test_what_is_right_is_left_and_what_is_wrong_is_replaced(
    shop: Shop, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(["toy"], accept_terms=True) and fetch(["toy"], accept_terms=False)
    assert shop.requests == 1 and "every file is here" in capsys.readouterr().out
    (folder / "toy" / "toy.gz").write_bytes(CONTENT[:-1])
    assert fetch(["toy"], accept_terms=True)
    assert (folder / "toy" / "toy.gz").read_bytes() == CONTENT and shop.requests == 2


class Terminal(io.StringIO):
    """What someone types."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.mark.parametrize(
    ("answer", "accepted"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_terms_are_asked_about_before_anything_is_requested(
    shop: Shop,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    accepted: bool,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert main(["data", "fetch", "toy"]) == (0 if accepted else 1)
    said = capsys.readouterr().out
    assert said.index("To be read aloud.") < said.index("accept these terms? [y/N]")
    assert shop.requests == accepted and left(folder) == ["toy.gz"] * accepted


def test_without_a_terminal_terms_are_accepted_by_an_option_only(
    shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert main(["data", "fetch", "toy"]) == 2
    assert "--accept-terms" in capsys.readouterr().err and not shop.requests and not left(folder)
    assert main(["data", "fetch", "--accept-terms", "toy"]) == 0 and left(folder) == ["toy.gz"]


def test_an_interrupted_download_leaves_nothing_in_place(shop: Shop, folder: Path) -> None:
    shop.manner = "stalls"
    code = (
        "import signal, sys; from otbench.cli import main as cli\n"
        "from otbench.data import catalogue as d\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"toy = d.File('toy/toy.gz', 'sha256:{SHA256}', '{shop.url}')\n"
        "d.DATASETS['toy'] = d.Dataset('', '', '', (toy,))\n"
        "sys.exit(cli.main(['data', 'fetch', 'toy', '--accept-terms']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not shop.sent:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and not errors and left(folder) == []


def test_what_cannot_be_had_is_one_clear_line(
    shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(*names: str) -> str:
        assert main(["data", "fetch", "--accept-terms", *names]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    shop.manner = "absent"
    assert "404" in error("toy")
    assert "unknown data set 'mnst'; did you mean 'mnist'?" in error("mnst")
    assert (
        "must be got by hand" in (line := error("celeba"))
        and str(folder / "celeba" / "img_align_celeba.zip") in line
    )
    nobody = File("toy/toy.gz", f"sha256:{SHA256}", "http://127.0.0.1:1/toy.gz")
    monkeypatch.setitem(cast(dict, DATASETS), "nobody", Dataset("", "", "", (nobody,)))
    assert "refused" in error("nobody")

    monkeypatch.setenv("OTBENCH_DATA", __file__)
    shop.manner = "good"
    assert "cannot write" in error("toy")


def test_a_data_folder_that_cannot_be_written_is_passed_over(
    shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "toy").mkdir(parents=True)
    cache = folders()[-1]
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(folder)))
    assert fetch(["toy"], accept_terms=True)
    assert find("toy/toy.gz") == cache / "toy" / "toy.gz" and left(folder) == []
    (folder / "toy" / "toy.gz").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be replaced and is searched first"):
        fetch(["toy"], accept_terms=True)


# The table


def test_the_table_is_whole_and_says_what_the_tasks_say() -> None:
    listed = {file.path: file.checksum for dataset in DATASETS.values() for file in dataset.files}
    for dataset in DATASETS.values():
        assert (
            dataset.terms.endswith(".")
            and dataset.what.endswith(".")
            and dataset.source.startswith("http")
        )
        assert dataset.by_hand or all(file.url for file in dataset.files)
        assert all(
            re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum)
            for file in dataset.files
            if file.checksum
        )
        assert all(
            file.checksum for file in dataset.files if file.url
        )  # nothing is downloaded unchecked
    for name, entry in registry("task").entries.items():
        read = (
            entry.cls().files if name not in ("samples", "clouds") else ()
        )  # which are the user's own
        assert all(path in listed or path.startswith("celeba/") for path in read), name


def test_a_checksum_stands_in_the_catalogue_and_nowhere_else() -> None:
    root = Path(__file__).parent.parent
    known = [file.checksum for dataset in DATASETS.values() for file in dataset.files]
    digests = {text.partition(":")[2] for text in known if text}
    assert len(digests) == len([text for text in known if text]) == 40
    for path in (path for name in FOLDERS for path in (root / name).rglob("*.py")):
        text = path.read_text()
        assert not any(digest in text for digest in digests), path
        assert "tests" in path.parts or not re.search(r"[0-9a-f]{32}", text), path


def test_what_a_task_reads_must_have_the_checksum_of_the_catalogue(folder: Path) -> None:
    for path in ("w2_benchmark/frozen_D2.npz", FACE_ATTRIBUTES):  # by SHA-256 and by MD5
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(b"another")
        with pytest.raises(MissingError, match="is not the file expected"):
            find_checked(path)
    (folder / "w2_benchmark/frozen_D256.npz").write_bytes(b"not listed")
    assert find_checked("w2_benchmark/frozen_D256.npz").read_bytes() == b"not listed"


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("mix3tomix10", "; `otbench data fetch w2-benchmark` says how to get it"),
        ("w1-benchmark", "; `otbench data fetch w1-benchmark` says how to get it"),
        ("digit-pairs", "; `otbench data fetch mnist` fetches it"),
        ("image-generation[data=fashion-mnist]", "; `otbench data fetch fashion-mnist` fetches it"),
        ("image-generation[data=celeba]", "(`otbench data fetch celeba` says where it is from)"),
    ],
)
def test_what_is_missing_is_said_with_the_command_that_fetches_it(task: str, words: str) -> None:
    with pytest.raises(MissingError) as raised:
        otbench.solve(task, "identity")
    assert words in str(raised.value) and str(raised.value).count("otbench data fetch") == 1


def test_a_row_names_the_command_that_fetches_what_is_missing(folder, tmp_path) -> None:
    results = otbench.run("mix3tomix10", "identity", 1, results=tmp_path / "out", device="cpu")
    assert list(results.runs["status"]) == ["missing"]
    (message,) = results.runs["message"]
    assert "`otbench data fetch w2-benchmark` says how to get it" in message


def test_show_names_the_command_that_fetches_what_is_missing(capsys, tmp_path) -> None:
    main(["show", "mix3tomix10", "--out", str(tmp_path)])
    assert "`otbench data fetch w2-benchmark` says how to get it" in capsys.readouterr().err


def test_list_tells_what_is_here(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    write_idx(folder, "mnist", 3, 2)
    assert main(["data", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(DATASETS) < set(lines)
    assert (
        str(folder) in lines["mnist"]
        and "absent" in lines["celeba"]
        and "Non-commercial research only" in lines["celeba"]
    )
    (folder / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert main(["data", "list", "mnist"]) == 0 and "3 of 4 files in" in capsys.readouterr().out


# Damage


def write_zip(path: Path, contents: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def face(number: int, size: tuple[int, int] = (89, 109)) -> Image.Image:
    """A smooth picture of its own."""
    coarse = np.random.default_rng(number).integers(256, size=(5, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def name_of(number: int) -> str:
    return f"{number:06}.jpg"


def write_faces(
    folder: Path,
    n: int = 20,
    path: str = "celeba/img_align_celeba.zip",
    size: tuple[int, int] = (178, 218),
) -> Path:
    """Faces 1 to n, out of order, in an archive or, where the path ends so, a folder."""
    contents = {name_of(i): jpg(face(i, size)) for i in range(n, 0, -1)}
    place = folder / path
    if place.suffix == ".zip":
        return write_zip(
            place,
            {f"inside/{name}": content for name, content in contents.items()}
            | {"inside/about.txt": b"no picture"},
        )
    place.mkdir(parents=True)
    for name, content in contents.items():
        (place / name).write_bytes(content)
    return place


def flip_a_byte(path: Path, name: str) -> None:
    """In the middle of the stored content of an entry."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    content[entry.header_offset + 30 + len(name) + entry.file_size // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "state", "words"),
    [
        (COMPRESSED, "ok", ""),
        (COMPRESSED[:-2000], "truncated", "ended before"),
        (gzip.compress(CONTENT[::-1]), "wrong checksum", "its sha256 is not"),
        (b"<html>", "unreadable", "gzip"),
        (COMPRESSED[:5000] + b"oops" + COMPRESSED[5004:], "unreadable", ""),
    ],
)
def test_damage_to_a_compressed_file(
    tmp_path: Path, content: bytes, state: str, words: str
) -> None:
    path = tmp_path / "file.gz"
    path.write_bytes(content)
    verdict, reason = check(path, f"sha256:{hashlib.sha256(COMPRESSED).hexdigest()}")
    assert verdict == state and words in reason and "\n" not in reason


def test_verify_reads_every_face_and_names_those_that_are_damaged(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_faces(folder, 300, size=(18, 22))
    assert main(["data", "verify", "celeba"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0].split() == ["ok", str(path)]
        and [line.split()[0] for line in lines[1:]] == ["absent"] * 2
    )
    flip_a_byte(path, "inside/000123.jpg")
    assert main(["data", "verify", "celeba"]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert (
        line.startswith(f"unreadable     {path}: inside/000123.jpg: Bad CRC-32")
        and "more" not in line
    )
    flip_a_byte(path, "inside/000200.jpg")
    assert next(verify(["celeba"]))[2].endswith(", and 1 more")
    path.write_bytes(path.read_bytes()[:-5000])
    assert next(verify(["celeba"])) == ("truncated", str(path), "the archive ends early")
    path.write_bytes(b"<html>")
    assert next(verify(["celeba"]))[0] == "unreadable"


def test_verify_decodes_pictures_whose_archive_is_whole(folder: Path) -> None:
    good = jpg(face(0))
    path = write_zip(
        folder / "celeba" / "mine.zip",
        {"1.jpg": good, "2.jpg": b"no picture", "3.jpg": good[: len(good) // 2]},
    )
    state, place, reason = next(verify(["celeba"]))
    assert (
        (state, place) == ("unreadable", str(path))
        and reason.startswith("2.jpg: ")
        and reason.endswith(", and 1 more")
    )


def test_verify_finds_truncated_and_wrong_files_of_official_sets(folder: Path) -> None:
    write_idx(folder, "mnist", 3, 2)
    path = folder / "mnist" / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-10])
    assert [state for state, _, _ in verify(["mnist"])] == ["wrong checksum"] * 2 + [
        "truncated",
        "wrong checksum",
    ]


# Faces

LAYOUTS = [
    ("celeba/img_align_celeba.zip", (178, 218)),
    ("celeba/img_align_celeba", (178, 218)),
    (FACES_HALF_SIZE, (89, 109)),
    ("celeba/lfw.zip", (89, 109)),  # whatever its name but that of the attributes
]
BOXES = {(89, 109): (9, 19, 79, 89), (178, 218): (19, 39, 159, 179)}


def expected(number: int, size: tuple[int, int], side: int) -> np.ndarray:
    with Image.open(io.BytesIO(jpg(face(number, size)))) as picture:
        return np.asarray(
            picture.crop(BOXES[size]).resize((side, side), Image.Resampling.BILINEAR)
        ).transpose(2, 0, 1)


@pytest.mark.parametrize(("path", "size"), LAYOUTS)
@pytest.mark.parametrize("side", [0, 32])
def test_faces_of_every_layout(folder: Path, path: str, size: tuple[int, int], side: int) -> None:
    write_faces(folder, 20, path, size)
    loaded = images.load("celeba", side)
    side = side or 64
    assert loaded.pixels.shape == (20, 3, side, side) and loaded.pixels.dtype == np.uint8
    assert (loaded.white, loaded.learnt, loaded.labels) == (255, 18, None)
    assert images.files("celeba") == (path,)
    for number in (1, 7, 20):
        np.testing.assert_array_equal(loaded.pixels[number - 1], expected(number, size, side))


def test_the_official_archive_comes_first(folder: Path) -> None:
    for i, (path, size) in reversed(list(enumerate(LAYOUTS))):
        write_faces(folder, 5 + i, path, size)
        assert images.files("celeba") == (path,) and len(images.load("celeba", 8).pixels) == 5 + i
    assert [state for state, _, _ in verify(["celeba"])] == ["ok"] * 4 + ["absent"] * 2


def write_attributes(
    folder: Path, rows: Mapping[str, Sequence[int]], path: str = FACE_ATTRIBUTES
) -> None:
    lines = [
        str(len(rows)),
        "Bald Male Young ",
        *(f"{name} " + " ".join(f"{sign:2}" for sign in signs) for name, signs in rows.items()),
    ]
    text = "\r\n".join([*lines, ""])
    if path.endswith(".zip"):
        write_zip(
            folder / path,
            {"__MACOSX/._list_attr_celeba.txt": b"\0", "list_attr_celeba.txt": text.encode()},
        )
    else:
        (folder / path).write_text(text, newline="")


@pytest.mark.parametrize("path", [FACE_ATTRIBUTES, ZIPPED_ATTRIBUTES])
def test_attributes_are_those_of_the_faces(folder: Path, path: str) -> None:
    write_faces(folder, 4)
    signs = {name_of(i): (-1, 1 if i in (2, 3, 9) else -1, 1) for i in (9, 3, 2, 1, 4)}
    write_attributes(folder, signs, path)
    assert face_attribute("Male").tolist() == [False, True, True, False]
    assert (
        face_attribute("Male").dtype == bool
        and face_attribute("Young").all()
        and not face_attribute("Bald").any()
    )
    with pytest.raises(ValueError, match=r"one of Bald, Male, Young, got 'male'"):
        face_attribute("male")
    assert (
        len(images.load("celeba", 8).pixels) == 4
    )  # the zip of attributes is taken for no archive of faces
    of_attributes = [state for state, where, _ in verify(["celeba"]) if where.endswith(path)]
    assert of_attributes == [
        "wrong checksum" if path.endswith(".txt") else "ok"
    ]  # these are not the official ones


def test_faces_to_score_on_are_those_of_the_official_test_partition(folder: Path) -> None:
    write_faces(folder, 20, size=(89, 109))
    partition = folder / FACE_PARTITION
    partition.write_text(
        "".join(f"{name_of(i)} {0 if i < 10 else 1 if i < 15 else 2}\n" for i in range(1, 21))
    )
    assert images.load("celeba", 8).learnt == 14
    partition.write_text("".join(f"{name_of(i)} 0\n" for i in range(1, 21)))
    assert images.load("celeba", 8).learnt == 18


def test_archives_are_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_faces(folder, 5)
    first = images.load("celeba", 16)
    assert isinstance(first.pixels, np.memmap) and not first.pixels.flags.writeable
    write_attributes(folder, {name_of(i): (1, 1, -1) for i in range(1, 6)})

    def never(*_: object) -> None:
        raise AssertionError("the archive was opened")

    with monkeypatch.context() as patched:
        patched.setattr(zipfile, "ZipFile", never)
        np.testing.assert_array_equal(images.load("celeba", 16).pixels, first.pixels)
        assert face_attribute("Male").all()
        with pytest.raises(AssertionError, match="was opened"):
            images.load("celeba", 8)
    decoded = folders()[-1] / "decoded"
    (file,) = decoded.glob("*.npy")
    assert re.fullmatch(r"celeba-16-[0-9a-f]{16}\.npy", file.name)
    write_faces(folder, 6)
    os.utime(path, (1, 1))
    assert len(images.load("celeba", 16).pixels) == 6 and len(first.pixels) == 5


def test_two_processes_may_decode_at_once_and_a_killed_one_harms_nothing(folder: Path) -> None:
    write_faces(folder, 300, size=(89, 109))
    decoded = folders()[-1] / "decoded"
    code = (
        "import hashlib; from otbench.data import images; "
        "print(hashlib.sha256(images.load('celeba', 32).pixels.tobytes()).hexdigest())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert outputs == {hashlib.sha256(images.load("celeba", 32).pixels.tobytes()).hexdigest()}
    (file,) = decoded.glob("*.npy")
    whole = file.read_bytes()
    assert not list(decoded.glob("*.part"))
    file.unlink()
    file.with_name(file.name + ".part").write_bytes(whole[:1000])
    assert images.load("celeba", 32).pixels.shape == (300, 3, 32, 32)
    assert file.read_bytes() == whole and not list(decoded.glob("*.part"))


def missing(call: str) -> str:
    """The error line of loading faces, or their attribute; nothing half done is kept."""
    with pytest.raises(MissingError) as raised:
        images.load("celeba", 16) if call == "load" else face_attribute("Male")
    assert not [path for path in folders()[-1].rglob("*") if path.suffix in (".npy", ".part")]
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_faces_that_cannot_be_read_are_one_clear_line(folder: Path, tmp_path: Path) -> None:
    assert "no CelebA faces: put img_align_celeba.zip into" in missing("load") and str(
        folder / "celeba"
    ) in missing("load")
    path = write_faces(folder, 300, size=(89, 109))
    flip_a_byte(path, "inside/000123.jpg")
    line = missing("load")
    assert (
        str(path) in line
        and "inside/000123.jpg is damaged" in line
        and "`otbench data verify celeba`" in line
    )
    path.write_bytes(path.read_bytes()[:-100])
    path.with_name("mine.zip").write_bytes(b"")  # another, of no account
    assert "is cut off, or no zip archive" in missing("load")
    good = jpg(face(1))
    write_zip(path, {"1.jpg": good, "2.jpg": b"no picture"})
    assert "2.jpg is damaged (cannot identify image" in missing("load")
    write_zip(path, {"1.jpg": good, "2.jpg": jpg(face(2, (178, 218)))})
    assert "1.jpg and 2.jpg are of different sizes, 89 x 109 and 178 x 218" in missing("load")
    write_zip(path, {"1.jpg": jpg(face(1, (64, 64)))})
    assert "1.jpg is 64 x 64, not of the proportions 178 x 218" in missing("load")
    write_zip(path, {"1.png": good})
    assert "holds no pictures (*.jpg)" in missing("load")
    path.unlink()
    (folder / "celeba" / "img_align_celeba").mkdir()
    assert "holds no pictures (*.jpg)" in missing("load")


def test_attributes_that_do_not_fit_are_one_clear_line(folder: Path) -> None:
    assert "no CelebA faces" in missing("attribute")
    write_faces(folder, 3)
    assert "no celeba/list_attr_celeba.txt beside" in missing("attribute")
    write_attributes(folder, {name_of(i): (1, 1, 1) for i in (1, 2)})
    assert "has no attributes of 000003.jpg" in missing("attribute")
    (folder / FACE_ATTRIBUTES).write_text(
        "202599\nBald Male Young\n000001.jpg 1 1 1\n000002.jpg 1\n000003.jpg 1 1 1\n"
    )
    assert "has no attributes of 000002.jpg" in missing("attribute")
    (folder / FACE_ATTRIBUTES).write_text("")
    assert "has no attributes of 000001.jpg" in missing("attribute")
    (folder / FACE_ATTRIBUTES).unlink()
    (folder / ZIPPED_ATTRIBUTES).write_bytes(b"PK\3\4")
    assert "is cut off, or no zip archive" in missing("attribute")


def test_a_cache_that_cannot_be_kept_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_faces(folder, 3)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.posix_fallocate", full)
    assert "No space left on device): set XDG_CACHE_HOME" in missing("load")
    monkeypatch.setenv("XDG_CACHE_HOME", __file__)
    assert "cannot keep decoded images in" in missing("load")


# Digits and clothes


def write_idx(folder: Path, name: str, train: int, test: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels, the training ones first."""
    rng = np.random.default_rng(0)
    pixels, labels = (
        rng.integers(256, size=(train + test, 28, 28), dtype=np.uint8),
        rng.integers(10, size=train + test, dtype=np.uint8),
    )
    (folder / name).mkdir(parents=True)
    for part, kept in (("train", slice(train)), ("t10k", slice(train, None))):
        for kind, array in (("images-idx3", pixels[kept]), ("labels-idx1", labels[kept])):
            header = np.array([0x800 + array.ndim, *array.shape], ">i4").tobytes()
            (folder / name / f"{part}-{kind}-ubyte.gz").write_bytes(
                gzip.compress(header + array.tobytes())
            )
    return pixels, labels


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files(folder: Path, name: images.Data) -> None:
    with pytest.raises(MissingError, match=f"no data file {name}/train-images"):
        images.load(name)
    pixels, labels = write_idx(folder, name, 7, 3)
    loaded = images.load(name)
    np.testing.assert_array_equal(loaded.pixels[:, 0], pixels)
    np.testing.assert_array_equal(loaded.labels, labels)
    assert (loaded.white, loaded.learnt) == (255, 7) and isinstance(loaded.pixels, np.memmap)
    halved = images.load(name, 14).pixels
    assert halved.shape == (10, 1, 14, 14)
    assert np.abs(halved[:, 0] - pixels.reshape(10, 14, 2, 14, 2).mean((2, 4))).max() <= 0.5
    assert images.load(name, 32).pixels.shape == (10, 1, 32, 32)
    assert [path.split("/")[0] for path in images.files(name)] == [name] * 4 and all(
        map(find, images.files(name))
    )


def test_idx_files_that_do_not_fit_are_one_clear_line(folder: Path) -> None:
    write_idx(folder, "mnist", 7, 3)
    labels = folder / "mnist" / "t10k-labels-idx1-ubyte.gz"
    labels.replace(folder / "mnist" / "train-labels-idx1-ubyte.gz")
    with pytest.raises(MissingError, match="no data file mnist/t10k-labels"):
        images.load("mnist")
    labels.write_bytes((folder / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(MissingError, match="holds 6 labels of 10 images"):
        images.load("mnist")
    (folder / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(labels.read_bytes())
    with pytest.raises(MissingError, match="no square images of one size"):
        images.load("mnist", 14)
    (folder / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(labels.read_bytes()[:-9])
    with pytest.raises(MissingError, match="is not a gzipped IDX file"):
        images.load("mnist", 14)


def test_the_digits_of_scikit_learn() -> None:
    loaded = images.load("digits")
    assert (
        loaded.pixels.shape == (1797, 1, 8, 8)
        and loaded.pixels.max() == loaded.white == 16
        and loaded.learnt == 1500
    )
    assert (
        loaded.labels is not None
        and loaded.labels[:10].tolist() == list(range(10))
        and images.files("digits") == ()
    )
    small = images.load("digits", 4).pixels
    assert np.abs(small[:, 0] - loaded.pixels.reshape(1797, 4, 2, 4, 2).mean((2, 4))).max() <= 0.5
    parts = [images.digits("digits", part) for part in ("train", "test")]
    assert [len(pixels) for pixels, _ in parts] == [1000, 797]
    np.testing.assert_array_equal(
        np.concatenate([pixels for pixels, _ in parts]), loaded.pixels[:, 0]
    )
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts]), loaded.labels)


# Real data


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data folder of the person who runs the tests; skips without one."""
    if not REAL:
        pytest.skip("OTBENCH_DATA names no folder of real data")
    monkeypatch.setenv("OTBENCH_DATA", REAL)


def test_real_files_are_whole(real: None) -> None:
    states = {path: (state, reason) for state, path, reason in verify(DATASETS)}
    wrong = {path: state for path, state in states.items() if state[0] not in ("ok", "absent")}
    assert not wrong
    if not any(state == "ok" for state, _ in states.values()):
        pytest.skip("no data set is here")


def test_real_faces_are_those_of_the_recorded_results(real: None) -> None:
    """Of the first 10,000 at half size, which the reference results of blur permutation are of."""
    if images.files("celeba") != (FACES_HALF_SIZE,) or not faces():
        pytest.skip(f"{FACES_HALF_SIZE} is absent, or another archive comes first")
    loaded = images.load("celeba", 32)
    golden = "3a816cf8a36f971c9be74da5feaaf1d75532d0ae295ec119f638439d2c21b972"
    assert loaded.pixels.shape == (10_000, 3, 32, 32) and loaded.learnt == 9000
    assert hashlib.sha256(loaded.pixels[:16].tobytes()).hexdigest() == golden
    assert (
        hashlib.sha256(BlurPermutation(data="celeba", n=16)._distinct().tobytes()).hexdigest()
        == golden
    )
    with open_archive(find(FACES_HALF_SIZE)) as (names, read):
        again = (
            decode(read(names[-1]))
            .convert("RGB")
            .crop((9, 19, 79, 89))
            .resize((32, 32), Image.Resampling.BILINEAR)
        )
    np.testing.assert_array_equal(loaded.pixels[-1], np.asarray(again).transpose(2, 0, 1))


def test_real_attributes(real: None) -> None:
    if not faces() or not present([FACE_ATTRIBUTES, ZIPPED_ATTRIBUTES]):
        pytest.skip("CelebA or its attributes are absent")
    male = face_attribute("Male")
    assert male.shape == (len(images.load("celeba", 32).pixels),) and 0.3 < male.mean() < 0.5


def test_real_digits(real: None) -> None:
    try:
        loaded = images.load("mnist")
    except MissingError as error:
        pytest.skip(str(error))
    assert loaded.pixels.shape == (70_000, 1, 28, 28) and loaded.learnt == 60_000
    assert loaded.labels is not None and loaded.labels[[0, 1, 60_000]].tolist() == [5, 0, 7]
    train, labels = images.digits("mnist", "train")
    np.testing.assert_array_equal(train, loaded.pixels[:60_000, 0])
    np.testing.assert_array_equal(labels, loaded.labels[:60_000])
