"""The commands for images in the field: patches and signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import Commands, Json, Key
from secateur.cli.terminal import emit

updates = Commands()

OldImage = Annotated[Path, typer.Argument(help="Image that the device has.")]


@updates.command(epilog="Example: secateur delta old.sec new.sec -o update.secd")
def delta(
    old: OldImage,
    new: Annotated[Path, typer.Argument(help="Image that it is to get.")],
    output: Annotated[Path, typer.Option("-o", "--output-file", help="Patch to write.")],
    as_json: Json = False,
) -> None:
    """Make a patch that turns one image into another, and compare its size with the image's."""
    from secateur.cli.tables import show_delta
    from secateur.image.delta import make_file

    emit(make_file(old, new, output), as_json, show_delta)


@updates.command(epilog="Example: secateur patch old.sec update.secd -o new.sec")
def patch(
    old: OldImage,
    patch: Annotated[Path, typer.Argument(help="Patch made by `secateur delta`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output-file", help="Image to write; may be the old one.")
    ],
    key: Key = None,
    signature: Annotated[
        Path | None, typer.Option(help="The new image's, for --key; else OUTPUT.sig.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Apply a patch. Nothing is written unless all of it is right."""
    from secateur.cli.tables import show_patched
    from secateur.image.delta import apply_file

    emit(apply_file(old, patch, output, key, signature), as_json, show_patched)


@updates.command(epilog="Example: secateur keygen --private private.pem --public public.pem")
def keygen(
    private: Annotated[Path, typer.Option(help="Private key to write; must not exist.")],
    public: Annotated[Path, typer.Option(help="Public key to write.")],
    as_json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys."""
    from secateur.cli.tables import show_files
    from secateur.image.signing import keygen as make

    make(private, public)
    emit({"files": [str(private), str(public)]}, as_json, show_files)


@updates.command(epilog="Example: secateur sign model.sec --key private.pem")
def sign(
    image: Annotated[Path, typer.Argument(help="Image to sign.")],
    key: Annotated[Path, typer.Option(help="Private Ed25519 key, PEM.")],
    as_json: Json = False,
) -> None:
    """Write the signature of an image beside it, IMAGE.sig."""
    from secateur.cli.tables import show_files
    from secateur.image.signing import sign as write

    emit({"files": [str(write(image, key))]}, as_json, show_files)


@updates.command(epilog="Example: secateur verify model.sec --key public.pem")
def verify(
    image: Annotated[Path, typer.Argument(help="Image whose signature, IMAGE.sig, is checked.")],
    key: Annotated[Path, typer.Option(help="Public Ed25519 key, PEM.")],
    as_json: Json = False,
) -> None:
    """Refuse an image that is unsigned, was altered, or was signed by another key."""
    from secateur.cli.tables import show_verified
    from secateur.image.signing import load

    load(image, key)
    emit({"image": str(image), "key": str(key), "verified": True}, as_json, show_verified)
