"""What the TOML files of `data_manifest/` say, checked: data sets, networks, studies.

Facts about a network or a data set live there; no code branches on a name.
"""

import ast
import dataclasses
import functools
import math
import os
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any

from robustbias import utils
from robustbias.utils import UserError

ROOT = Path(os.environ.get("ROBUSTBIAS_ROOT", Path(__file__).parents[2])).expanduser().resolve()


def place(name: str, usual: str) -> Path:
    """The folder $ROBUSTBIAS_NAME, else `usual`; relative to the repository, wherever one works.

    A chapter's kernel works in chapters/, and has to find what a command put there.
    """
    return ROOT / Path(os.environ.get(f"ROBUSTBIAS_{name}", usual)).expanduser()


def data_directory() -> Path:
    """Folder of the downloaded data sets: $ROBUSTBIAS_DATA, else `data/` in the repository."""
    return place("DATA", "data")


def check_output(path: Path, *inputs: Path) -> None:
    """Refuses to write over what is read.

    Raises:
        UserError: `path` is one of `inputs`, be it by another name or link, or lies in the data
            directory or among the repository's sources.
    """
    target = Path(path).resolve()
    for read in map(Path, inputs):
        if target == read.resolve() or (target.exists() and target.samefile(read)):
            raise UserError(f"{path} is {read} itself, which is read; write to another file.")
    sources = [ROOT / name for name in ("chapters", "checkpoints", "data_manifest", "lib")]
    for folder in [data_directory(), *sources]:
        if target.is_relative_to(folder.resolve()):
            raise UserError(
                f"{path} lies in {folder}, which is only read; write to another folder."
            )


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """One file of a data set; `extract` unpacks an archive into the data set's folder.

    Without `url` it has to be had by hand and put among the archives. `sha256`, or `md5` where only
    that is published, is checked before the file is used. An archive may hold several data sets:
    `folder` is the one inside it to unpack, `into` the sub-folder of the data set's folder that
    receives it.
    """

    name: str
    url: str = ""
    sha256: str = ""
    bytes: int = 0
    md5: str = ""
    extract: bool = False
    folder: str = ""
    into: str = ""


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
    """One data set. `path` is its folder below the data directory ("" when embedded)."""

    name: str
    title: str
    kind: str
    source: str
    licence: str
    citation: str
    path: str = ""
    size: str = ""
    images: dict[str, int] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    class_file: str = ""
    files: tuple[FileEntry, ...] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class NetworkEntry:
    """One network: how to build it, where its weights are, what it was trained for.

    `architecture` is a name of torchvision.models, or "timm:NAME"; `arguments` go to its builder.
    `weights` is a path of this repository (trained here if below checkpoints/), an absolute path,
    or a URL; empty if `by_hand` says where to get them. What is not in the repository lies in the
    data directory as networks/FILE; with `archive`, FILE is one file of the archive at the URL.
    `sha256` (or `md5`) and `bytes` are those of the weights' file, empty until trained or if
    unpublished. `rename` replaces patterns (regular expressions) in the names of foreign weights.

    `eps` is the training radius in [0, 1] pixel units (0 for a standard network); `mean` and
    `std` normalise inside the network; `size` is the training image side in pixels; `layers` are
    the probed modules. `replicate` numbers independent trainings of one recipe, and is their seed.
    S and R that are compared carry the same `pair`: of several, the first whose weights are here.
    Networks that differ in one parameter carry the same `series`. `expected` holds published
    accuracies. `world` changes parameters of the embedded world for its training images, and
    `subset` takes the place of the study's.
    """

    name: str
    title: str
    architecture: str
    regime: str
    classes: int
    size: int
    layers: tuple[str, ...]
    dataset: str
    licence: str
    source: str
    weights: str = ""
    by_hand: str = ""
    file: str = ""
    archive: str = ""
    bytes: int = 0
    md5: str = ""
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    rename: dict[str, str] = dataclasses.field(default_factory=dict)
    study: str = ""
    replicate: int = 0
    pair: str = ""
    series: str = ""
    cue: str = "both"
    norm: str = "none"
    eps: float = 0.0
    width: float = 1.0
    stem: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    transform_input: bool = False
    sha256: str = ""
    citation: str = ""
    expected: dict[str, float] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    world: dict[str, Any] = dataclasses.field(default_factory=dict)
    subset: str = ""

    def __post_init__(self):
        for field, allowed in {
            "regime": ("standard", "robust"),
            "norm": ("none", "l2", "linf"),
            "cue": ("both", "shape", "texture"),
        }.items():
            _one_of(f"network {self.name!r}: {field}", getattr(self, field), allowed)
        if self.eps < 0 or (self.eps > 0) != (self.regime == "robust"):
            raise UserError(
                f"network {self.name!r}: eps = {self.eps} with regime {self.regime!r}; "
                "expected eps > 0 for robust and eps = 0 for standard."
            )
        if bool(self.weights) == bool(self.by_hand):
            raise UserError(f"network {self.name!r}: give either weights or by_hand.")
        if (self.by_hand or self.archive) and not self.file:
            raise UserError(f"network {self.name!r}: with by_hand or archive, also give file.")
        for pattern, replacement in self.rename.items():
            try:
                re.sub(pattern, replacement, "")
            except re.error as error:
                raise UserError(
                    f"network {self.name!r}: rename {pattern!r} = {replacement!r}: {error}; "
                    "expected a regular expression and what replaces it."
                ) from error

    @property
    def trained_here(self) -> bool:
        """Whether `robustbias train` makes the weights; all others are only read."""
        return self.weights.startswith("checkpoints/")


@dataclasses.dataclass(frozen=True)
class Threat:
    """Threat model: |d|_norm <= eps in [0, 1] pixel units, `steps` of PGD when training."""

    norm: str
    eps: float
    steps: int
    test_steps: int = 20

    def __post_init__(self):
        _one_of("threat: norm", self.norm, ("l2", "linf"))
        if self.eps < 0 or self.steps < 0 or self.test_steps < 0:
            raise UserError(f"threat: {self}; expected eps and steps of 0 or more.")


@dataclasses.dataclass(frozen=True)
class StudyEntry:
    """A choice of images, network pairs and threat model.

    `decides` is the display of the cue conflicts (`shape_bias.measure.displays`) that decides
    claims about shape bias; "" lets every display have its say. `collage` lists the scales of
    texture in collages. `replicates` are those of its networks that chapters look at. `subset`
    chooses among the data set's classes ("" for the source's choice). The first of `preferred`
    that is on this machine takes the place of `dataset`. `data` are further data sets that
    chapters read.
    """

    name: str
    title: str
    summary: str
    dataset: str
    stimuli: str
    sizes: tuple[int, ...]
    categories: tuple[str, ...]
    architectures: tuple[str, ...]
    threat: Threat
    attack_grid: tuple[float, ...]
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    world: dict[str, Any] = dataclasses.field(default_factory=dict)
    painting: dict[str, Any] = dataclasses.field(default_factory=dict)
    collage: tuple[float, ...] = ()
    decides: str = ""
    replicates: tuple[int, ...] = (0,)
    subset: str = ""
    preferred: tuple[str, ...] = ()
    data: tuple[str, ...] = ()

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of all data sets that the study may read, each once."""
        images = self.preferred or (self.dataset,)
        return tuple(dict.fromkeys((*images, self.stimuli, *self.data)))

    def __post_init__(self):
        for field in ("categories", "architectures", "sizes"):
            values = getattr(self, field)
            if len(set(values)) < len(values):
                raise UserError(
                    f"study {self.name}: {field} lists a value twice: {list(values)}; list it once."
                )
        if any(eps < 0 for eps in self.attack_grid):
            raise UserError(
                f"study {self.name}: attack_grid is {list(self.attack_grid)}; expected 0 or more."
            )


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{what} is {value!r}; expected one of {', '.join(sorted(allowed))}.")


def _typed(kind: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type, or an error that names the place."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a table, got {value!r}.")
        return filled(kind, value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: expected a list, got {value!r}.")
        return tuple(_typed(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: expected a table, got {value!r}.")
        return {k: _typed(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    if kind is Any or isinstance(kind, types.GenericAlias):
        return value
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{where}: expected {kind.__name__}, got {value!r}.")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number, got {value!r}.")
    return value


def filled(kind: type, table: dict[str, Any], where: str) -> Any:
    """A dataclass from a TOML table.

    Args:
        where: What an error names as the table's place.

    Raises:
        UserError: Unknown, missing or mistyped keys.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unknown := sorted(set(table) - set(fields)):
        raise UserError(f"{where}: unknown key(s) {unknown}; valid: {sorted(fields)}.")
    empty = dataclasses.MISSING
    required = {n for n, f in fields.items() if f.default is empty and f.default_factory is empty}
    if missing := sorted(required - set(table)):
        raise UserError(f"{where}: missing key(s) {missing}; add them.")
    return kind(**{k: _typed(fields[k].type, v, f"{where}: {k}") for k, v in table.items()})


def _table(path: Path) -> dict[str, Any]:
    with utils.reading(path, "valid TOML", "correct the file"):
        return tomllib.loads(path.read_text(encoding="utf-8"))


def _names(folder: str) -> tuple[str, ...]:
    return tuple(path.stem for path in _paths(folder))


def _paths(folder: str) -> list[Path]:
    return sorted((ROOT / "data_manifest" / folder).glob("[!.]*.toml"))


def _named(kind: type, what: str, folder: str, name: str) -> Any:
    if name not in _names(folder):
        raise UserError(
            f"unknown {what} {name!r}; valid: {', '.join(_names(folder))}. "
            f"Each is a file of data_manifest/{folder}."
        )
    where = f"data_manifest/{folder}/{name}.toml"
    return filled(kind, {"name": name, **_table(ROOT / where)}, where)


def datasets() -> tuple[str, ...]:
    """Names of the data sets in the manifest."""
    return _names("datasets")


def studies() -> tuple[str, ...]:
    """Names of the studies in the manifest."""
    return _names("studies")


def dataset(name: str) -> DatasetEntry:
    """The data set's entry. Raises UserError listing the known names."""
    return _named(DatasetEntry, "data set", "datasets", name)


def study(name: str) -> StudyEntry:
    """The study's entry. Raises UserError listing the known names."""
    return _named(StudyEntry, "study", "studies", name)


@functools.cache
def _network_tables() -> dict[str, NetworkEntry]:
    """All networks; a file holds a family: `[defaults]` and one `[network.NAME]` each."""
    entries: dict[str, NetworkEntry] = {}
    for path in _paths("networks"):
        family, where = _table(path), f"data_manifest/networks/{path.name}"
        if unknown := sorted(set(family) - {"defaults", "architecture", "network"}):
            raise UserError(
                f"{where}: unknown table(s) {unknown}; expected defaults, "
                "architecture.NAME and network.NAME."
            )
        for name, table in family.get("network", {}).items():
            if name in entries:
                raise UserError(f"{where}: network {name!r} is defined twice; rename one.")
            shared = family.get("architecture", {}).get(table.get("architecture"), {})
            merged = {"name": name, **family.get("defaults", {}), **shared, **table}
            entries[name] = filled(NetworkEntry, merged, f"{where}: {name}")
    return entries


def networks(study: str | None = None) -> tuple[str, ...]:
    """Names of all networks, or of one study's, in the manifest's order."""
    return tuple(n for n, e in _network_tables().items() if study is None or e.study == study)


def network(name: str) -> NetworkEntry:
    """The network's entry. Raises UserError listing the known names."""
    if name not in _network_tables():
        known = ", ".join(_network_tables())
        raise UserError(f"unknown network {name!r}; valid: {known}.")
    return _network_tables()[name]


def set_hash(name: str, sha256: str) -> None:
    """Writes a network's weights hash into its entry; nothing else in the file changes.

    Other processes may do the same for other networks at the same time.

    Raises:
        UserError: No file of networks has the entry, or the disk refused the write.
    """
    with utils.locked(ROOT / "_build" / "locks" / "networks.lock"):
        for path in _paths("networks"):
            text = path.read_text(encoding="utf-8")
            if (changed := _with_hash(text, name, sha256)) is not None:
                with utils.atomic(path) as partial:
                    partial.write_text(changed, encoding="utf-8")
                break
        else:
            raise UserError(f"no [network.{name}] in data_manifest/networks; add the entry.")
    _network_tables.cache_clear()


def _with_hash(text: str, name: str, sha256: str) -> str | None:
    """The file with the hash in the network's table; None where it has no such table."""
    quoted = rf"""(?:{re.escape(name)}|"{re.escape(name)}"|'{re.escape(name)}')"""
    title = re.search(rf"(?m)^[ \t]*\[network\.{quoted}\][ \t]*(?:#.*)?\n", text)
    if title is None:
        return None
    entry, between, after = text[title.end() :].partition("\n[")
    line = f'sha256 = "{sha256}"'
    entry, found = re.subn(r"(?m)^[ \t]*sha256[ \t]*=.*$", line, entry, count=1)
    if not found:
        weights = r"(?m)^([ \t]*weights[ \t]*=.*)$"
        entry, found = re.subn(weights, rf"\1\n{line}", entry, count=1)
    if not found:
        entry = f"{line}\n{entry}"
    return text[: title.end()] + entry + between + after


# -- --------------------------------------------------------------------------------------------
# Parameters as a person types them: literals, checked by name and by the type of a default.


def value(text: str) -> Any:
    """A parameter's value as typed on a command line: a Python literal, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def settings(texts: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE texts as a dictionary. Raises UserError for a text of another form."""
    pairs = [text.partition("=") for text in texts or []]
    if wrong := ["".join(pair) for pair in pairs if not pair[0] or not pair[1]]:
        raise UserError(f"{wrong[0]!r} is no setting; expected NAME=VALUE, for instance seed=1.")
    return {name: value(text) for name, _, text in pairs}


def checked(
    owner: str,
    known: dict[str, Any],
    given: dict[str, Any],
    optional: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The given parameters, if `owner` has them all and they are of its defaults' types.

    An int may stand for a float and a tuple for a list. Numbers are finite and fit 64 bits; a
    count whose default is positive is positive (`MAY_BE_ZERO` says which may be 0).

    Args:
        optional: A value of the type that a parameter takes whose default is None; without one it
            takes anything.

    Raises:
        UserError: Unknown, mistyped or impossible parameters; the message lists the valid ones.
    """
    kinds = {name: (optional or {}).get(name, default) for name, default in known.items()}
    wrong = []
    for name, value in given.items():
        if name not in known:
            wrong.append(f"no {name!r}")
        elif known[name] is None and value is None:
            continue
        elif not _fits(kinds[name], value):
            wrong.append(f"{name} = {value!r} is not {_kind(kinds[name])}")
        elif reason := _impossible(name, kinds[name], value):
            wrong.append(f"{name} = {value!r} is not {reason}")
    if wrong:
        valid = ", ".join(f"{name}: {_kind(kinds[name])} = {known[name]!r}" for name in known)
        raise UserError(f"parameters of {owner}: {'; '.join(wrong)}. Valid: {valid or 'none'}.")
    return given


MAY_BE_ZERO = ("null_seeds", "n_attacked")


def _impossible(name: str, default: Any, value: Any) -> str:
    """What a number of the right type should be and is not, "" if nothing is wrong with it."""
    if isinstance(value, list | tuple):
        return next(filter(None, (_impossible(name, None, item) for item in value)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return "finite"
    if type(value) is int:
        if not -(2**63) <= value < 2**63:
            return "a number of 64 bits"
        if type(default) is int and default > 0 and value < (name not in MAY_BE_ZERO):
            return "positive" if name not in MAY_BE_ZERO else "0 or more"
    return ""


def _kind(default: Any) -> str:
    """What a parameter takes, in words: `list of int`."""
    if isinstance(default, list | tuple):
        return f"list of {type(default[0]).__name__}" if default else "list"
    return "any" if default is None else type(default).__name__


def _fits(default: Any, value: Any) -> bool:
    """Whether a value can stand where the default stands."""
    if default is None:
        return True
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple) and all(
            _fits(default[0], item) for item in value if default
        )
    return type(value) is type(default) or (type(default) is float and type(value) is int)
