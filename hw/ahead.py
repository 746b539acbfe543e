"""The contract of inputs that are taken ahead: words of the next one while an inference runs.

Standard library only. ``stream.md``, "The next input", is the prose that goes with it.
"""

from __future__ import annotations

from secateur.hw import spec

#: From the first clear until the drain has the registers of its layer, and so words are taken.
_HANDED_OVER = 2


def takes_ahead(p: int) -> bool:
    """Whether an engine takes words ahead; if not, COMMON_AHEAD is a START like all others."""
    return spec.overlaps(p)


def opening_cycles(p: int, clear: int) -> int:
    """Cycles from the issue of the first header word of a layer until words are taken.

    Before, pixels of the layer before may be on their way to a bank.

    Parameters
    ----------
    p : lanes
    clear : words that the layer clears before, or 0: may be earlier than the header word
    """
    before = -clear if clear else spec.tail_cycles(p) - spec.landing_cycles(p)
    return before + _HANDED_OVER


def clears_open(clear: int) -> int:
    """Cycles of the CLEAR of the layer that opens in which a word could be taken, but is not."""
    return max(0, clear - _HANDED_OVER)
