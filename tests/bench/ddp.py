"""The PyTorch side of `make bench`: DistributedDataParallel over gloo, under torchrun.

    torchrun --standalone --nproc-per-node 2 tests/bench/ddp.py --model small --steps 2000

The models, batches, optimizer and thread count are those of the jobs in `tests/bench/jobs`. Batches are real samples,
indexed in memory, without a loader process. With `--no-comm`, each process trains the same model alone; the cost of
communication is measured against that rate. Process 0 prints one line of JSON. Rates are optimizer steps per second of
wall time after the warm-up, until the slowest process has finished.

Shapes: B samples of one process, C channels, H and W of an image, T tokens, D embedding, V vocabulary.
"""

import argparse
import dataclasses
import json
import pathlib
import time
import typing

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

DATA = pathlib.Path(__file__).resolve().parents[2] / "target" / "data"
CONTEXT = 128


def mlp(width):
    """Five square linear layers with ReLU between them."""
    layers = [nn.Linear(width, width)]
    for _ in range(4):
        layers += [nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """A basic block: two 3 × 3 convolutions, with a projection where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x_BCHW):
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x_BCHW)))))
        return F.relu(inner + self.shortcut(x_BCHW))


def resnet(width=16, classes=10):
    """Three stages of one block each: depth 8."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Residual(width, width, 1),
        Residual(width, 2 * width, 2),
        Residual(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


class Block(nn.Module):
    """A pre-normalised transformer block."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x_BTD):
        b, t, d = x_BTD.shape
        qkv = self.qkv(self.norm1(x_BTD)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(attended.transpose(1, 2).reshape(b, t, d))
        return x_BTD + self.down(F.gelu(self.up(self.norm2(x_BTD))))


class Gpt(nn.Module):
    """A byte-level decoder with learned positions; embedding and head share one matrix."""

    def __init__(self, layers=4, width=128, heads=4, vocabulary=256):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(CONTEXT, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens_BT):
        x_BTD = self.tokens(tokens_BT) + self.positions(torch.arange(tokens_BT.shape[1]))
        return F.linear(self.norm(self.blocks(x_BTD)), self.tokens.weight)


def digits():
    """64 standardised pixels and the class of each of 1,797 digits."""
    table = torch.from_numpy(np.loadtxt(DATA / "digits.csv", delimiter=",", skiprows=1))
    pixels, classes = table[:, :64], table[:, 64].long()
    deviation = pixels.std(0, correction=0)
    return ((pixels - pixels.mean(0)) / deviation.where(deviation > 0, 1)).float(), classes


def fashion():
    """60,000 images of 1 × 28 × 28, and their classes."""
    images = np.fromfile(DATA / "fashion-mnist/train-images-idx3-ubyte", dtype=np.uint8, offset=16)
    labels = np.fromfile(DATA / "fashion-mnist/train-labels-idx1-ubyte", dtype=np.uint8, offset=8)
    scaled = torch.from_numpy(images.reshape(-1, 1, 28, 28)).float().div_(127.5).sub_(1)
    return scaled, torch.from_numpy(labels).long()


def fashion_512():
    """The 512 middle pixels of each image, and the classes; `measure.prepare` writes the same pixels for the job."""
    images, labels = fashion()
    return images.flatten(1)[:, 136:648].contiguous(), labels


def text():
    """Windows of the King James Bible, and for each byte the byte that follows."""
    tokens = torch.from_numpy(np.fromfile(DATA / "kjv.bin", dtype=np.uint8)).long()
    windows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    return windows[:, :-1], windows[:, 1:]


@dataclasses.dataclass
class Case:
    """One row of the benchmark. `batch` is the number of samples of each process in a step."""

    model: typing.Callable[[], nn.Module]
    data: typing.Callable[[], tuple[torch.Tensor, torch.Tensor]]
    batch: int
    lr: float


CASES = {
    "small": Case(lambda: mlp(64), digits, 32, 0.01),
    "medium": Case(lambda: mlp(512), fashion_512, 32, 0.01),
    "resnet": Case(resnet, fashion, 32, 0.01),
    "gpt": Case(Gpt, text, 8, 0.01),
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", choices=CASES, required=True)
    arguments.add_argument("--steps", type=int, default=500, help="steps to time")
    arguments.add_argument("--warmup", type=int, default=50, help="steps before them")
    arguments.add_argument("--no-comm", action="store_true", help="train each process alone")
    arguments = arguments.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    case = CASES[arguments.model]
    inputs, targets = case.data()
    model = case.model()
    trained = model if arguments.no_comm else DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=case.lr, momentum=0.9, fused=True)

    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(1))
    per_epoch = len(order) // (case.batch * world)

    def step(index):
        start = (index % per_epoch * world + rank) * case.batch
        positions = order[start : start + case.batch]
        optimizer.zero_grad(set_to_none=False)
        logits = trained(inputs[positions])
        loss = F.cross_entropy(logits.flatten(0, -2), targets[positions].flatten())
        loss.backward()
        optimizer.step()
        return loss.detach()

    loss = step(0)
    first_step_at = time.time()
    for index in range(1, arguments.warmup):
        loss = step(index)
    dist.barrier()
    begin = time.perf_counter()
    for index in range(arguments.steps):
        loss = step(arguments.warmup + index)
    seconds = torch.tensor([time.perf_counter() - begin, first_step_at], dtype=torch.float64)
    dist.all_reduce(seconds, dist.ReduceOp.MAX)
    if rank == 0:
        line = {
            "side": "pytorch",
            "model": arguments.model,
            "communication": not arguments.no_comm,
            "processes": world,
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": arguments.steps,
            "steps_per_second": arguments.steps / seconds[0].item() if arguments.steps else None,
            "first_step_at": seconds[1].item(),
            "loss": loss.item(),
        }
        print(json.dumps(line), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
