"""Reference networks, their data and their training.

This module needs no torch; ``networks``, ``training`` and ``reference`` do.
"""

from heinfer.zoo.digits import DemoDigits, digits
from heinfer.zoo.shipped import BUNDLES, bundle_path

NETWORKS = ("mnist-plain", "mnist-ffconv")
"""Names of the reference networks."""

__all__ = ["BUNDLES", "NETWORKS", "DemoDigits", "bundle_path", "digits"]
