"""Bounds of model files, which are checked before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import SecateurError


@dataclass(frozen=True)
class Limits:
    """Bounds of a model file.

    Parameters
    ----------
    nodes : operations of a graph, those of all its sub-graphs together
    megabytes : of 2**20 bytes: the file, its unpacked contents, and each tensor made of it
    """

    nodes: int = 10_000
    megabytes: int = 1024

    @property
    def bytes(self) -> int:
        """``megabytes`` in bytes."""
        return self.megabytes << 20

    @property
    def steps(self) -> int:
        """Operations on the model's input, without those that compute constants.

        A tenth of ``nodes``, since the time of torch's quantisation grows with their square.
        """
        return self.nodes // 10

    @property
    def work(self) -> int:
        """Multiplications and comparisons for one sample: 2**21 per node.

        A small file can ask for any number of them, by a large map or window.
        """
        return self.nodes << 21

    def check_nodes(self, count: int, what: str) -> None:
        """Refuse more than ``nodes`` operations; ``what`` names the graph."""
        if count > self.nodes:
            raise SecateurError(
                f"{what}: {count:,} nodes, at most {self.nodes:,} are read; raise the limit with "
                f"--max-nodes if you trust the file"
            )

    def check_steps(self, count: int, what: str) -> None:
        """Refuse more than ``steps``; ``what`` names the graph."""
        if count > self.steps:
            raise SecateurError(
                f"{what}: {count:,} operations on its input, at most {self.steps:,} are read, a "
                f"tenth of the nodes; raise the limit with --max-nodes if you trust the file"
            )

    def check_work(self, count: int, what: str) -> None:
        """Refuse more than ``work``; ``what`` names the layer."""
        if count > self.work:
            raise SecateurError(
                f"{what}: {count:,} operations for one sample up to here, at most {self.work:,} "
                f"are done, 2**21 per node; raise the limit with --max-nodes if you trust the file"
            )

    def check_bytes(self, size: int, what: str) -> None:
        """Refuse more than ``megabytes``; ``what`` names the part of the file."""
        if size > self.bytes:
            raise SecateurError(
                f"{what}: {size:,} bytes, at most {self.megabytes:,} MB are read; raise the limit "
                f"with --max-megabytes if you trust the file"
            )


#: The bounds unless a user raises them.
DEFAULT = Limits()
