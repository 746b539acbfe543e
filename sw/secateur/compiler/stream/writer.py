"""Words of a program, and what the registers hold behind each of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.spec import Reg

Words = npt.NDArray[np.uint8]  # (words, N + 1)


class Writer:
    """Collects words and tracks the values of the registers.

    At first nothing is known: an inference begins with the registers of the one before.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.words: list[npt.NDArray[np.uint8]] = []
        self.count = 0
        self.held: list[int | None] = [None] * spec.REGISTERS

    def add(self, words: npt.NDArray[np.uint8]) -> None:
        """Append (words, N + 1) bytes."""
        self.words.append(words)
        self.count += len(words)

    def align(self, header_words: int, side: int) -> None:
        """Words that are skipped, up to a multiple of ``side`` from the image's first word on."""
        missing = -(header_words + self.count) % side
        self.add(np.zeros((missing, self.n + 1), np.uint8))

    def tables(self, tables: list[bytes]) -> None:
        """Tables from the first slot on, and the mark at which later inferences begin."""
        if not tables:
            return
        self._entries(b"".join(tables))
        mark = np.zeros((1, self.n + 1), np.uint8)
        mark[0, -1] = spec.INDEX_LOOP
        self.add(mark)

    def fill(self, slot: int, table: bytes) -> tuple[int, int]:
        """Another table into a slot, between layers; returns words, and those that hold entries."""
        begins, at = self.count, slot * spec.TABLE_ENTRIES
        if self.held[Reg.TABLE] != at:
            self.configure(f"table {slot}", {Reg.TABLE: at}, 0)
        words = self._entries(table)
        self.held[Reg.TABLE] = at + len(table)
        return self.count - begins, words

    def _entries(self, entries: bytes) -> int:
        """Words of entries; returns how many."""
        words = np.frombuffer(entries, np.uint8).reshape(-1, self.n)
        self.add(np.pad(words, ((0, 0), (0, 1)), constant_values=spec.INDEX_TABLE))
        return len(words)

    def configure(self, name: str, registers: dict[Reg, int], event: int) -> int:
        """Write the registers that change, then the event.

        Parameters
        ----------
        name : of the layer, for messages
        registers : values that the layer needs
        event : LOAD, START or none, in the last word

        Returns
        -------
        words : configuration words that were added

        Raises
        ------
        SecateurError : a value does not fit 16 bits
        """
        wanted = list(self.held)
        for register, value in registers.items():
            if not 0 <= value < 1 << 16:
                raise SecateurError(
                    f"layer {name!r}: {register.name} = {value} does not fit 16 bits; make the "
                    f"layer's maps smaller"
                )
            wanted[register] = value
        changed = [i for i in range(spec.REGISTERS) if wanted[i] != self.held[i]]
        starts: list[int] = []
        for index in changed or [0]:
            if not starts or index >= starts[-1] + self.n // 2:
                starts.append(index)
        for start in starts:
            window = slice(start, min(start + self.n // 2, spec.REGISTERS))
            wanted[window] = [value or 0 for value in wanted[window]]
            values = np.array(wanted[window], dtype="<u2")
            word = np.zeros(self.n + 1, dtype=np.uint8)
            word[: 2 * len(values)] = values.view(np.uint8)
            word[-1] = start | (event if start == starts[-1] else 0)
            self.add(word[None])
        self.held = wanted
        return len(starts)
