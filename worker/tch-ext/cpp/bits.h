// Fingerprints of tensors.
#pragma once

#include <cstddef>
#include <cstdint>

#include <ATen/core/Tensor.h>

namespace lockstep::bits {

// `out[i]` is the fingerprint of tensor `i`. Throws for a tensor without plain bits.
void sums(const at::Tensor* const* tensors, size_t count, uint64_t* out);

} // namespace lockstep::bits
