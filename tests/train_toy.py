"""Trains a toy network in a process of its own: to be killed, or to be run under torchrun.

python train_toy.py FOLDER RECIPE [without-dropout]
"""

import json
import os
import sys
from pathlib import Path

import torch

from robustbias import training
from robustbias.networks import checkpoints
from toy_networks import network
from toy_source import Dots


def without_dropout(net: torch.nn.Module) -> torch.nn.Module:
    """The network with dropout of no unit; dropout is drawn per process, all else per batch."""
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return net


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, how = Path(sys.argv[1]), training.Recipe(**json.loads(sys.argv[2]))
    net = network(classes=4)
    if len(sys.argv) > 3:
        without_dropout(net)
    training.train(net, Dots(128), how, folder=folder, progress=False)
    rank = os.environ.get("RANK", "")
    checkpoints.save(net.body, folder / f"final{rank}.safetensors")
    if rank:
        torch.distributed.destroy_process_group()
