// Gradients as one flat tensor: computes them into it, and takes norms of its parts. Hot.
#include "shim.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

namespace lockstep::fold {

namespace {

// Copies the tensors to consecutive ranges of `flat`. An undefined tensor gets a range of zeros.
void flatten(const std::vector<at::Tensor>& tensors, const std::vector<int64_t>& lengths, const at::Tensor& flat) {
  const bool plain = flat.device().is_cpu() && flat.is_contiguous();
  auto* base = plain ? static_cast<char*>(flat.mutable_data_ptr()) : nullptr;
  const auto width = static_cast<int64_t>(flat.element_size());
  // Tensors with another type, other strides or another device go through one batched copy.
  std::vector<at::Tensor> targets, sources;
  int64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    const int64_t length = lengths[i];
    if (!tensor.defined()) {
      if (plain) {
        std::memset(base + offset * width, 0, static_cast<size_t>(length * width));
      } else {
        flat.narrow(0, offset, length).zero_();
      }
    } else if (plain && tensor.device().is_cpu() && tensor.scalar_type() == flat.scalar_type() &&
               tensor.layout() == at::kStrided && tensor.is_contiguous() && !tensor.is_neg() && !tensor.is_conj()) {
      std::memcpy(base + offset * width, tensor.const_data_ptr(), static_cast<size_t>(length * width));
    } else {
      targets.push_back(flat.narrow(0, offset, length).view(tensor.sizes()));
      sources.push_back(tensor.layout() == at::kStrided ? tensor : tensor.to_dense());
    }
    offset += length;
  }
  if (!targets.empty()) {
    at::_foreach_copy_(targets, sources);
  }
}

void check_flat(const at::Tensor& flat, const std::vector<int64_t>& lengths) {
  const auto total = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  TORCH_CHECK(
      flat.defined() && flat.dim() == 1 && flat.numel() == total, "the flat tensor has shape ",
      flat.defined() ? flat.sizes() : at::IntArrayRef{}, " and the list has ", total, " elements");
}

// One register of the widest kind that most machines have; wider vector types would be split through memory.
using Floats = float __attribute__((vector_size(16)));
using Doubles = double __attribute__((vector_size(32)));
constexpr int64_t width = 4, registers = 4, lanes = width * registers;

} // namespace

// Sixteen partial sums, added in a fixed order: the same bits for any number of threads and any register width, because the compiler
// neither contracts nor reorders these operations.
#ifdef __x86_64__
__attribute__((target_clones("avx2", "default")))
#endif
double sum_of_squares(const float* values, int64_t length) {
  Doubles partial[registers]{};
  int64_t i = 0;
  for (; i + lanes <= length; i += lanes) {
#pragma GCC unroll 4
    for (int64_t part = 0; part < registers; ++part) {
      Floats narrow;
      std::memcpy(&narrow, values + i + part * width, sizeof(narrow));
      const auto wide = __builtin_convertvector(narrow, Doubles);
      partial[part] += wide * wide;
    }
  }
  for (int64_t lane = 0; i < length; ++i, ++lane) {
    const auto value = static_cast<double>(values[i]);
    partial[lane / width][lane % width] += value * value;
  }
  double sum = 0;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    sum += partial[lane / width][lane % width];
  }
  return sum;
}

// The L2 norm of a flat tensor, as a 64-bit scalar on its device.
at::Tensor norm(const at::Tensor& flat) {
  if (flat.device().is_cpu() && flat.scalar_type() == at::kFloat && flat.is_contiguous()) {
    const auto sum = sum_of_squares(flat.const_data_ptr<float>(), flat.numel());
    return at::scalar_tensor(std::sqrt(sum), at::kDouble);
  }
  return at::linalg_vector_norm(flat, 2, /*dim=*/at::OptionalIntArrayRef{}, /*keepdim=*/false, at::kDouble);
}

} // namespace lockstep::fold

extern "C" {

// The gradients of `loss` by `params`, flattened into `flat`. `.grad` is neither read nor written. `used[i]` is 1 if parameter `i` has a
// gradient.
char* lte_grads_into(
    const at::Tensor* loss,
    const at::Tensor* const* params,
    size_t count,
    const at::Tensor* flat,
    uint8_t* used) {
  return lockstep::guard([&] {
    std::vector<at::Tensor> inputs;
    std::vector<int64_t> lengths;
    inputs.reserve(count);
    lengths.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      inputs.push_back(*params[i]);
      lengths.push_back(params[i]->numel());
    }
    lockstep::fold::check_flat(*flat, lengths);
    const auto grads = torch::autograd::grad(
        {*loss}, inputs, /*grad_outputs=*/{}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/true);
    for (size_t i = 0; i < count; ++i) {
      used[i] = grads[i].defined() ? 1 : 0;
    }
    c10::NoGradGuard no_grad;
    lockstep::fold::flatten(grads, lengths, *flat);
  });
}

// The L2 norm of `flat`, summed in 64 bits, as a tensor on its device. Does not read from the device.
char* lte_norm(const at::Tensor* flat, at::Tensor** out) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    *out = new at::Tensor(lockstep::fold::norm(*flat));
  });
}

// `out[i]` is the L2 norm of `flat[offsets[i]..offsets[i + 1]]`. The caller has checked that the offsets ascend from 0 or more to at most
// the length of `flat`.
char* lte_layer_norms(const at::Tensor* flat, const int64_t* offsets, size_t parts, double* out) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    std::vector<at::Tensor> norms;
    norms.reserve(parts);
    for (size_t i = 0; i < parts; ++i) {
      norms.push_back(lockstep::fold::norm(flat->narrow(0, offsets[i], offsets[i + 1] - offsets[i])));
    }
    if (!norms.empty()) {
      // One read from the device for all parts.
      const auto host = at::stack(norms).to(at::kCPU).contiguous();
      std::memcpy(out, host.const_data_ptr<double>(), parts * sizeof(double));
    }
  });
}

} // extern "C"
