"""The commands for images in the field: patches and signatures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.common import Commands, Json, Key
from secateur.cli.tables import percent, show_files, table
from secateur.cli.terminal import Data, console, emit

updates = Commands("Files")

OldImage = Annotated[Path, typer.Argument(help="Image that the device has now.")]


@updates.command(epilog="Example: secateur delta old.sec new.sec -o update.secd")
def delta(
    old: OldImage,
    new: Annotated[Path, typer.Argument(help="Image that the device is to get.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Patch to write.")],
    as_json: Json = False,
) -> None:
    """Make a patch that turns one image into another; print its size beside the image's."""
    from secateur.image.delta import make_file

    emit(make_file(old, new, output), as_json, show_delta)


@updates.command(epilog="Example: secateur patch old.sec update.secd -o new.sec")
def patch(
    old: OldImage,
    patch: Annotated[Path, typer.Argument(help="Patch made by `secateur delta`.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Image to write; may be the old one.")
    ],
    key: Key = None,
    signature: Annotated[
        Path | None,
        typer.Option(help="Signature of the new image, for --key; by default OUTPUT.sig."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Apply a patch to an image; nothing is written unless the result is right."""
    from secateur.image.delta import apply_file

    emit(apply_file(old, patch, output, key, signature), as_json, show_patched)


@updates.command(epilog="Example: secateur keygen -o key.pem")
def keygen(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="Private key to write (PEM), a new file; OUTPUT.pub gets the public key.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """Make a pair of Ed25519 keys: OUTPUT for `sign`, OUTPUT.pub for `--key` of other commands."""
    from secateur.image.signing import keygen as make

    public = Path(f"{output}.pub")
    make(output, public)
    emit({"files": [str(output), str(public)]}, as_json, show_files)


@updates.command(epilog="Example: secateur sign model.sec --key key.pem")
def sign(
    image: Annotated[Path, typer.Argument(help="Image to sign.")],
    key: Annotated[Path, typer.Option(help="Private Ed25519 key (PEM).")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Signature to write; by default IMAGE.sig."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign an image with Ed25519; the commands look for the signature in IMAGE.sig."""
    from secateur.image.signing import sign as write

    emit({"files": [str(write(image, key, output))]}, as_json, show_files)


@updates.command(epilog="Example: secateur verify model.sec --key key.pem.pub")
def verify(
    image: Annotated[Path, typer.Argument(help="Image whose signature, IMAGE.sig, is checked.")],
    key: Annotated[Path, typer.Option(help="Public Ed25519 key (PEM).")],
    as_json: Json = False,
) -> None:
    """Check an image's signature; fails if it is unsigned, altered or signed by another key."""
    from secateur.image.signing import load

    load(image, key)
    emit({"image": str(image), "key": str(key), "verified": True}, as_json, show_verified)


def show_delta(data: Data) -> None:
    """Size of a patch beside its image."""
    rows = table(data["patch"], "bytes", "", "of the image")
    rows.add_row("image", f"{data['image_bytes']:,}", "")
    whole, size = data["image_bytes_compressed"], data["image_bytes"]
    rows.add_row("image, compressed", f"{whole:,}", percent(whole, size))
    rows.add_row("patch", f"{data['patch_bytes']:,}", percent(data["patch_bytes"], size))
    console.print(rows)


def show_patched(data: Data) -> None:
    """The image that a patch made."""
    console.print(f"{data['image']}: {data['image_bytes']:,} bytes")


def show_verified(data: Data) -> None:
    """An image with a good signature."""
    console.print(f"{data['image']}: signed by {data['key']}")
