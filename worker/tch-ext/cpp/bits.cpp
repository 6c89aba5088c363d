// Fingerprints: sums over a tensor's bits that do not depend on the order of their terms. Hot.
#include "bits.h"
#include "shim.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

namespace lockstep::bits {

namespace {

// The term of element `i` with bits `b`, as a signed number of 64 bits: v = (b + i * step) * spread, v ^ (v >> 32).
// All arithmetic is modulo 2^64. Both factors are odd, so a change of one element always changes the sum.
constexpr uint64_t step = 0x9e3779b97f4a7c15, spread = 0xd6e8feb86659fd93;

template <class Bits>
#ifdef __x86_64__
__attribute__((always_inline)) inline
#endif
uint64_t sum_terms(const char* data, int64_t count) {
  uint64_t sum = 0, place = 0;
  for (int64_t i = 0; i < count; ++i, place += step) {
    Bits bits;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
    const uint64_t value = (static_cast<uint64_t>(static_cast<int64_t>(bits)) + place) * spread;
    sum += value ^ static_cast<uint64_t>(static_cast<int64_t>(value) >> 32);
  }
  return sum;
}

} // namespace

#ifdef __x86_64__
__attribute__((target_clones("avx2", "default")))
#endif
uint64_t sum_bits(const char* data, int64_t count, int64_t width) {
  switch (width) {
    case 1:
      return sum_terms<int8_t>(data, count);
    case 2:
      return sum_terms<int16_t>(data, count);
    case 4:
      return sum_terms<int32_t>(data, count);
    default:
      return sum_terms<int64_t>(data, count);
  }
}

namespace {

at::ScalarType bits_type(int64_t width) {
  switch (width) {
    case 1:
      return at::kChar;
    case 2:
      return at::kShort;
    case 4:
      return at::kInt;
    default:
      return at::kLong;
  }
}

// The same sum by tensor operations on the tensor's device, as a tensor of one element.
at::Tensor sum_on_device(const at::Tensor& tensor) {
  const auto flat = tensor.contiguous().view({-1});
  const auto width = std::min<int64_t>(static_cast<int64_t>(flat.element_size()), 8);
  const auto bits = flat.view(bits_type(width)).to(at::kLong);
  const auto places = at::arange(bits.numel(), bits.options()).mul_(static_cast<int64_t>(step));
  const auto values = places.add_(bits).mul_(static_cast<int64_t>(spread));
  return at::bitwise_xor(values, at::bitwise_right_shift(values, 32)).sum();
}

} // namespace

void sums(const at::Tensor* const* tensors, size_t count, uint64_t* out) {
  c10::NoGradGuard no_grad;
  std::vector<at::Tensor> pending;
  std::vector<size_t> places;
  for (size_t i = 0; i < count; ++i) {
    const at::Tensor& tensor = *tensors[i];
    TORCH_CHECK(tensor.defined() && tensor.layout() == at::kStrided, "tensor ", i, " has no plain bits");
    if (tensor.device().is_cpu() && tensor.is_contiguous() && !tensor.is_neg() && !tensor.is_conj()) {
      const auto width = std::min<int64_t>(static_cast<int64_t>(tensor.element_size()), 8);
      const auto words = static_cast<int64_t>(tensor.nbytes()) / width;
      out[i] = sum_bits(static_cast<const char*>(tensor.const_data_ptr()), words, width);
    } else {
      pending.push_back(sum_on_device(tensor));
      places.push_back(i);
    }
  }
  if (!pending.empty()) {
    // One read from the device for all sums.
    const auto host = at::stack(pending).to(at::kCPU).contiguous();
    for (size_t i = 0; i < places.size(); ++i) {
      out[places[i]] = static_cast<uint64_t>(host.const_data_ptr<int64_t>()[i]);
    }
  }
}

} // namespace lockstep::bits

extern "C" {

// `out[i]` is the fingerprint of tensor `i`.
char* lte_bit_sums(const at::Tensor* const* tensors, size_t count, uint64_t* out) {
  return lockstep::guard([&] { lockstep::bits::sums(tensors, count, out); });
}

} // extern "C"
