"""The datapath of the compact engine: few multipliers, one requantiser, few registers."""

from __future__ import annotations

from secateur.hw import spec
from secateur.hw.compact.serial_array import SerialArray
from secateur.hw.compact.serial_drain import SERIAL_RESULTS, SerialDrain
from secateur.hw.core.datapath import Datapath
from secateur.hw.interfaces import COMPACT


class SerialDatapath(Datapath):
    """The datapath of an engine of few cells: sums leave one by one.

    Parameters
    ----------
    geometry : of the engine, see ``check_compact``
    family : "generic" or "ice40"
    """

    def __init__(self, *, geometry: spec.Geometry, family: str = "generic"):
        super().__init__(
            geometry=geometry,
            array=SerialArray(geometry=geometry, family=family),
            drain=SerialDrain(geometry=geometry, family=family),
            front=COMPACT,
            results=SERIAL_RESULTS,
        )
