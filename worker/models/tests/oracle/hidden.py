"""Modules for `tests/models/hidden.rs`: state outside of checkpoints, parameters that share memory, tasks, unusual buffers."""

from typing import Dict, List

import torch
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)
        self.begin()

    def begin(self):
        pass

    def forward(self, x):
        return self.inner(x.flatten(1))


class Number(Base):
    def begin(self):
        self.n = 0

    def forward(self, x):
        self.n += 1
        return self.inner(x.flatten(1)) * self.n


class Listed(Base):
    def begin(self):
        self.past: List[torch.Tensor] = [torch.zeros(3)]

    def forward(self, x):
        y = self.inner(x.flatten(1))
        past = self.past
        if self.training:
            past.append(y.detach().mean(0))
        return y + past[-1]


class Dictionary(Base):
    def begin(self):
        self.counts: Dict[str, int] = {"all": 0}

    def forward(self, x):
        self.counts["all"] = self.counts["all"] + 1
        return self.inner(x.flatten(1)) * self.counts["all"]


class Plain(Base):
    """A submodule changes a tensor that is no buffer, through a view."""

    class Below(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.zeros(2, 3)

        def forward(self, y):
            row = self.table[0]
            for _ in range(2):
                row += y.detach().mean(0)
            return y + self.table.sum(0)

    def begin(self):
        self.below = Plain.Below()

    def forward(self, x):
        return self.below(self.inner(x.flatten(1)))


class Aliased(Base):
    """The schema does not show that batch norm changes these tensors."""

    def begin(self):
        self.mean, self.var = torch.zeros(3), torch.ones(3)

    def forward(self, x):
        y = self.inner(x.flatten(1))
        return nn.functional.batch_norm(y, self.mean, self.var, training=self.training)


class Replaced(Base):
    def forward(self, x):
        with torch.no_grad():
            self.inner.weight = self.inner.weight
        return self.inner(x.flatten(1))


class Shares(Base):
    def begin(self):
        whole = torch.zeros(6)
        self.register_buffer("ema", whole[:3])
        self.register_buffer("other", whole[3:])

    def forward(self, x):
        self.ema = self.ema + 1
        return self.inner(x.flatten(1)) + self.ema


class Grows(Base):
    def begin(self):
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        y = self.inner(x.flatten(1))
        self.ema = torch.cat([self.ema, torch.zeros(1)])
        return y


class Widens(Base):
    """A copy from the old shape into the new one would succeed."""

    def begin(self):
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        self.ema.unsqueeze_(0)
        return self.inner(x.flatten(1))


class Fair(Base):
    """Reads attributes, and changes its own lists and tensors, buffers and their views: harmless."""

    def begin(self):
        self.sizes: List[int] = [3, 3]
        self.scale, self.table = 2.0, torch.ones(3)
        self.weights = [self.inner.weight]
        self.register_buffer("seen", torch.zeros(2, 3))

    def forward(self, x):
        sizes = self.sizes + [1]
        sizes.append(2)
        rows = [self.table]
        rows.append(self.table * self.scale)
        rows[0] = rows[1]
        own = self.table.clone()
        own += 1
        self.seen[0].add_(1)
        x = x.flatten(1)
        x *= 1.0
        return self.inner(x) * rows[0] + own + float(len(sizes)) + self.weights[0].sum()


def draw(x):
    for _ in range(30):
        x = torch.dropout(x, 0.02, True)
    return x


class Forked(Base):
    def forward(self, x):
        x = x.flatten(1)
        tasks = torch.jit.annotate(List[torch.jit.Future[torch.Tensor]], [])
        for _ in range(4):
            tasks.append(torch.jit.fork(draw, x))
        y = 0.1 * torch.randn([3])
        for task in tasks:
            y = y + self.inner(torch.jit.wait(task))
        return y


class Straight(Base):
    def forward(self, x):
        x = x.flatten(1)
        drawn = torch.jit.annotate(List[torch.Tensor], [])
        for _ in range(4):
            drawn.append(draw(x))
        y = 0.1 * torch.randn([3])
        for one in drawn:
            y = y + self.inner(one)
        return y


class Shrinks(Base):
    def forward(self, x):
        with torch.no_grad():
            self.inner.weight.mul_(0.99)
        return self.inner(x.flatten(1))


class Past(Base):
    """Changes a parameter without its version counter."""

    def forward(self, x):
        self.inner.bias.data.mul_(0.99)
        return self.inner(x.flatten(1))


class Evaluated(Base):
    def forward(self, x):
        if not self.training:
            with torch.no_grad():
                self.inner.weight.mul_(0.99)
        return self.inner(x.flatten(1))


class Two(Base):
    """A second parameter that shares memory with the first."""

    def __init__(self, view):
        super().__init__()
        self.second = nn.Parameter(view(self.inner.weight.detach()))

    def forward(self, x):
        return self.inner(x.flatten(1)) + self.second.sum()


class Apart(Base):
    """Two parameters in one storage without common elements."""

    def begin(self):
        whole = torch.randn(4, 6)
        self.left, self.right = nn.Parameter(whole[:, :3]), nn.Parameter(whole[:, 3:])

    def forward(self, x):
        return self.inner(x.flatten(1)) + self.left.sum() * self.right.sum(0)


class Buffered(Base):
    def __init__(self, buffer):
        super().__init__()
        self.register_buffer("b", buffer)


class Strided(Base):
    """Buffers that are not contiguous, changed in place and by assignment."""

    def begin(self):
        self.register_buffer("b", torch.arange(6.0).view(2, 3).t())
        self.register_buffer("c", torch.arange(6.0).view(2, 3).t())

    def forward(self, x):
        y = self.inner(x.flatten(1))
        self.b.add_(1)
        self.c = self.c + y.detach().mean(0).unsqueeze(1)
        return y + self.b[:, 0] + self.c[:, 1]


class Turns(Base):
    """Assigns a tensor of the same shape with other strides."""

    def begin(self):
        self.register_buffer("square", torch.zeros(3, 3))

    def forward(self, x):
        y = self.inner(x.flatten(1))
        self.square = (self.square + y.detach().mean(0)).t()
        return y + self.square[0]


def write(folder):
    torch.manual_seed(0)
    modules = [Number(), Listed(), Dictionary(), Plain(), Aliased(), Replaced(), Shares(), Grows(), Widens(), Fair()]
    for module in [*modules, Shrinks(), Past(), Evaluated(), Apart(), Strided(), Turns()]:
        torch.jit.script(module).save(folder / f"{type(module).__name__.lower()}.pt")
    views = {"transposed": lambda w: w.t(), "slice": lambda w: w[1:], "same": lambda w: w, "row": lambda w: w[0]}
    for name, view in views.items():
        torch.jit.script(Two(view)).save(folder / f"{name}.pt")
    torch.jit.script(Two(lambda w: torch.zeros(1).expand(3))).save(folder / "expanded.pt")
    buffers = {
        "sparse": torch.eye(3).to_sparse(),
        "uint16": torch.zeros(3, dtype=torch.uint16),
        "complex128": torch.zeros(3, dtype=torch.complex128),
        "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "repeated": torch.zeros(1).expand(3),
    }
    named = Base()
    named.register_buffer("__metadata__", torch.zeros(3))
    torch.jit.script(named).save(folder / "named.pt")
    for name, buffer in buffers.items():
        torch.jit.script(Buffered(buffer)).save(folder / f"buffer-{name}.pt")
    for module in (Forked, Straight):
        torch.manual_seed(1)
        torch.jit.script(module()).save(folder / f"{module.__name__.lower()}.pt")
