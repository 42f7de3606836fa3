"""The bundles for CIFAR-10 that ship: the bytes, what they say of their accuracy and making, and what they do."""

import os
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from heinfer.compiler.report import report
from heinfer.formats import bundle
from heinfer.zoo import bundle_path
from heinfer.zoo.archives import DATA_DIR_SETTING
from heinfer.zoo.cifar import cifar10_test
from heinfer_cli.comparison import cleartext_scores

needs_cifar = pytest.mark.skipif(
    not (Path(os.environ.get(DATA_DIR_SETTING, "nowhere")) / "cifar10").is_dir(),
    reason=f"{DATA_DIR_SETTING} names no folder with CIFAR-10",
)

SHIPPED = {
    "cifar-fast": ("00380470eab5d2e698fe671e9a5e2123014b2d183bbedd31e1054d331434bb1b", 0.7779, 124),
    "cifar-accurate": ("61c9e597e9fbf62dc30da9cf2736518639dde563d5a058ce43b9512c0df6cbde", 0.8687, 299),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_bundle_is_the_one_whose_accuracy_and_making_it_states(name: str) -> None:
    digest, accuracy, key_switches = SHIPPED[name]
    content = bundle_path(name).read_bytes()
    assert len(content) < 10e6
    assert sha256(content).hexdigest() == digest
    model = bundle.load(bundle_path(name))
    assert model.metadata["made by"] == f"heinfer train {name} --seed 0, then heinfer compile {name}"
    assert float(model.metadata["test accuracy"]) == accuracy
    facts = report(model)
    assert (facts.parameters.ring_degree, facts.counts.key_switches) == (16384, key_switches)
    assert facts.parameters.log_qp <= 430


@needs_cifar
@pytest.mark.parametrize(("name", "images"), [("cifar-fast", 300), ("cifar-accurate", 100)])
def test_a_bundle_classifies_test_images_as_well_as_it_says(name: str, images: int) -> None:
    model, test = bundle.load(bundle_path(name)), cifar10_test()[:images]
    found = np.concatenate(
        [cleartext_scores(model, list(test.images[at : at + 50])).argmax(1) for at in range(0, images, 50)]
    )
    stated = float(model.metadata["test accuracy"])
    deviation = (stated * (1 - stated) / images) ** 0.5
    assert abs((found == test.labels).mean() - stated) < 3 * deviation
