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


def save(network: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> str:
    """Writes the weights and returns the file's sha256.

    Matrices and kernels are rounded to 16-bit floats, which halves the file; vectors (biases,
    BatchNorm's statistics) stay 32-bit, since a small variance would lose its digits.
    """
    state = {
        name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for name, value in network.state_dict().items()
    }
    with utils.atomic(path) as partial:
        safetensors.torch.save_file(state, partial, metadata)
    return utils.sha256(path)


def read(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """Tensors of a safetensors or PyTorch checkpoint, by name.

    `module.`, `model.` and attacker prefixes of foreign training code are removed, and entries
    that are no weights of the network (its normaliser, say) are left out.

    Raises:
        MissingData: No such file.
        UserError: The file has another hash, is an HTML page, is damaged, holds anything but
            tensors and plain values, or a tensor that is not finite or there twice.
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
    if sha256 and (found := utils.sha256(path)) != sha256:
        raise UserError(
            f"{path} has sha256 {found[:12]}..., the manifest says {sha256[:12]}...; the file is "
            "damaged or another version. Fetch or train it again, or correct the manifest."
        )
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    return _cleaned(state, path)


def metadata(path: Path) -> dict[str, str]:
    """The text stored in a safetensors file's header."""
    with (
        utils.reading(path, "a whole safetensors file", "fetch or train it again"),
        safetensors.safe_open(path, framework="pt") as file,
    ):
        return file.metadata() or {}


def fill(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Loads weights by name. Raises UserError naming the first that are missing or too many."""
    own = network.state_dict()
    missing = sorted(set(own) - set(state) - {n for n in own if n.endswith("num_batches_tracked")})
    extra = sorted(n for n in set(state) - set(own) if not n.startswith(("aux1.", "aux2.")))
    wrong = sorted(n for n in set(own) & set(state) if own[n].shape != state[n].shape)
    if missing or extra or wrong:
        raise UserError(
            f"{where} does not fit the network: missing {missing[:3]}, unknown {extra[:3]}, "
            f"other shape {wrong[:3]}; check architecture, width and classes in the manifest."
        )
    kept = {name: value.float() for name, value in state.items() if name in own}
    network.load_state_dict({**own, **kept})


def _safetensors(path: Path) -> dict[str, Tensor]:
    with utils.reading(path, "a whole safetensors file", "fetch or train it again"):
        return safetensors.torch.load_file(path)


def _pickled(path: Path) -> Any:
    """A PyTorch checkpoint, read by torch's unpickler of plain values.

    With `weights_only`, torch builds tensors and containers and refuses other classes, TorchScript
    archives and the old tar format, so that a checkpoint cannot run code.
    """
    try:
        # an open file, since for a path torch also looks at the suffix
        with path.open("rb") as file:
            _check_archive(file)
            with warnings.catch_warnings(action="ignore"):
                return torch.load(file, map_location="cpu", weights_only=True, mmap=False)
    except Exception as error:  # what a malformed file raises depends on where it is malformed
        why = _reason(error)
        raise UserError(
            f"{path} cannot be read as weights ({why}). Only tensors and plain values are "
            "accepted, since a checkpoint may carry code; save its state_dict as safetensors."
        ) from error


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


def _cleaned(state: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no named tensors; expected a state_dict.")
    state = {name: value for name, value in state.items() if isinstance(name, str)}
    if any(name.startswith("module.attacker.") or ".attacker." in name for name in state):
        # robustness saves the network twice, once inside its attacker
        state = {name: value for name, value in state.items() if "attacker." not in name}
    cleaned: dict[str, Tensor] = {}
    for full, value in state.items():
        name = full
        while name.startswith(("module.", "model.")):
            name = name.split(".", 1)[1]
        if not isinstance(value, Tensor) or name.startswith(("normalizer.", "normalize.")):
            continue
        if name in cleaned:
            raise UserError(
                f"{path} holds {name} twice, under two prefixes (as {full}); "
                "save the state_dict of one network."
            )
        cleaned[name] = _plain(value, f"{path}: {full}")
    return cleaned


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
