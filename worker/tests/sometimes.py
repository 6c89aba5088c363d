"""Writes the TorchScript module for `tests/rank/unused.rs`: its forward pass takes one of two branches, depending on the batch."""

import sys

import torch
from torch import nn


class Net(nn.Module):
    """Six numbers to three scores. The sum of the first input decides whether `left` or `right` is used; `always` is used at every step,
    and `never` at none."""

    def __init__(self):
        super().__init__()
        self.always = nn.Linear(6, 16)
        self.left = nn.Linear(16, 3)
        self.right = nn.Linear(16, 3)
        self.never = nn.Linear(16, 3)

    def forward(self, x):
        hidden = torch.tanh(self.always(x))
        if bool(x[:, 0].sum() > 0.5):
            return self.left(hidden)
        else:
            return self.right(hidden)


torch.manual_seed(0)
torch.jit.script(Net()).save(f"{sys.argv[1]}/net.pt")
