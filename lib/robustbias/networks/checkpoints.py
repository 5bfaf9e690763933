"""Weights on disk: ours as safetensors, foreign ones read without running any code of theirs."""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from robustbias import utils
from robustbias.utils import MissingData, UserError


def save(
    network: nn.Module, path: Path, metadata: dict[str, str] | None = None, *, half: bool = True
) -> str:
    """Writes the weights and returns the file's sha256.

    With `half`, matrices and kernels are rounded to 16-bit floats, which halves the file; vectors
    (biases, BatchNorm's statistics) stay 32-bit, since a small variance would lose its digits.
    """
    state = {
        name: (
            value.half() if half and value.is_floating_point() and value.ndim > 1 else value
        ).contiguous()
        for name, value in network.state_dict().items()
    }
    with utils.atomic(path) as partial:
        safetensors.torch.save_file(state, partial, metadata)
    return utils.sha256(path)


def read(
    path: Path,
    sha256: str = "",
    *,
    md5: str = "",
    rename: dict[str, str] | None = None,
    normaliser: dict[str, tuple[float, ...]] | None = None,
) -> dict[str, Tensor]:
    """Tensors of a safetensors or PyTorch checkpoint, by name.

    `module.`, `model.` and attacker prefixes of foreign training code are removed, and entries
    that are no weights of the network (its normaliser, say) are left out.

    Args:
        rename: Replacements of regular expressions in the names, after that.
        normaliser: Expected `mean` and `std`, compared where the file has some.

    Raises:
        MissingData: No such file.
        UserError: The file has another hash or normaliser, is an HTML page, is damaged, holds
            among its weights anything but plain tensors, or a tensor that is not finite or there
            twice.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingData(f"no weights at {path}; `robustbias doctor` says how to get them.")
    with path.open("rb") as file:
        head = file.read(512)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(
            f"{path} is a web page, not a checkpoint: a download server answered with an error "
            "page. Delete the file and fetch it again."
        )
    for kind, expected in (("sha256", sha256), ("md5", md5)):
        if expected and (actual := utils.digest(path, kind)) != expected:
            raise UserError(
                f"{path} has {kind} {actual[:12]}..., the manifest says {expected[:12]}...; the "
                "file is damaged or another version. Fetch or train it again, or correct the "
                "manifest."
            )
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    cleaned = _cleaned(state, path, normaliser or {})
    named: dict[str, Tensor] = {}
    for full, value in cleaned.items():
        name = full
        for pattern, replacement in (rename or {}).items():
            name = re.sub(pattern, replacement, name)
        if name in named:
            raise UserError(f"{path}: renamed, {full} is a second {name}; correct `rename`.")
        named[name] = value
    return named


def metadata(path: Path) -> dict[str, str]:
    """The text stored in a safetensors file's header."""
    with (
        utils.reading(path, "a whole safetensors file", "fetch or train it again"),
        safetensors.safe_open(path, framework="pt") as file,
    ):
        return file.metadata() or {}


def fill(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Loads weights by name. Raises UserError naming the first that are missing or too many."""
    expected = network.state_dict()
    counters = {n for n in expected if n.endswith("num_batches_tracked")}
    missing = sorted(set(expected) - set(state) - counters)
    extra = sorted(n for n in set(state) - set(expected) if not n.startswith(("aux1.", "aux2.")))
    wrong = sorted(n for n in set(expected) & set(state) if expected[n].shape != state[n].shape)
    if missing or extra or wrong:
        raise UserError(
            f"{where} does not fit the network: missing {missing[:3]}, unknown {extra[:3]}, "
            f"other shape {wrong[:3]}; check architecture, width and classes in the manifest."
        )
    # in the network's own dictionary, whose metadata some modules ask for (MNASNet's version)
    expected.update({name: value.float() for name, value in state.items() if name in expected})
    network.load_state_dict(expected)


def _safetensors(path: Path) -> dict[str, Tensor]:
    with utils.reading(path, "a whole safetensors file", "fetch or train it again"):
        return safetensors.torch.load_file(path)


UNKNOWN = 100  # names of other programs that a checkpoint may ask for


def _pickled(path: Path) -> Any:
    """A PyTorch checkpoint, read by torch's unpickler of plain values.

    With `weights_only`, torch builds tensors and containers and refuses other classes, TorchScript
    archives and the old tar format, so that a checkpoint cannot run code. What else a training
    program stored (schedules, numpy scalars, functions) becomes a `_Placeholder`, which is the
    answer to every name that torch does not know; names of `os` and `sys` are refused.
    """
    unknown: dict[str, type] = {}
    try:
        # an open file, since for a path torch also looks at the suffix
        with path.open("rb") as file:
            _check_archive(file)
            while True:
                file.seek(0)
                placeholders = [(kind, name) for name, kind in unknown.items()]
                try:
                    with (
                        warnings.catch_warnings(action="ignore"),
                        torch.serialization.safe_globals(placeholders),
                    ):
                        return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
                except pickle.UnpicklingError as error:
                    asked = re.search(r"Unsupported global: GLOBAL (\S+) was not", str(error))
                    if asked is None or asked[1] in unknown or len(unknown) > UNKNOWN:
                        raise
                    kind = type(asked[1], (_Placeholder,), {})
                    unknown |= {asked[1]: kind, f"builtins.{asked[1]}": kind}
    except Exception as error:  # what a malformed file raises depends on where it is malformed
        why = _reason(error)
        raise UserError(
            f"{path} cannot be read as weights ({why}). Only tensors and plain values are "
            "accepted, since a checkpoint may carry code; save its state_dict as safetensors."
        ) from error


class _Placeholder:
    """Stands for an object of a class or function that is not looked up, and does nothing.

    Its subclasses are named after what a checkpoint asked for. An instance may be called in turn,
    since a pickle may make a function and then apply it.
    """

    def __new__(cls, *_: Any) -> "_Placeholder":
        return super().__new__(cls)

    def __init__(self, *_: Any):
        pass

    def __call__(self, *_: Any) -> "_Placeholder":
        return self

    def __setstate__(self, _: Any) -> None:
        pass

    def __eq__(self, other: Any) -> bool:  # torch applies only what equals an admitted name
        return other is self or other is type(self)

    def __hash__(self) -> int:
        return id(self)


def _reason(error: Exception) -> str:
    """One line of an error, without torch's advice to load without its protection."""
    text = str(error).strip()
    if asked := re.search(r"nsupported (?:global: )?GLOBAL (\S+)", text):
        return f"it asks for {asked[1]}"
    if detail := re.search(r"WeightsUnpickler error:\s*(.+)", text):
        text = detail[1]
    return text.partition("\n")[0][:200] or type(error).__name__


def _check_archive(file: BinaryIO) -> None:
    """Refuses zip files other than those torch.save writes; what is no zip file passes.

    Raises:
        pickle.UnpicklingError: A TorchScript program, a name that occurs twice, or content that
            is compressed (torch.save stores it as it is), hence of any size when unpacked.
        zipfile.BadZipFile: A damaged archive.
    """
    head = file.read(4)
    file.seek(0)
    if head != b"PK\x03\x04":
        return
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    names = [entry.filename for entry in entries]
    parts = [name.split("/") for name in names]
    if any("code" in part[:-1] or part[-1] == "constants.pkl" for part in parts):
        raise pickle.UnpicklingError("it is a TorchScript archive, a program and not weights")
    if len(set(names)) < len(names):
        raise pickle.UnpicklingError("two of its records have one name")
    size = file.seek(0, 2)
    file.seek(0)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > size:
        raise pickle.UnpicklingError("its records are compressed, unlike those of torch.save")


NORMALISER = re.compile(r"(?:^|\.)(?:normalizer|normalize)\.(?:new_(mean|std))?")


def _cleaned(state: Any, path: Path, normaliser: dict[str, tuple[float, ...]]) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict | _Placeholder):
            state = state[key]
            break
    if isinstance(state, _Placeholder):
        raise UserError(
            f"{path} holds an object of {type(state).__name__} in place of weights; save its "
            "state_dict as safetensors."
        )
    cleaned: dict[str, Tensor] = {}
    for full, value in state.items() if isinstance(state, dict) else ():
        # robustness saves the network twice, once inside its attacker
        if not isinstance(full, str) or "attacker" in full.split("."):
            continue
        name = ".".join(part for part in full.split(".") if part != "module")
        while name.startswith("model."):
            name = name.removeprefix("model.")
        if isinstance(value, _Placeholder):
            raise UserError(
                f"{path} holds an object of {type(value).__name__} in place of the weights {name}; "
                "save its state_dict as safetensors."
            )
        if not isinstance(value, Tensor):
            continue
        value = _plain(value, f"{path}: {full}")
        if match := NORMALISER.search(name):
            _compare(value, match[1], normaliser, path)
            continue
        if name in cleaned:
            raise UserError(
                f"{path} holds {name} twice, under two prefixes (as {full}); "
                "save the state_dict of one network."
            )
        cleaned[name] = value
    if not cleaned:
        raise UserError(f"{path} holds no named tensors; expected a state_dict.")
    return cleaned


def _compare(
    stored: Tensor, what: str | None, normaliser: dict[str, tuple[float, ...]], path: Path
) -> None:
    """Raises UserError unless a checkpoint's mean or std is the manifest's."""
    if what not in normaliser:
        return
    expected, actual = torch.tensor(normaliser[what]), stored.float().flatten()
    if actual.shape != expected.shape or not torch.allclose(actual, expected, atol=1e-3):
        raise UserError(
            f"{path} belongs to a network that normalises by the {what} "
            f"{[round(x, 4) for x in actual[:6].tolist()]}, the manifest says "
            f"{list(normaliser[what])}; correct `{what}` in its entry."
        )


def _plain(value: Tensor, where: str) -> Tensor:
    """The tensor without its class. Raises UserError unless its values are there and finite."""
    dense = value.layout == torch.strided and value.device.type == "cpu"
    if not dense or value.is_quantized or value.is_complex():
        raise UserError(f"{where} is not a plain tensor of real numbers; save it as one.")
    # strides can make a few stored numbers into a tensor that fills the memory
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise UserError(f"{where} has more elements than are stored; save a contiguous copy.")
    if not value.float().isfinite().all():  # in the precision of the network
        raise UserError(
            f"{where} holds NaN or infinite values, so no network can compute with it; "
            "fetch or train the weights again."
        )
    return value.detach()
