"""How large a model file may be: what it claims is checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import SecateurError


@dataclass(frozen=True)
class Limits:
    """Bounds of what is read from a model file.

    Parameters
    ----------
    nodes : operations of a graph, those of all its sub-graphs together
    megabytes : of 2**20 bytes: the file, all that it unpacks to, and each tensor that is made of it
    """

    nodes: int = 10_000
    megabytes: int = 1024

    @property
    def bytes(self) -> int:
        """``megabytes`` in bytes."""
        return self.megabytes << 20

    @property
    def steps(self) -> int:
        """Operations on the model's input, what is left when constants are computed: a tenth of
        ``nodes``, since torch's quantisation takes time that grows with the square of them."""
        return self.nodes // 10

    def check_nodes(self, count: int, what: str) -> None:
        """Refuse more than ``nodes`` operations; ``what`` names what has them."""
        if count > self.nodes:
            raise SecateurError(
                f"{what}: {count:,} nodes, at most {self.nodes:,} are read; raise the limit by "
                f"--max-nodes if the file is to be trusted"
            )

    def check_steps(self, count: int, what: str) -> None:
        """Refuse more than ``steps``; ``what`` names what has them."""
        if count > self.steps:
            raise SecateurError(
                f"{what}: {count:,} operations on its input, at most {self.steps:,} are read, a "
                f"tenth of the nodes; raise the limit by --max-nodes if the file is to be trusted"
            )

    def check_bytes(self, size: int, what: str) -> None:
        """Refuse more than ``megabytes``; ``what`` names what is so large."""
        if size > self.bytes:
            raise SecateurError(
                f"{what}: {size:,} bytes, at most {self.megabytes:,} MB are read; raise the limit "
                f"by --max-megabytes if the file is to be trusted"
            )


#: What is read unless a user asks for more.
DEFAULT = Limits()
