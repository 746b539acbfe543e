"""Contents of the block RAMs of a placed ECP5 design, and their places in the weight memory.

nextpnr numbers the block RAMs in any order. So a design is placed with a random image in its weight
memory (``placeholder``), and every block is found by its contents (``find_blocks``). Project
Trellis' ``ecpbram`` does the same, but for memories of one width in multiples of 512 words.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import product

from secateur.hw.memory.ecp5_ram import block_fields, column_bits
from secateur.hw.memory.weight_memory import SLICE_WORDS
from secateur.hw.spec import Geometry

#: Section of nextpnr's textual configuration: 2048 numbers of 9 bits, of block RAM number WID.
_SECTION = re.compile(r"^\.bram_init (\d+)\n((?:[0-9a-f]{3}[ \n])+)", re.MULTILINE)
_SEED = 1
#: A block of the weight memory: number of the slice, bank after bank, and lowest bit of the word.
Block = tuple[int, int]


def placeholder(geometry: Geometry) -> list[int]:
    """Words of a full weight memory, random but always the same."""
    random_bits = random.Random(_SEED).getrandbits
    return [random_bits(geometry.word_bits) for _ in range(geometry.weight_words)]


def weight_blocks(geometry: Geometry, words: Sequence[int]) -> dict[Block, list[int]]:
    """The 2048 numbers of each block of a weight memory with ``words``, padded with zeros."""
    blocks, bank_words = {}, geometry.weight_words // geometry.s
    slices = product(range(geometry.s), range(0, bank_words, SLICE_WORDS))
    for index, (bank, first) in enumerate(slices):
        depth = max(2, min(SLICE_WORDS, bank_words - first))
        held, bits = words[bank :: geometry.s][first : first + depth], column_bits(depth)
        for column in range(0, geometry.word_bits, bits):
            mask = (1 << min(bits, geometry.word_bits - column)) - 1
            fields = block_fields(held, bits, column, mask)
            numbers = [number for field in fields for number in (field & 0x1FF, field >> 9)]
            blocks[index, column] = numbers
    return blocks


def read_blocks(config: str) -> dict[int, list[int]]:
    """Contents of the initialised block RAMs of a configuration, by number."""
    return {
        int(wid): [int(number, 16) for number in numbers.split()]
        for wid, numbers in _SECTION.findall(config)
    }


def find_blocks(geometry: Geometry, config: str) -> dict[int, Block]:
    """The weight memory's block RAMs, by number, in a design that holds the placeholder.

    Raises
    ------
    ValueError : not every block is there exactly once
    """
    wanted = {
        tuple(numbers): block
        for block, numbers in weight_blocks(geometry, placeholder(geometry)).items()
    }
    found = {
        wid: wanted[tuple(numbers)]
        for wid, numbers in read_blocks(config).items()
        if tuple(numbers) in wanted
    }
    if sorted(found.values()) != sorted(wanted.values()):
        raise ValueError(
            f"config must hold each of the weight memory's {len(wanted)} block RAMs once, "
            f"not {len(found)} of them"
        )
    return found


def replace_blocks(
    config: str, geometry: Geometry, where: dict[int, Block], words: Sequence[int]
) -> str:
    """The configuration with other words in the weight memory.

    Parameters
    ----------
    config : the configuration
    geometry : the engine
    where : blocks of the weight memory by the numbers of their block RAMs, of ``find_blocks``
    words : the image

    Raises
    ------
    ValueError : a block RAM of ``where`` is missing
    """
    contents = weight_blocks(geometry, words)
    left = set(where)

    def section(match: re.Match) -> str:
        wid = int(match.group(1))
        if wid not in where:
            return match.group()
        left.discard(wid)
        numbers = [f"{number:03x}" for number in contents[where[wid]]]
        rows = [" ".join(numbers[first : first + 8]) for first in range(0, len(numbers), 8)]
        return f".bram_init {wid}\n" + "\n".join(rows) + "\n"

    config = _SECTION.sub(section, config)
    if left:
        raise ValueError(f"config has no block RAM {sorted(left)[0]}")
    return config
