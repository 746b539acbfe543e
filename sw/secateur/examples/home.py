"""Smart home: who of nine people has spoken? A GRU over 12 cepstral coefficients, frame by frame.

References
----------
Data: Japanese Vowels, in the package aeon. Kudo, Toyama, Shimbo, "Multidimensional curve
classification using passing-through regions", Pattern Recognition Letters 20, 1999.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.errors import SecateurError
from secateur.examples.carried import carried
from secateur.pruning.recipes.data.data import Split

FEATURES, SPEAKERS, HIDDEN = 12, 9, 32
#: Frames of the longest utterance; shorter ones have zeros before them.
STEPS = 29


class Speaker(nn.Module):
    """GRU-32 and a linear layer on its last state; takes (N, T, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.last = nn.Linear(HIDDEN, SPEAKERS)

    def forward(self, x: Tensor) -> Tensor:
        outputs, _ = self.gru(x)
        found: Tensor = self.last(outputs[:, -1])
        return found


def model(seed: int) -> nn.Module:
    """The network with random weights."""
    return Speaker()


def data(seed: int) -> Split:
    """270 utterances to train, 370 to test, as the archive divides them."""
    folder = "datasets/data/JapaneseVowels/JapaneseVowels_"
    train, test = (carried("aeon", f"{folder}{part}.ts", "aeon") for part in ("TRAIN", "TEST"))
    return Split(*read_ts(train), *read_ts(test))


def read_ts(path: Path) -> tuple[Tensor, Tensor]:
    """Sequences (count, STEPS, FEATURES) float32 and speakers (count,) from a .ts file.

    A line has the channels of one sequence, separated by colons, and its label.

    Raises
    ------
    SecateurError : another line
    """
    lines = path.read_text().split("@data\n")[-1].splitlines()
    x, y = torch.zeros(len(lines), STEPS, FEATURES), torch.zeros(len(lines), dtype=torch.int64)
    for index, line in enumerate(lines):
        *channels, label = line.split(":")
        try:
            values = torch.tensor([[float(v) for v in channel.split(",")] for channel in channels])
            y[index] = int(label) - 1
            x[index, STEPS - values.shape[1] :] = values.T
        except (ValueError, RuntimeError):
            raise SecateurError(
                f"{path}: line {index + 1} of the data must have {FEATURES} channels of at most "
                f"{STEPS} values, and a label"
            ) from None
    return x, y
