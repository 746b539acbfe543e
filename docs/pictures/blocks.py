"""Diagrams of blocks: the flow from a model to a board, and the engine."""

from __future__ import annotations

from docs.pictures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    drawing,
)


def flow() -> str:
    """From a PyTorch model to results that are compared byte by byte."""
    with drawing(16, 7.2) as sheet:
        steps = [
            ("PyTorch model", "float32", PALE_GREY),
            ("prune", "N:1 blocks", PALE_BLUE),
            ("quantize", "PT2E, int8", PALE_BLUE),
            ("compile", "lanes, banks,\nschedule", PALE_BLUE),
            ("model.sec", "block-CSR image", PALE_GREEN),
        ]
        for index, (name, note, fill) in enumerate(steps):
            x = 0.2 + 3.2 * index
            sheet.box((x, 5.2), (2.6, 1.5), f"{name}\n", fill)
            sheet.label((x + 1.3, 5.65), note, font=7.5)
            if index:
                sheet.arrow((x - 0.6, 5.95), (x, 5.95))
        places = [
            ("golden interpreter", "NumPy", 12.6, PALE_GREEN),
            ("Verilator", "the Verilog, cycle by cycle", 8.2, PALE_GREEN),
            ("board", "yosys, nextpnr; UART", 3.8, PALE_ORANGE),
        ]
        for name, note, x, fill in places:
            sheet.box((x, 2.6), (3.2, 1.4), f"{name}\n", fill)
            sheet.label((x + 1.6, 3.0), note, font=7.5)
            sheet.arrow((14.3, 5.2), (x + 1.6, 4.0))
        sheet.box((0.2, 2.6), (2.6, 1.4), "PyTorch,\nint8 graph", PALE_GREY)
        sheet.arrow((7.4, 5.2), (1.5, 4.0), GREY)
        sheet.line((1.5, 2.6), (1.5, 1.5), (14.2, 1.5), (14.2, 2.6), colour=GREEN)
        for x in (5.4, 9.8):
            sheet.line((x, 1.5), (x, 2.6), colour=GREEN)
        sheet.label((8, 0.95), "equal: every byte of every layer", colour=GREEN)
        sheet.label((8, 0.4), "(on a board: every byte of the result)", font=7.5, colour=GREEN)
    return sheet.svg


def engine() -> str:
    """The blocks of the engine, from left to right as data flow."""
    with drawing(18, 9.4) as sheet:
        top = [
            ("weight memory", "RAM or ROM", 0.2, PALE_GREY),
            ("fetch", "queue of words", 3.4, PALE_BLUE),
            ("issue", "one word per cycle", 6.6, PALE_BLUE),
            ("address", "one read address", 9.8, PALE_BLUE),
        ]
        for name, note, x, fill in top:
            sheet.box((x, 6.6), (2.6, 1.4), f"{name}\n", fill)
            sheet.label((x + 1.3, 6.95), note, font=7)
        for x in (2.8, 6.0, 9.2):
            sheet.arrow((x, 7.3), (x + 0.6, 7.3))
        sheet.box((0.2, 8.5), (2.6, 0.7), "loader: CRC-32", PALE_GREY, font=8)
        sheet.arrow((1.5, 8.5), (1.5, 8.0))
        sheet.label((4.2, 8.85), "image stream", font=8, side="left", colour=ORANGE)
        sheet.arrow((4.1, 8.85), (2.8, 8.85), ORANGE)
        for lane, name in enumerate(("lane 0", "lane 1", "lane P-1")):
            y = 4.7 - 1.5 * lane
            sheet.box((5.2, y), (2.4, 0.9), f"bank {name[5:]}", PALE_GREEN)
            sheet.box((8.4, y), (2.4, 0.9), "N multipliers", PALE_GREEN)
            sheet.box((11.4, y), (2.2, 0.9), "N sums", PALE_GREEN)
            sheet.arrow((7.6, y + 0.45), (8.4, y + 0.45))
            sheet.arrow((10.8, y + 0.45), (11.4, y + 0.45))
            sheet.label((4.9, y + 0.45), name, font=8, side="right")
            sheet.arrow((13.6, y + 0.45), (14.6, 3.7))
        sheet.label((9.6, 2.95), "...", font=11)
        sheet.line((11.1, 6.6), (11.1, 6.0), (6.4, 6.0), colour=BLUE)
        sheet.arrow((6.4, 6.0), (6.4, 5.6), BLUE)
        sheet.label((8.7, 6.2), "the same local address in every bank", font=7, colour=BLUE)
        sheet.line((7.9, 6.6), (7.9, 5.8), (9.6, 5.8), colour=GREY)
        sheet.arrow((9.6, 5.8), (9.6, 5.6), GREY)
        sheet.label((10.4, 5.78), "N weights", font=7, side="left")
        sheet.box((14.6, 3.0), (3.1, 1.4), "drain\n", PALE_ORANGE)
        sheet.label((16.15, 3.4), "bias, shift, clip, table", font=7)
        sheet.line((16.15, 3.0), (16.15, 0.7), (2.2, 0.7), (2.2, 3.6), colour=GREEN)
        for y in (4.7, 3.2, 1.7):
            sheet.line((2.2, y + 0.15), (2.2, 3.6), colour=GREEN)
            sheet.arrow((2.2, y + 0.15), (5.2, y + 0.15), GREEN)
        sheet.label((9.2, 0.4), "write bus: each bank keeps the words of its window",
                    font=8, colour=GREEN)  # fmt: skip
        sheet.arrow((16.9, 3.0), (16.9, 1.8), ORANGE)
        sheet.label((16.9, 1.5), "result stream", font=8, colour=ORANGE)
        sheet.label((0.9, 5.6), "input stream", font=8, colour=ORANGE)
        sheet.arrow((1.3, 5.4), (2.1, 4.95), ORANGE)
    return sheet.svg


def system() -> str:
    """Where Secateur's engine stands in a system on a chip."""
    with drawing(14, 4.6, 7) as sheet:
        sheet.box((0.3, 2.7), (2.6, 1.3), "processor", PALE_GREY)
        sheet.box((0.3, 0.5), (2.6, 1.3), "DMA or sensor", PALE_GREY)
        sheet.box((5.2, 2.7), (3.0, 1.3), "registers", PALE_BLUE)
        sheet.box((9.8, 0.5), (3.8, 3.5), "engine", PALE_GREEN)
        sheet.arrow((2.9, 3.35), (5.2, 3.35))
        sheet.label((4.05, 3.75), "AXI4-Lite or\nWishbone", font=7)
        sheet.arrow((8.2, 3.35), (9.8, 3.35))
        sheet.arrow((2.9, 1.4), (9.8, 1.4), ORANGE)
        sheet.label((6.3, 1.65), "s_axis: input words", font=7, colour=ORANGE)
        sheet.arrow((9.8, 0.8), (2.9, 0.8), ORANGE)
        sheet.label((6.3, 0.5), "m_axis: result words", font=7, colour=ORANGE)
        sheet.line((6.7, 2.7), (6.7, 2.2), (1.6, 2.2), colour=GREY)
        sheet.arrow((1.6, 2.2), (1.6, 2.7), GREY)
        sheet.label((4.3, 2.37), "irq", font=7)
    return sheet.svg
