"""Waveforms and layouts of words, by WaveDrom."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

logging.getLogger("svgwrite").setLevel(logging.WARNING)

import wavedrom  # noqa: E402


def rendered(source: dict[str, Any]) -> str:
    """WaveDrom's SVG of a description, on white: pages may be dark."""
    text = str(wavedrom.render(json.dumps(source)).tostring())
    text = text.replace("font-family:Helvetica", "font-family:Helvetica,Arial,sans-serif")
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return re.sub(r"<svg [^>]*>", lambda found: found[0] + paper, text, count=1)


def inference() -> str:
    """From the image to a result: the three streams and the state."""
    return rendered(
        {
            "signal": [
                {"name": "clk", "wave": "p..|.....|....|...."},
                {
                    "name": "status__state",
                    "wave": "=..|==...|.=..|..=.",
                    "data": ["0 loading", "1", "2 waiting for input", "3 running", "2"],
                },
                {},
                [
                    "image",
                    {"name": "valid", "wave": "1..|0....|....|...."},
                    {"name": "payload", "wave": "===|x....|....|....", "data": ["S", "E", "C"]},
                ],
                [
                    "input",
                    {"name": "valid", "wave": "0..|..1..|.0..|...."},
                    {
                        "name": "payload",
                        "wave": "x..|..===|=x..|....",
                        "data": ["0", "1", "2", "last"],
                    },
                ],
                [
                    "result",
                    {"name": "valid", "wave": "0..|.....|...1|..0."},
                    {
                        "name": "payload",
                        "wave": "x..|.....|...=|==x.",
                        "data": ["0", "", "last"],
                    },
                ],
                {"name": "status__cycles", "wave": "=..|.....|....|..=.", "data": ["0", "count"]},
            ],
            "head": {"text": "image, input, result: a word passes where valid and ready are high"},
        }
    )


def handshake() -> str:
    """Two words of a stream, the second of which waits."""
    return rendered(
        {
            "signal": [
                {"name": "clk", "wave": "p......"},
                {"name": "valid", "wave": "01...0."},
                {"name": "ready", "wave": "010.10."},
                {"name": "payload", "wave": "x==..x.", "data": ["A", "B"]},
                {"name": "passes", "wave": "0=0.=0.", "data": ["A", "B"]},
            ],
            "head": {"text": "valid/ready"},
        }
    )


def bus_read() -> str:
    """A read of STATUS over AXI4-Lite."""
    return rendered(
        {
            "signal": [
                {"name": "aclk", "wave": "p........"},
                {"name": "s_axi_araddr", "wave": "x=..x....", "data": ["0x20"]},
                {"name": "s_axi_arvalid", "wave": "01..0...."},
                {"name": "s_axi_arready", "wave": "0..10...."},
                {"name": "s_axi_rdata", "wave": "x....=..x", "data": ["STATUS"]},
                {"name": "s_axi_rvalid", "wave": "0....1..0"},
                {"name": "s_axi_rready", "wave": "0......10"},
            ],
            "head": {"text": "read of STATUS: rdata stays until rready"},
        }
    )


def frame() -> str:
    """The bytes of a request on the host link."""
    return rendered(
        {
            "signal": [
                {
                    "name": "rx",
                    "wave": "1=======1......",
                    "data": ["C0", "number", "W F reg", "count", "words", "CRC-32", "C0"],
                },
                {
                    "name": "tx",
                    "wave": "1.......=======",
                    "data": ["C0", "number", "W F reg", "done", "words", "CRC-32", "C0"],
                },
            ],
            "head": {"text": "a request and its answer: a write sends words, a read returns them"},
            "config": {"hscale": 2},
        }
    )


def row_header() -> str:
    """The two header words of a row with N = 2: bits of lanes and common bytes."""
    return rendered(
        {
            "reg": [
                {"name": "bias[0] 7:0", "bits": 8},
                {"name": "bias[1] 7:0", "bits": 8},
                {"name": "count 7:0", "bits": 8, "type": 2},
                {"name": "b[0] 12:8", "bits": 5},
                {"name": "d[0]", "bits": 3, "type": 4},
                {"name": "b[1] 12:8", "bits": 5},
                {"name": "d[1]", "bits": 3, "type": 4},
                {"name": "count 14:8", "bits": 7, "type": 2},
                {"name": "last", "bits": 1, "type": 5},
            ],
            "config": {"lanes": 2, "bits": 48, "hspace": 900},
        }
    )
