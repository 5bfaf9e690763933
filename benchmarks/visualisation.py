"""Feature visualisation of a layer's units against its limit.

    python benchmarks/visualisation.py [cpu|cuda]

The limit is the bare forward and backward pass of the network up to the layer, of the input alone,
in bfloat16, on as many images. One JSON line per row; images x steps per second.
"""

import sys

import torch
from timing import device, paired, row

from robustbias import manifest
from robustbias.networks import hooks, zoo
from robustbias.smooth_filters.visualisation import visualisations

STEPS, UNITS = 8, 64
LAYERS = {"iconworld-googlenet-r-1": "inception4c", "tiny-imagenet-resnet50-r-1": "layer3"}


def rows(name: str, layer: str, on: torch.device) -> None:
    network = zoo.untrained(manifest.network(name)).to(on).requires_grad_(False)
    size = network.entry.size
    pixels = torch.rand(UNITS, 3, size, size, device=on)

    def ours():
        generator = torch.Generator().manual_seed(0)
        units = torch.arange(UNITS)
        visualisations(
            network, layer, units, generator=generator, starts=1, steps=STEPS, bfloat16=True
        )

    def limit():
        x = pixels.clone(memory_format=torch.channels_last).requires_grad_()
        with torch.autocast(on.type, torch.bfloat16):
            for _ in range(STEPS):
                torch.autograd.grad(hooks.prefix(network, layer, x).sum(), x)

    seconds, bare = paired([ours, limit], on)
    row(
        f"visualisation, {name} {layer}", UNITS * STEPS / seconds, limit=UNITS * STEPS / bare,
        unit="image steps/s", on=on,
    )  # fmt: skip


if __name__ == "__main__":
    on = device(sys.argv)
    for name, layer in LAYERS.items():
        rows(name, layer, on)
