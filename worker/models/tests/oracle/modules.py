"""Writes the TorchScript modules for `tests/models/script.rs` into a folder, with the results of PyTorch.

`answer.npz` has, for `net.pt` on one batch in training mode after `manual_seed(1)`: the inputs, the loss, each gradient, and each buffer
afterwards. `tied.npz` has losses and gradients of `tied-<dtype>.pt`, as 64-bit floats. `assigned.npz` has loss, gradients and buffers of
three passes of the module of `assigned.pt`, run in Python. The modules of `hidden.py` are written to the same folder.
"""

import pathlib
import sys

import numpy
import torch
from torch import nn
from torch.nn import functional

import hidden


class Net(nn.Module):
    """Names with dots, buffers, a frozen parameter, dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(64, 3)
        self.scale = nn.Parameter(torch.tensor(1.5), requires_grad=False)

    def forward(self, x):
        return self.head(self.body(x).flatten(1)) * self.scale


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)

    def forward(self, x, y):
        return functional.cross_entropy(self.inner(x.flatten(1)), y)


class Untidy(nn.Module):
    """Draws random numbers and counts also in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls.add_(1)
        return self.inner(x.flatten(1) + 0.1 * torch.randn([16]))


class Tied(nn.Module):
    """One weight with two names, used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 16, bias=False)
        self.second = nn.Linear(16, 16, bias=False)
        self.second.weight = self.first.weight
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = x.flatten(1).to(self.head.weight.dtype)
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


class Assigned(nn.Module):
    """Keeps statistics by assignment, as usual in Python. One is assigned twice, and its old value is needed for a gradient."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)
        self.register_buffer("ema", torch.ones(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("fixed", torch.full((3,), 0.5))

    def forward(self, x):
        y = self.inner(x.flatten(1)) * self.ema
        if self.training:
            self.calls = self.calls + 1
            self.ema = 0.9 * self.ema + 0.1 * y.detach().mean(0)
        self.calls = self.calls + 1
        return y * self.ema + self.fixed + 0.01 * self.calls


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)

    def forward(self, x):
        return self.inner(x.flatten(2))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)

    def forward(self, x):
        return self.inner(x.flatten(1)), x


class Empty(nn.Module):
    def forward(self, x):
        return x


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, module in {"loss": Loss(), "untidy": Untidy(), "wide": Wide(), "pair": Pair(), "empty": Empty()}.items():
        torch.jit.script(module).save(folder / f"{name}.pt")
    torch.jit.script(nn.Linear(16, 3).half()).save(folder / "half.pt")

    assigned = Assigned()
    torch.jit.script(assigned).save(folder / "assigned.pt")
    inputs, targets = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    answer = {"inputs": inputs, "targets": targets}
    for step in range(3):
        assigned.zero_grad()
        loss = functional.cross_entropy(assigned(inputs), targets)
        loss.backward()
        answer[f"{step}/loss"] = loss
        answer |= {f"{step}/grad/{name}": parameter.grad.clone() for name, parameter in assigned.named_parameters()}
        answer |= {f"{step}/buffer/{name}": buffer.clone() for name, buffer in assigned.named_buffers()}
    numpy.savez(folder / "assigned.npz", **{name: tensor.detach().numpy() for name, tensor in answer.items()})
    hidden.write(folder)

    net = torch.jit.script(Net())
    net.save(folder / "net.pt")
    inputs, targets = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    torch.manual_seed(1)
    loss = functional.cross_entropy(net(inputs), targets)
    loss.backward()
    answer = {"inputs": inputs, "targets": targets, "loss": loss}
    answer |= {f"grad/{name}": parameter.grad for name, parameter in net.named_parameters() if parameter.requires_grad}
    answer |= {f"buffer/{name}": buffer for name, buffer in net.named_buffers()}
    numpy.savez(folder / "answer.npz", **{name: tensor.detach().numpy() for name, tensor in answer.items()})

    answer = {"inputs": inputs, "targets": targets}
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        tied = torch.jit.script(Tied().to(dtype))
        tied.save(folder / f"tied-{name}.pt")
        loss = functional.cross_entropy(tied(inputs), targets)
        loss.backward()
        answer[f"{name}/loss"] = loss.double()
        answer |= {f"{name}/{parameter}": tensor.grad.double() for parameter, tensor in tied.named_parameters()}
    numpy.savez(folder / "tied.npz", **{name: tensor.detach().numpy() for name, tensor in answer.items()})


if __name__ == "__main__":
    main()
