"""Python environments of solvers whose packages conflict with those of others.

A solver that names an ``environment``, such as ``("ott-jax==0.5.1",)``, is run by the Python of a
virtual environment of its own, which `create` makes, from the command line ``otbench env create``.
It has the packages of the environment that otbench is installed in, but for those that the solver
requires in other versions. They are kept in ``$OTBENCH_ENVIRONMENTS``, else in ``otbench/
environments`` of ``$XDG_CACHE_HOME`` or ``~/.cache``.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path

from otbench.errors import MissingError, UserError


MADE_FOR = "requirements.txt"  # written last: an environment without it is not whole


def home() -> Path:
    """The folder of all environments, an absolute path."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "otbench", "environments")
    return Path(os.environ.get("OTBENCH_ENVIRONMENTS") or cache).expanduser().absolute()


def interpreter(solver: str, requirements: Sequence[str]) -> str:
    """The Python that runs a solver.

    Args:
        solver: its name.
        requirements: of its environment; none where it has no environment of its own.

    Raises:
        MissingError: the environment was not made, or for other requirements or another Python.
    """
    if not requirements:
        return sys.executable
    folder = home() / solver
    remedy = f"remedy: otbench env create {solver}"
    if not (folder / MADE_FOR).is_file():
        raise MissingError(
            f"{solver} runs in an environment of its own ({', '.join(requirements)}); {remedy}"
        )
    if (folder / MADE_FOR).read_text(encoding="utf-8") != _made_for(requirements):
        raise MissingError(f"the environment {folder} was made for other packages; {remedy}")
    if not os.access(_python(folder), os.X_OK):
        raise MissingError(f"the environment {folder} has no Python any more; {remedy}")
    return str(_python(folder))


def create(solver: str, requirements: Sequence[str]) -> Path:
    """Make the environment of a solver, in place of one that is there; its folder.

    Raises:
        UserError: pip cannot install the requirements, or the folder cannot be written.
    """
    folder = home() / solver
    try:
        (folder / MADE_FOR).unlink(missing_ok=True)  # first: what is left of it is not whole
        venv.EnvBuilder(clear=True, symlinks=True).create(folder)
        for packages in (folder / "lib").glob("python*/site-packages"):
            # Behind its own packages come those of this environment, editable ones too.
            lines = "; ".join(f"site.addsitedir({path!r})" for path in _packages())
            (packages / "zz_otbench.pth").write_text(f"import site; {lines}\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror}") from error
    except ValueError as error:  # a separator of paths in its name
        raise UserError(f"OTBENCH_ENVIRONMENTS: {error}") from error
    command = [sys.executable, "-m", "pip", "--python", str(_python(folder)), "install"]
    done = subprocess.run(
        [*command, "--disable-pip-version-check", "--quiet", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = (lines or done.stderr.splitlines() or ["no reason given"])[-1]
        raise UserError(
            f"pip cannot install {' '.join(requirements)} in {folder}: "
            f"{reason.removeprefix('ERROR: ')}"
        )
    (folder / MADE_FOR).write_text(_made_for(requirements), encoding="utf-8")
    return folder


def remove(solver: str) -> Path:
    """Delete the environment of a solver; its folder.

    Raises:
        UserError: there is none, or it cannot be deleted.
    """
    folder = home() / solver
    if not folder.is_dir():
        raise UserError(f"no environment of {solver} in {home()}")
    try:
        (folder / MADE_FOR).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"cannot delete {folder}: {error.strerror}") from error
    return folder


def versions(requirements: Sequence[str]) -> str:
    """What this process has of the requirements, as ``ott-jax==0.5.1``; those that are addresses
    or folders as they are.
    """
    return ", ".join(map(_version, requirements))


def _version(requirement: str) -> str:
    name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return requirement


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _packages() -> list[str]:
    """The folders of this environment's packages."""
    found = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return list(dict.fromkeys(found))


def _made_for(requirements: Sequence[str]) -> str:
    """What an environment is made for: the requirements, this Python and its packages."""
    lines = [*requirements, *(f"# {path}" for path in [sys.version.split()[0], *_packages()])]
    return "\n".join(lines) + "\n"
