"""Modules for `tests/models/unseen.rs` with hidden aliases, packed and sparse tensors, default arguments, or uninitialised results."""

from typing import Optional

import torch
from torch import Tensor, nn

from hidden import Base


class Solved(Base):
    """LAPACK begins with an uninitialised order of columns."""

    def forward(self, x):
        y = self.inner(x.flatten(1))
        return y + torch.linalg.lstsq(y.detach().t() @ y.detach(), torch.ones(3, 1))[0].sum()


class Pieces(Base):
    """Pieces of the weight's memory with their own version counters."""

    def begin(self):
        self.register_buffer("n", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.n.add_(1)
        first = torch.unsafe_chunk(self.inner.weight.detach(), 3)[0]
        if int(self.n) == 3:
            first.mul_(0.9)
        return self.inner(x.flatten(1))


class Unpacked(Base):
    def begin(self):
        self.both = (torch.zeros(3), torch.ones(3))

    def forward(self, x):
        table, other = self.both
        table.add_(1.0)
        return self.inner(x.flatten(1)) + table + other


class Cast(Base):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = self.inner(x.flatten(1))
        return y.float()


class Behind(Base):
    """Counts in memory beyond the elements of its buffer."""

    def begin(self):
        self.register_buffer("b", torch.zeros(6)[:3])

    def forward(self, x):
        whole = torch.as_strided(self.b, [6], [1], 0)
        whole.add_(1.0)
        return self.inner(x.flatten(1)) + whole[3:]


class Flagged(Base):
    """Changes the flag of an attribute, through an alias that the schema does not show."""

    def begin(self):
        self.table = torch.ones(3)

    def forward(self, x):
        first = not self.table.requires_grad
        alias = torch.dropout(self.table, 0.5, False)
        alias.requires_grad_(True)
        y = self.inner(x.flatten(1)) + 0.0 * alias.sum()
        return y * 1.5 if first else y


class PackedWeight(Base):
    def forward(self, x):
        packed = torch.fbgemm_pack_gemm_matrix_fp16(self.inner.weight.detach())
        return self.inner(x.flatten(1)) + float(packed.sum())


class Average(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, y):
        self.mean = 0.9 * self.mean + 0.1 * y.detach().mean(0)
        return y - self.mean


class Twice(Base):
    """A module with two names, which scripting turns into two modules with one buffer."""

    def begin(self):
        self.first = Average()
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(self.inner(x.flatten(1))))


class Once(Base):
    """One module with two names, and with a buffer that it assigns: harmless."""

    def begin(self):
        self.first = torch.jit.script(Average())
        self.second = self.first

    def forward(self, x):
        return self.second(self.first(self.inner(x.flatten(1))))


class Default(Base):
    """Counts in the default value of an argument."""

    def forward(self, x, count: Tensor = torch.zeros(1)):
        count.add_(1.0)
        return self.inner(x.flatten(1)) + 0.01 * count


class PackedBias(Base):
    """Changes the memory of packed weights."""

    def begin(self):
        weight = torch.quantize_per_tensor(torch.randn(3, 16), 0.1, 0, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(weight, torch.zeros(3))

    def forward(self, x):
        weight, bias = torch.ops.quantized.linear_unpack(self.packed)
        if bias is not None:
            bias.add_(1.0)
            return self.inner(x.flatten(1)) + 0.01 * bias
        return self.inner(x.flatten(1))


class Sparse(Base):
    """Changes the values of a sparse attribute, through an alias that the schema does not show."""

    def begin(self):
        self.table = torch.eye(3).to_sparse()

    def forward(self, x):
        alias = torch.atleast_2d(self.table)
        alias.mul_(1.5)
        return torch.mm(alias, self.inner(x.flatten(1)).t()).t()


class AliasOfParameter(Base):
    """In PyTorch the buffer is the weight afterwards, and changes with it."""

    def begin(self):
        self.register_buffer("before", torch.zeros(3, 16))

    def forward(self, x):
        y = self.inner(x.flatten(1)) + (self.inner.weight - self.before).square().sum()
        self.before = self.inner.weight.detach()
        return y


class AliasOfBuffer(Base):
    def begin(self):
        self.register_buffer("a", torch.zeros(3))
        self.register_buffer("b", torch.zeros(3))

    def forward(self, x):
        self.a = torch.ones(3)
        self.b = self.a
        return self.inner(x.flatten(1)) + self.b


class Swapped(Base):
    """Swaps two buffers: harmless."""

    def begin(self):
        self.register_buffer("a", torch.zeros(3))
        self.register_buffer("b", torch.ones(3))

    def forward(self, x):
        kept = self.a
        self.a = self.b
        self.b = kept
        return self.inner(x.flatten(1)) + self.b


class OptionalBuffer(Base):
    """libtorch does not list buffers of type `Optional[Tensor]`, and checkpoints hold only listed buffers."""

    ema: Optional[Tensor]

    def begin(self):
        self.register_buffer("ema", torch.zeros(3))

    def forward(self, x):
        y = self.inner(x.flatten(1))
        ema = self.ema
        assert ema is not None
        ema.mul_(0.9).add_(y.detach().mean(0))
        return y - ema


class OptionalNorm(Base):
    mean: Optional[Tensor]
    var: Optional[Tensor]

    def begin(self):
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("var", torch.ones(3))

    def forward(self, x):
        return torch.nn.functional.batch_norm(self.inner(x.flatten(1)), self.mean, self.var, training=self.training)


class OptionalConstant(Base):
    """An optional buffer that never changes: harmless."""

    scale: Optional[Tensor]

    def begin(self):
        self.register_buffer("scale", torch.full((3,), 0.5))

    def forward(self, x):
        scale = self.scale
        assert scale is not None
        return self.inner(x.flatten(1)) * scale


class SetAlias(Base):
    """An alias of a weight, which the schema declares as a new tensor."""

    def forward(self, x):
        alias = torch.ops.aten.set(torch.zeros(3, 16), self.inner.weight.detach())
        alias.mul_(0.9)
        return self.inner(x.flatten(1)) + 0.0 * alias.sum()


class Scales(Base):
    """Changes the scales of a quantized attribute, which the schema declares as new tensors."""

    def begin(self):
        scales, zeros = torch.full((3,), 0.1, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
        self.table = torch.quantize_per_channel(torch.ones(3, 3), scales, zeros, 0, torch.qint8)

    def forward(self, x):
        scales = torch.q_per_channel_scales(self.table)
        scales.mul_(0.9)
        return self.inner(x.flatten(1)) + self.table.dequantize().sum(0) + 0.0 * scales.sum().to(torch.float32)


MODULES = [Solved, Pieces, Unpacked, Cast, Behind, Flagged, PackedWeight, Twice, Once]
MODULES += [Default, PackedBias, Sparse, AliasOfParameter, AliasOfBuffer, Swapped]
MODULES += [OptionalBuffer, OptionalNorm, OptionalConstant, SetAlias, Scales]
