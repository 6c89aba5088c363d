"""Writes the TorchScript module for `tests/rank/reduction.rs` into a folder, once for each element type."""

import pathlib
import sys

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    """Six numbers to three scores, with everything that a reduction could get wrong: an embedding, a weight with two names, batch norm,
    dropout, and a layer that is never used."""

    def __init__(self, width):
        super().__init__()
        self.encoder = nn.Linear(6, width, bias=False)
        self.table = nn.Embedding(8, width)
        self.norm = nn.BatchNorm1d(width)
        self.inner = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.2)
        self.decoder = nn.Linear(6, width, bias=False)
        self.decoder.weight = self.encoder.weight
        self.head = nn.Linear(6, 3)
        self.unused = nn.Linear(width, 4)

    def forward(self, x):
        rows = (x[:, 0].abs() * 4).long() % 8
        x = x.to(self.head.weight.dtype)
        x = functional.relu(self.norm(self.encoder(x) + self.table(rows)))
        x = self.dropout(torch.tanh(self.inner(x)))
        return self.head(functional.linear(x, self.decoder.weight.t()))


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    # Two of the three are large enough for a reduction through shared memory.
    for dtype, width in ((torch.float32, 32), (torch.float64, 144), (torch.bfloat16, 208)):
        torch.manual_seed(0)
        name = str(dtype).removeprefix("torch.")
        torch.jit.script(Net(width).to(dtype)).save(folder / f"{name}.pt")


if __name__ == "__main__":
    main()
