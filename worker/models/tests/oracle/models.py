"""The built-in models, reimplemented in PyTorch: the oracle of `tests/models/oracle.rs`.

    models.py KIND SIZES SEED PRECISION BATCH.npz ANSWER.npz

Builds the model of KIND (its SIZES as JSON) from SEED, runs it in PRECISION `full` or `bf16`, and writes: the initial parameters
(`init/<name>`), the loss of the batch in training mode (`loss`) with its gradients (`grad/<name>`) and the buffers after it
(`buffer/<name>`), then the loss in evaluation mode (`eval_loss`) and the number of correct classes (`right`).
"""

import json
import math
import sys

import numpy
import torch
from torch import nn
from torch.nn import functional

ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


class Mlp(nn.Module):
    def __init__(self, inputs, hidden, outputs, activation="relu", dropout=0.0):
        super().__init__()
        widths = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))
        self.between = nn.Sequential(ACTIVATIONS[activation](), nn.Dropout(dropout))

    def forward(self, x):
        x = self.layers[0](x.flatten(1))
        for layer in self.layers[1:]:
            x = layer(self.between(x))
        return x


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential()
            self.shortcut.add_module("conv", nn.Conv2d(inputs, outputs, 1, stride, bias=False))
            self.shortcut.add_module("norm", nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class Resnet(nn.Module):
    def __init__(self, channels, blocks, width, outputs):
        super().__init__()
        self.stem = nn.Sequential()
        self.stem.add_module("conv", nn.Conv2d(channels, width, 3, 1, 1, bias=False))
        self.stem.add_module("norm", nn.BatchNorm2d(width))
        stages, at = [], width
        for stage in range(3):
            chain = []
            for block in range(blocks):
                chain.append(Block(at, width * 2**stage, 2 if stage > 0 and block == 0 else 1))
                at = width * 2**stage
            stages.append(nn.Sequential(*chain))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(at, outputs)

    def forward(self, x):
        return self.head(self.stages(functional.relu(self.stem(x))).mean((2, 3)))


class Attention(nn.Module):
    def __init__(self, width, heads, fused):
        super().__init__()
        self.fused = fused
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x):
        batch, time, width = x.shape
        shape = (batch, time, self.heads, width // self.heads)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.qkv(x).split(width, dim=2))
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.output(y.transpose(1, 2).reshape(batch, time, width))
        scores = (q @ k.transpose(2, 3)) / math.sqrt(width // self.heads)
        future = torch.ones(time, time, dtype=torch.bool).triu(1)
        y = scores.masked_fill(future, -math.inf).softmax(3) @ v
        return self.output(y.transpose(1, 2).reshape(batch, time, width))


class Transformer(nn.Module):
    def __init__(self, width, heads, dropout, fused):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads, fused)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp["down"](functional.gelu(self.mlp["up"](self.norm2(x)))))


class Gpt(nn.Module):
    def __init__(self, layers, heads, width, context, vocabulary, dropout=0.0, fused=False):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Transformer(width, heads, dropout, fused) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layers = layers

    def draw(self):
        """Draws all weights again, in the order of definition."""
        for name, parameter in self.named_parameters():
            if parameter.dim() >= 2:
                into_residual = name.endswith(("attention.output.weight", "mlp.down.weight"))
                nn.init.normal_(parameter, 0.0, 0.02 / math.sqrt(2 * self.layers) if into_residual else 0.02)
            elif name.endswith(".bias"):
                nn.init.zeros_(parameter)

    def forward(self, tokens):
        x = self.dropout(self.tokens(tokens) + self.positions.weight)
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.tokens.weight).flatten(0, 1)


def main():
    kind, sizes, seed, precision, batch_path, answer_path = sys.argv[1:]
    torch.set_num_threads(1)
    batch = numpy.load(batch_path, allow_pickle=False)
    inputs, targets = torch.from_numpy(batch["inputs"]), torch.from_numpy(batch["targets"])

    torch.manual_seed(int(seed))
    model = {"mlp": Mlp, "resnet": Resnet, "gpt": Gpt}[kind](**json.loads(sizes))
    if kind == "gpt":
        torch.manual_seed(int(seed))
        model.draw()
    answer = {f"init/{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            scores = model(inputs)
            if targets.is_floating_point():
                return scores, functional.mse_loss(scores, targets)
            return scores, functional.cross_entropy(scores, targets.flatten())

    torch.manual_seed(1)
    answer["loss"] = loss()[1]
    answer["loss"].backward()
    answer |= {f"grad/{name}": parameter.grad for name, parameter in model.named_parameters()}
    answer |= {f"buffer/{name}": buffer.clone() for name, buffer in model.named_buffers()}
    model.eval()
    with torch.no_grad():
        scores, answer["eval_loss"] = loss()
        answer["right"] = (scores.argmax(1) == targets.flatten()).sum() if not targets.is_floating_point() else torch.tensor(-1)
    numpy.savez(answer_path, **{name: tensor.detach().numpy() for name, tensor in answer.items()})


if __name__ == "__main__":
    main()
