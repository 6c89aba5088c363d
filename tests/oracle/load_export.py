"""Loads the files of `coord export` with plain PyTorch, and prints results as JSON.

    load_export.py mlp EXPORT IMAGES LABELS        loss and accuracy of the network on IDX files
    load_export.py script EXPORT ORIGINAL          whether the exported module and the original module with the exported
                                                   weights give the same scores, bit for bit
    load_export.py raw EXPORT IMAGES               whether the module for raw inputs gives the same scores as the other module
    load_export.py loss EXPORT INPUTS TARGETS      the mean loss that the exported module itself returns for npy arrays
    load_export.py make FILE                       write a module to train
    load_export.py make-counting FILE              write a module that changes its buffers in every pass, also in evaluation
    load_export.py make-loss FILE                  write a module that returns its loss, for targets in a column
"""

import json
import os
import pathlib
import sys

import numpy
import torch
from torch import nn
from torch.nn import functional

# safetensors is installed in the environment of the test tools, not in PyTorch's.
TOOLS = pathlib.Path(os.environ["LOCKSTEP_CACHE"]) / "test-tools"
sys.path += map(str, TOOLS.glob("lib/python3*/site-packages"))
from safetensors.torch import load_file  # noqa: E402


class Mlp(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        x = self.layers[0](x.flatten(1))
        for layer in self.layers[1:]:
            x = layer(functional.relu(x))
        return x


class Net(nn.Module):
    """Every kind of entry of a state_dict: layers, batch norm's statistics, one weight under two names, rare types."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 32)
        self.norm = nn.BatchNorm1d(32)
        self.second = nn.Linear(32, 32)
        self.again = nn.Linear(32, 32, bias=False)
        self.again.weight = self.second.weight
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(32, 10)
        self.register_buffer("phases", torch.ones(3, dtype=torch.complex64))
        for number, kind in enumerate([torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.int16, torch.bool]):
            self.register_buffer(f"rare{number}", torch.ones(3).to(kind))

    def forward(self, x):
        x = functional.relu(self.norm(self.first(x.flatten(1))))
        return self.head(self.dropout(torch.tanh(self.again(self.second(x)))))


class Counting(nn.Module):
    """Changes one buffer in place and assigns two others, also in evaluation, and reads memory of `torch.empty`. Returns a
    tuple of one tensor."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(10))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("table", torch.arange(20.0).view(2, 10).t())

    def forward(self, x):
        y = self.head(x.flatten(1))
        self.mean.mul_(0.9).add_(0.1 * y.detach().mean(0))
        self.calls = self.calls + 1
        self.table = self.table * 0.9
        unwritten = torch.nan_to_num(torch.empty([x.shape[0], 4096]), 0.5, 0.0, 0.0).clamp(-1.0, 1.0).mean()
        return (y - self.mean + 0.01 * self.calls + 0.01 * self.table.sum(1) + 0.1 * unwritten,)


class Loss(nn.Module):
    """Returns the squared distance to a class number. Targets in a row instead of a column would broadcast over all samples."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x, y):
        return (self.head(x) - y).square().mean()


def idx(path):
    data = pathlib.Path(path).read_bytes()
    sizes = numpy.frombuffer(data, ">u4", data[3], 4)
    return torch.from_numpy(numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * data[3]).reshape(*sizes).copy())


def mlp(export, images, labels):
    state = load_file(pathlib.Path(export) / "model.safetensors")
    weights = [state[f"layers.{number}.weight"] for number in range(len(state) // 2)]
    model = Mlp([weights[0].shape[1], *(weight.shape[0] for weight in weights)])
    model.load_state_dict(state)
    scores = model.eval()((idx(images).float() / 255 - 0.5) / 0.5)
    labels = idx(labels).long()
    loss = functional.cross_entropy(scores.double(), labels)
    return {"loss": loss.item(), "accuracy": (scores.argmax(1) == labels).double().mean().item(), "names": sorted(state)}


def script(export, original):
    state = load_file(pathlib.Path(export) / "model.safetensors")
    exported = torch.jit.load(pathlib.Path(export) / "model.pt")
    first = torch.jit.load(original)
    before = first.eval()(x := torch.randn(50, 64, generator=torch.Generator().manual_seed(3)))
    left_out = first.load_state_dict(state, strict=False)
    scores = first.eval()(x)
    return {
        "equal": torch.equal(exported(x), scores),
        "trained": not torch.equal(before, scores),
        "training": exported.training,
        "missing": left_out.missing_keys,
        "unexpected": left_out.unexpected_keys,
    }


def loss(export, inputs, targets):
    module = torch.jit.load(pathlib.Path(export) / "model.pt")
    return module(torch.from_numpy(numpy.load(inputs)), torch.from_numpy(numpy.load(targets)).long()).item()


def raw(export, images):
    images = idx(images)[:, None]
    scores = torch.jit.load(pathlib.Path(export) / "model.pt")(images.float() / 127.5 - 1)
    return torch.equal(torch.jit.load(pathlib.Path(export) / "model-raw.pt")(images), scores)


def main():
    torch.set_num_threads(1)
    kind, *rest = sys.argv[1:]
    made = {"make": Net, "make-counting": Counting, "make-loss": Loss}
    if kind in made:
        torch.manual_seed(0)
        torch.jit.script(made[kind]()).save(rest[0])
    else:
        print(json.dumps({"mlp": mlp, "loss": loss, "raw": raw, "script": script}[kind](*rest)))


if __name__ == "__main__":
    with torch.no_grad():
        main()
