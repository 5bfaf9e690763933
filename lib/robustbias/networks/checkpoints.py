"""Weights on disk: ours as safetensors, foreign ones read without running any code of theirs."""

import json
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from robustbias import files
from robustbias.errors import MissingData, UserError


def save(network: nn.Module, path: Path, metadata: dict[str, str] | None = None) -> str:
    """Writes the weights and returns the file's sha256.

    Matrices and kernels are rounded to 16-bit floats, which halves the file; vectors (biases,
    BatchNorm's statistics) stay 32-bit, since a small variance would lose its digits.
    """
    state = {
        name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for name, value in network.state_dict().items()
    }
    with files.atomic(path) as partial:
        safetensors.torch.save_file(state, partial, metadata)
    return files.sha256(path)


def read(path: Path, sha256: str = "") -> dict[str, Tensor]:
    """Tensors of a safetensors or PyTorch checkpoint, by name.

    `module.`, `model.` and attacker prefixes of foreign training code are removed, and entries
    that are no weights of the network (its normaliser, say) are left out.

    Raises:
        MissingData: No such file.
        UserError: The file has another hash, is an HTML page, is damaged, or is a pickle that
            holds anything but tensors and plain values.
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
    if sha256 and (found := files.sha256(path)) != sha256:
        raise UserError(
            f"{path} has sha256 {found[:12]}..., the manifest says {sha256[:12]}...; the file is "
            "damaged or another version. Fetch or train it again, or correct the manifest."
        )
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    return _cleaned(state, path)


def metadata(path: Path) -> dict[str, str]:
    """The text stored in a safetensors file's header."""
    with safetensors.safe_open(path, framework="pt") as file:
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
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is not a whole safetensors file ({error}); fetch or train it again."
        ) from error


def _pickled(path: Path) -> Any:
    """A PyTorch checkpoint. What is neither tensor nor plain value is not built: the unpickler
    knows no other class, so that a checkpoint cannot run code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Inert)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as weights ({error}). Only tensors and plain values are "
            "accepted, since a checkpoint may carry code; save its state_dict as safetensors."
        ) from error


class _Unpickler(pickle.Unpickler):
    """Finds tensor-building functions and containers, and nothing that could act."""

    _allowed = frozenset(
        {
            ("collections", "OrderedDict"),
            ("torch._utils", "_rebuild_tensor"),
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch", "Size"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self._allowed or (
            module == "torch" and name.endswith(("Storage", "float32", "float16", "int64"))
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_Inert = types.SimpleNamespace(
    __name__="robustbias inert pickle",
    Unpickler=_Unpickler,
    load=_load,
    UnpicklingError=pickle.UnpicklingError,
)


def _cleaned(state: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no named tensors; expected a state_dict.")
    if any(name.startswith("module.attacker.") or ".attacker." in name for name in state):
        # robustness saves the network twice, once inside its attacker
        state = {name: value for name, value in state.items() if "attacker." not in name}
    cleaned = {}
    for name, value in state.items():
        while name.startswith(("module.", "model.")):
            name = name.split(".", 1)[1]
        if isinstance(value, Tensor) and not name.startswith(("normalizer.", "normalize.")):
            cleaned[name] = value
    return cleaned
