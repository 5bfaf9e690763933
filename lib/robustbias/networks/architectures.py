"""Networks by name: torchvision's, timm's, and small AlexNet, GoogLeNet and ResNet-50.

The small ones are made of torchvision's blocks, for small images. The originals shrink 224 pixels
to 56 (or 27) before their first block. Here the stem shrinks by 2 or 4 instead, so that 64 pixels
keep the same number of positions further in, and every width is multiplied by one factor. Module
names are torchvision's, so that a layer is named alike at both scales. All three accept other image
sizes: the spatial mean comes before the classifier.

Sources: Krizhevsky 2014 (arXiv 1404.5997), Szegedy et al. 2015 (arXiv 1409.4842), He et al. 2016
(arXiv 1512.03385); blocks and channel numbers from torchvision.
"""

from collections import OrderedDict
from typing import Any

import torchvision
from torch import nn
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.resnet import Bottleneck

from robustbias.utils import UserError


def build(
    architecture: str,
    *,
    classes: int,
    width: float = 1.0,
    stem: int = 0,
    arguments: dict[str, Any] | None = None,
) -> nn.Module:
    """A network with random weights that maps normalised images to `classes` logits.

    Args:
        architecture: A name of torchvision.models, or "timm:NAME" where timm is installed.
        width: Factor on all channel numbers (at least 4 channels remain).
        stem: Total stride before the first block, 2 or 4, of AlexNet, GoogLeNet and ResNet-50; 0
            takes the library's network (then `width` must be 1).
        arguments: Further arguments of the library's builder.

    Raises:
        UserError: An unknown architecture, stem, width or argument, or timm is not installed.
    """
    if stem == 0 and width == 1.0:
        return _original(architecture, classes, arguments or {})
    if architecture not in BUILDERS:
        raise UserError(
            f"{architecture} has no small version; expected stem 0 and width 1, or one of "
            f"{', '.join(BUILDERS)}."
        )
    if stem not in (2, 4) or not 0 < width <= 4:
        raise UserError(
            f"{architecture} with stem {stem} and width {width}; expected stem 2 or 4 and a width "
            "in (0, 4], or stem 0 with width 1 for torchvision's own network."
        )
    network = BUILDERS[architecture](
        classes, lambda channels: max(4, round(channels * width)), stem
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(_classifier(network).weight, std=0.01)
    return network


WITH_AUXILIARIES = ("googlenet", "inception_v3")  # whose further classifiers serve training alone


def _original(architecture: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    library, _, name = architecture.rpartition(":")
    if library == "timm":
        try:
            import timm
        except ImportError as error:
            raise UserError(
                f"{architecture} needs timm, which is not installed; run `pip install timm`."
            ) from error
        exists, create = timm.is_model(name), timm.create_model
    elif library:
        raise UserError(f"unknown library {library!r} of {architecture}; valid: timm.")
    else:
        exists = name in torchvision.models.list_models(module=torchvision.models)
        create = torchvision.models.get_model
    if not exists:
        raise UserError(
            f"unknown architecture {architecture!r}; expected a name of torchvision.models, as "
            "resnet50, or timm:NAME."
        )
    if architecture in WITH_AUXILIARIES:
        arguments = {"aux_logits": False, "init_weights": True} | arguments
    try:
        return create(name, num_classes=classes, **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{architecture} cannot be built with {arguments}: {error}.") from error


def _classifier(network: nn.Module) -> nn.Linear:
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def _alexnet(classes: int, c, stem: int) -> nn.Module:
    side = 3  # positions left for the fully connected layers
    features = nn.Sequential(
        nn.Conv2d(3, c(64), 11, stem, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(c(64), c(192), 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(c(192), c(384), 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c(384), c(256), 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c(256), c(256), 3, padding=1),
        nn.ReLU(inplace=True),
    )
    if stem == 2:
        features.append(nn.MaxPool2d(3, 2))
    classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(c(256) * side * side, c(4096)),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(c(4096), c(4096)),
        nn.ReLU(inplace=True),
        nn.Linear(c(4096), classes),
    )
    return nn.Sequential(
        OrderedDict(
            features=features,
            avgpool=nn.AdaptiveAvgPool2d(side),
            flatten=nn.Flatten(),
            classifier=classifier,
        )
    )


def _googlenet(classes: int, c, stem: int) -> nn.Module:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    # output channels of the branches: 1x1, (3x3 reduce, 3x3), (5x5 reduce, 5x5), pool projection
    table = {
        "inception3a": (64, 96, 128, 16, 32, 32),
        "inception3b": (128, 128, 192, 32, 96, 64),
        "maxpool3": None,
        "inception4a": (192, 96, 208, 16, 48, 64),
        "inception4b": (160, 112, 224, 24, 64, 64),
        "inception4c": (128, 128, 256, 24, 64, 64),
        "inception4d": (112, 144, 288, 32, 64, 64),
        "inception4e": (256, 160, 320, 32, 128, 128),
        "maxpool4": None,
        "inception5a": (256, 160, 320, 32, 128, 128),
        "inception5b": (384, 192, 384, 48, 128, 128),
    }
    layers = OrderedDict(conv1=BasicConv2d(3, c(64), kernel_size=7, stride=2, padding=3))
    if stem == 4:
        layers["maxpool1"] = pool()
    layers["conv2"] = BasicConv2d(c(64), c(64), kernel_size=1)
    layers["conv3"] = BasicConv2d(c(64), c(192), kernel_size=3, padding=1)
    layers["maxpool2"] = pool()
    channels = c(192)
    for name, widths in table.items():
        if widths is None:
            layers[name] = pool()
            continue
        one, _, three, _, five, projection = widths = [c(width) for width in widths]
        layers[name] = Inception(channels, *widths)
        channels = one + three + five + projection
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["dropout"] = nn.Dropout(0.2)
    layers["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


def _resnet50(classes: int, c, stem: int) -> nn.Module:
    layers = OrderedDict(
        conv1=nn.Conv2d(3, c(64), 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(c(64)),
        relu=nn.ReLU(inplace=True),
    )
    if stem == 4:
        layers["maxpool"] = nn.MaxPool2d(3, 2, 1)
    channels = c(64)
    for index, (blocks, planes) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        stage, stride = [], 1 if index == 0 else 2
        for block in range(blocks):
            step, out = stride if block == 0 else 1, c(planes) * Bottleneck.expansion
            shortcut = None
            if block == 0:
                shortcut = nn.Sequential(
                    nn.Conv2d(channels, out, 1, step, bias=False), nn.BatchNorm2d(out)
                )
            stage.append(Bottleneck(channels, c(planes), step, shortcut))
            channels = out
        layers[f"layer{index + 1}"] = nn.Sequential(*stage)
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)


BUILDERS = {"alexnet": _alexnet, "googlenet": _googlenet, "resnet50": _resnet50}
