"""Blocks that pruning left, per layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerDensity:
    """Blocks (or other units) of one layer.

    Attributes
    ----------
    name : of the layer
    shape : of the weight, output channels first
    blocks : all
    kept : that stay
    """

    name: str
    shape: tuple[int, ...]
    blocks: int
    kept: int

    @property
    def density(self) -> float:
        """Share of the blocks that are kept."""
        return self.kept / self.blocks


@dataclass(frozen=True)
class PruneReport:
    """Blocks, or other units, per layer. ``str()`` is a table.

    Attributes
    ----------
    n : output channels of a block
    layers : in the order of the model
    noun : name of the units, plural
    """

    n: int
    layers: tuple[LayerDensity, ...]
    noun: str = "blocks"

    @property
    def blocks(self) -> int:
        """Blocks of all listed layers."""
        return sum(layer.blocks for layer in self.layers)

    @property
    def kept(self) -> int:
        """Kept blocks of all listed layers."""
        return sum(layer.kept for layer in self.layers)

    @property
    def density(self) -> float:
        """Share of all blocks that are kept."""
        return self.kept / self.blocks

    def __str__(self) -> str:
        rows = [("layer", "weight", self.noun, "kept", "density")]
        for layer in self.layers:
            shape = "x".join(str(size) for size in layer.shape)
            rows.append(_row(layer.name, shape, layer.blocks, layer.kept, layer.density))
        rows.append(_row("total", "", self.blocks, self.kept, self.density))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  "
            f"{row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]:>{widths[4]}}"
            for row in rows
        )


def _row(
    name: str, shape: str, blocks: int, kept: int, density: float
) -> tuple[str, str, str, str, str]:
    return name, shape, str(blocks), str(kept), f"{100 * density:.1f} %"
