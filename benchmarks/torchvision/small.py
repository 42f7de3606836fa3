"""Networks of torchvision for images of 32 x 32: cut by its own arguments where it has them, and narrowed.

Pools and strides that leave nothing of such an image are left out. Depth is cut to what evaluates in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.torchvision.installed import models
from benchmarks.torchvision.networks import SEED

SHAPE = (3, 32, 32)
CLASSES = 10


def small(name: str) -> nn.Module:
    """A network of a family, with the weights that it begins with."""
    torch.manual_seed(SEED)
    return SMALL[name]().eval()


def narrowed(module: nn.Module, by: int) -> nn.Module:
    """The same layers with so many times fewer channels; colours and classes stay.

    In place. Widths must be multiples of it.
    """

    def fewer(channels: int) -> int:
        return channels if channels in (SHAPE[0], CLASSES) else channels // by

    for part in list(module.modules()):
        for name, layer in part.named_children():
            new: nn.Module
            if isinstance(layer, nn.Conv2d):
                kept: dict[str, Any] = {
                    key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation")
                }
                groups = fewer(layer.groups) if layer.groups > 1 else 1
                new = nn.Conv2d(
                    fewer(layer.in_channels),
                    fewer(layer.out_channels),
                    groups=groups,
                    bias=layer.bias is not None,
                    **kept,
                )
            elif isinstance(layer, nn.BatchNorm2d):
                new = nn.BatchNorm2d(fewer(layer.num_features), eps=layer.eps)
            elif isinstance(layer, nn.Linear):
                new = nn.Linear(fewer(layer.in_features), fewer(layer.out_features))
            else:
                continue
            setattr(part, name, new)
    return module


def _without(module: nn.Module, *names: str) -> None:
    for name in names:
        setattr(module, name, nn.Identity())


def _alexnet() -> nn.Module:
    net: Any = models().AlexNet(num_classes=CLASSES, dropout=0.0)
    net.features[0] = nn.Conv2d(3, 64, 3, stride=2, padding=1)
    for place in (2, 5, 12):
        net.features[place] = nn.MaxPool2d(2)
    _without(net, "avgpool")
    net.classifier[1] = nn.Linear(256 * 4, 4096)
    return narrowed(net, 16)


def _vgg(*, norm: bool) -> nn.Module:
    net: Any = getattr(models(), "vgg11_bn" if norm else "vgg11")(weights=None, num_classes=CLASSES)
    _without(net, "avgpool")
    net.classifier[0] = nn.Linear(512, 4096)
    return narrowed(net, 16)


def _resnet() -> nn.Module:
    resnet = models().resnet
    net: Any = resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    _without(net, "maxpool")
    return narrowed(net, 16)


def _squeezenet() -> nn.Module:
    net: Any = models().squeezenet1_1(weights=None, num_classes=CLASSES)
    net.features = net.features[:8]  # four of its eight modules
    net.classifier[1] = nn.Conv2d(256, CLASSES, 1)
    return narrowed(net, 16)


def _mobilenet_v2() -> nn.Module:
    settings = [[1, 16, 1, 1], [6, 24, 1, 2], [6, 32, 1, 2]]
    net: Any = models().MobileNetV2(CLASSES, inverted_residual_setting=settings, dropout=0.0)
    return narrowed(net, 8)


def _mobilenet_v3() -> nn.Module:
    mobilenet = models().mobilenetv3
    layer = partial(mobilenet.InvertedResidualConfig, dilation=1, width_mult=1.0)
    settings = [
        layer(16, 3, 16, 16, True, "RE", stride=2),
        layer(16, 3, 64, 24, False, "RE", stride=2),
        layer(24, 5, 96, 24, True, "HS", stride=1),
    ]
    return narrowed(mobilenet.MobileNetV3(settings, last_channel=128, num_classes=CLASSES, dropout=0.0), 4)


def _mnasnet() -> nn.Module:
    net: Any = models().MNASNet(1.0, num_classes=CLASSES, dropout=0.0)
    layers: Any = net.layers
    stages = [nn.Sequential(layers[place][0]) for place in (8, 9)]
    head = nn.Sequential(nn.Conv2d(40, 320, 1, bias=False), nn.BatchNorm2d(320), nn.ReLU())
    net.layers = nn.Sequential(*layers[:8], *stages, *head)
    net.classifier = nn.Sequential(nn.Linear(320, CLASSES))
    return narrowed(net, 8)


def _efficientnet() -> nn.Module:
    efficientnet = models().efficientnet
    layer = partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    settings = [layer(1, 3, 1, 32, 16, num_layers=1), layer(6, 3, 2, 16, 24, num_layers=1)]
    return narrowed(efficientnet.EfficientNet(settings, 0.0, num_classes=CLASSES, last_channel=96), 4)


def _regnet() -> nn.Module:
    regnet = models().regnet
    settings = regnet.BlockParams(
        depths=[1, 1],
        widths=[8, 16],
        group_widths=[4, 4],
        bottleneck_multipliers=[1.0, 1.0],
        strides=[2, 2],
        se_ratio=0.25,
    )
    net: nn.Module = regnet.RegNet(settings, num_classes=CLASSES, stem_width=8)
    return net


def _shufflenet() -> nn.Module:
    net: Any = models().ShuffleNetV2([1, 1, 1], [8, 16, 32, 64, 64], num_classes=CLASSES)
    net.conv1[0].stride = (1, 1)
    made: nn.Module = net
    return made


def _densenet() -> nn.Module:
    net: nn.Module = models().DenseNet(4, (2, 2), 8, bn_size=2, num_classes=CLASSES)
    return net


def _googlenet() -> nn.Module:
    net: Any = models().GoogLeNet(CLASSES, aux_logits=False, init_weights=False, dropout=0.0)
    _without(net, "maxpool3", "inception4a", "inception4b", "inception4c", "inception4d", "inception4e")
    _without(net, "maxpool4", "inception5a", "inception5b")
    net.fc = nn.Linear(480, CLASSES)
    return narrowed(net, 8)


def _inception() -> nn.Module:
    net: Any = models().Inception3(CLASSES, aux_logits=False, init_weights=False, dropout=0.0)
    _without(net, "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")
    _without(net, "Mixed_7a", "Mixed_7b", "Mixed_7c")
    net.Conv2d_1a_3x3.conv.stride = (1, 1)
    net.fc = nn.Linear(256, CLASSES)
    return narrowed(net, 16)


SMALL: dict[str, Callable[[], nn.Module]] = {
    "alexnet": _alexnet,
    "vgg11": partial(_vgg, norm=False),
    "vgg11_bn": partial(_vgg, norm=True),
    "resnet": _resnet,
    "squeezenet": _squeezenet,
    "mobilenet_v2": _mobilenet_v2,
    "mobilenet_v3": _mobilenet_v3,
    "mnasnet": _mnasnet,
    "efficientnet": _efficientnet,
    "regnet": _regnet,
    "shufflenet": _shufflenet,
    "densenet": _densenet,
    "googlenet": _googlenet,
    "inception": _inception,
}
