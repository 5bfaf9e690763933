"""Training a study's networks one after the other, and their records."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from robustbias import files, manifest, studies, training
from robustbias.errors import UserError
from robustbias.networks import checkpoints, zoo


def train_study(
    name: str, *, networks: list[str] | None = None, device: str = "auto", **overrides: Any
) -> pd.DataFrame:
    """Trains a study's networks (or some) into `checkpoints/`; returns their last epochs.

    A network whose weights are the manifest's is trained again; a run that was interrupted goes on
    from its last whole epoch.

    Raises:
        UserError: A network that is not of this study, or an unknown training parameter.
    """
    study, on = manifest.study(name), studies.chosen_device(device)
    own = manifest.networks(name)
    if unknown := [n for n in networks or () if n not in own]:
        raise UserError(f"study {name} has no network {unknown}; it has: {', '.join(own)}.")
    for chosen in networks or own:
        entry = manifest.network(chosen)
        how = training.recipe(entry, study, **overrides)
        shown = dataclasses.replace(study, world=study.world | entry.world)
        source = studies.source(shown, on, entry.cue)
        network = zoo.untrained(entry, how.seed).to(on)
        rows = training.train(network, source, how, folder=STATES)
        if training.leads():
            publish(network, training.record(network, how, rows, source.digest))
            (STATES / f"{entry.name}.state.safetensors").unlink()
    return records(networks or own).groupby("network").tail(1)


STATES = manifest.ROOT / "_build" / "training"


def publish(network: zoo.Network, report: dict[str, Any]) -> str:
    """Writes weights and record beside each other, the weights' hash into the manifest."""
    path = manifest.ROOT / network.entry.weights
    digest = checkpoints.save(network.body, path, {"network": network.entry.name})
    with files.atomic(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(report | {"sha256": digest}, indent=1) + "\n")
    manifest.set_hash(network.entry.name, digest)
    return digest


def records(names: Iterable[str]) -> pd.DataFrame:
    """The training records of several networks: a row an epoch, with the network's columns."""
    tables = []
    for entry, report in _reports(names):
        about = {k: getattr(entry, k) for k in ("architecture", "regime", "eps", "cue")}
        tables.append(pd.DataFrame(report["rows"]).assign(network=entry.name, **about))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def ledger(names: Iterable[str]) -> pd.DataFrame:
    """What each training took and where it ended, a row a network whose record is here.

    Columns: network, epochs, minutes, images_per_second (median over epochs), device, threads,
    clean and adversarial (validation accuracy after the last epoch), commit.
    """
    rows = []
    for entry, report in _reports(names):
        epochs = pd.DataFrame(report["rows"])
        last = {name: epochs[name].iloc[-1] for name in ("clean", "adversarial")}
        rows.append(
            {
                "network": entry.name,
                "epochs": len(epochs),
                "minutes": report["seconds"] / 60,
                "images_per_second": epochs["images_per_second"].median(),
                **{name: report[name] for name in ("device", "threads", "commit")},
                **last,
            }
        )
    return pd.DataFrame(rows)


def _reports(names: Iterable[str]) -> Iterator[tuple[manifest.NetworkEntry, dict[str, Any]]]:
    """Entry and training record of the networks that have one in the repository."""
    for entry in map(manifest.network, names):
        path = (manifest.ROOT / entry.weights).with_suffix(".json")
        if path.is_file():
            yield entry, json.loads(path.read_text())
