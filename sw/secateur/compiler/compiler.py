"""From a network to an image with its metadata."""

from __future__ import annotations

from secateur.compiler import dataflow
from secateur.compiler.body import make_bodies
from secateur.compiler.certificate import certify
from secateur.compiler.metadata import metadata
from secateur.compiler.prepare import runnable
from secateur.compiler.room.advice import advising
from secateur.compiler.room.ahead import take_ahead
from secateur.compiler.room.weights import check_weights
from secateur.compiler.strips.search import Planner
from secateur.image.image import Image
from secateur.ir import Network
from secateur.target import Target


def compile_network(network: Network, target: Target) -> Image:
    """Certify, schedule and encode a network for a target.

    Layers are computed in strips only if the maps do not fit the banks otherwise.

    Raises
    ------
    SecateurError : an accumulator could overflow, the tensors do not fit the banks, the image does
        not fit the weight memory, or (a fault of Secateur) a layer would read another value
    """
    placed = runnable(network, target.geometry)
    certify(placed)  # before what takes longer
    with advising(placed, target):
        bodies = make_bodies(placed, target.geometry.n)
        check_weights(bodies.layers, target.geometry)
        planned, encoded = Planner(placed, target.geometry).plan(placed, bodies)
    planned, encoded = take_ahead(planned, encoded, target.geometry)
    dataflow.check(network, planned)
    return Image(encoded.words, metadata(planned, encoded, certify(planned.network), target))
