"""What a target takes of a part: multipliers and block RAM exactly, LUTs by an estimate."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.target import Target

#: Words of the largest slice of a weight memory, of a block RAM with columns of 9 bits.
_SLICE = 2048


@dataclass(frozen=True)
class Parts:
    """Of an engine with registers, link and PLL on an ECP5.

    Attributes
    ----------
    multipliers : hard ones
    luts : of four inputs, an estimate
    block_rams : of 18 kbit
    memory_bits : of weight memory and banks
    """

    multipliers: int
    luts: int
    block_rams: int
    memory_bits: int


def parts_of(target: Target) -> Parts:
    """What an engine takes of an ECP5, whatever part it is for: so that targets can be compared.

    Parameters
    ----------
    target : the engine
    """
    geometry = target.geometry
    words = geometry.ring or geometry.weight_words
    banks = geometry.bank_words * geometry.n * geometry.p * 8
    return Parts(
        _hard(target), _luts(target), _block_rams(target), words * geometry.word_bits + banks
    )


def _luts(target: Target) -> int:
    """What is there once, per lane of channels, per lane of pixels, and per multiplier from logic.

    Fitted to counts of yosys over n and p, of which 10 % were added to the lanes for what nextpnr
    adds. Of the engines that were placed it is 5 % off at most.
    """
    geometry = target.geometry
    soft = geometry.multipliers - _hard(target)
    lanes = 500 * geometry.n + (100 + 89 * geometry.n) * geometry.p
    return 3400 + lanes + 177 * soft + 235 * (geometry.s - 1)


def _hard(target: Target) -> int:
    return target.geometry.multipliers if target.hard is None else target.hard


def _block_rams(target: Target) -> int:
    """Banks, the banks of weights in slices, and the tables of two channels in each."""
    geometry = target.geometry
    depth = (geometry.ring or geometry.weight_words) // geometry.s
    slices = [min(_SLICE, depth - first) for first in range(0, depth, _SLICE)]
    weights = geometry.s * sum(_columns(words, geometry.word_bits) for words in slices)
    banks = geometry.p * _columns(geometry.bank_words, 8 * geometry.n)
    return weights + banks + (geometry.n // 2 if geometry.tables else 0)


def _columns(depth: int, width: int) -> int:
    """Block RAMs side by side, each in the widest mode that is deep enough."""
    modes = ((1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
    bits = next((bits for words, bits in modes if depth <= words), 1)
    return -(-depth // 16384) * -(-width // bits)
