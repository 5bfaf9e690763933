"""What a number depends on beside weights and data: the commit and the device."""

import functools
import platform
import subprocess
from pathlib import Path

import torch

from robustbias import manifest


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(manifest.ROOT), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit() -> str:
    """The repository's commit, "+" appended if lib differs from it; "unknown" outside git."""
    try:
        return _git("rev-parse", "--short=12", "HEAD") + (
            "+" if _git("status", "--short", "lib") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


@functools.cache
def device_name(device: torch.device) -> str:
    """The accelerator's or the processor's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "cpu"
