"""Writes the TorchScript files beside it, as PyTorch 2.13 does: `python3 make.py`.

Each is a module with its first weights. The tests put other ones in.
"""

import pathlib
from typing import Tuple

import torch
from torch import Tensor, nn


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).view(2, 3))

    def forward(self, x):
        return x @ self.weight.t()


class Net(nn.Module):
    """A weight under two names, buffers of several types, one in columns, and two that lie in one memory."""

    def __init__(self):
        super().__init__()
        self.first = Layer()
        self.again = Layer()
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(2)
        self.kept = torch.ones(2)
        self.register_buffer("table", torch.arange(6.0, dtype=torch.float64).view(2, 3).t())
        self.register_buffer("small", torch.ones(3, dtype=torch.bfloat16))
        memory = torch.arange(8, dtype=torch.int16)
        self.register_buffer("low", memory[:5])
        self.register_buffer("high", memory[4:])

    def forward(self, x):
        return self.norm(self.first(x) + self.again(x)) * self.kept + self.table.sum() + self.low.sum() + self.small.sum()


class Packs(nn.Module):
    """Makes its weight of what was saved; loading it prints."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self) -> Tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, bool]):
        print("it runs")
        self.weight = state[0] + 1.0
        self.training = state[1]

    def forward(self, x):
        return x * self.weight


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Packs()

    def forward(self, x):
        return self.inner(x)


if __name__ == "__main__":
    for name, module in [("net", Net()), ("packs", Around())]:
        torch.jit.script(module).save(pathlib.Path(__file__).with_name(f"{name}.pt"))
