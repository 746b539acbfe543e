"""The ECP5 dies: nextpnr's names of them, and the sites of their multipliers."""

from __future__ import annotations

#: nextpnr's switch and the slowest speed grade, by part.
DIES = {
    "LFE5U-25F": ("--25k", 6),
    "LFE5U-45F": ("--45k", 6),
    "LFE5U-85F": ("--85k", 6),
    "LFE5UM5G-45F": ("--um5g-45k", 8),
    "LFE5UM5G-85F": ("--um5g-85k", 8),
}
#: nextpnr's packages by Lattice's short names, those of amaranth-boards.
PACKAGES = {"BG381": "CABGA381", "BG554": "CABGA554", "MG285": "CSFBGA285"}

#: Columns and rows of the blocks that hold four MULT18X18D each.
_COLUMNS = {
    "25F": (4, 13, 22, 33, 42, 51, 60),
    "45F": (4, 13, 22, 31, 42, 51, 60, 69, 78),
    "85F": (4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114),
}
_ROWS = {"25F": (13,), "45F": (22, 46), "85F": (10, 34, 58)}


#: LUTs of a die. Source: the family data sheet.
LUTS = {"25F": 24_288, "45F": 43_848, "85F": 83_640}


def luts(die: str) -> int:
    """LUTs of a die."""
    return LUTS[die.split("-")[1]]


def multipliers(die: str) -> int:
    """Multipliers of a die."""
    size = die.split("-")[1]
    return 4 * len(_COLUMNS[size]) * len(_ROWS[size])


def multiplier_sites(die: str, count: int) -> list[str]:
    """Sites for ``count`` multipliers, or for all that the die has, neighbours side by side.

    The rows of the die are filled in opposite directions, as one chain. The placer scatters
    multipliers that are not pinned.

    Raises
    ------
    ValueError : an unknown die, or no multiplier
    """
    if die not in DIES:
        raise ValueError(f"die must be one of {', '.join(DIES)}, not {die!r}")
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count!r}")
    count = min(count, multipliers(die))
    size = die.split("-")[1]
    across = [(base + offset, offset) for base in _COLUMNS[size] for offset in (0, 1, 4, 5)]
    rows = _ROWS[size]
    each = -(-count // len(rows))
    skip = (len(across) - each) // 2
    row = across[skip : skip + each]
    chain = [
        f"X{x}/Y{y}/MULT18_{z}"
        for index, y in enumerate(rows)
        for x, z in (row if index % 2 == 0 else reversed(row))
    ]
    return chain[:count]
