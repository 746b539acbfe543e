"""From a network to an image with its metadata."""

from __future__ import annotations

from secateur.compiler import dataflow
from secateur.compiler.body import make_bodies
from secateur.compiler.certificate import certify
from secateur.compiler.encode import plan_and_encode
from secateur.compiler.metadata import metadata
from secateur.compiler.prepare import runnable
from secateur.compiler.room.advice import advising
from secateur.compiler.room.ahead import take_ahead
from secateur.compiler.room.weights import check_weights
from secateur.image.image import Image
from secateur.ir import Network
from secateur.target import Target


def compile_network(network: Network, target: Target) -> Image:
    """Certify, schedule and encode a network for a target.

    Raises
    ------
    SecateurError : an accumulator could overflow, the tensors do not fit the banks, the image does
        not fit the weight memory, or (a fault of Secateur) a layer would read another value
    """
    placed = runnable(network, target.geometry)
    certificates = certify(placed)
    with advising(placed, target):
        bodies = make_bodies(placed, target.geometry.n)
        check_weights(bodies.layers, target.geometry)
        planned, encoded = plan_and_encode(placed, target.geometry, bodies)
    planned, encoded = take_ahead(planned, encoded, target.geometry)
    dataflow.check(network, planned)
    return Image(encoded.words, metadata(planned, encoded, certificates, target))
