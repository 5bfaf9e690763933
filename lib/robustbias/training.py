"""Standard and adversarial training: min over weights of E[max over |d| <= eps of loss(x + d)].

The loss is on adversarial images alone (Madry et al. 2018); eps = 0 is standard training. Data and
augmentation stay on the device, convolutions run channels-last in bfloat16 where the device has
it. Everything random but dropout is a function of (seed, epoch) and drawn for whole batches, so a
run that was killed goes on from its last whole epoch, with any number of processes, and ends with
the weights of an unbroken one. Training images too many for the memory are a `Stream` from disk.

Options: a clean warm start (the attack's radius is 0 at first, then grows), an exponential moving
average of the weights (Izmailov et al. 2018, arXiv 1803.05407; for adversarial training Gowal et
al. 2020, arXiv 2010.03593), and a stop when robust accuracy stands still (Rice et al. 2020,
arXiv 2002.11569).
"""

import copy
import dataclasses
import hashlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors
import safetensors.torch
import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from robustbias import attacks, manifest, studies, utils
from robustbias.images import Images, floats
from robustbias.images.source import Source
from robustbias.images.streams import Stream
from robustbias.networks import checkpoints, zoo
from robustbias.utils import UserError

RECORDED = ("epoch", "loss", "clean", "adversarial", "seconds", "images_per_second", "rate")
TEST_STEPS = 10  # of the attack on validation images after an epoch; the chapters use more


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train. `rate` is the largest learning rate; `steps` are those of the training attack,
    `step_size` their length in pixel units (0 for 2.5 eps / steps).

    Schedules: "one-cycle" (linear up over `warmup`, cosine down) or "step" (a tenth after every
    third of the epochs). `shift` is the random crop's padding in pixels, 0 for none. The attack's
    radius is 0 over the first share `warm` of the training (a clean warm start, which costs a
    fraction of an adversarial one) and then grows linearly to `eps` over the share `ramp`: a
    network without BatchNorm may never leave chance under the full radius from the start. `average`
    is the decay per step of an exponential moving average of the weights, which is then what is
    tested and kept; 0 for none. `patience` tests in a row that raise the best robust accuracy by no
    more than one standard error end the training; 0 trains all epochs. An epoch passes over one of
    `pieces` equal parts of the training images: of a large set, a killed run then loses little.
    """

    epochs: int
    batch: int = 128
    rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one-cycle"
    warmup: float = 0.2
    label_smoothing: float = 0.0
    step_size: float = 0.0
    shift: int = 0
    flip: bool = False
    norm: str = "l2"
    eps: float = 0.0
    steps: int = 3
    warm: float = 0.0
    ramp: float = 0.0
    average: float = 0.0
    patience: int = 0
    test_eps: float = 0.0
    test_images: int = 400
    test_every: int = 1
    seed: int = 0
    pieces: int = 1
    bfloat16: bool = True

    def __post_init__(self):
        numbers = {k: v for k, v in dataclasses.asdict(self).items() if isinstance(v, float)}
        if wrong := [f"{k} = {v}" for k, v in numbers.items() if not math.isfinite(v)]:
            raise UserError(f"training parameter {', '.join(wrong)}; expected a finite number.")
        attacks.check(self.norm, self.eps, self.steps)
        if min(self.epochs, self.batch, self.test_every, self.pieces) < 1:
            raise UserError("epochs, batch, test_every and pieces must be at least 1.")
        if not 0 <= self.average < 1:
            raise UserError(f"average = {self.average}; expected a decay of at least 0, below 1.")
        if self.warm < 0 or self.ramp < 0 or self.warm + self.ramp > 1:
            raise UserError(
                f"warm = {self.warm}, ramp = {self.ramp}; expected shares of the training, "
                "at least 0 and together at most 1."
            )
        if self.schedule not in ("one-cycle", "step"):
            raise UserError(f"unknown schedule {self.schedule!r}; valid: one-cycle, step.")

    def eps_at(self, progress: float) -> float:
        """Radius of the training attack after a share of the training (0..1)."""
        if progress < self.warm:
            return 0.0
        return self.eps * min(1.0, (progress - self.warm) / self.ramp) if self.ramp else self.eps

    def rate_at(self, progress: float) -> float:
        """Learning rate after a share of the training (0..1)."""
        if self.schedule == "step":
            return self.rate * 0.1 ** int(3 * progress)
        if progress < self.warmup:
            return self.rate * max(progress, 1e-3) / self.warmup
        half_turn = torch.tensor((progress - self.warmup) / (1 - self.warmup) * torch.pi)
        return self.rate * (1 + half_turn.cos().item()) / 2


def recipe(
    entry: manifest.NetworkEntry, study: manifest.StudyEntry, variant: str = "", **overrides: Any
) -> Recipe:
    """The recipe of a network: the study's values, then its architecture's, its regime's, those of
    its entry, those of the study's table `variant`, and `overrides`.

    Raises:
        UserError: A key that is no field of `Recipe`, or no table of that name.
    """
    shared = {k: v for k, v in study.training.items() if not isinstance(v, dict)}
    if variant and variant not in study.training:
        tables = ", ".join(sorted(set(study.training) - set(shared))) or "none"
        raise UserError(f"study {study.name} has no recipe {variant!r}; its tables are: {tables}.")
    particular = study.training.get(entry.architecture, {}) | study.training.get(entry.regime, {})
    table = {
        "norm": study.threat.norm,
        "steps": study.threat.steps,
        "test_eps": study.threat.eps,
        "eps": entry.eps,
        "seed": entry.replicate,
        **shared,
        **particular,
        **entry.training,
        **study.training.get(variant, {}),
        **overrides,
    }
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if unknown := sorted(set(table) - fields):
        raise UserError(f"unknown training parameter(s) {unknown}; valid: {sorted(fields)}.")
    return Recipe(**table)


def train(
    network: zoo.Network,
    source: Source,
    how: Recipe,
    *,
    folder: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Trains `network` in place and returns one row per epoch.

    Columns: epoch, loss, clean, adversarial (validation accuracies, NaN in epochs without a test),
    seconds, images_per_second, rate, eps (radius of the training attack at the epoch's end). With
    weight averaging the accuracies and the final weights are those of the average.

    After every epoch the state is saved below `folder`, from which the same call goes on;
    interrupting loses at most the epoch under way. Under torchrun each process takes its share of
    every batch and process 0 saves; BatchNorm sees the share of its process.

    Raises:
        UserError: The training diverged, a batch cannot be shared equally, or `folder` holds the
            state of another recipe or of other images.
    """
    device = next(network.parameters()).device
    rank, world = _join(device)
    if how.batch % world:
        raise UserError(f"a batch of {how.batch} images for {world} processes; give a multiple.")
    network.requires_grad_(True)
    model = nn.parallel.DistributedDataParallel(network) if world > 1 else network
    optimizer = torch.optim.SGD(
        network.parameters(),
        how.rate,
        momentum=how.momentum,
        nesterov=True,
        weight_decay=how.weight_decay,
    )
    averaged = copy.deepcopy(network).requires_grad_(False) if how.average else None
    state = folder / f"{network.entry.name}.state.safetensors" if folder else None
    origin = {"recipe": json.dumps(dataclasses.asdict(how)), "data": source.digest} if state else {}
    rows = _resume(state, network, averaged, optimizer, origin) if state else []
    val = source.val()
    # at random, since a data set may be ordered by class, or in turns
    order = torch.randperm(len(val), generator=torch.Generator().manual_seed(how.seed))
    test = val.take(order[: how.test_images].to(val.labels.device))
    bar = tqdm(
        total=how.epochs,
        initial=len(rows),
        desc=network.entry.name,
        unit="epoch",
        disable=not progress or rank > 0,
    )
    for epoch in range(len(rows), how.epochs):
        if how.patience and stalled(rows, how):
            break
        start = time.perf_counter()
        images = source.train(epoch // how.pieces, how.seed)
        loss = _epoch(model, network, averaged, images, optimizer, how, epoch, rank, world)
        if not math.isfinite(loss):
            raise UserError(
                f"the loss of {network.entry.name} is {loss} in epoch {epoch + 1}: the training "
                f"diverged. Give a smaller learning rate than {how.rate:g}, or a longer ramp; "
                "the state before this epoch is kept."
            )
        seconds = time.perf_counter() - start
        row = {
            "epoch": epoch + 1,
            "loss": loss,
            "clean": float("nan"),
            "adversarial": float("nan"),
            "seconds": seconds,
            "images_per_second": len(images) / how.pieces / seconds,
            "rate": how.rate_at(epoch / how.epochs),
            "eps": how.eps_at((epoch + 1) / how.epochs),
        }
        if (epoch + 1) % how.test_every == 0 or epoch + 1 == how.epochs:
            row |= _tested(averaged or network, test, how)
        rows.append(row)
        if state and rank == 0:
            _save(state, network, averaged, optimizer, origin, rows)
        bar.set_postfix_str(
            f"loss {loss:.3f} clean {row['clean']:.3f} adv {row['adversarial']:.3f} "
            f"{row['images_per_second']:.0f} images/s"
        )
        bar.update()
    bar.close()
    if averaged is not None:
        network.load_state_dict(averaged.state_dict())
    network.eval().requires_grad_(False)
    return pd.DataFrame(rows)


PLATEAU = 3  # tests in a row that must agree


def plateau(rows: pd.DataFrame | list[dict], how: Recipe) -> bool:
    """Whether the last three tests' robust accuracies lie within one standard error of each other.

    For a network trained without an attack it is the clean accuracy. The standard error
    is the binomial one of `test_images` images.
    """
    tested = _tests(rows, how)
    if len(tested) < PLATEAU:
        return False
    last = tested[-PLATEAU:]
    return bool(max(last) - min(last) <= _standard_error(last[-1], how))


def ending(rows: pd.DataFrame | list[dict], how: Recipe) -> str:
    """One sentence on how a training ended: whether its accuracy stood still."""
    what = "robust accuracy" if how.eps else "accuracy"
    last = ", ".join(f"{value:.3f}" for value in _tests(rows, how)[-PLATEAU:]) or "none"
    if plateau(rows, how):
        return f"{what} stood still (last tests: {last})."
    return f"{what} had not yet stood still (last tests: {last}); more epochs may change it."


def stalled(rows: pd.DataFrame | list[dict], how: Recipe) -> bool:
    """Whether the last `patience` tests under the full radius brought no better robust accuracy."""
    tested = _tests(rows, how)
    if len(tested) <= how.patience:
        return False
    before, since = max(tested[: -how.patience]), max(tested[-how.patience :])
    return bool(since <= before + _standard_error(before, how))


def _tests(rows: pd.DataFrame | list[dict], how: Recipe) -> list[float]:
    """Accuracies, under attack where there is one, of the tested epochs with the full radius."""
    table = pd.DataFrame(rows)
    if table.empty:
        return []
    column = "adversarial" if how.eps else "clean"
    full = (table["epoch"] / how.epochs >= how.warm + how.ramp) & table[column].notna()
    return [float(value) for value in table.loc[full, column]]


def _standard_error(share: float, how: Recipe) -> float:
    return math.sqrt(max(share * (1 - share), 1 / how.test_images) / how.test_images)


def leads() -> bool:
    """Whether this process is the one that writes files."""
    return not dist.is_initialized() or dist.get_rank() == 0


def _join(device: torch.device) -> tuple[int, int]:
    """(rank, number of processes); joins the group that torchrun describes, if it does."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.get_rank(), dist.get_world_size()


def _seed(how: Recipe, epoch: int, rank: int) -> int:
    digest = hashlib.sha256(f"{how.seed} {epoch} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _epoch(
    model: nn.Module,
    network: zoo.Network,
    averaged: zoo.Network | None,
    images: Images | Stream,
    optimizer: torch.optim.Optimizer,
    how: Recipe,
    epoch: int,
    rank: int,
    world: int,
) -> float:
    """One pass over the images, or a piece of one; returns the mean loss."""
    device = next(network.parameters()).device
    passed, piece = divmod(epoch, how.pieces)
    shared = torch.Generator(device).manual_seed(_seed(how, passed, -1))
    # the same in all processes, which take their rows of what is drawn for a whole batch
    drawn = torch.Generator(device).manual_seed(_seed(how, epoch, 0))
    torch.manual_seed(_seed(how, epoch, rank))  # dropout takes the global generator
    order = torch.randperm(len(images), generator=shared, device=device)
    order = order.tensor_split(how.pieces)[piece]
    batches = [b for b in order.split(how.batch) if len(b) == how.batch] or [order]
    total = torch.zeros((), device=device)
    mine = slice(rank, None, world)
    shares = _loaded(images, [batch[mine] for batch in batches], device)
    for index, (batch, (pixels, labels)) in enumerate(zip(batches, shares, strict=True)):
        progress = (epoch + index / len(batches)) / how.epochs
        for group in optimizer.param_groups:
            group["lr"] = how.rate_at(progress)
        pixels = augmented(pixels, how, drawn, len(batch), mine)
        if (eps := how.eps_at(progress)) > 0:
            shape = (len(batch), *pixels.shape[1:])
            start = attacks.random_start(how.norm, shape, eps, drawn, device)[mine]
            pixels = attacks.perturbed(
                network,
                pixels,
                labels,
                norm=how.norm,
                eps=eps,
                steps=how.steps,
                step_size=how.step_size or None,
                start=start,
                bfloat16=how.bfloat16,
            )
        model.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=how.bfloat16):
            logits = model(pixels)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=how.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if averaged is not None:
            _average(averaged, network, how.average, epoch * len(batches) + index)
        total += loss.detach()
    mean = total / len(batches)
    if world > 1:
        dist.all_reduce(mean)
        # BatchNorm's statistics, so that all processes agree
        for buffer in [*network.buffers(), *(averaged.buffers() if averaged else ())]:
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world
    return mean.item() / world


def _loaded(
    images: Images | Stream, shares: list[Tensor], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 pixels and labels of each share, on the device; workers decode a stream ahead."""
    if isinstance(images, Images):
        yield from ((images.pixels[share], images.labels[share]) for share in shares)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    loader = DataLoader(
        images,
        batch_sampler=[share.tolist() for share in shares],
        num_workers=max(1, (cores or 1) // processes - 1),
        pin_memory=device.type == "cuda",
    )
    for pixels, labels in loader:
        yield pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True)


@torch.no_grad()
def _average(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """One step of the moving average, BatchNorm's statistics included.

    The decay grows over the first steps, (1 + step) / (10 + step), so that random initial weights
    leave the average early.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    pairs = list(zip(averaged.state_dict().values(), network.state_dict().values(), strict=True))
    floating = [(a, b) for a, b in pairs if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floating], [b for _, b in floating], weight)
    for average, latest in pairs:
        if not average.is_floating_point():
            average.copy_(latest)


def augmented(
    pixels: UInt8[Tensor, "n 3 h w"],
    how: Recipe,
    generator: torch.Generator,
    total: int = 0,
    share: slice = slice(None),
) -> Float[Tensor, "n 3 h w"]:
    """Each image shifted by up to `shift` pixels (edges mirrored) and flipped, as floats.

    Args:
        total: Images of the batch that these are the `share` of; n when 0.
    """
    n, _, height, width = pixels.shape
    device, total = pixels.device, total or n
    if how.shift:
        size = 2 * how.shift + 1
        low = torch.randint(0, size, (2, total), generator=generator, device=device)[:, share]
        rows = _mirrored(low[0], height, how.shift)
        columns = _mirrored(low[1], width, how.shift)
        across = pixels.permute(0, 2, 3, 1)
        every = torch.arange(n, device=device)[:, None, None]
        pixels = across[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if how.flip:
        flip = torch.rand(total, generator=generator, device=device)[share] < 0.5
        pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
    return floats(pixels)


def _mirrored(low: Tensor, side: int, shift: int) -> Tensor:
    """Positions low .. low + side - 1 of an image padded by mirroring; one row per image."""
    at = (low[:, None] + torch.arange(side, device=low.device) - shift).abs()
    return torch.where(at >= side, 2 * (side - 1) - at, at)


def _tested(network: zoo.Network, test: Images, how: Recipe) -> dict[str, float]:
    """Accuracy on clean images and against PGD at the study's eps."""
    network.eval()
    device = test.labels.device
    generator = torch.Generator(device).manual_seed(how.seed)
    with torch.no_grad():
        clean = torch.cat([network(x).argmax(1) == y for x, y in test.batches(256)])
    scores = {"clean": clean.float().mean().item()}
    if how.test_eps > 0:
        fooled = [
            attacks.pgd(
                network,
                x,
                y,
                norm=how.norm,
                eps=how.test_eps,
                steps=TEST_STEPS,
                generator=generator,
                bfloat16=how.bfloat16,
            ).fooled
            for x, y in test.batches(256)
        ]
        scores["adversarial"] = 1 - torch.cat(fooled).float().mean().item()
    return scores


# State between epochs, and the record


def _save(
    path: Path,
    network: nn.Module,
    averaged: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    origin: dict[str, str],
    rows: list[dict],
) -> None:
    """Weights, their average, momenta and record so far in one file, either whole or absent."""
    tensors = {f"weights.{n}": v.contiguous() for n, v in network.state_dict().items()}
    if averaged is not None:
        tensors |= {f"average.{n}": v.contiguous() for n, v in averaged.state_dict().items()}
    for name, parameter in network.named_parameters():
        tensors[f"momentum.{name}"] = optimizer.state[parameter]["momentum_buffer"].contiguous()
    with utils.atomic(path) as partial:
        safetensors.torch.save_file(tensors, partial, {**origin, "rows": json.dumps(rows)})


def _resume(
    path: Path,
    network: nn.Module,
    averaged: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    origin: dict[str, str],
) -> list[dict]:
    """Rows of the epochs already done, with weights and momenta put back; [] for a new run."""
    if not path.is_file():
        return []
    try:
        header = checkpoints.metadata(path)
        tensors = safetensors.torch.load_file(path)
    except (UserError, safetensors.SafetensorError) as error:
        raise UserError(f"{path} is damaged; delete it to start again.") from error
    if json.loads(header["recipe"]) != json.loads(origin["recipe"]):
        raise UserError(
            f"{path} is of a run with another recipe; delete it to start again, or give the "
            "parameters of that run."
        )
    if header.get("data") != origin["data"]:
        raise UserError(
            f"{path} is of a run on other images; delete it to start again, or put those back."
        )
    for prefix, model in (("weights.", network), ("average.", averaged)):
        if model is not None:
            named = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
            model.load_state_dict(named)
    for name, parameter in network.named_parameters():
        # clone keeps the parameter's memory layout, in which sums run in the same order
        momentum = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
        optimizer.state[parameter]["momentum_buffer"] = momentum.detach()
    return json.loads(header["rows"])


def record(network: zoo.Network, how: Recipe, rows: pd.DataFrame, data: str) -> dict[str, Any]:
    """Everything needed to repeat or to doubt a run, as plain values."""
    return {
        "network": network.entry.name,
        "architecture": network.entry.architecture,
        "regime": network.entry.regime,
        "cue": network.entry.cue,
        "recipe": dataclasses.asdict(how),
        "data": data,
        "commit": studies.commit(),
        "device": studies.device_name(next(network.parameters()).device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "seconds": float(rows["seconds"].sum()),
        "plateau": plateau(rows, how),
        "rows": json.loads(rows.to_json(orient="records", double_precision=5)),
    }


# Training a study's networks one after the other, and their records


def train_study(
    name: str,
    *,
    networks: list[str] | None = None,
    device: str = "auto",
    variant: str = "",
    **overrides: Any,
) -> pd.DataFrame:
    """Trains a study's networks (or some) into `checkpoints/`; returns their last epochs.

    A network whose weights are the manifest's is trained again; a call that was interrupted goes on
    after the last whole epoch of the network under way.

    Raises:
        UserError: A network that is not of this study, or an unknown training parameter.
    """
    study, on = manifest.study(name), studies.chosen_device(device)
    available = manifest.networks(name)
    if unknown := [n for n in networks or () if n not in available]:
        raise UserError(f"study {name} has no network {unknown}; it has: {', '.join(available)}.")
    ours = [n for n in available if manifest.network(n).trained_here]
    if foreign := [n for n in networks or available if n not in ours and (networks or not ours)]:
        raise UserError(
            f"the weights of {', '.join(foreign)} are not made here but downloaded; run "
            f"`robustbias fetch {name}`."
        )
    for chosen in networks or ours:
        entry = manifest.network(chosen)
        how = recipe(entry, study, variant, **overrides)
        own = {"world": study.world | entry.world, "subset": entry.subset or study.subset}
        source = studies.source(dataclasses.replace(study, **own), on, entry.cue)
        network = zoo.untrained(entry, how.seed).to(on)
        rows = train(network, source, how, folder=STATES)
        if leads():
            publish(network, record(network, how, rows, source.digest))
            print(f"{entry.name}: {ending(rows, how)}")
    if leads():  # only now: a call that was killed finds its finished networks when it is repeated
        for chosen in networks or ours:
            (STATES / f"{chosen}.state.safetensors").unlink(missing_ok=True)
    return records(networks or ours).groupby("network").tail(1)


STATES = manifest.ROOT / "_build" / "training"


def publish(network: zoo.Network, report: dict[str, Any]) -> str:
    """Writes weights and record next to each other, the weights' hash into the manifest."""
    path = manifest.ROOT / network.entry.weights
    digest = checkpoints.save(network.body, path, {"network": network.entry.name})
    with utils.atomic(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(report | {"sha256": digest}, indent=1) + "\n")
    manifest.set_hash(network.entry.name, digest)
    return digest


def records(names: Iterable[str]) -> pd.DataFrame:
    """The training records of several networks: one row per epoch, with the network's columns.

    Without rows for networks that were not trained here.
    """
    tables = []
    for entry, report in _reports(names):
        about = {k: getattr(entry, k) for k in ("architecture", "regime", "eps", "cue")}
        tables.append(pd.DataFrame(report["rows"]).assign(network=entry.name, **about))
    if not tables:
        return pd.DataFrame(columns=[*RECORDED, "network", "architecture", "regime", "eps", "cue"])
    return pd.concat(tables, ignore_index=True)


def ledger(names: Iterable[str]) -> pd.DataFrame:
    """What each training took and where it ended, one row per network whose record is here.

    Columns: network, epochs, minutes, images_per_second (median over epochs), device, threads,
    clean and adversarial (validation accuracy after the last epoch), plateau (`plateau`), commit.
    """
    rows = []
    fields = {field.name for field in dataclasses.fields(Recipe)}
    for entry, report in _reports(names):
        epochs = pd.DataFrame(report["rows"])
        how = Recipe(**{k: v for k, v in report["recipe"].items() if k in fields})
        last = {name: epochs[name].iloc[-1] for name in ("clean", "adversarial")}
        rows.append(
            {
                "network": entry.name,
                "epochs": len(epochs),
                "minutes": report["seconds"] / 60,
                "plateau": plateau(epochs, how),
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
        if entry.trained_here and path.is_file():
            yield entry, json.loads(path.read_text())
