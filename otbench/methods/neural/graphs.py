"""Rounds of training as CUDA graphs: all kernels of a round in one launch.

A round of small networks is hundreds of small kernels, and a GPU waits for the launch of each. A
graph repeats them with the addresses of what they read and write: batches lie in buffers that are
filled before each launch (`otbench.methods.neural.sampling.Tape`), numbers that change from round
to round lie in tensors. ``OTBENCH_CUDA_GRAPHS=0`` has every round run as it is written, as on a
CPU.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from otbench.methods.neural.sampling import Draws, Tape


if TYPE_CHECKING:
    import torch

Play = Callable[[], None]
Capture = Callable[[Play], Play]

WARM_UP = 3  # rounds that run as they are written, in which libraries set up their workspaces


def capture_on(device: torch.device) -> Capture | None:
    """What turns a round into a graph on this device; None where rounds run as written."""
    if device.type != "cuda" or os.environ.get("OTBENCH_CUDA_GRAPHS") == "0":
        return None
    return cuda_graph


def cuda_graph(play: Play) -> Play:
    """What launches the kernels of ``play``, none of which runs now."""
    import torch

    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            play()
    except RuntimeError:
        torch.cuda.set_stream(stream)  # torch stays on that of the capture where its end fails
        raise
    return graph.replay


class Round:
    """A round of training, to be called again and again.

    Args:
        play: the round as it is written. It draws nothing but from ``draws``, reads no number from
            the host that changes, and waits for no kernel.
        draws: what it draws from.
        capture: see `capture_on`.
    """

    def __init__(self, play: Play, draws: Sequence[Draws], capture: Capture | None) -> None:
        self.play, self.draws, self.capture = play, draws, capture
        self.played, self.tape = 0, Tape()
        self.replay: Play | None = None

    def __call__(self) -> None:
        """Run the round once, on fresh batches."""
        if self.capture is None:
            self.play()
            return
        self.played += 1
        if self.played <= WARM_UP:
            if self.played == WARM_UP:
                self._draw_through(self.tape)
            self.play()
            return
        self.tape.fill()
        if self.replay is None:
            try:
                self.replay = self.capture(self.play)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                # A warning is in the row's message: the time is that of rounds as written.
                warnings.warn(f"no CUDA graph of this training: {reason}", stacklevel=3)
                self.tape.rewind()
                self.replay = self.play
        self.replay()

    def close(self) -> None:
        """Let the draws be drawn from directly again."""
        self._draw_through(None)

    def _draw_through(self, tape: Tape | None) -> None:
        for draws in self.draws:
            draws.tape = tape
