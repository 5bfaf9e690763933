"""One network trained by three recipes: seconds, accuracy, accuracy under attack.

    python benchmarks/recipes.py [RECIPE ...] [--network NAME] [--epochs N] [--images 400] [--store]

RECIPES lists the recipes; each adds something to the one before, and the last is the one that the
network's entry gives. All have the network's seed. Accuracies are of validation images, under the
book's attack at the study's radius. One JSON line per recipe. A training that was stopped goes on
from its last whole epoch. `--epochs` is for trying the program: every recipe then has as many.
`--store` keeps the row in benchmarks/recipes.csv, which the chapter on methods reads.
"""

import argparse
import json

import torch
from timing import store

from robustbias import manifest, studies, training
from robustbias.adversarial_training.measure import correct, survived
from robustbias.networks import zoo

BATCH = 100
FULL_RADIUS = {"epochs": 20, "warm": 0.0, "ramp": 0.0, "average": 0.0}
# what differs from the recipe of the network's entry
RECIPES = {
    "full radius from the start": FULL_RADIUS,
    "and a clean warm start, then a growing radius": {"epochs": 20, "average": 0.0},
    "and averaged weights, more epochs": {},
}


def result(name: str, changes: dict, network_name: str, n: int, epochs: int) -> dict:
    """The row of one recipe."""
    entry = manifest.network(network_name)
    study = studies.load(entry.study, device="cpu", replicates=[entry.replicate])
    changes = changes | ({"epochs": epochs} if epochs else {})
    how = training.recipe(entry, study.entry, **changes)
    network = zoo.untrained(entry, how.seed)
    folder = training.STATES / "recipes" / "-".join(name.split())
    rows = training.train(network, study.source, how, folder=folder)
    images = studies.held_out_sample(study, n, torch.Generator().manual_seed(0))
    clean = correct(network, images, BATCH)
    threat = study.entry.threat
    robust, _ = survived(
        network, images, clean, batch=BATCH, norm=threat.norm, eps=threat.eps,
        steps=threat.test_steps, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    row = {"recipe": name, "network": entry.name, "seed": how.seed, "epochs": len(rows)}
    row |= {key: getattr(how, key) for key in ("warm", "ramp", "average")}
    row |= {"seconds": round(float(rows["seconds"].sum()), 1), "images": len(images)}
    shares = {"clean": clean.float().mean(), "robust": robust.float().mean()}
    row |= {key: round(float(share), 4) for key, share in shares.items()}
    return row | {"plateau": training.plateau(rows, how)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="*", type=int, metavar="RECIPE")
    parser.add_argument("--network", default="iconworld-resnet50-r-1")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--store", action="store_true")
    given, numbers = parser.parse_args(), range(1, 1 + len(RECIPES))
    if wrong := set(given.recipes) - set(numbers):
        parser.error(f"no recipe {wrong}; there are 1 to {len(RECIPES)}")
    for number in given.recipes or numbers:
        name, changes = list(RECIPES.items())[number - 1]
        row = result(name, changes, given.network, given.images, given.epochs)
        print(json.dumps(row), flush=True)
        if given.store:
            store("recipes", row, "recipe")
