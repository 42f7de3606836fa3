"""What the networks learn from. Choices are made on held-out examples, the test set is for a final figure only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heinfer.zoo.cifar import cifar10, cifar10_test
from heinfer.zoo.data import Images, mnist, mnist_test, normalise


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs float32 (n, ...) as a network takes them, labels int64 (n,)."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Task:
    """Examples in three parts."""

    train: Examples
    held_out: Examples
    test: Examples


def digits() -> Task:
    """MNIST: 55,000, 5,000 and 10,000 images; DataError when it cannot be had."""
    data = mnist()
    return Task(*map(_images, (data.train, data.held_out, mnist_test())))


def colours() -> Task:
    """CIFAR-10: 45,000, 5,000 and 10,000 images; DataError when it cannot be had."""
    data = cifar10()
    return Task(*map(_images, (data.train, data.held_out, cifar10_test())))


def heartbeats() -> Task:
    """Synthetic heartbeats by :func:`beats`: 8,000, 1,000 and 2,000 of them."""
    return Task(*(beats(number, seed) for seed, number in enumerate((8_000, 1_000, 2_000))))


def tumours() -> Task:
    """Scikit-learn's breast cancer set, shuffled: 341, 57 and 171 rows; features standardised on the first part."""
    from sklearn.datasets import load_breast_cancer  # noqa: PLC0415 - only this task needs scikit-learn

    found = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(found.target))
    train, held_out, test = np.split(order, [341, 398])
    mean, deviation = found.data[train].mean(0), found.data[train].std(0)
    return Task(
        *(
            Examples(
                torch.tensor((found.data[rows] - mean) / deviation, dtype=torch.float32),
                torch.tensor(found.target[rows], dtype=torch.int64),
            )
            for rows in (train, held_out, test)
        )
    )


def records() -> Task:
    """Synthetic records of 30 features and two classes, scikit-learn's ``make_classification``: 8,000, 2,000 and 4,000.

    Ten features carry the classes, four clusters each, eight are sums of those, twelve are noise.
    """
    from sklearn.datasets import make_classification  # noqa: PLC0415 - as above

    rows, labels = make_classification(
        14_000, 30, n_informative=10, n_redundant=8, n_clusters_per_class=4, class_sep=1.5, random_state=0
    )
    mean, deviation = rows[:8_000].mean(0), rows[:8_000].std(0)
    inputs = torch.tensor((rows - mean) / deviation, dtype=torch.float32)
    wanted = torch.tensor(labels, dtype=torch.int64)
    return Task(*(Examples(inputs[some], wanted[some]) for some in np.split(np.arange(14_000), [8_000, 10_000])))


SAMPLES, RATE = 187, 125
"""Of one beat, and in a second: as the published MIT-BIH beats of this length have them."""

_WAVES = {"p": (-0.16, 0.15, 0.022), "q": (-0.03, -0.12, 0.009), "r": (0.0, 1.0, 0.011), "s": (0.03, -0.25, 0.011),
          "t": (0.28, 0.3, 0.05)}  # fmt: skip
"""Waves of a normal beat as bumps: time after the R peak and width in seconds, height in R's."""


def beats(number: int, seed: int) -> Examples:
    """Synthetic heartbeats (number, 1, 187) of five classes, equally likely: sums of Gaussian bumps and noise.

    0 normal; 1 supraventricular: the P wave is missing and the next beat comes early; 2 ventricular: no P, a QRS three
    times as wide, T inverted; 3 a fusion of normal and ventricular; 4 paced: a spike of one sample before a wide QRS.
    Every wave's time, height and width varies, by 8 ms, 15 % and 10 %; so do gain (20 %) and the R peak's place;
    the baseline wanders by a sine of up to 0.15, and there is white noise of 0.02 to 0.12.
    """
    random = np.random.default_rng([seed, number])
    labels = random.integers(0, 5, number)
    signals = np.stack([_beat(int(label), random) for label in labels])
    return Examples(torch.tensor(signals[:, None], dtype=torch.float32), torch.tensor(labels, dtype=torch.int64))


def _beat(label: int, random: np.random.Generator) -> NDArray[np.float64]:
    at = np.arange(SAMPLES) / RATE
    peak = 0.35 + random.uniform(-0.06, 0.06)
    distance = random.uniform(0.55, 0.68) if label == 1 else random.uniform(0.72, 1.0)
    bumps = partial(_bumps, at, random)
    if label == 3:
        share = random.uniform(0.35, 0.65)
        signal = share * bumps(0, peak) + (1 - share) * bumps(2, peak)
    else:
        signal = bumps(label, peak)
    signal = signal + bumps(0, peak + distance)
    if label == 4:
        signal[int((peak - 0.06) * RATE)] += random.uniform(0.5, 1.0)
    wander = random.uniform(0, 0.15) * np.sin(2 * np.pi * (random.uniform(0.2, 0.6) * at + random.uniform()))
    noise = random.uniform(0.02, 0.12) * random.standard_normal(SAMPLES)
    gain = np.exp(0.2 * random.standard_normal())
    return np.asarray(gain * signal + wander + noise)


def _bumps(at: NDArray[np.float64], random: np.random.Generator, label: int, peak: float) -> NDArray[np.float64]:
    """The waves of one beat at their times, of class 0, 1, 2 or 4."""
    total = np.zeros_like(at)
    for name, (time, height, width) in _WAVES.items():
        if name == "p" and label in (1, 2):
            continue
        wide = 3.0 if label == 2 else 2.0 if label == 4 else 1.0
        broad = width * (wide if name in "qrs" else 1.0)
        high = height * (-1.2 if label == 2 and name == "t" else 1.0) * (1 + 0.15 * random.standard_normal())
        centre = peak + time * (wide if name in "qs" else 1.0) + 0.008 * random.standard_normal()
        total += high * np.exp(-0.5 * ((at - centre) / (broad * (1 + 0.1 * random.standard_normal()))) ** 2)
    return total


def _images(images: Images) -> Examples:
    return Examples(torch.from_numpy(normalise(images.images)), torch.from_numpy(images.labels))
