"""Writes the TorchScript module of `matrix.py` into a folder: from the 64 pixels of a digit to ten scores."""

import pathlib
import sys

import torch
from torch import nn


class Assigned(nn.Module):
    """Statistics as Python code usually keeps them: a buffer that `forward` assigns, a non-contiguous buffer that it changes
    in place, and a counter. A forked task and `forward` itself draw random numbers at the same time."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 96), nn.Linear(96, 10)
        self.register_buffer("mean", torch.zeros(96))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("table", torch.zeros(2, 96).t())

    def forward(self, x):
        task = torch.jit.fork(torch.dropout, x, 0.1, self.training)
        noise = 0.01 * torch.randn([96])
        y = torch.relu(self.first(torch.jit.wait(task))) - self.mean
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * y.detach().mean(0)
            self.table.mul_(0.99).add_(y.detach().mean(0).unsqueeze(1))
            self.calls = self.calls + 1
            y = y + noise
        return self.last(y + 0.1 * torch.tanh(self.table[:, 1])) * (1.0 + 0.001 * torch.sin(self.calls.float()))


def main():
    torch.manual_seed(0)
    torch.jit.script(Assigned()).save(pathlib.Path(sys.argv[1]) / "assigned.pt")


if __name__ == "__main__":
    main()
