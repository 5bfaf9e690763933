"""Robust accuracy by the book's attack against the union of independent attacks.

    python benchmarks/robustness.py [NAME ...] [--images 200] [--store]

NAME is a network or a study; without any, the S and R of every pair. Images, radii and attack are
those of the chapter on adversarial training with its default parameters. The images that the book's
attack leaves correct go through APGD-CE (50 steps), APGD-T (25 steps at each other class of 16,
else at 9) and FAB (10 steps) of torchattacks, DeepFool (20 steps) of foolbox, and last Square (500
queries) of torchattacks, each attacking what the ones before left. That is up to about 1,000 passes
forward and backward per image; for an R of the icon world, 6 minutes on one thread at most.

One JSON line per network: images correct clean, after the book's attack and after each other one;
`difference` is the share of images that the union takes from the book's. Two signs that gradients
mislead (Croce and Hein 2020, arXiv 2003.01690): `square`, images that only Square fools, and
`zero_gradients`, images correct without attack whose gradient is zero. `--store` keeps the row in
benchmarks/robustness.csv, which the pages of the book read.
"""

import argparse
import json
import time
import warnings

import foolbox
import torch
import torchattacks
from timing import store
from torch import nn

from robustbias import manifest, studies
from robustbias.adversarial_training.measure import correct, survived
from robustbias.images import floats
from robustbias.networks import zoo

STEPS, QUERIES, BATCH = 50, 500, 128


def peers(network: nn.Module, norm: str, eps: float, classes: int) -> dict:
    """Name -> attack of (images, labels) that returns images; the one without gradients last."""
    kind = {"l2": "L2", "linf": "Linf"}[norm]
    targets = min(classes, 16 if classes <= 16 else 10)
    how = {"eps": eps, "norm": kind, "seed": 0}
    deep = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    return {
        "torchattacks APGD-CE": torchattacks.APGD(network, steps=STEPS, loss="ce", **how),
        "torchattacks APGD-T": torchattacks.APGDT(
            network, steps=STEPS // 2, n_classes=targets, **how
        ),
        "torchattacks FAB": torchattacks.FAB(network, steps=10, n_classes=classes, **how),
        "foolbox DeepFool": lambda x, y: deep[norm](steps=20)(model, x, y, epsilons=eps)[1],
        "torchattacks Square": torchattacks.Square(network, n_queries=QUERIES, **how),
    }


def without_gradient(network: nn.Module, pixels: torch.Tensor, labels: torch.Tensor) -> int:
    """How many images have a gradient of exactly zero."""
    loss = nn.functional.cross_entropy(network(pixels.requires_grad_()), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, pixels)
    return int((gradient.flatten(1) == 0).all(1).sum())


def compared(name: str, n: int) -> dict:
    """The row of one network, on n held-out images."""
    entry = manifest.network(name)
    study = studies.load(entry.study, device="cpu")
    network, threat = zoo.load(entry, "cpu"), study.entry.threat
    generator = torch.Generator().manual_seed(0)
    images = studies.held_out_sample(study, n, generator)
    clean = correct(network, images, BATCH)
    how = {"norm": threat.norm, "steps": threat.test_steps, "batch": BATCH}
    how |= {"generator": torch.Generator().manual_seed(0)}
    start = time.perf_counter()
    left, _ = survived(network, images, clean, eps=threat.eps, **how)
    ours = int(left.sum())
    row = {"network": name, "weights": network.weights_hash[:12], "eps": threat.eps}
    row |= {"images": len(images), "clean": int(clean.sum()), "book": ours}
    seconds = {"book": time.perf_counter() - start}
    right = floats(images.pixels[clean]), images.labels[clean]
    zero = without_gradient(network, *right) if len(right[1]) else 0
    before = ours
    for attack, work in peers(network, threat.norm, threat.eps, entry.classes).items():
        start, before = time.perf_counter(), int(left.sum())
        for index in left.nonzero()[:, 0].split(BATCH) if left.any() else ():
            pixels, labels = floats(images.pixels[index]), images.labels[index]
            other = work(pixels.contiguous(), labels).detach()
            far = (other - pixels).flatten(1).norm(2 if threat.norm == "l2" else torch.inf, dim=1)
            with torch.no_grad():
                wrong = network(other).argmax(1) != labels
            left[index] &= ~(wrong & (far <= threat.eps * (1 + 1e-4)))
        row[attack] = int(left.sum())
        seconds[attack] = time.perf_counter() - start
    union = int(left.sum())
    row |= {"union": union, "difference": (ours - union) / len(images)}
    row |= {"square": before - union, "zero_gradients": zero}
    return row | {"seconds": round(sum(seconds.values())), "book_seconds": round(seconds["book"])}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the attacks compared with
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--store", action="store_true")
    given = parser.parse_args()
    chosen = []
    for name in given.names or manifest.studies():
        of_study = manifest.networks(name) if name in manifest.studies() else [name]
        pairs = [n for n in of_study if manifest.network(n).pair or n == name]
        chosen += [n for n in pairs if zoo.weights_path(manifest.network(n)).is_file()]
    for name in chosen:
        result = compared(name, given.images)
        print(json.dumps(result), flush=True)
        if given.store:
            store("robustness", result, "network")
