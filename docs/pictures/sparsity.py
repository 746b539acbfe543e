"""What pruning removes: units of pruning, and block-CSR beside the dense matrix."""

from __future__ import annotations

import numpy as np

from docs.pictures.style import BLUE, GREEN, GREY, INK, ORANGE, PALE_BLUE, PAPER, Drawing, drawing

ROWS, COLUMNS, N = 8, 12, 4


def grid(sheet: Drawing, at: tuple[float, float], kept: np.ndarray, side: float) -> None:
    """A matrix of cells, those that are kept in colour.

    Parameters
    ----------
    sheet : where to draw
    at : lower left corner
    kept : (rows, columns) bool
    side : of a cell
    """
    rows, columns = kept.shape
    for row in range(rows):
        for column in range(columns):
            place = (at[0] + column * side, at[1] + (rows - 1 - row) * side)
            sheet.cell(place, (side, side), BLUE if kept[row, column] else PAPER)


def granularity() -> str:
    """A quarter of the weights in single weights, N:1 blocks and whole channels."""
    generator = np.random.default_rng(3)
    single = np.zeros(ROWS * COLUMNS, bool)
    single[generator.permutation(ROWS * COLUMNS)[: ROWS * COLUMNS // 4]] = True
    blocks = np.zeros((ROWS // N) * COLUMNS, bool)
    blocks[generator.permutation(blocks.size)[: blocks.size // 4]] = True
    channels = np.zeros((ROWS, COLUMNS), bool)
    channels[[1, 6]] = True
    kinds = [
        ("unstructured", single.reshape(ROWS, COLUMNS),
         "most words keep some weight:\nfew cycles saved"),
        (f"N:1 blocks (N = {N})", blocks.reshape(ROWS // N, COLUMNS).repeat(N, axis=0),
         "a block is one word:\na quarter of the cycles"),
        ("whole channels", channels, "a smaller dense network:\ncoarsest choice"),
    ]  # fmt: skip
    with drawing(20.3, 7.4) as sheet:
        for index, (name, kept, note) in enumerate(kinds):
            x = 1.7 + 6.4 * index
            grid(sheet, (x, 1.9), kept, 0.45)
            sheet.label((x + 2.7, 6.2), name, font=10)
            sheet.label((x + 2.7, 1.05), note, font=8)
            for row in range(0, ROWS + 1, N):
                y = 1.9 + row * 0.45
                sheet.line((x - 0.15, y), (x + 0.45 * COLUMNS + 0.15, y), colour=ORANGE)
        sheet.label((0.8, 3.7), "output\nchannels", font=7)
        sheet.label((9.9, 7.0), "input channel and kernel position, left to right; "
                    "orange: groups of N output channels", font=8)  # fmt: skip
    return sheet.svg


def block_csr() -> str:
    """A pruned matrix, and the words of the stream that stand for it."""
    kept = [[1, 4, 5, 10], [0, 7]]
    mask = np.zeros((ROWS // N, COLUMNS), bool)
    for row, columns in enumerate(kept):
        mask[row, columns] = True
    with drawing(19, 8.2) as sheet:
        sheet.label((3.9, 7.8), "weights, 8 output channels x 12 positions", font=9)
        grid(sheet, (1.2, 2.6), mask.repeat(N, axis=0), 0.5)
        for row in range(ROWS // N):
            y = 2.6 + (ROWS // N - 1 - row) * N * 0.5
            sheet.frame((1.2, y), (COLUMNS * 0.5, N * 0.5), ORANGE)
            sheet.label((0.65, y + N * 0.25), f"row {row}", font=8)
        for column in range(COLUMNS):
            sheet.label((1.45 + column * 0.5, 2.3), str(column), font=6.5, colour=GREY)
        sheet.label((13.3, 7.8), "stream: one word per block that stays", font=9)
        for row, columns in enumerate(kept):
            y = 6.6 - 3.4 * row
            for index, head in enumerate(("A", "B")):
                sheet.cell((8.2 + index * 1.05, y - 2), (0.95, 2.0), "#ffedd5")
                sheet.label((8.67 + index * 1.05, y - 1), f"header\n{head}", font=6.5)
            before = 0
            for index, column in enumerate(columns):
                x = 10.5 + index * 1.6
                for lane in range(N):
                    sheet.cell((x, y - 0.5 * (lane + 1)), (1.3, 0.5), BLUE)
                    sheet.label((x + 0.65, y - 0.5 * lane - 0.25), f"w[{lane}]", 6.5, PAPER)
                sheet.cell((x, y - 2.55), (1.3, 0.5), PALE_BLUE)
                sheet.label((x + 0.65, y - 2.3), f"+{column - before}", 7.5, INK)
                sheet.label((x + 0.65, y - 2.85), f"to {column}", 6.5, GREY)
                before = column
            sheet.label((9.2, y + 0.25), f"row {row}", font=8)
        sheet.label((3.9, 1.6), "24 blocks, 6 kept", font=8, colour=GREEN)
        sheet.label((3.9, 1.05), "a word: N weights and the step to its input", font=8)
    return sheet.svg
