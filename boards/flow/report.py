"""The report of a build as text."""

from __future__ import annotations

#: Names of nextpnr's resources in the report.
NAMES = {
    "ALU": "adders, 1 bit, in the place of a LUT",
    "BSRAM": "block RAM, 18 kbit",
    "DFF": "flip-flops",
    "LUT4": "LUT4 (with those before flip-flops)",
    "MULT18X18": "multipliers, 18 x 18",
    "RAM16SDP4": "distributed RAM, blocks",
    "IOB": "pins",
    "rPLL": "PLL",
    "DQCE": "clock gates",
    "ICESTORM_LC": "logic cells",
    "ICESTORM_RAM": "block RAM, 4 kbit",
    "ICESTORM_SPRAM": "single-port RAM, 256 kbit",
    "ICESTORM_DSP": "multipliers, 16 x 16",
    "ICESTORM_PLL": "PLL",
    "SB_GB": "global clocks",
    "SB_IO": "pins",
    "TRELLIS_COMB": "LUT4 (with those of carries and RAM)",
    "TRELLIS_FF": "flip-flops",
    "DP16KD": "block RAM, 18 kbit",
    "MULT18X18D": "multipliers, 18 x 18",
    "TRELLIS_RAMW": "distributed RAM, blocks",
    "TRELLIS_IO": "pins",
    "DCCA": "global clocks",
    "EHXPLLL": "PLL",
}


def to_text(report: dict) -> str:
    """Resources, clock and slowest path of a build as text."""
    size = report["geometry"]
    lines = [
        f"{report['title']}: {size['n']} x {size['p']}, {size['weight_words']:,} words of weights, "
        f"banks of {size['bank_words']:,} words, {size['tables']} tables",
        "",
    ]
    grade = "" if report["grade"] is None else f"speed grade {report['grade']}, "
    image = report.get("image")
    if image is not None:
        lines += [f"image      {image['name']}, {image['words']:,} words, {image['sha256']}"]
    elif "bitstream" in report:
        loads = "`secateur device load` loads one over the UART"
        behind = "`secateur swap` puts one behind the bitstream"
        lines += [f"image      none: {behind if size['ring'] else loads}"]
    lines += [
        f"clock      {report['clock_mhz']:g} MHz; {report['fmax_mhz']} MHz after routing "
        f"({report['die']}, {grade}seed {report['seed']}): "
        f"{'met' if report['passed'] else 'missed'}",
        f"UART       {report['baud']:,} baud, 8 bits, no parity, one stop bit",
        f"program    {report['program']}",
        "tools      " + ", ".join(f"{name} {text}" for name, text in report["tools"].items()),
        "",
        f"{'resource':40} {'used':>7} {'of':>7}",
    ]
    for name, entry in report["resources"].items():
        lines.append(f"{NAMES.get(name, name):40} {entry['used']:7,} {entry['available']:7,}")
    lines += ["", f"{'slowest path':16} {'ns':>6} {'sum':>6}  at"]
    total = 0.0
    for step in report["slowest_path"]:
        total += step["ns"]
        lines.append(f"{step['type']:16} {step['ns']:6.2f} {total:6.2f}  {step['to']}")
    return "\n".join(lines) + "\n"
