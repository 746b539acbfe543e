"""Formal proofs: a top module in Amaranth, through RTLIL, by SymbiYosys and Boolector."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Signal

from tests.support.alone import prepared

SCRIPT = """
[options]
mode {mode}
depth {depth}
[engines]
smtbmc boolector
[script]
read_rtlil top.il
prep -top top
[files]
top.il
"""


def prove(
    top: Elaboratable, inputs: list[Signal], folder: Path, *, mode: str, depth: int
) -> tuple[bool, str]:
    """Whether every assertion of ``top`` holds for all inputs, and the solver's log.

    ``mode`` is ``prove`` (k-induction: for all time) or ``bmc`` (the first ``depth`` cycles).
    Anything but a plain pass or fail is an error of the proof itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.il").write_text(rtlil.convert(top, name="top", ports=inputs, emit_src=False))
    (folder / "top.sby").write_text(SCRIPT.format(mode=mode, depth=depth))
    # The solver may first say that it is being prepared, and smtbmc takes that for an answer.
    tools = prepared("boolector").parent
    prepared("yosys")
    # sby calls its tools by these names.
    shims = folder / "bin"
    shims.mkdir(exist_ok=True)
    for name in ("yosys", "yosys-smtbmc", "yosys-witness", "boolector"):
        shim = shims / name
        shim.write_text(f'#!/bin/sh\nexec "{tools}/yowasp-{name}" "$@"\n')
        shim.chmod(0o755)
    done = subprocess.run(
        [str(tools / "yowasp-sby"), "-f", "top.sby"],
        cwd=folder,
        env={**os.environ, "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    log = done.stdout + done.stderr
    if "DONE (PASS" not in log and "DONE (FAIL" not in log:
        raise RuntimeError(f"sby did not finish:\n{log[-3000:]}")
    return "DONE (PASS" in log, log
