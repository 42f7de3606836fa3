"""Reference networks, their data and their training.

This module needs no torch; ``registry``, ``networks``, ``training`` and ``reference`` do.
"""

from heinfer.zoo.digits import DemoDigits, digits
from heinfer.zoo.shipped import BUNDLES, bundle_path

NETWORKS = (
    "mnist-plain",
    "mnist-ffconv",
    "lola-mnist",
    "lola-mnist-falcon",
    "lenet5-mnist",
    "lola-cifar",
    "lola-cifar-ffconv",
    "lola-cifar-falcon",
    "cifar-plain",
    "cifar-ffconv",
    "cifar-fast",
    "cifar-accurate",
    "cifar-resnet",
)
"""Names of the reference networks; ``registry`` says what each is."""

__all__ = ["BUNDLES", "NETWORKS", "DemoDigits", "bundle_path", "digits"]
