"""Writes the TorchScript modules for `tests/rank/stateful.rs` into a folder: six numbers to three scores."""

import pathlib
import sys
from typing import Tuple

import torch
from torch import Tensor, nn


class Assigned(nn.Module):
    """Statistics by assignment, in place, and in a buffer that is not contiguous; a task that draws random numbers."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("ema", torch.ones(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("on", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("table", torch.arange(6.0).view(2, 3).t())

    def forward(self, x):
        task = torch.jit.fork(torch.dropout, x, 0.2, self.training)
        noise = 0.1 * torch.randn([3])
        y = self.inner(torch.jit.wait(task)) * self.ema
        if self.training:
            self.ema = 0.9 * self.ema + 0.1 * y.detach().mean(0)
            self.table.mul_(0.9).add_(y.detach().mean(0).unsqueeze(1))
            self.on = ~self.on
        self.calls = self.calls + 1
        return y + self.ema + self.table[:, 1] + torch.where(self.on, noise, -noise)


class Shrinks(nn.Module):
    """Changes its parameter at the fourth call."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls.add_(1)
        if int(self.calls) == 4:
            with torch.no_grad():
                self.inner.weight.mul_(0.9)
        return self.inner(x)


class Tests(nn.Module):
    """Changes its inputs in place; in evaluation mode no gradient reaches them."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        x.mul_(2.0)
        if not self.training:
            x = (x > 0).float()
        return self.inner(x)


class Widens(nn.Module):
    """Changes a buffer's shape; a copy from the old shape into the new one would succeed."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        self.ema.unsqueeze_(0)
        return self.inner(x)


class Penalised(nn.Module):
    """Computes the gradient of its inputs, and a running mean under `no_grad`."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.inner = nn.Linear(6, 3)
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        x = x.detach().requires_grad_(True)
        y = self.inner(torch.tanh(self.first(x)))
        if not self.training:
            return y - self.ema
        with torch.no_grad():
            self.ema.mul_(0.9).add_(0.1 * y.mean(0))
        grad = torch.autograd.grad([y.sum()], [x], create_graph=True)[0]
        assert grad is not None
        return y - self.ema + (grad * grad).mean()


class Undetached(nn.Module):
    """A running mean of its bias that is never detached."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.ema.lerp_(self.inner.bias, 0.1)
        return self.inner(x) - self.ema


class Rounding(nn.Module):
    """Saves rounded weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.25, 0.5, 1.0]))
        self.training = True

    @torch.jit.export
    def __getstate__(self):
        return ((self.weight * 4).round() / 4, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[Tensor, bool]):
        self.weight = state[0]
        self.training = state[1]

    def forward(self, x):
        return x * self.weight


class Packs(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.scale = Rounding()

    def forward(self, x):
        return self.scale(self.inner(x))


class Slanted(nn.Module):
    """Large parameters whose copies take much longer than a step, because they are not contiguous."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.one = nn.Parameter(torch.ones(3000, 1500).t())
        self.two = nn.Parameter(torch.ones(3000, 1500).t())

    def forward(self, x):
        return self.inner(x) * (self.one[0, 0] + self.two[1, 1])


if __name__ == "__main__":
    torch.manual_seed(0)
    for module in (Assigned(), Shrinks(), Tests(), Widens(), Penalised(), Undetached(), Packs(), Slanted()):
        torch.jit.script(module).save(pathlib.Path(sys.argv[1]) / f"{type(module).__name__.lower()}.pt")
