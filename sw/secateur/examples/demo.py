"""The main job on real images: train, prune, quantise, compile, and check every byte."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from secateur import api
from secateur.agreement import check_image
from secateur.compiler.compiler import compile_network
from secateur.disk.lock import held
from secateur.disk.storage import write_atomically
from secateur.errors import SecateurError
from secateur.examples import demo_model
from secateur.files import write_verilog
from secateur.image.image import Image
from secateur.lowering.lower import lower
from secateur.progress import Progress, silent
from secateur.pruning.recipes.task.device import one_thread
from secateur.quantisation.prepare import Graph, quantize
from secateur.report.summary import summary
from secateur.target import Target

TARGET = "8x8"
CALIBRATION = 512
SIMULATED = 8


def run_demo(folder: Path, seed: int, progress: Progress = silent) -> dict[str, Any]:
    """Run the demo and write Verilog, images and the summary to ``folder``.

    The simulator is built on one core while the network trains on another.

    Parameters
    ----------
    folder : made if it is missing
    seed : of everything random
    progress : called after every epoch and stage

    Returns
    -------
    dict : accuracies, cycles, a table and what was compared, as in ``summary.json``

    Raises
    ------
    SecateurError : the folder cannot be written, another run is going on in it, a tool is missing,
        or anything differs between PyTorch, golden and Verilator
    """
    target = Target.load(TARGET)
    with held(folder), one_thread(), ThreadPoolExecutor(1) as pool:
        built = pool.submit(api.build_simulator, target.geometry)
        images = demo_model.data(seed)
        graphs, floats = _train(images, seed, progress)
        compiled, accuracy, layers = _compile(graphs, images, target, folder, progress)
        progress("Verilator", 0, 1, "building and running the engine")
        built.result()
        shown = _shown(images)
        simulated = api.simulate(compiled["pruned"], shown.numpy())
        if simulated.mismatches:
            raise SecateurError(f"Verilog differs from golden: {simulated.mismatches[0]}")
        each = simulated.layers_compared // simulated.images
        note = f"{each} layers x {simulated.images} images equal golden's"
        progress("Verilator", 1, 1, note)
        files = [str(folder / f"{name}.sec") for name in compiled]
        files += write_verilog(TARGET, folder / "verilog", folder / "pruned.sec", "ecp5")["files"]
    data = {
        "seed": seed,
        "accuracy": {"float": floats["dense"], "pruned float": floats["pruned"], **accuracy},
        "table": _rows(compiled, floats, accuracy),
        "cycles": simulated.cycles,
        "predicted_cycles": simulated.predicted_cycles,
        "golden_images": len(compiled) * len(images.test_x),
        "layer_images": simulated.images,
        "layers_compared": layers + simulated.layers_compared,
        "mismatches": len(simulated.mismatches),
        "files": [*files, str(folder / "summary.json")],
    }
    write_atomically(folder / "summary.json", json.dumps(data, indent=1).encode())
    return data


def _train(
    images: demo_model.Data, seed: int, progress: Progress
) -> tuple[dict[str, Graph], dict[str, float]]:
    """The quantised graphs and float accuracies of the dense and of the pruned network."""
    network = demo_model.model(seed)
    # The images are sorted by digit: a sample must be drawn.
    drawn = torch.randperm(len(images.train_x), generator=torch.Generator().manual_seed(seed))
    calibration = images.train_x[drawn[:CALIBRATION]]
    graphs: dict[str, Graph] = {}
    floats: dict[str, float] = {}

    def finish(name: str) -> None:
        floats[name] = demo_model.evaluate(network, images.test_x, images.test_y)
        graphs[name] = quantize(network, calibration)
        progress(name, 1, 1, f"accuracy {floats[name]:.1%}, float; quantised")

    demo_model.train(network, images, demo_model.EPOCHS, seed, progress)
    finish("dense")
    demo_model.prune_and_train(network, images, demo_model.PRUNE_EPOCHS, seed, progress)
    finish("pruned")
    return graphs, floats


def _compile(
    graphs: dict[str, Graph],
    images: demo_model.Data,
    target: Target,
    folder: Path,
    progress: Progress,
) -> tuple[dict[str, Image], dict[str, float], int]:
    """Images, their accuracies by the golden interpreter, and how many layers were compared."""
    test_x, labels = images.test_x, images.test_y.numpy()
    compiled, accuracy, layers = {}, {}, 0
    for name, graph in graphs.items():
        lowered = lower(graph)
        image = compile_network(lowered, target)
        layers += check_image(image, graph, _shown(images), lowered)
        image.save(folder / f"{name}.sec")
        outputs = api.run(image, test_x.numpy())
        _check_results(graph, test_x, outputs.values)
        compiled[name] = image
        accuracy[name] = float((outputs.values.argmax(axis=1) == labels).mean())
        note = f"accuracy {accuracy[name]:.1%}, int8; every output equals PyTorch's"
        progress(f"golden, {name}", len(test_x), len(test_x), note)
    return compiled, accuracy, layers


def _shown(images: demo_model.Data) -> torch.Tensor:
    """The images of which every layer is compared."""
    return images.test_x[:: len(images.test_x) // SIMULATED][:SIMULATED]


def _check_results(graph: Graph, x: torch.Tensor, values: Any) -> None:
    """Golden's outputs must be the very floats of the converted PyTorch graph."""
    with torch.no_grad(), torch.backends.nnpack.flags(enabled=False):
        expected = torch.cat([graph(batch) for batch in x.split(250)]).numpy()
    different = int((expected != values).any(axis=1).sum())
    if different:
        raise SecateurError(f"golden differs from PyTorch on {different} of {len(x)} images")


def _rows(
    images: dict[str, Image], floats: dict[str, float], accuracy: dict[str, float]
) -> list[tuple[str, ...]]:
    numbers = {name: summary(image) for name, image in images.items()}

    def row(label: str, key: str, style: str = ",.0f") -> tuple[str, ...]:
        return (label, *(format(numbers[name][key], style) for name in ("dense", "pruned")))

    share = [numbers[name]["blocks"] / numbers[name]["blocks_total"] for name in numbers]
    memory = [f"{numbers[name]['stream_bits'] // 8:,}" for name in numbers]
    return [
        ("accuracy, float", *(f"{floats[name]:.1%}" for name in ("dense", "pruned"))),
        ("accuracy, int8", *(f"{accuracy[name]:.1%}" for name in ("dense", "pruned"))),
        ("density of all blocks (25 % where pruned)", *(f"{value:.1%}" for value in share)),
        row("cycles per inference", "cycles"),
        row("bound: nonzero MACs / 64", "bound_cycles"),
        ("weight ROM, bytes", *memory),
    ]
