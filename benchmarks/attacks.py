"""A PGD step and a training step against their limits and against other libraries.

    python benchmarks/attacks.py [cpu|cuda]

The limit is the bare forward and backward pass of the same network, same precision and layout: of
the input alone for an attack, of the weights (and the optimizer's step) for training. The peers
take as many steps of the same length on the same images, as their documentation has it (32-bit,
contiguous). One JSON line a row; images x steps a second.
"""

import copy
import sys
import warnings

import torch
import torch.nn.functional as F
import torchvision
from timing import device, paired, row

from robustbias import attacks, manifest, training
from robustbias.images import Images
from robustbias.images.source import Source
from robustbias.networks import zoo

N, STEPS, EPS = 128, 5, 1.0


def resnet18() -> torch.nn.Module:
    return torchvision.models.resnet18(weights=None, num_classes=16)


def googlenet() -> torch.nn.Module:
    return zoo.untrained(manifest.network("iconworld-googlenet-r-1"))


def attack_rows(name: str, network: torch.nn.Module, on: torch.device) -> None:
    import foolbox
    import torchattacks

    network = network.to(on, memory_format=torch.channels_last).eval().requires_grad_(False)
    plain = torch.rand(N, 3, 64, 64, device=on)
    pixels = plain.to(memory_format=torch.channels_last)
    labels = torch.randint(16, (N,), device=on)

    def ours():
        attacks.perturbed(network, pixels, labels, norm="l2", eps=EPS, steps=STEPS, bfloat16=True)

    def limit():
        x = pixels.clone().requires_grad_()
        with torch.autocast(on.type, torch.bfloat16):
            for _ in range(STEPS):
                loss = F.cross_entropy(network(x).float(), labels)
                torch.autograd.grad(loss, x)

    theirs = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    torchattack = torchattacks.PGDL2(theirs, eps=EPS, alpha=2.5 * EPS / STEPS, steps=STEPS)
    model = foolbox.PyTorchModel(theirs, bounds=(0, 1), device=on)
    fool = foolbox.attacks.L2PGD(abs_stepsize=2.5 * EPS / STEPS, steps=STEPS, random_start=True)
    peers = {
        "torchattacks PGDL2": lambda: torchattack(plain, labels),
        "foolbox L2PGD": lambda: fool(model, plain, labels, epsilons=EPS),
    }
    own, bare, *others = paired([ours, limit, *peers.values()], on)
    for peer, took in zip(peers, others, strict=True):
        row(
            f"PGD L2, {name} 64 px", N * STEPS / own, peer=N * STEPS / took, peer_name=peer,
            limit=N * STEPS / bare, unit="image steps/s", on=on,
        )  # fmt: skip


class Fixed(Source):
    """The same images in every epoch."""

    def __init__(self, images: Images):
        self.images = images

    def train(self, epoch: int = 0, seed: int = 0) -> Images:
        return self.images

    def val(self) -> Images:
        return self.images.take(torch.arange(1, device=self.images.labels.device))


def training_rows(eps: float, on: torch.device) -> None:
    """One epoch of 8 batches; an adversarial batch costs 3 attack steps and a training step."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8 * N, 3, 64, 64), generator=generator, dtype=torch.uint8)
    images = Images(pixels, torch.arange(8 * N) % 16, tuple("abcdefghijklmnop")).to(on)
    how = training.Recipe(epochs=1, batch=N, eps=eps, steps=3, test_images=1)
    trained, bare = googlenet().to(on), googlenet().to(on).train().requires_grad_(True)
    optimizer = torch.optim.SGD(
        bare.parameters(), 1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    x = (pixels[:N].float() / 255).to(on, memory_format=torch.channels_last)
    y = images.labels[:N]

    def limit():
        for _ in range(8):
            with torch.autocast(on.type, torch.bfloat16):
                for _ in range(3 if eps else 0):
                    inputs = x.clone().requires_grad_()
                    torch.autograd.grad(F.cross_entropy(bare(inputs).float(), y), inputs)
            with torch.autocast(on.type, torch.bfloat16):
                loss = F.cross_entropy(bare(x).float(), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def ours():
        training.train(trained, Fixed(images), how, progress=False)

    own, floor = paired([ours, limit], on)
    kind = f"adversarial, eps {eps}, 3 steps" if eps else "standard"
    row(
        f"training, {kind}, iconworld GoogLeNet", 8 * N / own, limit=8 * N / floor,
        unit="images/s", on=on,
    )  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the peers' own
    on = device(sys.argv)
    attack_rows("ResNet-18", resnet18(), on)
    attack_rows("iconworld GoogLeNet", googlenet(), on)
    training_rows(0.0, on)
    training_rows(EPS, on)
