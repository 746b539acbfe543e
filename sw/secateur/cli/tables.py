"""Tables of the command line."""

from __future__ import annotations

import numpy as np

from secateur.cli.terminal import Data, Rows, console
from secateur.text import printable


def _table(title: str, *columns: str) -> Rows:
    table = Rows(title=printable(title, 200), title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=index == 0)
    return table


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def show_summary(data: Data) -> None:
    """What ``compile`` made."""
    table = _table(f"{data.get('output', 'image')} for {data['target']}", "", "pruned", "dense")
    table.add_row("cycles an inference", f"{data['cycles']:,}", f"{data['cycles_dense']:,}")
    table.add_row("bound: nonzero MACs / multipliers", f"{data['bound_cycles']:,.0f}", "")
    table.add_row("N:1 blocks", f"{data['blocks']:,}", f"{data['blocks_total']:,}")
    table.add_row(
        "stream words, of the memory's", f"{data['words']:,}", f"{data['weight_words']:,}"
    )
    if data["bits_per_dense_weight"]:
        table.add_row("stream bits a dense weight", f"{data['bits_per_dense_weight']:.2f}", "")
    console.print(table)


def show_inspection(data: Data) -> None:
    """Everything that ``inspect`` knows."""
    show_summary(data)
    layers = _table(
        "Layers",
        "name",
        "kind",
        "cycles",
        "dense",
        "of bound",
        "blocks",
        "of",
        "lanes busy",
        "deal",
    )
    for layer in data["layers"]:
        layers.add_row(
            layer["name"],
            layer["kind"],
            f"{layer['cycles']:,}",
            f"{layer['cycles_dense']:,}",
            _percent(layer["bound_cycles"], layer["cycles"]),
            f"{layer['blocks']:,}",
            f"{layer['blocks_total']:,}",
            _percent(layer["lanes_busy"], 1),
            layer["deal"],
        )
    console.print(layers)
    _show_labels(data)
    memory = _table("Bank memory", "tensor", "first word", "words", "cleared")
    for window in data["memory"]:
        cleared = "yes" if window["clear"] else ""
        memory.add_row(window["tensor"], str(window["base"]), str(window["words"]), cleared)
    console.print(memory)
    proof = _table("Overflow certificate", "layer", "largest sum", "of the accumulator's range")
    for layer in data["layers"]:
        largest = layer["certificate"]["accumulator"]
        share = _percent(largest, data["accumulator_limit"])
        proof.add_row(layer["name"], f"{largest:,}", share)
    console.print(proof)


def _show_labels(data: Data) -> None:
    """What the model's file calls the layers, where it says so."""
    labels = {layer["name"]: layer["label"] for layer in data["layers"] if layer.get("label")}
    table = _table("Names in the model's file", "layer", "there")
    for name, label in labels.items():
        table.add_row(name, label)
    if labels:
        console.print(table)


def show_run(data: Data) -> None:
    """Results of the golden interpreter."""
    console.print(f"{data['images']} inputs, {data['cycles']:,} cycles each")
    short = True
    for index, values in enumerate(data["outputs"][:10]):
        array = np.asarray(values)
        if array.ndim > 1:
            short = False
            values = f"{array.shape}, {array.min()} to {array.max()}"
        console.print(f"  {index}: {values}")
    if data["images"] > 10:
        console.print("  ...")
    if data.get("file"):
        console.print(data["file"])
    elif data["images"] > 10 or not short:
        console.print("  (--output FILE.npz keeps all)")


def show_simulation(data: Data) -> None:
    """Verilator beside golden."""
    table = _table("Verilator beside golden", "", "")
    table.add_row("inputs", str(data["images"]))
    table.add_row("layers compared", str(data["layers_compared"]))
    table.add_row("differences", str(data["mismatches"]))
    table.add_row("cycles, Verilog", f"{data['cycles']:,}")
    table.add_row("cycles, predicted", f"{data['predicted_cycles']:,}")
    console.print(table)
    for difference in data["differences"][:10]:
        console.print(f"  {difference}")


def show_info(data: Data) -> None:
    """Registers of a device."""
    table = _table(f"{data['port']}: Secateur {data['n']}x{data['p']}", "register", "field", "")
    for name, fields in data["registers"].items():
        for part, value in fields.items():
            shown = data["names"].get(f"{name}.{part}", f"{value:,}")
            table.add_row(name, "" if part == "VALUE" else part, shown)
    console.print(table)


def show_loaded(data: Data) -> None:
    """An image that a device has accepted."""
    console.print(f"{data['port']}: {data['image']}, {data['bytes']:,} bytes, accepted")


def show_device_run(data: Data) -> None:
    """Results of a device, and its own count beside the compiler's."""
    show_run(data)
    predicted = f"{data['predicted_cycles']:,}"
    console.print(f"cycles predicted: {predicted}; requests repeated: {data['repeated']}")


def show_files(data: Data) -> None:
    """Files written."""
    for name in data["files"]:
        console.print(name)


def show_delta(data: Data) -> None:
    """Size of a patch beside its image."""
    table = _table(data["patch"], "bytes", "", "of the image")
    table.add_row("image", f"{data['image_bytes']:,}", "")
    whole, size = data["image_bytes_compressed"], data["image_bytes"]
    table.add_row("image, compressed", f"{whole:,}", _percent(whole, size))
    table.add_row("patch", f"{data['patch_bytes']:,}", _percent(data["patch_bytes"], size))
    console.print(table)


def show_patched(data: Data) -> None:
    """The image that a patch made."""
    console.print(f"{data['image']}: {data['image_bytes']:,} bytes")


def show_verified(data: Data) -> None:
    """An image with a good signature."""
    console.print(f"{data['image']}: signed by {data['key']}")


def show_targets(data: Data) -> None:
    """The presets."""
    table = _table(
        "Presets", "name", "N", "P", "multipliers", "weight words", "bank words", "device"
    )
    for target in data["targets"]:
        table.add_row(
            target["name"],
            str(target["n"]),
            str(target["p"]),
            str(target["n"] * target["p"]),
            f"{target['weight_words']:,}",
            f"{target['bank_words']:,}",
            target["device"] or target["family"],
        )
    console.print(table)


def show_boards(data: Data) -> None:
    """The boards."""
    table = _table("Boards", "name", "part", "N x P", "weight words", "bank words", "MHz")
    for board in data["boards"]:
        table.add_row(
            board["name"],
            board["device"] + ("" if board["built_here"] else " (vendor's tools)"),
            f"{board['n']} x {board['p']}",
            f"{board['weight_words']:,}",
            f"{board['bank_words']:,}",
            f"{board['clock_mhz']:g}",
        )
    console.print(table)


def show_demo(data: Data) -> None:
    """Summary of the demo."""
    table = _table("MNIST-5k on 8x8", "", "dense", "pruned")
    for row in data["table"]:
        table.add_row(*row)
    console.print(table)
    console.print(
        f"Checked: {data['golden_images']:,} images PyTorch = golden (results), "
        f"{data['layer_images']} images PyTorch = golden = Verilator on every layer "
        f"({data['layers_compared']} layer comparisons), {data['mismatches']} differences."
    )
    console.print("Results:")
    for name in data["files"]:
        console.print(f"  {name}")


def show_prune(data: Data) -> None:
    """Dense int8 beside pruned int8, and what was lost on the way."""
    dense, pruned = data["columns"]["dense"], data["columns"]["model"]
    table = _table(f"{data['recipe']['target']}, int8", "", "dense", "pruned")

    def row(label: str, style: str, *keys: str) -> None:
        values = [[column[key] for key in keys] for column in (dense, pruned)]
        shown = [v[0] / v[1] if len(v) == 2 else v[0] for v in values]
        table.add_row(label, *(format(value, style) for value in shown))

    row("accuracy", ".2%", "accuracy")
    row("loss", ".4f", "loss")
    row("cycles an inference", ",", "cycles")
    row("bound: nonzero MACs / multipliers", ",.0f", "bound_cycles")
    row("ROM bytes", ",", "rom_bytes")
    row("density of blocks", ".1%", "blocks", "blocks_total")
    table.add_row("same answer as dense", "", f"{data['agreement']:.2%}")
    console.print(table)
    floats = [("float", "trained"), ("pruned", "pruned"), ("recovered", "recovered")]
    path = [f"{label} {data['results'][key]['accuracy']:.2%}" for key, label in floats]
    console.print(f"Accuracy in float: {', '.join(path)}.")
    budget = data["budget"]
    limits = ", ".join(
        f"{budget['spent'][name]:,} of {limit:,} {name}" for name, limit in budget["limits"].items()
    )
    console.print(f"Budget: {limits}; {budget['used']:.1%} of the tightest.")
    if data["sensitivity"]:
        scan = _table("One layer pruned, no recovery", "layer", "density", "accuracy", "loss")
        for found in data["sensitivity"]:
            numbers = (f"{found['density']:.2f}", f"{found['accuracy']:.2%}")
            scan.add_row(found["layer"], *numbers, f"{found['loss']:.4f}")
        console.print(scan)
    if data["robustness"]:
        attacks = _table("Accuracy, float", "under", "strength", "dense", "pruned")
        for found in data["robustness"]:
            shares = (f"{found['dense']:.2%}", f"{found['pruned']:.2%}")
            attacks.add_row(found["what"], f"{found['strength']:g}", *shares)
        console.print(attacks)
    console.print(f"Results: {data['folder']}/model.sec, {data['folder']}/record.json")


def show_example(data: Data) -> None:
    """A use, dense beside pruned."""
    dense, pruned = data["dense"], data["pruned"]
    table = _table(f"{data['what'].split(';')[0]}; {data['target']}, int8", "", "dense", "pruned")
    sequence = "" if data["steps"] == 1 else f", {data['steps']} steps"
    rows = [
        ("accuracy", "accuracy", ".2%"),
        ("cycles of a step" if sequence else "cycles of an inference", "cycles", ",.0f"),
        (f"milliseconds at {data['clock_mhz']:g} MHz{sequence}", "milliseconds", ",.3f"),
        (f"microjoules, an estimate{sequence}", "microjoules", ",.2f"),
        ("ROM bytes", "rom_bytes", ",.0f"),
        ("weight blocks", "blocks", ",.0f"),
    ]
    for label, key, style in rows:
        table.add_row(label, format(dense[key], style), format(pruned[key], style))
    table.add_row("same answer as dense", "", f"{data['agreement']:.2%}")
    console.print(table)
    gone = [f"{name} {a} to {b}" for name, (a, b) in data["widths"].items() if a != b]
    if gone:
        console.print(f"Channels: {', '.join(gone)}.")
    console.print(
        f"{data['samples']:,} samples in the golden interpreter, "
        f"{data['simulated']['samples']} of them in Verilator, every layer "
        f"({data['simulated']['layers_compared']} comparisons): no difference.",
    )
    console.print(f"Results: {data['folder']}/model.sec, example.json, record.json")


def show_study(data: Data) -> None:
    """Variants of a recipe, mean and deviation over the seeds."""
    columns = ("float", "dense int8", "int8", "drop", "cycles", "rom bytes", "density of dense")
    count = len(data["seeds"])
    table = _table(f"Mean and deviation of {count} seed{'s' * (count > 1)}", "variant", *columns)
    for name, row in data["variants"].items():
        cells = []
        for column in columns:
            style = ",.0f" if column in ("cycles", "rom bytes") else ".2%"
            found = row[column]
            spread = f" ±{found['deviation']:{style}}" if found["runs"] > 1 else ""
            cells.append(f"{found['mean']:{style}}{spread}")
        table.add_row(name, *cells)
    console.print(table)
    console.print(f"Results: {data['folder']}/study.json")


def show_energy(data: Data) -> None:
    """Estimated energy by layer, dense beside pruned."""
    table = _table("Estimated energy of an inference, nJ", "layer", "dense", "pruned", "share")
    for row in data["layers"]:
        dense, pruned = (row[key]["picojoules"]["total"] for key in ("dense", "pruned"))
        share = f"{pruned / dense:.1%}" if dense else ""
        table.add_row(row["name"], f"{dense / 1e3:,.1f}", f"{pruned / 1e3:,.1f}", share)
    for part in sorted(data["pruned"]["picojoules"], key=lambda part: part != "total"):
        dense, pruned = (data[key]["picojoules"][part] for key in ("dense", "pruned"))
        share = f"{pruned / dense:.1%}" if dense else ""
        name = "all layers" if part == "total" else f"  of it: {part}"
        table.add_row(name, f"{dense / 1e3:,.1f}", f"{pruned / 1e3:,.1f}", share)
    console.print(table)
    counts = data["pruned"]["counts"]
    skipped = data["dense"]["counts"]["macs"] - counts["macs"]
    console.print(
        f"Multiply-accumulates: {counts['macs']:,} issued ({data['macs_nonzero']:,} by a nonzero "
        f"weight), {skipped:,} skipped. An estimate: exact counts, energies from {data['source']}.",
    )


def show_compare(data: Data) -> None:
    """Cycles of the image, exact, beside those that Vela estimates."""
    columns = ("MACs", "cycles", "with memory", "x dense", "x pruned")
    table = _table(f"{data['image']} beside {data['tflite']}: cycles", "", *columns)
    ours, vela = data["secateur"], data["vela"]
    for name in ("dense", "pruned"):
        cycles = ours["cycles_dense" if name == "dense" else "cycles"]
        table.add_row(f"{ours['target']} {name}, exact", f"{ours['multipliers']}", f"{cycles:,}")
    for row in data["estimates"]:
        cells = [f"{row['multipliers']}", f"{row['cycles']:,}", f"{row['cycles_total']:,}"]
        ratio = row["ratio"]
        cells += ["", ""] if ratio is None else [f"{ratio[key]:.2f}" for key in ("dense", "pruned")]
        table.add_row(f"{row['accelerator']}, estimate", *cells)
    console.print(table)
    console.print(
        f"Exact: the compiler's count, which the Verilog repeats to the cycle; dense is the same "
        f"network with every block kept. {ours['input_words']:,} words of input, one a cycle, are "
        f"not in it. Estimate: Vela {vela['version']}'s model of the NPU, {vela['system_config']}, "
        f"{vela['memory_mode']}: weights and tensors in SRAM at the NPU's clock. Ratios are Vela's "
        f"cycles to ours, at as many multipliers.",
    )
    for row in data["estimates"]:
        if row["cpu_operators"]:
            console.print(
                f"{row['accelerator']} leaves {row['cpu_operators']} operators to the CPU; their "
                f"time is not in it."
            )
    if all(row["ratio"] is None for row in data["estimates"]):
        console.print(f"None of them has {ours['multipliers']} multipliers: no ratio.")
