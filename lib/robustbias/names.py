"""Words the book shows for the ids that tables hold."""

ARCHITECTURES = {"alexnet": "AlexNet", "googlenet": "GoogLeNet", "resnet50": "ResNet-50"}
REGIMES = {
    "standard": "S (standard)",
    "robust": "R (robust)",
    "untrained": "untrained",
    "human": "humans",
}


def architecture(id: str) -> str:
    """The architecture as written in prose; an id without a display name as it is."""
    return ARCHITECTURES.get(id, id)
