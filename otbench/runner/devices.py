"""Devices that runs may use: the CPU, NVIDIA GPUs and their MIG devices (CUDA_VISIBLE_DEVICES,
``--device cuda:1``).

Each worker sees one GPU, by ``CUDA_VISIBLE_DEVICES``. CUDA reads that when a process first asks it
for anything, and never again; of MIG devices it shows a process only the first that is named. So
they are found with ``nvidia-smi``, which does not open CUDA, and by their UUIDs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from otbench.errors import UserError
from otbench.job import Gpu


SMI = "nvidia-smi"
FIELDS = ("uuid", "name", "driver_version", "clocks.max.sm", "power.limit")
CARD = re.compile(r"GPU \d+: .*\(UUID: (GPU-\S+)\)")
MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (MIG-\S+)\)")

JAX_MEMORY = (
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)


def find_device(wanted: str) -> str:
    """``cpu`` or ``cuda``; see `find_devices`.

    Raises:
        UserError: cuda was asked for and cannot be used here.
    """
    return find_devices(wanted)[0]


def find_devices(wanted: str) -> tuple[str, tuple[Gpu, ...]]:
    """``cpu`` or ``cuda``, and the GPUs to run on.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda``, or ``cuda:N`` for the one of that number alone, counted
            in ``CUDA_VISIBLE_DEVICES`` where that is set, else as ``nvidia-smi -L`` lists them.

    Raises:
        UserError: cuda was asked for and torch cannot use it here, or there is no such GPU.
    """
    kind, _, number = wanted.partition(":")
    if kind == "cpu":
        return "cpu", ()
    if shutil.which(SMI) is None or not _torch_has_cuda():
        if kind == "auto":
            return "cpu", ()
        raise UserError(
            f"--device {wanted}: torch sees no CUDA device here; install a CUDA build of torch and "
            "a driver, or use --device cpu"
        )
    gpus = visible()
    if not gpus:
        raise UserError(
            f"--device {wanted}: {SMI} lists none of the GPUs that torch sees; mend the driver, or "
            "use --device cpu"
        )
    if not number:
        return "cuda", gpus
    if int(number) >= len(gpus):
        here = ", ".join(f"cuda:{i} ({gpu.name})" for i, gpu in enumerate(gpus))
        raise UserError(f"--device {wanted}: there is no such GPU, choose among {here}")
    return "cuda", (gpus[int(number)],)


def visible() -> tuple[Gpu, ...]:
    """The GPUs and MIG devices that ``CUDA_VISIBLE_DEVICES`` lets this process use, in its order;
    all where it is not set. As in CUDA, what comes after one that is not there is not visible.

    Raises:
        UserError: it names GPUs of several kinds by numbers that may be counted in two ways.
    """
    there, named = installed(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return there
    found: list[Gpu] = []
    for name in map(str.strip, named.split(",")):
        gpu = _by_number(int(name), there) if name.isdecimal() else _by_uuid(name, there)
        if gpu is None:
            break
        found.append(gpu)
    return tuple(found)


def _by_uuid(name: str, there: Sequence[Gpu]) -> Gpu | None:
    """The one whose UUID begins so, which is how CUDA reads a UUID."""
    if not name:
        return None
    parts = [gpu for gpu in there if gpu.visible.startswith(name)]
    if parts:
        return parts[0] if len(parts) == 1 else None
    of_card = [gpu for gpu in there if gpu.card.startswith(name)]
    return replace(of_card[0], visible=name) if len({gpu.card for gpu in of_card}) == 1 else None


def _by_number(number: int, there: Sequence[Gpu]) -> Gpu | None:
    """The GPU that CUDA gives a number; of one with MIG devices the first, as CUDA has it.

    It is made visible by the same number: which it is here only says what the rows tell of it.
    """
    cards = list(dict.fromkeys(gpu.card for gpu in there))
    models = {gpu.name.partition(" MIG ")[0] for gpu in there}
    if number >= len(cards):
        return None
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not by_bus and len(models) > 1:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}: GPUs of several kinds are "
            "here, which CUDA numbers by their speed: set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name "
            f"them by the UUIDs of {SMI} -L"
        )
    first = next(gpu for gpu in there if gpu.card == cards[number])
    return replace(first, visible=str(number))


@cache
def installed() -> tuple[Gpu, ...]:
    """Every NVIDIA GPU of the machine, in place of those that are divided their MIG devices; none
    where nvidia-smi does not answer.
    """
    told = _ask(f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader")
    facts = {values[0]: values[1:] for line in told if len(values := _split(line)) == len(FIELDS)}
    found: dict[str, list[Gpu]] = {}
    card = ""
    for line in _ask("-L"):
        if (match := CARD.match(line)) and match[1] in facts:
            card = match[1]
            found[card] = []
        elif card and (match := MIG.match(line)):
            name, *rest = facts[card]
            found[card].append(Gpu(match[2], card, f"{name} MIG {match[1]}", *rest))
    whole = ((Gpu(card, card, *facts[card]),) for card in found)
    return tuple(
        gpu for parts, one in zip(found.values(), whole, strict=True) for gpu in parts or one
    )


def sm_clock_mhz(gpu: Gpu) -> float | None:
    """The present clock of the streaming multiprocessors; None where nvidia-smi does not say."""
    told = _ask("--query-gpu=clocks.sm", "--format=csv,noheader,nounits", f"--id={gpu.card}")
    return float(told[0]) if told and told[0].strip().isdecimal() else None


def defaults(device: str) -> dict[str, str]:
    """Environment variables that workers get beside the user's own, none in place of one."""
    if device == "cpu":
        wanted = {"JAX_PLATFORMS": "cpu"}  # else JAX takes the GPU that it finds
    else:
        # The check that does not open CUDA, so that a plugin may ask before workers are forked.
        wanted = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
        if not any(name in os.environ for name in JAX_MEMORY):
            wanted["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # else 75 % of the GPU's memory
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _torch_has_cuda() -> bool:
    """Asked in a process of its own: this one stays light and never opens a device."""
    question = "import torch, sys; sys.exit(0 if torch.cuda.is_available() else 1)"
    return subprocess.run([sys.executable, "-c", question], capture_output=True).returncode == 0


def _ask(*arguments: str) -> list[str]:
    """The lines that nvidia-smi prints; none where it fails."""
    try:
        answer = subprocess.run(
            [SMI, *arguments], capture_output=True, text=True, errors="replace", timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def _split(line: str) -> list[str]:
    return [value.strip() for value in line.split(",")]
