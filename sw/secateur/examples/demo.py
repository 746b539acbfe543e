"""The main job on real images: train, prune, quantise, compile, and check every byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from secateur.agreement import check_image
from secateur.compiler.compiler import compile_network
from secateur.disk.lock import held
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.examples import demo_model
from secateur.files import write_verilog
from secateur.image.image import Image
from secateur.lowering.lower import lower
from secateur.quantisation.prepare import Graph, quantize
from secateur.report.summary import summary
from secateur.target import Target

TARGET = "8x8"
CALIBRATION = 512
SIMULATED = 8


def run_demo(folder: Path, seed: int, progress: Progress) -> dict[str, Any]:
    """Run the demo and write Verilog, images and the summary to ``folder``.

    Raises
    ------
    SecateurError : the folder cannot be written, another run is going on in it, a tool is missing,
        or anything differs between PyTorch, golden and Verilator
    """
    with held(folder):
        return _run_held(folder, seed, progress)


def _run_held(folder: Path, seed: int, progress: Progress) -> dict[str, Any]:
    from secateur import api

    images = demo_model.data(seed)
    network = demo_model.model(seed)

    def bar(name: str, total: int) -> Any:
        task = progress.add_task(name, total=total)
        return lambda done, *_: progress.update(task, completed=done)

    demo_model.train(network, images, demo_model.EPOCHS, seed, bar("train", demo_model.EPOCHS))
    accuracy_float = demo_model.evaluate(network, images.test_x, images.test_y)
    # The images are sorted by digit: a sample must be drawn.
    drawn = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(seed))
    calibration = images.train_x[drawn[:CALIBRATION]]
    dense = quantize(network, calibration)
    epochs = demo_model.PRUNE_EPOCHS
    demo_model.prune_and_train(network, images, epochs, seed, bar("prune and fine-tune", epochs))
    pruned_float = demo_model.evaluate(network, images.test_x, images.test_y)
    pruned = quantize(network, calibration)

    target = Target.load(TARGET)
    test_x, labels = images.test_x, images.test_y.numpy()
    shown = test_x[:: len(test_x) // SIMULATED][:SIMULATED]
    accuracy, compiled, layers = {}, {}, 0
    for name, graph in (("dense", dense), ("pruned", pruned)):
        lowered = lower(graph)
        image = compile_network(lowered, target)
        layers += check_image(image, graph, shown, lowered)
        image.save(folder / f"{name}.sec")
        compiled[name] = image
        outputs = api.run(image, test_x.numpy(), bar(f"golden, {name}", len(test_x)))
        _check_results(graph, test_x, outputs.values)
        accuracy[name] = float((outputs.values.argmax(axis=1) == labels).mean())
    task = progress.add_task("Verilator, every layer", total=None)
    simulated = api.simulate(compiled["pruned"], shown.numpy())
    progress.update(task, total=1, completed=1)
    if simulated.mismatches:
        raise SecateurError(f"Verilog differs from golden: {simulated.mismatches[0]}")
    files = [str(folder / f"{name}.sec") for name in compiled]
    files += write_verilog(TARGET, folder / "verilog", folder / "pruned.sec", "ecp5")["files"]
    data = {
        "seed": seed,
        "accuracy": {"float": accuracy_float, "pruned float": pruned_float, **accuracy},
        "table": _rows(compiled, accuracy_float, pruned_float, accuracy),
        "cycles": simulated.cycles,
        "predicted_cycles": simulated.predicted_cycles,
        "golden_images": 2 * len(test_x),
        "layer_images": simulated.images,
        "layers_compared": layers + simulated.layers_compared,
        "mismatches": len(simulated.mismatches),
        "files": [*files, str(folder / "summary.json")],
    }
    write_atomically(folder / "summary.json", json.dumps(data, indent=1).encode())
    return data


def _check_results(graph: Graph, x: torch.Tensor, values: Any) -> None:
    """Golden's outputs must be the very floats of the converted PyTorch graph."""
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        expected = torch.cat([graph(batch) for batch in x.split(250)]).numpy()
    different = int((expected != values).any(axis=1).sum())
    if different:
        raise SecateurError(f"golden differs from PyTorch on {different} of {len(x)} images")


def _rows(
    images: dict[str, Image], dense: float, pruned: float, accuracy: dict[str, float]
) -> list[tuple[str, ...]]:
    numbers = {name: summary(image) for name, image in images.items()}

    def row(label: str, key: str, style: str = ",.0f") -> tuple[str, ...]:
        return (label, *(format(numbers[name][key], style) for name in ("dense", "pruned")))

    share = [numbers[name]["blocks"] / numbers[name]["blocks_total"] for name in numbers]
    memory = [f"{numbers[name]['stream_bits'] // 8:,}" for name in numbers]
    return [
        ("accuracy, float", f"{dense:.1%}", f"{pruned:.1%}"),
        ("accuracy, int8", *(f"{accuracy[name]:.1%}" for name in ("dense", "pruned"))),
        ("density of blocks (25 % where pruned)", *(f"{value:.1%}" for value in share)),
        row("cycles an inference", "cycles"),
        row("bound: nonzero MACs / 64", "bound_cycles"),
        ("weight ROM, bytes", *memory),
    ]
