"""Writes the modules for `tests/models/unseen.rs` into a folder: state that neither schemas nor values show, changed switches, and effects
that are not reproducible."""

import pathlib
import sys
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import memory
from hidden import Base


class ConstantNorm(Base):
    """Traced: the changed statistics are constants of the graph."""

    def begin(self):
        self.mean, self.var = torch.zeros(16), torch.ones(16)

    def forward(self, x):
        x = functional.batch_norm(x.flatten(1), self.mean, self.var, training=True)
        return self.inner(x) + self.mean[:3] + self.var.mean()


class ConstantRead(Base):
    """Traced: the statistics are constants, and are only read: harmless."""

    def begin(self):
        self.mean, self.var = torch.zeros(16), torch.ones(16)

    def forward(self, x):
        return self.inner(functional.batch_norm(x.flatten(1), self.mean, self.var, training=False))


class InstanceNorm(Base):
    def begin(self):
        self.mean, self.var = torch.zeros(1), torch.ones(1)

    def forward(self, x):
        x = torch.instance_norm(x, None, None, self.mean, self.var, True, 0.1, 1e-5, False)
        return self.inner(x.flatten(1)) + self.mean


class Dropped(Base):
    """An alias that the schema does not show: without dropout the operator returns its input."""

    def begin(self):
        self.table = torch.zeros(3)

    def forward(self, x):
        alias = torch.dropout(self.table, 0.5, False)
        alias.add_(1.0)
        return self.inner(x.flatten(1)) + alias


class DroppedData(Base):
    """The same without the version counter."""

    def begin(self):
        self.table = torch.zeros(3)

    def forward(self, x):
        alias = torch.dropout(self.table.data, 0.5, False)
        alias.add_(1.0)
        return self.inner(x.flatten(1)) + alias


@torch.jit.script
class Box:
    def __init__(self, table: Tensor):
        self.table = table


class Boxed(Base):
    def begin(self):
        self.table = torch.zeros(3)

    def forward(self, x):
        box = Box(self.table)
        box.table.add_(1.0)
        return self.inner(x.flatten(1)) + self.table


class Foreach(Base):
    def begin(self):
        self.table = torch.zeros(3)

    def forward(self, x):
        tables = [self.table]
        torch._foreach_add_(tables, 1.0)
        return self.inner(x.flatten(1)) + tables[0]


class Undetached(Base):
    def begin(self):
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        if self.training:
            self.ema.lerp_(self.inner.bias, 0.1)
        return self.inner(x.flatten(1)) - self.ema


class DataAt(Base):
    """Changes the weight at one step, which is not checked closely."""

    def begin(self):
        self.register_buffer("n", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.n.add_(1)
        if int(self.n) == 5:
            self.inner.weight.data.mul_(0.9)
        return self.inner(x.flatten(1))


class DroppedWeight(Base):
    """The same through an alias that the schema does not show."""

    def begin(self):
        self.register_buffer("n", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.n.add_(1)
        alias = torch.dropout(self.inner.weight.data, 0.5, False)
        if int(self.n) == 3:
            alias.mul_(0.9)
        return self.inner(x.flatten(1)) + 0.0 * alias.sum()


class SetData(Base):
    def begin(self):
        self.square = nn.Parameter(torch.randn(16, 16))

    def forward(self, x):
        y = self.inner(torch.tanh(x.flatten(1) @ self.square))
        torch.ops.aten.set_data(self.square, self.square.detach().t())
        return y


class Inner(Base):
    def forward(self, x):
        (self.inner.bias * self.inner.bias).sum().backward()
        return self.inner(x.flatten(1))


class Grad(Base):
    def forward(self, x):
        grad = self.inner.bias.grad
        y = self.inner(x.flatten(1))
        return y if grad is None else y + grad


class GradOfParameter(Base):
    def forward(self, x):
        y = self.inner(x.flatten(1))
        grads = torch.autograd.grad([y.sum()], [self.inner.bias], create_graph=True)
        grad = grads[0]
        assert grad is not None
        return y + grad


class Penalty(Base):
    """Computes the gradient of inputs, for a penalty: harmless."""

    def forward(self, x):
        x = x.flatten(1).detach().requires_grad_(True)
        y = self.inner(torch.tanh(x))
        if not self.training:
            return y
        grad = torch.autograd.grad([y.sum()], [x], create_graph=True)[0]
        assert grad is not None
        return y + (grad * grad).mean()


class GradMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)

    def forward(self, x):
        y = self.inner(x.flatten(1))
        torch.set_grad_enabled(False)
        return y


class NoGrad(Base):
    """Restores the switch: harmless."""

    def begin(self):
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        y = self.inner(x.flatten(1))
        with torch.no_grad():
            self.ema.mul_(0.9).add_(y.mean(0))
        return y - self.ema


class Generator(nn.Module):
    """A generator can only be an attribute of a module that creates it again when it is loaded."""

    def __init__(self):
        super().__init__()
        self.own = torch.Generator()
        self.training = True

    @torch.jit.export
    def __getstate__(self):
        return (3, self.training)

    @torch.jit.export
    def __setstate__(self, state: Tuple[int, bool]):
        self.own = torch.Generator()
        self.own.manual_seed(state[0])
        self.training = state[1]

    def forward(self, x):
        return x + torch.randn([16], generator=self.own)


class Generating(Base):
    def begin(self):
        self.noise = Generator()

    def forward(self, x):
        return self.inner(self.noise(x.flatten(1)))


class MadeGenerator(Base):
    """The generator is created once, as a constant of the code."""

    def forward(self, x):
        own = torch.Generator()
        return self.inner(x.flatten(1)) + torch.randn([3], generator=own)


class Rounding(nn.Module):
    """Saves rounded weights."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 3))
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


class Packs(Base):
    def begin(self):
        self.scale = Rounding()

    def forward(self, x):
        return self.scale(self.inner(x.flatten(1)))


class Flag(Base):
    def begin(self):
        self.register_buffer("b", torch.ones(3))

    def forward(self, x):
        first = not self.b.requires_grad
        self.b.requires_grad_(True)
        y = self.inner(x.flatten(1))
        return y * 1.5 if first else y


class Turned(Base):
    def begin(self):
        self.register_buffer("b", torch.randn(3, 3))

    def forward(self, x):
        y = self.inner(x.flatten(1)) + self.b.clone().sum()
        self.b.t_()
        return y


class TurnedEvaluation(Base):
    def begin(self):
        self.register_buffer("b", torch.randn(3, 3))

    def forward(self, x):
        if not self.training:
            self.b.t_()
        return self.inner(x.flatten(1)) + self.b.clone().sum()


class Frozen(Base):
    def begin(self):
        self.extra = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        self.extra.requires_grad_(False)
        return self.inner(x.flatten(1)) + self.extra


class Version(Base):
    def begin(self):
        self.register_buffer("b", torch.zeros(1))

    def forward(self, x):
        self.b.add_(0.0)
        return self.inner(x.flatten(1)) + float(torch.ops.aten._version(self.b))


class Resized(Base):
    def begin(self):
        self.register_buffer("b", torch.zeros(3))

    def forward(self, x):
        self.b.resize_([4]).resize_([3])
        return self.inner(x.flatten(1)) + self.b


class Clock(Base):
    def forward(self, x):
        now: int = torch.ops.prim.TimePoint()
        return self.inner(x.flatten(1)) + float(now % 1000)


class Identity(Base):
    def forward(self, x):
        return self.inner(x.flatten(1)) + float(id(self.inner) % 1000)


class Hashed(Base):
    def forward(self, x):
        return self.inner(x.flatten(1)) + float(hash(x) % 1000)


class Written(Base):
    def forward(self, x):
        return self.inner(x.flatten(1)) + float(len("{}".format(self.inner)))


class Placed(Base):
    def forward(self, x):
        index = x.device.index
        return self.inner(x.flatten(1)) * (2.0 if index is None else float(index))


class Hooked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 3)

        def triple(self, inputs: Tuple[Tensor]) -> Tuple[Tensor]:
            return (inputs[0] * 3.0,)

        self.register_forward_pre_hook(triple)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.flatten(1))


class File(Base):
    def forward(self, x):
        return self.inner(x.flatten(1)) + torch.from_file("/dev/zero", shared=False, size=3)


class Unfilled(Base):
    """Reads uninitialised memory."""

    def forward(self, x):
        found = torch.empty([x.size(0), 4096])
        sum = torch.nan_to_num(found, 0.0, 0.0, 0.0).clamp(-1.0, 1.0).sum()
        return self.inner(x.flatten(1)) * (1.0 + 0.001 * sum)


class Aligned(Base):
    """A private operator leaves rows of its second output uninitialised if lengths differ."""

    def forward(self, x):
        batch = x.size(0)
        targets = torch.ones([batch, 12], dtype=torch.long)
        lengths = torch.full([batch], 64, dtype=torch.long)
        wanted = torch.arange(batch) % 12 + 1
        scores = torch.zeros([64, batch, 3]).log_softmax(2)
        found = torch.ops.aten._ctc_loss(scores, targets, lengths, wanted)[1]
        sum = torch.nan_to_num(found, 0.0, 0.0, 0.0).clamp(-1.0, 1.0).sum()
        return self.inner(x.flatten(1)) * (1.0 + 0.001 * sum)


class Reinterpreted(Base):
    """Reads memory behind a tensor."""

    def forward(self, x):
        return self.inner(torch.ops.inductor._reinterpret_tensor(x, [x.size(0), 16], [16, 1], 3000))


class Quantized(Base):
    def forward(self, x):
        found = torch._empty_affine_quantized([x.size(0), 3], scale=0.1, zero_point=0, dtype=torch.quint8)
        return self.inner(x.flatten(1)) + found.dequantize()


class Addressed(Base):
    def forward(self, x):
        return self.inner(x.flatten(1)) * float(torch.ops.mkldnn.data_ptr(x.detach().to_mkldnn()) % 7)


@torch.jit.script
class Settings:
    def __init__(self, scale: float):
        self.scale = scale
        self.names = ["a", "b"]


class Configured(Base):
    """Reads an object of a plain class, formats numbers, and hashes a text: harmless."""

    def begin(self):
        self.settings = Settings(2.0)

    def forward(self, x):
        text = "{} of {}".format(x.size(0), self.settings.names[0])
        assert x.size(0) > 0, f"no samples for {self.settings} on {x.device}"
        own = self.inner.weight.device
        assert x.device == own, "on %s, not %s" % (str(x.device), str(own))
        if x.dim() > 9:
            said = "on " + str(x.device)
            if x.dim() > 10:
                said = said + " with more than 10 axes"
            parts = ["samples", said]
            parts.append(str(x.device.index))
            raise ValueError(" ".join(parts))
        return self.inner(x.flatten(1)) * self.settings.scale + float(len(text)) + float(hash("a") % 2)


@torch.jit.interface
class Bumps:
    def bump(self, x: Tensor) -> Tensor:
        pass


@torch.jit.script
class Counter:
    def __init__(self):
        self.n = 0

    def bump(self, x: Tensor) -> Tensor:
        self.n = self.n + 1
        return x * float(self.n)


class Counted(Base):
    def begin(self):
        self.counter = Counter()

    def forward(self, x):
        counter: Bumps = self.counter
        return self.inner(counter.bump(x.flatten(1)))


class Normal(Base):
    """PyTorch's batch norm, also without running statistics, and an average in a buffer that bypasses autograd: harmless."""

    def begin(self):
        self.norm = nn.BatchNorm1d(16)
        self.passing = nn.BatchNorm1d(16, track_running_stats=False)
        self.register_buffer("mean", torch.zeros(3))
        self.given: Optional[Tensor] = None
        self.kept: List[int] = [1, 2]

    def forward(self, x):
        y = self.inner(self.passing(self.norm(x.flatten(1))))
        self.mean.data.mul_(0.9).add_(y.detach().mean(0))
        return y - self.mean + 0.01 * self.inner.weight.data.abs().mean()


MODULES = [InstanceNorm, Dropped, DroppedData, Boxed, Foreach, Undetached, DataAt, DroppedWeight, SetData, Inner, Grad]
MODULES += [GradOfParameter, Penalty, GradMode, NoGrad, Generating, MadeGenerator, Packs, Flag, Turned, TurnedEvaluation]
MODULES += [Frozen, Version, Resized, Clock, Identity, Hashed, Written, Placed, Hooked, File, Unfilled, Configured, Counted, Normal]
MODULES += [Aligned, Reinterpreted, Quantized, Addressed]
MODULES += memory.MODULES


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    torch.manual_seed(0)
    for module in MODULES:
        torch.jit.script(module()).save(folder / f"{module.__name__.lower()}.pt")
    for module in (ConstantNorm, ConstantRead):
        traced = torch.jit.trace(module(), torch.randn(8, 1, 4, 4), check_trace=False)
        traced.save(folder / f"{module.__name__.lower()}.pt")
