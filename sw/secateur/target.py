"""Targets: a geometry with a name, a device and a family of primitives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from secateur.disk.toml import read_toml
from secateur.errors import SecateurError
from secateur.hw.flash import Flash
from secateur.hw.ring import Source
from secateur.hw.sdram import SOURCE as SDRAM
from secateur.hw.spec import FAMILIES, Geometry

#: 18-kbit block RAMs and 18x18 multipliers of the ECP5 parts. Source: the family data sheet.
ECP5 = {"LFE5U-25F": (56, 28), "LFE5U-45F": (108, 72), "LFE5U-85F": (208, 156)}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A geometry and the parts that it is for.

    Parameters
    ----------
    name : of the preset or file
    geometry : the engine
    device : the part whose memories it fills; None: any
    family : of the primitives in the Verilog, one of FAMILIES
    hard : multipliers of the part that the array takes, of its first lanes; those of the others are
        from logic. None: all are hard
    source : that fills the ring, if the geometry has one
    sdram : a board's SDRAM is that source; the image is copied to it from flash
    """

    name: str
    geometry: Geometry
    device: str | None = None
    family: str = "generic"
    hard: int | None = None
    source: Source | None = None
    sdram: bool = False

    def __post_init__(self) -> None:
        if self.sdram and not self.geometry.ring:
            raise ValueError("sdram must be False without a ring, not True")
        if self.sdram and self.source is None:
            object.__setattr__(self, "source", SDRAM)
        if self.geometry.ring and self.source is None:
            object.__setattr__(self, "source", Source())
        elif self.source is not None and not self.geometry.ring:
            raise ValueError(f"source must be None without a ring, not {self.source!r}")

    def without_ring(self, what: str) -> Target:
        """The same target, for what has no source for a ring.

        Raises
        ------
        SecateurError : it has a ring
        """
        if self.geometry.ring:
            raise SecateurError(
                f"target {self.name!r} has a ring, which {what} has no source for; write Verilog "
                f"with interface stream or axi, build a board with flash, or omit ring"
            )
        return self

    @classmethod
    def load(cls, name: str) -> Target:
        """The preset ``name``, or the target in a TOML file.

        A file has the keys n, p, weight_words, bank_words and, optionally, s, tables, extended,
        device, family and hard; for a ring also ring, and interval and latency of its source, or
        sdram.

        Raises
        ------
        SecateurError : neither a preset nor a readable TOML file, or a key is wrong
        """
        if name in PRESETS:
            return PRESETS[name]
        path = Path(name)
        if not os.path.isfile(path):  # Path's own raises for a name that no file can have
            raise SecateurError(
                f"target {name!r} is neither a preset ({', '.join(PRESETS)}) nor a TOML file"
            )
        table = read_toml(path)
        device = table.pop("device", None)
        family = table.pop("family", "generic")
        extended = table.pop("extended", True)
        sdram = table.pop("sdram", False)
        wanted = {"n", "p", "weight_words", "bank_words"}
        if set(table) - {"s", "tables", "hard", "ring", "interval", "latency"} != wanted:
            found = ", ".join(sorted(table)) or "none"
            raise SecateurError(
                f"{path}: a target has the integer keys {', '.join(sorted(wanted))} and, "
                f"optionally, s, tables, extended, device, family, hard, ring, interval, latency, "
                f"sdram; found {found}"
            )
        for key, value in table.items():
            if type(value) is not int:
                raise SecateurError(f"{path}: {key} must be an integer, not {value!r}")
        if device is not None and not isinstance(device, str):
            raise SecateurError(f"{path}: device must be a name, not {device!r}")
        _check_flags({"extended": extended, "sdram": sdram}, str(path))
        check_family(family, str(path))
        hard = table.pop("hard", None)
        rate: dict[str, int] = {}
        rate |= {key: table.pop(key) for key in ("interval", "latency") if key in table}
        _check_source(rate, table.get("ring", 0), sdram, str(path))
        try:
            geometry = Geometry(**table, extended=extended)
            source = Source(**rate) if geometry.ring and not sdram else None
        except ValueError as error:
            raise SecateurError(f"{path}: {error}") from None
        check_primitives(geometry, family, str(path))
        if hard is not None and family == "ice40":
            raise SecateurError(f"{path}: on ice40 all multipliers are hard; omit hard")
        hard = _hard(geometry, device, hard, str(path))
        return cls(
            name=path.stem,
            geometry=geometry,
            device=device,
            family=family,
            hard=hard,
            source=source,
            sdram=sdram,
        )


def _check_flags(flags: dict[str, object], where: str) -> None:
    for key, flag in flags.items():
        if type(flag) is not bool:
            raise SecateurError(f"{where}: {key} must be true or false, not {flag!r}")


def _check_source(rate: dict[str, int], ring: int, sdram: bool, where: str) -> None:
    """Refuse a source without a ring, and two of them."""
    if rate and not ring:
        raise SecateurError(f"{where}: {next(iter(rate))} is of the source of a ring; give ring")
    if sdram and (rate or not ring):
        wrong = f"omit {next(iter(rate))}" if rate else "give ring"
        raise SecateurError(f"{where}: sdram is a source of a ring with a rate of its own; {wrong}")


def _hard(geometry: Geometry, device: str | None, hard: int | None, where: str) -> int | None:
    """``hard`` if it is possible; if it is None, what the device has, if that is too few."""
    most = ECP5[device][1] if device in ECP5 else geometry.multipliers
    most = min(most, geometry.multipliers)
    if hard is not None and not 0 <= hard <= most:
        raise SecateurError(
            f"{where}: hard must be 0 to {most}, not {hard}; the other multipliers are from logic"
        )
    return most if hard is None and most < geometry.multipliers else hard


def check_family(family: object, where: str | None = None) -> str:
    """Return ``family`` if it is one of FAMILIES; ``where`` is a prefix of the message.

    Raises
    ------
    SecateurError : it is not
    """
    if not isinstance(family, str) or family not in FAMILIES:
        before = "" if where is None else f"{where}: "
        raise SecateurError(f"{before}family {family!r} is not one of {', '.join(FAMILIES)}")
    return family


def check_primitives(geometry: Geometry, family: str, where: str) -> None:
    """Refuse a geometry that the family's primitives cannot hold.

    Parameters
    ----------
    geometry : the engine
    family : one of FAMILIES
    where : prefix of the message

    Raises
    ------
    SecateurError : a memory or a size is too large
    """
    if family == "ecp5" and geometry.bank_words > 16384:
        raise SecateurError(
            f"{where}: on ecp5 bank_words is at most 16384, not {geometry.bank_words}; choose "
            f"another family"
        )
    most, words = (1024, geometry.ring) if geometry.ring else (16384, geometry.weight_words)
    if family == "ice40" and (geometry.n > 4 or geometry.p > 2 or words > most):
        what = "ring" if geometry.ring else "weight_words"
        raise SecateurError(
            f"{where}: on ice40 n is 2 or 4, p 1 or 2, and {what} at most {most}, not "
            f"{geometry.n}, {geometry.p} and {words}"
        )


def _preset(
    n: int, p: int, device: str, bank_words: int, name: str | None = None, s: int = 1
) -> Target:
    """n x p; the weight memory takes the block RAM that banks and activation tables leave free.

    Multipliers that the device does not have are from logic.

    A block RAM holds 2,048 bytes of a bank, the tables of two channels, or 9 bits of 2,048 words of
    weights, 18 of 1,024. Each of the ``s`` banks of weights has a multiple of 1,024 words.
    """
    blocks, _ = ECP5[device]
    name, bits = name or f"{n}x{p}", 8 * (n + 1)
    slices, left = divmod(blocks - p * bank_words * n // 2048 - n // 2, -(-bits // 9))
    thousands = 2 * slices + (left >= -(-bits // 18))
    words = 1024 * (thousands // s * s)
    geometry = Geometry(n=n, p=p, s=s, weight_words=words, bank_words=bank_words)
    hard = _hard(geometry, device, None, name)
    return Target(name=name, geometry=geometry, device=device, hard=hard)


def _ring_preset(
    n: int, p: int, device: str, *, bank_words: int, ring: int, name: str, sdram: bool = False
) -> Target:
    """n x p with a ring that the board's flash or SDRAM fills; block RAM is for banks and ring."""
    geometry = Geometry(n=n, p=p, weight_words=1 << 17, bank_words=bank_words, ring=ring)
    hard = _hard(geometry, device, None, name)
    source = None if sdram else Flash().source
    return Target(
        name=name, geometry=geometry, device=device, hard=hard, source=source, sdram=sdram
    )


PRESETS = {
    target.name: target
    for target in (
        _preset(8, 1, "LFE5U-25F", 4096),
        _preset(8, 3, "LFE5U-25F", 2048),
        _preset(8, 8, "LFE5U-45F", 2048),
        _preset(4, 16, "LFE5U-45F", 2048),
        _preset(8, 16, "LFE5U-85F", 2048),
        _preset(8, 8, "LFE5U-25F", 1024, "8x8-25f"),
        _preset(8, 8, "LFE5U-45F", 2048, "8x8-s8", s=8),
        _preset(8, 16, "LFE5U-45F", 1024, "8x16-45f"),
        _ring_preset(8, 3, "LFE5U-25F", bank_words=4096, ring=1024, name="8x3-flash"),
        _ring_preset(8, 8, "LFE5U-25F", bank_words=1024, ring=4096, name="8x8-25f-flash"),
        _ring_preset(8, 8, "LFE5U-45F", bank_words=2048, ring=8192, name="8x8-flash"),
        _ring_preset(8, 16, "LFE5U-85F", bank_words=2048, ring=16384, name="8x16-flash"),
        _ring_preset(8, 16, "LFE5U-85F", bank_words=2048, ring=8192, name="8x16-sdram", sdram=True),
        Target(
            name="asic",
            geometry=Geometry(n=8, p=8, weight_words=8192, bank_words=2048),
            family="asic",
        ),
        # Three of four SPRAMs side by side hold words of 40 bits; banks take 16 of 30 block RAMs.
        Target(
            name="up5k",
            geometry=Geometry(
                n=4, p=2, weight_words=16384, bank_words=1024, tables=0, extended=False
            ),
            device="iCE40UP5K",
            family="ice40",
        ),
        # Of 46 block RAMs, banks take 32, weights 10, tables 2.
        Target(
            name="4x4-gw2a",
            geometry=Geometry(n=4, p=4, weight_words=4096, bank_words=4096),
            device="GW2AR-18",
            family="gowin",
        ),
    )
}
