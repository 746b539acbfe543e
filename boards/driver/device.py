"""An engine behind a link: identify it, load an image, run inferences."""

from __future__ import annotations

import contextlib
import termios
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from secateur.boards.driver.link import QUIET_READS, SILENCE, Link, LinkError
from secateur.boards.driver.mapped import MappedLink, find_memory, open_memory
from secateur.errors import SecateurError
from secateur.hw import spec
from secateur.hw.link.protocol import MAX_ACCESSES
from secateur.hw.soc import registers
from secateur.hw.soc.registers import BY_NAME, field
from secateur.hw.spec import Error, Status
from secateur.image.fit import misfit

#: Answers in a row without progress after which an engine is given up. They are counted, not
#: timed: each takes at least 880 cycles, however slowly an engine is simulated.
PATIENCE = 20_000
#: Seconds after which a write to a port has failed: a port takes a request at once or never.
WRITE_SECONDS = 30.0
#: Bytes on the line of the longest request and the longest answer together.
_LINE_BYTES = 320

#: Why the engine refuses an image.
REASONS = {
    Error.MAGIC: "it does not begin as an image does",
    Error.VERSION: "its version is not the engine's",
    Error.GEOMETRY: "it was compiled for another array",
    Error.LENGTH: "it does not fit the weight memory",
    Error.BANK: "it needs deeper banks",
    Error.CRC: "its CRC-32 is wrong: it was altered",
    Error.ROW: "a row in it is not valid",
    Error.WATCHDOG: "an inference took longer than the image says",
    Error.SOURCE: "the memory that the image is read from has answered with an error",
}


class DeviceError(SecateurError):
    """The device refuses a request, or is not the expected one."""


@dataclass(frozen=True)
class Identity:
    """The registers of a device that never change."""

    n: int
    p: int
    s: int
    tables: int
    rom: bool
    weight_words: int
    bank_words: int


def values(name: str, word: int) -> dict[str, int]:
    """The fields of a register's value, by name."""
    return {part.name: (word & part.mask) >> part.low for part in BY_NAME[name].fields}


@contextlib.contextmanager
def open_port(path: str, baud: int) -> Iterator[Link]:
    """The link on a serial port; errors of the device are prefixed by the name of the port.

    Raises
    ------
    DeviceError : pyserial is missing, the port cannot be opened or has failed, or the device
        refuses a request or does not answer
    """
    try:
        import serial
    except ImportError:
        raise DeviceError("pyserial is missing: pip install 'secateur[device]'") from None
    silence = SILENCE + 10 * _LINE_BYTES / baud
    try:
        port = serial.Serial(
            path,
            baud,
            timeout=silence / QUIET_READS,
            write_timeout=WRITE_SECONDS,
            exclusive=True,
        )
    except (serial.SerialException, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DeviceError(f"{path}: the port cannot be opened: {reason}") from None
    with contextlib.suppress(Exception):
        port.set_low_latency_mode(True)  # else an adapter may hold an answer back for 16 ms
    try:
        with port:
            yield Link(port)
    except (OSError, termios.error) as error:  # SerialException is the former
        raise DeviceError(f"{path}: the port has failed: {error}; is it still connected?") from None
    except (LinkError, DeviceError) as error:
        raise DeviceError(f"{path}: {error}") from None


@contextlib.contextmanager
def connect(port: str, baud: int) -> Iterator[Link | MappedLink]:
    """The registers of an engine, behind a serial port or in the memory of this processor.

    Parameters
    ----------
    port : name of a serial port, or what ``find_memory`` knows
    baud : of a serial port

    Raises
    ------
    DeviceError : as ``open_port``, or the registers cannot be mapped
    """
    memory = find_memory(port)
    if memory is None:
        with open_port(port, baud) as link:
            yield link
        return
    try:
        with open_memory(*memory) as mapped:
            yield mapped
    except (LinkError, DeviceError) as error:
        raise DeviceError(f"{port}: {error}") from None


class Device:
    """An engine behind a link.

    Parameters
    ----------
    link : to its registers
    patience : answers in a row without progress after which the engine is given up

    Raises
    ------
    DeviceError : from all methods: the device refuses a request, or is not the expected one
    LinkError : from all methods: the device does not answer
    """

    def __init__(self, link: Link | MappedLink, *, patience: int = PATIENCE) -> None:
        self.link, self.patience = link, patience
        self.identity = self._identify()

    def _identify(self) -> Identity:
        if self.register("ID") != int.from_bytes(spec.MAGIC, "little"):
            raise DeviceError("the device answers, but is not a Secateur engine")
        version = values("VERSION", self.register("VERSION"))["MAP"]
        if version != registers.MAP_VERSION:
            raise DeviceError(
                f"the device has register map {version}, this Secateur drives "
                f"{registers.MAP_VERSION}; use the release that the board was built with"
            )
        size = values("GEOMETRY", self.register("GEOMETRY"))
        return Identity(
            n=size["N"],
            p=size["P"],
            s=size["S"],
            tables=size["TABLES"],
            rom=bool(size["ROM"]),
            weight_words=self.register("WEIGHT_WORDS"),
            bank_words=self.register("BANK_WORDS"),
        )

    def register(self, name: str) -> int:
        """The value of a register."""
        words = self.link.read(BY_NAME[name].offset)
        if not words:
            raise DeviceError(f"the device refuses a read of its register {name}")
        return words[0]

    def write(self, name: str, word: int) -> None:
        """Write a register."""
        if self.link.write(BY_NAME[name].offset, [word]) != 1:
            raise DeviceError(f"the device refuses a write to its register {name}")

    def info(self) -> dict[str, dict[str, int]]:
        """Every register that can be read without an effect, by field, or as VALUE.

        A register that an older device does not have is omitted.
        """
        found = {}
        for register in registers.REGISTERS:
            if "r" in register.access and register.name != "RESULT":
                for word in self.link.read(register.offset):
                    found[register.name] = values(register.name, word) or {"VALUE": word}
        return found

    def state(self) -> Status:
        """The state of the engine.

        Raises
        ------
        DeviceError : it has stopped with an error
        """
        status = values("STATUS", self.register("STATUS"))
        state, code = status["STATE"], status["ERROR"]
        if state == Status.ERROR:
            reason = REASONS.get(code, f"error {code}")
            name = Error(code).name if code in REASONS else code
            raise DeviceError(f"the engine has stopped on the image: {reason} ({name})")
        return Status(state)

    def load(self, image: bytes, progress: Callable[[int], None] | None = None) -> None:
        """Load the stream of an image and wait until the engine has checked it.

        With a ROM nothing is loaded; the engine checks its contents.
        """
        problem = misfit(image, self.identity, "device")
        if problem is not None:
            raise DeviceError(f"the image does not fit: {problem}")
        self.write("CONTROL", field("CONTROL", "RESET").mask)
        words = [] if self.identity.rom else spec.words_of(image, 4)
        for at in range(0, len(words), MAX_ACCESSES):
            part = words[at : at + MAX_ACCESSES]
            if self.link.write(BY_NAME["IMAGE"].offset, part) != len(part):
                raise DeviceError("the device refuses a write to its register IMAGE")
            if progress is not None:
                progress(min(4 * (at + len(part)), len(image)))
        self._wait(lambda: self.state() not in (Status.LOADING, Status.CHECKING), "check the image")
        self.check_holds(image)

    def check_holds(self, image: bytes) -> None:
        """Compare the CRC-32 of the image that the engine has accepted with that of a stream.

        Raises
        ------
        DeviceError : the device holds another image, or none
        """
        state = self.state()
        if state in (Status.LOADING, Status.CHECKING):
            raise DeviceError("the device holds no image; load one first")
        held, wanted = self.register("IMAGE_CRC"), spec.crc_of(image)
        if held != wanted:
            remedy = "build the board with this one" if self.identity.rom else "load this one"
            raise DeviceError(
                f"the device holds another image, with CRC-32 {held:08x}, not {wanted:08x}; "
                f"{remedy}"
            )

    def restart(self) -> None:
        """Keep the image and forget all tensors: a new sequence begins."""
        self.write("CONTROL", field("CONTROL", "RESTART").mask)
        self.write("MODE", field("MODE", "REGISTERS").mask)

    def run(self, inputs: bytes, beats: int) -> tuple[bytes, int]:
        """Run an inference after ``restart``.

        A DeviceError leaves the inference unfinished: ``restart`` before the next one.

        Parameters
        ----------
        inputs : the packed input tensor
        beats : words of N bytes in the results

        Returns
        -------
        results, and cycles
        """
        if self.state() == Status.LOADING:
            raise DeviceError("the device holds no image; load one first")
        size = min(4, self.identity.n)
        before = self.register("INFERENCES")
        words, sent = spec.words_of(inputs, size), 0

        def send() -> bool:
            nonlocal sent
            part = words[sent : sent + MAX_ACCESSES]
            sent += self.link.write(BY_NAME["INPUT"].offset, part)
            return sent == len(words)

        wanted = beats * self.identity.n // size
        got: list[int] = []

        def receive() -> bool:
            part = min(MAX_ACCESSES, wanted - len(got))
            got.extend(self.link.read(BY_NAME["RESULT"].offset, part))
            return len(got) == wanted

        self._wait(send, "take the input", lambda: sent)
        self._wait(receive, "give the result", lambda: len(got), runs=True)
        self._wait(lambda: self.state() == Status.WAITING, "end the inference")
        cycles = self.register("CYCLES")
        ended = (self.register("INFERENCES") - before) % 65536
        status = values("STATUS", self.register("STATUS"))
        if status["UPSET"]:
            raise DeviceError(
                "the device's weight memory has changed since the image was accepted, so its "
                "results are not valid; load the image again"
            )
        if ended != 1 or status["RESULT_VALID"]:
            raise DeviceError(
                f"{ended} inferences have ended instead of one, or results are left: the device "
                f"was reset, or holds another image; load the image again"
            )
        result = b"".join(word.to_bytes(4, "little")[:size] for word in got)
        return result, cycles

    def _wait(
        self,
        done: Callable[[], bool],
        what: str,
        progress: Callable[[], int] = lambda: 0,
        *,
        runs: bool = False,
    ) -> None:
        """Wait until ``done``.

        Raises
        ------
        DeviceError : the engine has stopped or makes no progress; with ``runs`` also if it waits
            for an input again
        """
        last, still, idle = progress(), 0, 0
        while not done():
            if progress() != last:
                last, still, idle = progress(), 0, 0
                continue
            still += 1
            idle = idle + 1 if self.state() == Status.WAITING else 0
            if runs and idle > 2:
                raise DeviceError(
                    f"the engine does not {what} but waits for more input: the device holds "
                    f"another image; load the image again"
                )
            if still > self.patience:
                raise DeviceError(
                    f"the engine does not {what}: nothing has changed in {self.patience:,} answers"
                )
