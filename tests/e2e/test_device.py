"""The whole path without a board: command line, driver, serial port, UART, engine, and back.

The board is simulated by Verilator behind a pseudo-terminal; one for all tests of this file.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import serial
import torch
from torch import nn

from secateur import api
from secateur.boards.driver.device import Device, DeviceError, open_port
from secateur.boards.driver.link import Decoder, Link, LinkError, encode
from secateur.hw import spec
from secateur.hw.spec import Geometry
from secateur.image.image import Image
from secateur.sim import pty, verilator
from secateur.sim.golden import parse, run
from tests.support.programs import random_program

GEOMETRY = Geometry(n=2, p=1, weight_words=1024, bank_words=128, tables=1)
TOML = "n = 2\np = 1\nweight_words = 1024\nbank_words = 128\ntables = 1\n"
#: In the simulation all rates are alike.
BAUD = 1_000_000


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.linear = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.relu(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("device")
    torch.manual_seed(0)
    x = torch.randn(6, 1, 5, 6)
    (where / "t.toml").write_text(TOML)
    (where / "other.toml").write_text(TOML.replace("p = 1", "p = 2"))
    np.savez(where / "x.npz", x=x.numpy())
    np.savez(where / "shape.npz", x=x.numpy()[:, :, 1:])
    for name in ("t", "other"):
        target = str(where / f"{name}.toml")
        torch.manual_seed(2)
        api.compile(Tiny().eval(), target=target, calibration=x).save(where / f"{name}.sec")
    return where


@pytest.fixture(scope="module")
def board(folder: Path) -> Iterator[str]:
    """The port that `secateur device serve` prints, until Ctrl-C ends it."""
    # Where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit it.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from secateur.cli.main import main; main()"
    )
    command = [sys.executable, "-c", program, "device", "serve"]
    with subprocess.Popen(
        [*command, "--target", str(folder / "t.toml")], stdout=subprocess.PIPE, text=True
    ) as served:
        try:
            assert served.stdout is not None
            yield served.stdout.readline().strip()
            served.send_signal(signal.SIGINT)
            assert served.wait() == 130
        finally:
            served.kill()


def twin(folder: Path) -> Image:
    """An image with the cycles and beats of t.sec, but other weights."""
    x = torch.from_numpy(np.load(folder / "x.npz")["x"])
    torch.manual_seed(2)
    model = Tiny().eval()
    with torch.no_grad():
        model.linear.weight.neg_()
    image, first = (
        api.compile(model, target=str(folder / "t.toml"), calibration=x),
        api.load(folder / "t.sec"),
    )
    assert image.cycles == first.cycles
    assert image.stream != first.stream
    return image


def test_run_equals_the_golden_interpreter(board: str, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur(f"device run t.sec --input x.npz --port {board} -o y.npz --json")
    assert status == 0, err
    found = json.loads(out)
    golden = json.loads(secateur("run t.sec --input x.npz --json")[1])
    for key in ("codes", "outputs", "cycles", "images"):
        assert found[key] == golden[key]
    assert found["predicted_cycles"] == golden["cycles"]
    with np.load(folder / "y.npz") as saved:
        assert saved["codes"].tolist() == golden["codes"]
    status, out, err = secateur(f"device run t.sec --input x.npz --limit 2 --loaded --port {board}")
    assert status == 0, err
    assert f"cycles predicted: {golden['cycles']:,}" in out


def test_info_and_load(board: str, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    assert secateur(f"device load t.sec --port {board}")[0] == 0
    status, out, err = secateur(f"device info --port {board} --json")
    assert status == 0, err
    data = json.loads(out)
    assert (data["n"], data["p"]) == (2, 1)
    assert data["registers"]["GEOMETRY"] == {"N": 2, "P": 1, "TABLES": 1, "ROM": 0, "S": 1}
    assert data["registers"]["WEIGHT_WORDS"] == {"VALUE": 1024}
    crc = int.from_bytes(api.load(folder / "t.sec").stream[20:24], "little")
    assert data["registers"]["IMAGE_CRC"] == {"VALUE": crc}
    assert data["names"] == {"STATUS.STATE": "2 waiting", "STATUS.ERROR": "0 none"}
    status, out, _ = secateur(f"device info --port {board}")
    assert "2 waiting" in out
    assert f"0x{crc:08x}" in out
    assert "Secateur 2x1" in out


class Recurrent(nn.Module):
    """Two functions, on a board with one table."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(3, 4, batch_first=True)
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.linear(self.rnn(x)[0][:, -1]))  # type: ignore[no-any-return]


def test_sequences_of_a_recurrent_network(board: str, folder: Path) -> None:
    torch.manual_seed(1)
    x = torch.randn(5, 4, 3)
    image = api.compile(Recurrent().eval(), target=str(folder / "t.toml"), calibration=x)
    golden = api.run(image, x.numpy())
    table_words = int((image.words[:, -1] == spec.INDEX_TABLE).sum())
    assert table_words >= 2 * spec.TABLE_ENTRIES // image.n
    seen: list[tuple[str, int, int, str]] = []
    with open_port(board, BAUD) as link:
        device = Device(link)
        device.load(image.stream)
        outputs, cycles = api.run_on(image, x.numpy(), device, lambda *step: seen.append(step))
    assert np.array_equal(outputs.codes, golden.codes)
    assert cycles == [golden.cycles] * 20
    assert seen[-1] == ("device", 5, 5, "")


class Compared(nn.Module):
    """Two pictures; how they differ, and the second one's features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.conv(left), self.conv(right)
        return {"apart": (a - b).mean((2, 3)), "features": b}


def test_several_inputs_and_outputs(board: str, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    x = {"left": torch.randn(4, 1, 5, 4), "right": torch.randn(4, 1, 5, 4)}
    image = api.compile(Compared().eval(), target=str(folder / "t.toml"), calibration=x)
    image.save(folder / "two.sec")
    arrays = {name: values.numpy() for name, values in x.items()}
    np.savez(folder / "two.npz", **arrays)
    golden = api.run(image, arrays)
    line = f"device run two.sec --input two.npz --port {board} -o two_y.npz --json"
    status, out, err = secateur(line)
    assert status == 0, err
    found = json.loads(out)
    assert found["images"] == 4
    assert found["cycles"] == image.cycles
    with np.load(folder / "two_y.npz") as saved:
        assert set(saved) == {"apart", "features", "apart.codes", "features.codes"}
        for name in ("apart", "features"):
            assert np.array_equal(saved[name], golden[name])
            assert np.array_equal(saved[f"{name}.codes"], golden.named_codes[name])
            assert found["outputs"][name] == golden[name].tolist()
            assert found["codes"][name] == golden.named_codes[name].tolist()


@pytest.mark.long
def test_an_image_in_rom(folder: Path) -> None:
    image = api.load(folder / "t.sec")
    x = np.load(folder / "x.npz")["x"]
    golden = api.run(image, x)
    with pty.serve(image.geometry, rom=image.stream) as served:
        with open_port(served.path, BAUD) as link:
            device = Device(link)
            assert device.identity.rom
            other = twin(folder)
            with pytest.raises(DeviceError, match=r"another image, .*; build the board with this"):
                device.load(other.stream)
            with pytest.raises(DeviceError, match=r"another image, .*; build the board with this"):
                api.run_on(other, x, device)
            for _ in range(2):
                device.load(image.stream)
                outputs, cycles = api.run_on(image, x, device)
                assert np.array_equal(outputs.codes, golden.codes)
                assert cycles == [golden.cycles] * len(x)


def test_random_programs_give_the_golden_results_and_cycles(board: str) -> None:
    with open_port(board, BAUD) as link:
        device = Device(link)
        for seed in range(4):
            sample = random_program(500 + seed, GEOMETRY, layers=3, several=True)
            inputs = sample.inputs(3)
            golden = run(parse(sample.image, GEOMETRY), inputs, sequential=True)
            device.load(sample.image)
            device.restart()
            for row, result in zip(inputs, golden.results, strict=True):
                assert device.run(row.tobytes(), len(result)) == (result.tobytes(), golden.cycles)


def test_signs_of_life_come_before_the_answer(board: str) -> None:
    """By cycles: 16 words to MODE take 40 each byte, and a sign of life comes every 500 or so.

    There may be more: those of the board's rest behind an earlier answer.
    """
    request = encode(bytes([7, 0xC6, 16]) + bytes(64))
    with serial.Serial(board) as port:
        port.write(request)
        line, decoder, found = b"", Decoder(), list[bytes]()
        while not found:
            byte = port.read(1)
            line += byte
            found = decoder.feed(byte)
    assert found == [bytes([7, 0xC6, 0x90])]
    signs = len(line) - len(encode(found[0]))
    assert signs >= 40 * len(request) // 600
    assert line.startswith(bytes([0xC0]) * signs)


def test_a_board_that_does_not_come_up_is_no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise verilator.SimulationError("it does not begin")

    monkeypatch.setattr(pty, "build", lambda *_, **__: Path("none"))
    monkeypatch.setattr(verilator, "execute", fail)
    entered = False
    with pytest.raises(verilator.SimulationError, match="it does not begin"):
        with pty.serve(GEOMETRY):
            entered = True
    assert not entered


class BadLine:
    """A serial port that damages one byte in a hundred, on both ways."""

    def __init__(self, port: serial.Serial, seed: int) -> None:
        self.port, self.rng, self.damaged = port, random.Random(seed), 0

    def noisy(self, line: bytes) -> bytes:
        found = bytearray()
        for byte in line:
            kind = self.rng.choice("lfd") if self.rng.random() < 0.01 else ""
            self.damaged += bool(kind)
            byte ^= self.rng.randrange(1, 256) if kind == "f" else 0
            found += bytes([byte]) * {"l": 0, "d": 2}.get(kind, 1)
        return bytes(found)

    @property
    def in_waiting(self) -> int:
        return self.port.in_waiting

    def read(self, size: int) -> bytes:
        return self.noisy(self.port.read(size))

    def write(self, line: bytes) -> int:
        return self.port.write(self.noisy(line))

    def reset_input_buffer(self) -> None:
        self.port.reset_input_buffer()


def noisy_sessions(board: str, seeds: range) -> tuple[int, int]:
    """Sessions that ended with a result, all of which are right, and bytes that were damaged."""
    sample = random_program(510, GEOMETRY, layers=2)
    inputs = sample.inputs(1)
    golden = run(parse(sample.image, GEOMETRY), inputs)
    right = damaged = 0
    with serial.Serial(board, timeout=0.05) as port:
        for seed in seeds:
            line = BadLine(port, seed)
            with contextlib.suppress(LinkError, DeviceError):
                device = Device(Link(line), patience=200)
                device.load(sample.image)
                device.restart()
                result = device.run(inputs[0].tobytes(), golden.results.shape[1])
                assert result == (golden.results.tobytes(), golden.cycles)
                right += 1
            damaged += line.damaged
    return right, damaged


def test_a_bad_line_to_the_hardware_is_never_wrong(board: str) -> None:
    right, damaged = noisy_sessions(board, range(5))
    assert right >= 4
    assert damaged > 30


@pytest.mark.long
def test_many_sessions_on_a_bad_line_to_the_hardware_are_never_wrong(board: str) -> None:
    right, damaged = noisy_sessions(board, range(1000, 1100))
    assert right > 90
    assert damaged > 600


def test_a_cable_that_was_cut_in_the_middle_of_a_frame(board: str, folder: Path) -> None:
    """Half a frame, and half an input, and the next program finds the device in order."""
    image = api.load(folder / "t.sec")
    x = np.load(folder / "x.npz")["x"][:2]
    golden = api.run(image, x)
    for at in (1, 5, 30):
        with open_port(board, BAUD) as link:
            device = Device(link)
            device.load(image.stream)
            device.restart()
            link.write(0x44, [1] * 5)
            link.port.write(encode(bytes([1, 0x91, 16]) + bytes(64))[:at])
        with open_port(board, BAUD) as link:
            outputs, cycles = api.run_on(image, x, Device(link))
        assert np.array_equal(outputs.codes, golden.codes)
        assert cycles == [golden.cycles] * 2


def test_an_engine_that_refuses_says_why(board: str, folder: Path) -> None:
    stream = bytearray(api.load(folder / "t.sec").stream)
    stream[-1] ^= 1
    with open_port(board, BAUD) as link:
        device = Device(link)
        with pytest.raises(DeviceError, match=r"its CRC-32 is wrong: it was altered \(CRC\)"):
            device.load(bytes(stream))
        stream[4] = 99
        with pytest.raises(DeviceError, match=r"its version is not the engine's \(VERSION\)"):
            device.load(bytes(stream))


def test_bad_input_is_one_line(board: str, secateur, folder: Path) -> None:  # type: ignore[no-untyped-def]
    (folder / "text.sec").write_text("hello")
    secateur("keygen -o k.pem")
    cases = [
        ("info --port /dev/ttyNONE", "/dev/ttyNONE: the port cannot be opened: "),
        ("info --port t.toml", "t.toml: the port cannot be opened: "),
        (
            f"load other.sec --port {board}",
            "other.sec: the image does not fit: compiled for 2x2",
        ),
        (f"load text.sec --port {board}", "text.sec: not a Secateur image"),
        (f"load t.sec --key k.pem.pub --port {board}", "t.sec: unsigned (no t.sec.sig)"),
        (f"run t.sec --input shape.npz --port {board}", "shape.npz: input 'x' has shape"),
        (f"run t.sec --input x.npz -o no/y.npz --port {board}", "no/y.npz: cannot be written"),
        ("serve", "give either --target or --image"),
        ("serve --target 8x8 --rom", "--rom needs --image"),
    ]
    for line, message in cases:
        refused(secateur, line, message)


def refused(secateur, line: str, message: str) -> None:  # type: ignore[no-untyped-def]
    status, out, err = secateur(f"device {line}")
    assert (status, out) == (1, ""), line
    assert err.startswith("secateur: ")
    assert err.count("\n") == 1, err
    assert message in err


def test_a_port_at_which_nobody_answers(secateur, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("secateur.boards.driver.device.SILENCE", 0.001)
    master, slave = os.openpty()
    port = os.ttyname(slave)
    refused(secateur, f"info --port {port}", f"{port}: no answer from the device; check the cable")
    for number in (master, slave):
        os.close(number)


@pytest.mark.parametrize(
    "use", [lambda link: link.read(0), lambda link: link.port.reset_input_buffer()]
)
def test_a_port_that_vanishes(use: Callable[[Link], object]) -> None:
    def lose() -> None:
        master, slave = os.openpty()
        with open_port(os.ttyname(slave), BAUD) as link:
            os.close(slave)
            os.close(master)
            use(link)

    with pytest.raises(DeviceError, match=r"the port has failed: .*; is it still connected"):
        lose()


def test_an_image_of_equal_cycles_is_not_taken_for_the_loaded_one(
    board: str,
    secateur,  # type: ignore[no-untyped-def]
    folder: Path,
) -> None:
    """Nothing is written, signed or not."""
    twin(folder).save(folder / "twin.sec")
    assert secateur("keygen -o sign.pem")[0] == 0
    assert secateur("sign twin.sec --key sign.pem")[0] == 0
    assert secateur(f"device load t.sec --port {board}")[0] == 0
    for key in ("", "--key sign.pem.pub"):
        line = f"device run twin.sec --input x.npz --loaded {key} -o twin.npz --port {board}"
        status, out, err = secateur(line)
        assert (status, out) == (1, "")
        assert err.startswith(f"secateur: {board}: twin.sec: the device holds another image")
        assert "; load this one" in err
        assert not (folder / "twin.npz").exists()
    assert secateur(f"device load twin.sec --port {board}")[0] == 0
    assert secateur(line)[0] == 0


def test_other_cycles_than_predicted_are_no_result(
    board: str,
    secateur,  # type: ignore[no-untyped-def]
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_on = api.run_on
    monkeypatch.setattr(api, "run_on", lambda *args: (run_on(*args)[0], [7]))
    status, out, err = secateur(f"device run t.sec --input x.npz --port {board} -o seven.npz")
    assert (status, out) == (1, "")
    assert f"secateur: {board}: the device counts 7 cycles, expected" in err
    assert not (folder / "seven.npz").exists()
