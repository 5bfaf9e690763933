"""Networks of 224 pixels: images per second forward, per step of an attack, per image of training.

    python benchmarks/scale.py [cpu|cuda]

With these three rates book/scale.md turns numbers of images into hours. The limit of an attack's
step is the bare forward and backward pass. One JSON line per row.
"""

import sys

import torch
from timing import device, row, seconds

from robustbias import attacks, manifest
from robustbias.networks import zoo
from robustbias.networks.hooks import fitting


def rows(name: str, on: torch.device) -> None:
    network = zoo.untrained(manifest.network(name)).to(on)
    n = 256 if on.type == "cuda" else 8
    pixels = torch.rand(n, 3, 224, 224, device=on).to(memory_format=torch.channels_last)
    n = fitting(network, pixels, n, held=True)
    pixels, labels = pixels[:n], torch.zeros(n, dtype=torch.long, device=on)

    def forward():
        with torch.no_grad():
            network(pixels)

    def attack():
        attacks.perturbed(network, pixels, labels, norm="l2", eps=3.0, steps=2, bfloat16=bf16)

    def bare():
        x = pixels.clone().requires_grad_()
        for _ in range(2):
            torch.autograd.grad(torch.nn.functional.cross_entropy(network(x), labels), x)

    def training():
        with torch.autocast(on.type, torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.cross_entropy(network(pixels), labels)
        loss.backward()

    bf16 = on.type == "cuda"
    network.requires_grad_(False)
    made = {"unit": "images/s", "on": on}
    row(f"forward, {name}", n / seconds(forward, on, 3), **made)
    row(f"attack step, {name}", 2 * n / seconds(attack, on, 3), limit=2 * n / seconds(bare, on, 3),
        **made)  # fmt: skip
    network.requires_grad_(True).train()
    row(f"training, {name}", n / seconds(training, on, 3), **made)


if __name__ == "__main__":
    on = device(sys.argv)
    for name in ("imagenet-alexnet-s", "imagenet-googlenet-s", "imagenet-resnet50-s"):
        rows(name, on)
