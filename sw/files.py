"""Files for other tools: Verilog and memory images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from secateur import image as images
from secateur.api import verilog
from secateur.errors import SecateurError
from secateur.image import Image, write_atomically
from secateur.target import Target

FAMILIES = ("generic", "ecp5")


def check_fit(image: Image, target: Target, name: str) -> None:
    """Refuse an image that the target's engine would refuse.

    Raises
    ------
    SecateurError : N or P differ, or a memory is too small
    """
    geometry = target.geometry
    if (image.n, image.p) != (geometry.n, geometry.p):
        raise SecateurError(
            f"{name}: compiled for {image.n}x{image.p}, the target {target.name} is "
            f"{geometry.n}x{geometry.p}; compile the model for it"
        )
    for what, needed, there in (
        ("weight memory", len(image.words), geometry.weight_words),
        ("banks", image.bank_words, geometry.bank_words),
    ):
        if needed > there:
            raise SecateurError(
                f"{name}: needs {needed} words of {what}, the target {target.name} has {there}"
            )


def write_verilog(
    target_name: str, folder: Path, image_path: Path | None, family: str
) -> dict[str, Any]:
    """Write ``secateur.v`` and, with an image, the weight memory in every format.

    Returns the list of files.

    Raises
    ------
    SecateurError : unknown target or family, or the image does not fit
    """
    if family not in FAMILIES:
        raise SecateurError(f"family {family!r} is not one of {', '.join(FAMILIES)}")
    target = Target.load(target_name)
    image = None
    if image_path is not None:
        image = images.load(image_path)
        check_fit(image, target, str(image_path))
    text = verilog(target.geometry, image, family)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SecateurError(f"{folder}: cannot be made: {error.strerror}") from None
    written = [folder / "secateur.v"]
    write_atomically(written[0], text.encode())
    if image is not None:
        for style in images.FORMATS:
            content = images.export(image, style, target.geometry.weight_words)
            path = folder / f"weights.{style}"
            write_atomically(path, content if isinstance(content, bytes) else content.encode())
            written.append(path)
    return {"target": target.name, "files": [str(path) for path in written]}
