"""Trains in PyTorch the models that the end-to-end tests train in Lockstep as TorchScript modules.

`train.py make DIR` writes `mlp.pt`, `convnet.pt`, `transformer.pt` with fixed weights, and `inputs.npy`, `targets.npy`.

`train.py compare DIR STORE` reads each manifest `DIR/MODEL-OPTIMIZER.json` of a final checkpoint of Lockstep's. It trains MODEL with
OPTIMIZER in PyTorch, with the gradients of two ranks as in `train` below, and prints JSON: for each manifest and tensor, the number of
bytes that differ and the largest difference.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from torch import nn

STEPS, BATCH, RANKS, SAMPLES = 50, 32, 2, 256
DTYPES = {"float": np.float32, "int64": np.int64}


class Transformer(nn.Module):
    """One pre-norm block over the 8 rows of the 8 × 8 input, dropout off."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(8, 32)
        self.norm1 = nn.LayerNorm(32)
        self.qkv = nn.Linear(32, 96)
        self.project = nn.Linear(32, 32)
        self.norm2 = nn.LayerNorm(32)
        self.mlp = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.embed(x.reshape(x.shape[0], 8, 8))
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        attention = torch.softmax(q @ k.transpose(1, 2) / 32**0.5, -1)
        x = x + self.project(attention @ v)
        x = x + self.mlp(self.norm2(x))
        return self.head(x.mean(1))


def models():
    return {
        "mlp": nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10)),
        "convnet": nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        ),
        "transformer": Transformer(),
    }


def make(directory):
    torch.manual_seed(7)
    for name, model in models().items():
        torch.jit.script(model).save(str(directory / f"{name}.pt"))
    generator = np.random.default_rng(3)
    np.save(directory / "inputs.npy", generator.standard_normal((SAMPLES, 64)).astype(np.float32))
    np.save(directory / "targets.npy", generator.integers(0, 10, SAMPLES).astype(np.int64))


def optimizer_for(name, model):
    if name == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True)
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0, fused=True)


def train(directory, name, rule):
    """Trains with two ranks: adds the gradients of both ranks and divides the sum once. Buffers are those of rank 0."""
    model = torch.jit.load(str(directory / f"{name}.pt"))
    model.train()
    inputs = torch.from_numpy(np.load(directory / "inputs.npy"))
    targets = torch.from_numpy(np.load(directory / "targets.npy"))
    optimizer = optimizer_for(rule, model)
    parameters = list(model.parameters())
    share = BATCH // RANKS
    for step in range(STEPS):
        leaves, first = [], (step * BATCH) % SAMPLES
        buffers = None
        for rank in range(RANKS):
            chosen = slice(first + rank * share, first + (rank + 1) * share)
            loss = nn.functional.cross_entropy(model(inputs[chosen]), targets[chosen])
            leaves.append(torch.autograd.grad(loss, parameters))
            if rank == 0:
                buffers = [buffer.clone() for buffer in model.buffers()]
        for buffer, kept in zip(model.buffers(), buffers):
            buffer.copy_(kept)
        for parameter, a, b in zip(parameters, *leaves):
            parameter.grad = (a + b) / RANKS
        optimizer.step()
    return dict(model.named_parameters()), dict(model.named_buffers())


def stored(entry, store):
    raw = b"".join((store / piece["digest"][:2] / piece["digest"]).read_bytes() for piece in entry["pieces"])
    return np.frombuffer(raw, DTYPES[entry["dtype"]]).reshape(entry["shape"])


def compare(directory, name, rule, manifest, store):
    parameters, buffers = train(directory, name, rule)
    entries = {entry["name"]: entry for entry in json.loads(manifest.read_text())["tensors"]}
    found = {}
    for kind, tensors in (("model", parameters), ("buffer", buffers)):
        for key, tensor in tensors.items():
            theirs, ours = tensor.detach().numpy(), stored(entries[f"{kind}/{key}"], store)
            assert theirs.shape == ours.shape, key
            differ = int((theirs.reshape(-1).view(np.uint8) != ours.reshape(-1).view(np.uint8)).sum())
            largest = float(np.abs(theirs.astype(np.float64) - ours.astype(np.float64)).max())
            found[f"{kind}/{key}"] = {"bytes_that_differ": differ, "largest_difference": largest}
    return found


def main():
    torch.set_num_threads(1)
    torch._C._set_deterministic_algorithms(True, warn_only=False)  # without loading the compiler
    # As Lockstep does: the profiling executor would change kernels after its first runs.
    torch._C._jit_set_profiling_executor(False)
    torch._C._jit_set_profiling_mode(False)
    torch._C._set_graph_executor_optimize(False)
    if sys.argv[1] == "make":
        make(pathlib.Path(sys.argv[2]))
    else:
        directory, store = map(pathlib.Path, sys.argv[2:])
        manifests = {path.stem: path for path in directory.glob("*-*.json")}
        json.dump({stem: compare(directory, *stem.split("-"), path, store) for stem, path in manifests.items()}, sys.stdout)


if __name__ == "__main__":
    main()
