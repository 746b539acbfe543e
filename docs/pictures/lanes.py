"""Pixels on lanes: windows with halos, groups and passes, rows and their drain."""

from __future__ import annotations

from docs.pictures.style import (
    BLUE,
    GREEN,
    GREY,
    PALE_BLUE,
    PALE_GREEN,
    PALE_GREY,
    PALE_ORANGE,
    PAPER,
    RED,
    drawing,
)

DEEP = "#fb923c"
TINTS = (PALE_BLUE, PALE_GREEN, PALE_ORANGE, "#fce7f3")


def windows() -> str:
    """A map of 8 x 8 over four lanes, each with a tile and the halo of a 3 x 3 kernel."""
    side, at = 0.6, (0.6, 0.8)
    with drawing(16, 8.2) as sheet:
        sheet.label((3.6, 7.75), "map of 8 x 8 pixels, zero padding around it", font=9)
        for y in range(10):
            for x in range(10):
                inside = 1 <= x <= 8 and 1 <= y <= 8
                lane = (y > 4) * 2 + (x > 4)
                fill = TINTS[lane] if inside else PALE_GREY
                sheet.cell((at[0] + x * side, at[1] + (9 - y) * side), (side, side), fill)
        sheet.frame((at[0], at[1] + 4 * side), (6 * side, 6 * side), BLUE, 2.4)
        sheet.frame((at[0] + 4 * side, at[1]), (6 * side, 6 * side), RED, 2.4)
        for lane in range(4):
            x, y = 1 + (lane % 2) * 4, 1 + (lane // 2) * 4
            middle = (at[0] + (x + 2) * side, at[1] + (8 - y) * side)
            sheet.label(middle, f"lane {lane}", font=9)
        sheet.label((3.6, 0.35), "blue: window of bank 0; red: window of bank 3", font=8)
        sheet.label((11.8, 7.75), "bank 0 holds its window, tile and halo", font=9)
        for y in range(6):
            for x in range(6):
                tile = 1 <= x <= 4 and 1 <= y <= 4
                edge = x == 0 or y == 0
                fill = PALE_BLUE if tile else PALE_GREY if edge else PAPER
                sheet.cell((8.3 + x * side, 3.2 + (5 - y) * side), (side, side), fill)
        sheet.frame((8.3, 3.2), (3.6, 3.6), BLUE, 2.4)
        notes = [
            (5.9, "tile: the pixels\nof this lane", PALE_BLUE),
            (5.0, "halo: pixels of\nother lanes, too", PAPER),
            (4.1, "padding, filled\nwith zero", PALE_GREY),
        ]
        for y, text, fill in notes:
            sheet.cell((12.3, y - 0.2), (0.4, 0.4), fill)
            sheet.label((12.85, y), text, 8, side="left")
        sheet.label((11.8, 2.3), "A pixel on the write bus goes to every bank whose window", font=8)
        sheet.label((11.8, 1.8), "has it. So reads are local: each lane reads the same", font=8)
        sheet.label((11.8, 1.3), "address of its own bank.", font=8)
    return sheet.svg


def groups() -> str:
    """One group after the other: P pixels at a time, a pass over the body for each."""
    side = 0.55
    with drawing(16, 6.8) as sheet:
        sheet.label((3.0, 6.4), "output map: tiles of 4 lanes", font=9)
        for y in range(8):
            for x in range(8):
                group = (y % 4) * 4 + x % 4
                fill = DEEP if group == 5 else PALE_ORANGE if group == 6 else PAPER
                sheet.cell((0.8 + x * side, 1.2 + (7 - y) * side), (side, side), fill)
        for lane in range(4):
            corner = (0.8 + (lane % 2) * 4 * side, 1.2 + (1 - lane // 2) * 4 * side)
            sheet.frame(corner, (4 * side, 4 * side), BLUE)
        sheet.label((3.0, 0.7), "orange: group 5, one pixel per lane; pale: group 6", font=8)
        sheet.label((11.2, 6.4), "row r computes N output channels, group after group", font=9)
        for index, group in enumerate((4, 5, 6)):
            x = 6.2 + index * 2.9
            fill = {4: PAPER, 5: DEEP, 6: PALE_ORANGE}[group]
            sheet.box((x, 4.6), (2.75, 0.9), f"pass of group {group}", fill, font=8)
            for word in range(6):
                sheet.cell((x + 0.1 + word * 0.45, 4.0), (0.45, 0.45), PALE_BLUE)
            sheet.box((x + 2.2, 2.7), (1.6, 0.8), f"drain {group}", PALE_GREEN, font=8)
            sheet.arrow((x + 2.7, 4.0), (x + 3.0, 3.5), GREEN)
        sheet.label((7.5, 3.7), "body words, one per cycle", font=7.5, colour=BLUE)
        for y, text in (
            (2.0, "While a group drains, P pixels in P cycles, the next group"),
            (1.5, "multiplies. A group ends P cycles after the one before, or"),
            (1.0, "later: rows shorter than P words are bound by the drain."),
        ):
            sheet.label((11.2, y), text, font=8)
    return sheet.svg


def rounding() -> str:
    """From a 24-bit sum to a code: bias, shift, rounding half to even, clip."""
    steps = [
        ("sum", "24 bits\nint8 x int8 products", PALE_GREEN),
        ("/ 2^s + bias", "s = SHIFT_BASE +\ndelta of the lane", PALE_BLUE),
        ("round", "half to even,\nexact", PALE_BLUE),
        ("clip", "lo .. hi:\nReLU is lo = 0", PALE_BLUE),
        ("table", "optional:\nsigmoid, tanh, ...", PALE_ORANGE),
        ("code", "8 bits, signed\nor unsigned", PALE_GREEN),
    ]
    with drawing(17.4, 5.6) as sheet:
        for index, (name, note, fill) in enumerate(steps):
            x = 0.2 + 2.9 * index
            sheet.box((x, 3.6), (2.3, 0.9), name, fill)
            sheet.label((x + 1.15, 2.95), note, font=7)
            if index:
                sheet.arrow((x - 0.6, 4.05), (x, 4.05))
        sheet.label((8.7, 5.1), "one output channel of one pixel in the drain", font=9)
        sheet.line((1.5, 1.2), (16, 1.2), colour=GREY)
        for index in range(9):
            value, x = index / 2, 2 + index * 1.6
            sheet.line((x, 1.1), (x, 1.3))
            sheet.label((x, 0.8), f"{value:g}", font=7)
        for value in (0.5, 1.5, 2.5, 3.5):
            even = 2 * round(value / 2)
            start, end = (2 + value * 3.2, 1.35), (2 + even * 3.2, 1.35)
            sheet.arrow(start, end, RED, bend=0.5 if even < value else -0.5)
        sheet.label((8.7, 0.3), "ties go to the even code, as in IEEE 754 and torch.round", font=8)
    return sheet.svg
