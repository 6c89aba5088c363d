// Checks that all elements of a tensor are finite while it is copied, because a copied portion is still in the cache. Hot.
#include "shim.h"

#include <algorithm>
#include <cstring>

#include <ATen/Functions.h>
#include <c10/core/GradMode.h>

namespace lockstep::finite {

namespace {

// Bytes that are copied and then checked: less than the second-level cache.
constexpr int64_t portion = 256 << 10;

// Whether no element has all bits of `exponent` set.
template <class Bits>
#ifdef __x86_64__
__attribute__((always_inline)) inline
#endif
bool none_has(const char* data, int64_t bytes, Bits exponent) {
  // At least as many elements as a vector register of any processor has.
  constexpr int64_t lanes = 64 / sizeof(Bits) * 2;
  const int64_t count = bytes / static_cast<int64_t>(sizeof(Bits));
  Bits most[lanes] = {}, some[lanes];
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    std::memcpy(some, data + i * static_cast<int64_t>(sizeof(Bits)), sizeof some);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const Bits found = some[lane] & exponent;
      most[lane] = most[lane] > found ? most[lane] : found;
    }
  }
  for (; i < count; ++i) {
    std::memcpy(some, data + i * static_cast<int64_t>(sizeof(Bits)), sizeof(Bits));
    most[0] = std::max<Bits>(most[0], some[0] & exponent);
  }
  return *std::max_element(most, most + lanes) != exponent;
}

} // namespace

#ifdef __x86_64__
__attribute__((target_clones("avx2", "default")))
#endif
bool bytes_are(const char* data, int64_t bytes, at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return none_has<uint64_t>(data, bytes, 0x7ff0000000000000);
    case at::kFloat:
      return none_has<uint32_t>(data, bytes, 0x7f800000);
    case at::kHalf:
      return none_has<uint16_t>(data, bytes, 0x7c00);
    default:
      return none_has<uint16_t>(data, bytes, 0x7f80);
  }
}

namespace {

bool is_flat(const at::Tensor& tensor) {
  return tensor.device().is_cpu() && tensor.layout() == at::kStrided && tensor.is_contiguous() && !tensor.is_neg() &&
      !tensor.is_conj();
}

// Whether `bytes_are` knows the type.
bool is_known(at::ScalarType type) {
  return type == at::kDouble || type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
}

bool copy(const at::Tensor& from, at::Tensor* into) {
  const auto type = from.scalar_type();
  const auto same = into == nullptr || (into->scalar_type() == type && into->sizes() == from.sizes() && is_flat(*into));
  if (!is_flat(from) || !same || !is_known(type)) {
    if (into != nullptr) {
      into->copy_(from);
    }
    const auto& seen = into == nullptr ? from : *into;
    if (is_flat(seen) && is_known(seen.scalar_type())) {
      return bytes_are(static_cast<const char*>(seen.const_data_ptr()), static_cast<int64_t>(seen.nbytes()), seen.scalar_type());
    }
    return !at::isFloatingType(type) || at::isfinite(seen.to(at::kDouble)).all().item<bool>();
  }
  const auto* data = static_cast<const char*>(from.const_data_ptr());
  auto* target = into == nullptr ? nullptr : static_cast<char*>(into->mutable_data_ptr());
  const auto all = static_cast<int64_t>(from.nbytes());
  bool finite = true;
  for (int64_t begin = 0; begin < all; begin += portion) {
    const auto bytes = std::min(portion, all - begin);
    if (target != nullptr) {
      std::memcpy(target + begin, data + begin, static_cast<size_t>(bytes));
    }
    finite = bytes_are(data + begin, bytes, type) && finite;
  }
  return finite;
}

} // namespace

} // namespace lockstep::finite

extern "C" {

// Copies `from` to `into`, unless `into` is null. `*finite` says whether all elements are finite.
char* lte_copy_finite(const at::Tensor* from, at::Tensor* into, uint8_t* finite) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    *finite = lockstep::finite::copy(*from, into) ? 1 : 0;
  });
}

} // extern "C"
