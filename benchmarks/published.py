"""Single images of CIFAR-10 and MNIST, encrypted, as others report them: accuracy, seconds, hardware, how well known.

Kinds: "read" in the paper or its authors' repository; "quoted" by another; "derived" from percentages that a paper
states; "unverified": not to be relied on.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One figure of one system; accuracy in per cent, the time of one image in seconds."""

    system: str
    data: str
    accuracy: float
    seconds: float
    hardware: str
    known: str
    source: str


PUBLISHED = (
    Published("LoLa", "cifar-10", 76.31, 750, "8 vCPU", "read", "github.com/microsoft/CryptoNets"),
    Published("LoLa, paper's variant", "cifar-10", 74.1, 730, "8 vCPU", "unverified accuracy", "arXiv 1812.10659"),
    Published("Falcon", "cifar-10", 75, 107, "8 vCPU", "derived, accuracy unverified", "NeurIPS 2020"),
    Published("FFConv", "cifar-10", 75, 85, "8 vCPU", "derived, accuracy unverified", "arXiv 2102.03494"),
    Published("Faster CryptoNets", "cifar-10", 75.99, 22372, "i7-5930K, 12 threads", "quoted", "arXiv 1811.09953"),
    Published("HCNN", "cifar-10", 77.55, 304, "4 GPU", "quoted", "arXiv 1811.00778"),
    Published("EVA, SqueezeNet", "cifar-10", 79.38, 72.7, "56 threads", "unverified", "PLDI 2020"),
    Published("Concrete ML, VGG9", "cifar-10", 86.0, 40, "128 vCPU", "read", "github.com/zama-ai/concrete-ml"),
    Published("Kim & Guyot, Plain-20", "cifar-10", 92.0, 255, "1 thread", "quoted", "ConvFHE, 2023"),
    Published("Orion, VGG5, by FEnc2", "cifar-10", 86.32, 35.3, "Threadripper 3975WX", "read", "arXiv 2606.16359"),
    Published("LoLa", "mnist", 98.95, 2.2, "8 vCPU", "quoted accuracy", "github.com/microsoft/CryptoNets"),
    Published("LoLa-Small", "mnist", 96.92, 0.29, "8 vCPU", "quoted", "arXiv 1812.10659"),
    Published("Falcon", "mnist", 98.95, 1.2, "8 vCPU", "derived, accuracy unverified", "NeurIPS 2020"),
    Published("TenSEAL tutorial", "mnist", 97.48, 2.0, "i7-3612QM", "read", "github.com/OpenMined/TenSEAL"),
    Published("EVA, LeNet-5-medium", "mnist", 99.1, 1.2, "56 threads", "unverified", "PLDI 2020"),
    Published("FHEON, LeNet-5", "mnist", 98.5, 13, "Ryzen 5900X", "quoted", "FHEON, 2025"),
)
