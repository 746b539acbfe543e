"""What is changed in Verilog of Amaranth's back end for the tools that read it."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: A register's value at power-up, and that of a memory, as the back end writes them.
_REGISTER = re.compile(r"^(\s*reg [^=;]*?)\s+= \d+'\w+;$", re.MULTILINE)
_CONTENTS = re.compile(
    r"^  initial begin\n(?P<words>(?:    (?P<name>\S+)\[\d+\] = \d+'\w+;\n)+)  end\n", re.MULTILINE
)
#: The register that the back end reads in every process without a clock, so that it runs at time 0.
_TRIGGER = re.compile(r"^  reg (?P<name>\\\$auto\S+)  = 0;$", re.MULTILINE)
_SHORT = re.compile(r"^  always @\*\n(?P<assignment>    [^\n]*;\n)", re.MULTILINE)
#: The hint that memories are to be of LUTs, in its own attribute.
_DISTRIBUTED = re.compile(r'^ *\(\* ram_style = "distributed" \*\)\n', re.MULTILINE)
_MODULE = re.compile(r"^module (?P<name>\S+?) ?\((?P<ports>[^)]*)\);\n", re.MULTILINE)
#: Words in one ``initial`` block: yosys takes time by the square of them.
CHUNK = 64


def without_initial_values(text: str) -> str:
    """``text``, of Amaranth, with every register and memory unknown until it is written.

    Raises
    ------
    ValueError : an initial value of another form is left
    """
    text = _CONTENTS.sub("", _REGISTER.sub(r"\1 ;", text))
    left = re.search(r"^\s*(?:initial\b.*|reg [^=;]*= \d+'.*)$", text, re.MULTILINE)
    if left:
        raise ValueError(f"an initial value is left: {left.group().strip()}")
    return text


def start_processes(text: str) -> str:
    """``text`` in which processes without a clock run at time 0 in SystemVerilog, too.

    A value in a declaration is there before anything waits for a change; one that is assigned in an
    active process comes when all wait. Processes of one assignment have no such register yet.
    """
    text = _SHORT.sub(_lengthen, text)
    return _TRIGGER.sub(r"  reg \g<name> ;\n  initial \g<name> <= 1'b0;", text)


def _lengthen(match: re.Match) -> str:
    """A process of one assignment, with the register of the process before it in the module."""
    module = match.string.rfind("\nmodule ", 0, match.start())
    triggers = [found["name"] for found in _TRIGGER.finditer(match.string, module, match.start())]
    if not triggers:
        raise ValueError(f"nothing starts the process {match.group().strip()}")
    read = f"    if ({triggers[0]} ) begin end\n"
    return f"  always @* begin\n{read}{match['assignment']}  end\n"


def complete_cases(text: str) -> str:
    """``text`` in which each ``case`` says that what it does not name changes nothing."""
    lines: list[str] = []
    named: list[bool] = []  # of the cases around a line, from the outermost on
    for line in text.splitlines(keepends=True):
        words = line.split(maxsplit=1)
        first = words[0] if words else ""
        if first in ("case", "casez"):
            named.append(False)
        elif first.startswith("default") and named:
            named[-1] = True
        elif first == "endcase" and not named.pop():
            lines.append(line.replace("endcase", "  default: ;"))
        lines.append(line)
    return "".join(lines)


def in_any_memory(text: str) -> str:
    """``text`` without the hint that small memories are to be of LUTs, which not all parts have."""
    return _DISTRIBUTED.sub("", text)


def fill_memories(text: str, *, apart: str | None) -> tuple[str, dict[str, str]]:
    """Write the contents of memories in a form that tools read in seconds.

    Parameters
    ----------
    text : Verilog of Amaranth
    apart : what is in the memories of the modules whose names begin with this, and is not zeros,
        goes into files, whose paths are parameters; None: nothing does

    Returns
    -------
    the Verilog, and the files by name: for ``$readmemh``, one word a line
    """
    files: dict[str, str] = {}

    def fill(match: re.Match) -> str:
        name = match["name"]
        words = re.findall(r"= \d+'h?(\w+);", match["words"])
        bits = re.findall(r"= (\d+)'", match["words"])[0]
        if not any(word.strip("0bx") for word in words):
            return "".join(
                f"  initial begin : {name}_{low}\n    integer i;\n"
                f"    for (i = {low}; i < {min(low + CHUNK, len(words))}; i = i + 1) "
                f"{name}[i] = {bits}'h0;\n  end\n"
                for low in range(0, len(words), CHUNK)
            )
        module = [found["name"] for found in _MODULE.finditer(text, 0, match.start())][-1]
        if apart is not None and module.removeprefix("\\").startswith(apart):
            parameter = f"MEMORY_{len(files)}"
            files[f"{parameter.lower()}.hex"] = "\n".join(words) + "\n"
            return f"  initial $readmemh({parameter}, {name}, 0, {len(words) - 1});\n"
        lines = match["words"].splitlines(keepends=True)
        chunks = ["".join(lines[low : low + CHUNK]) for low in range(0, len(lines), CHUNK)]
        return "".join(f"  initial begin\n{chunk}  end\n" for chunk in chunks)

    text = _CONTENTS.sub(fill, text)
    for file in files:
        text = _pass_down(text, file.removesuffix(".hex").upper(), file)
    return text, files


def _pass_down(text: str, parameter: str, default: str) -> str:
    """Give the module that reads a parameter that parameter, and all in which it is used."""
    starts = [match.start() for match in _MODULE.finditer(text)]
    parts = [text[low:high] for low, high in zip(starts, [*starts[1:], None], strict=True)]
    done: set[str] = set()
    while True:
        for index, part in enumerate(parts):
            name = _MODULE.match(part)["name"]
            if name not in done and re.search(rf"\b{parameter}\b", part):
                head = _MODULE.match(part).group()
                parts[index] = (
                    head + f'  parameter {parameter} = "{default}";\n' + part[len(head) :]
                )
                break
        else:
            return text[: starts[0]] + "".join(parts)
        done.add(name)
        instance = re.compile(
            rf"^  {re.escape(name)} +(?P<given>#\([^\n]*\) )?(?P<own>\S+) ?\(\n", re.M
        )
        for index, part in enumerate(parts):
            parts[index] = instance.sub(
                lambda m, name=name: f"  {name}  {_more(m['given'], parameter)} {m['own']} (\n",
                part,
            )


def _more(given: str | None, parameter: str) -> str:
    before = "" if given is None else given.strip()[2:-1] + ", "
    return f"#({before}.{parameter}({parameter}))"


def introduce(text: str, name: str, ports: Iterable[str], lines: Iterable[str]) -> str:
    """``text`` behind a comment, with the ports of a module in order, one a line.

    Parameters
    ----------
    text : Verilog of Amaranth
    name : of the module
    ports : their names
    lines : of the comment
    """
    (found,) = (match for match in _MODULE.finditer(text) if match["name"] == name)
    ports = list(ports)
    written = [port.strip() for port in found["ports"].split(",")]
    assert sorted(ports) == sorted(written), set(ports) ^ set(written)
    listed = ",\n".join(f"  {port}" for port in ports)
    comment = "".join(f"// {line}".rstrip() + "\n" for line in lines)
    head = f"module {name}(\n{listed}\n);\n"
    return f"{comment}\n" + text[: found.start()] + head + text[found.end() :]
