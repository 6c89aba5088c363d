"""Writes modules for `tests/models/script.rs` into a folder, with the loss and the gradients of eager PyTorch. For these modules the
formulas of TorchScript's executor give other gradients than autograd, or none."""

import pathlib
import sys

import numpy
import torch
from torch import nn
from torch.nn import functional

from hidden import Base


class Target(Base):
    """Trained weights are also used under `no_grad`."""

    def forward(self, x):
        x = x.flatten(1)
        with torch.no_grad():
            target = torch.tanh(self.inner(x * 1.1) * 2.0)
        return self.inner(x) * target


class Ties(Base):
    """Where both inputs are equal, each gets half of the gradient."""

    def forward(self, x):
        y = self.inner(x.flatten(1))
        return torch.max(y, 1.0 * y)


class Spectrum(Base):
    def begin(self):
        self.real, self.imaginary = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(3))

    def forward(self, x):
        spectrum = torch.fft.fft(self.inner(x.flatten(1)))
        return torch.fft.ifft(spectrum * torch.complex(self.real, self.imaginary)).real + spectrum.abs()


class Power(Base):
    """Powers of zero, and the standard deviation of a constant."""

    def begin(self):
        self.power = nn.Parameter(torch.full((3,), 1.5))

    def forward(self, x):
        y = self.inner(x.flatten(1))
        return torch.relu(y).pow(self.power) + torch.std(torch.relu(y - 100.0), [0])


class Observed(Base):
    """Quantises by the range of earlier outputs."""

    def begin(self):
        self.register_buffer("most", torch.ones(()))

    def forward(self, x):
        y = self.inner(x.flatten(1))
        self.most = torch.maximum(self.most, y.detach().abs().max())
        return torch.fake_quantize_per_tensor_affine(y, self.most / 127, torch.zeros(1, dtype=torch.int32), -128, 127)


def main():
    folder = pathlib.Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    answer = {"inputs": inputs, "targets": targets}
    for module in [Target(), Ties(), Spectrum(), Power(), Observed()]:
        name = type(module).__name__.lower()
        torch.jit.script(module).save(folder / f"{name}.pt")
        loss = functional.cross_entropy(module(inputs), targets)
        loss.backward()
        answer[f"{name}/loss"] = loss
        answer |= {f"{name}/{own}": parameter.grad for own, parameter in module.named_parameters()}
    numpy.savez(folder / "eager.npz", **{name: tensor.detach().numpy() for name, tensor in answer.items()})


if __name__ == "__main__":
    main()
