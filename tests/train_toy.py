"""Trains a toy network in a process of its own: to be killed, or to be run under torchrun.

python train_toy.py FOLDER EPOCHS EPS
"""

import os
import sys
from pathlib import Path

import torch

from robustbias import training
from robustbias.networks import checkpoints
from toy_networks import network
from toy_source import Dots

if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, epochs, eps = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    net = network(classes=4)
    how = training.Recipe(
        epochs=epochs, batch=32, rate=0.01, eps=eps, steps=1, test_eps=0.1, test_images=16,
        bfloat16=False, warm=0.1, ramp=0.2, average=0.95,
    )  # fmt: skip
    training.train(net, Dots(128), how, folder=folder, progress=False)
    rank = os.environ.get("RANK", "")
    checkpoints.save(net.body, folder / f"final{rank}.safetensors")
    if rank:
        torch.distributed.destroy_process_group()
