"""Robust accuracy of the book's worst case against the union of independent attacks.

    python benchmarks/robustness.py [NETWORK ...] [--images 200]

Without names, the S and R of every pair. APGD-CE, APGD-T (all other classes of 16, else 9), FAB and
Square of torchattacks and DeepFool of foolbox attack, in turn, the images that all attacks before
left right, ours first. One JSON line a network: images right clean, after our worst case, and after
each attack; `gap` is what the others take from ours, as a share of all images.
"""

import argparse
import json
import time
import warnings

import foolbox
import torch
import torchattacks
from torch import nn

from robustbias import attacks, manifest, studies
from robustbias.adversarial_training.measure import correct, fast_bfloat16, survived
from robustbias.images import floats
from robustbias.networks import zoo

STEPS, QUERIES, BATCH = 50, 500, 100


def peers(network: nn.Module, norm: str, eps: float, classes: int) -> dict:
    """Name -> attack of (images, labels) that returns images."""
    kind = {"l2": "L2", "linf": "Linf"}[norm]
    targets = min(classes, 16 if classes <= attacks.MOST_TARGETS + 1 else 10)
    how = {"eps": eps, "norm": kind, "seed": 0}
    deep = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    return {
        "torchattacks APGD-CE": torchattacks.APGD(network, steps=STEPS, loss="ce", **how),
        "torchattacks APGD-T": torchattacks.APGDT(
            network, steps=STEPS // 2, n_classes=targets, **how
        ),
        "torchattacks FAB": torchattacks.FAB(network, steps=10, n_classes=classes, **how),
        "torchattacks Square": torchattacks.Square(network, n_queries=QUERIES, **how),
        "foolbox DeepFool": lambda x, y: deep[norm](steps=20)(model, x, y, epsilons=eps)[1],
    }


def compared(name: str, n: int) -> dict:
    """The row of one network, on n held-out images."""
    entry = manifest.network(name)
    study = studies.load(entry.study, device="cpu")
    network, threat = zoo.load(entry, "cpu"), study.entry.threat
    images = studies.held_out_sample(study, n, torch.Generator().manual_seed(0))
    clean = correct(network, images, BATCH)
    how = {"norm": threat.norm, "eps": threat.eps, "steps": threat.test_steps}
    start = time.perf_counter()
    left, _ = survived(
        network, images, clean, batch=BATCH, bfloat16=fast_bfloat16(images.pixels.device),
        generator=torch.Generator().manual_seed(0), **how,
    )  # fmt: skip
    row = {"network": name, "eps": threat.eps, "images": len(images), "clean": int(clean.sum())}
    ours = int(left.sum())
    row |= {"ours": ours, "seconds": round(time.perf_counter() - start, 1)}
    for attack, work in peers(network, threat.norm, threat.eps, entry.classes).items():
        start = time.perf_counter()
        for index in left.nonzero()[:, 0].split(BATCH) if left.any() else ():
            pixels, labels = floats(images.pixels[index]), images.labels[index]
            other = work(pixels.contiguous(), labels).detach()
            far = (other - pixels).flatten(1).norm(2 if threat.norm == "l2" else torch.inf, dim=1)
            with torch.no_grad():
                wrong = network(other).argmax(1) != labels
            left[index] &= ~(wrong & (far <= threat.eps * (1 + 1e-4)))
        row[attack] = [int(left.sum()), f"{time.perf_counter() - start:.0f} s"]
    return row | {"gap": (ours - int(left.sum())) / len(images)}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # the peers' own
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*")
    parser.add_argument("--images", type=int, default=200)
    given = parser.parse_args()
    paired = [n for n in manifest.networks() if manifest.network(n).pair]
    for chosen in given.networks or paired:
        print(json.dumps(compared(chosen, given.images)), flush=True)
