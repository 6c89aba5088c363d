// Distributions of the elements of tensors, and of the outputs of operators in a forward pass.
#include "shim.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include <ATen/Functions.h>
#include <ATen/core/function_schema.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>

extern "C" {

// Bins are the upper eleven bits of an element as a float: see `lockstep_common::series::Histogram`.
struct lte_histogram {
  uint64_t count;
  uint64_t zeros;
  uint64_t nans;
  uint64_t infs;
  double min;
  double max;
  double mean;
  double std;
  uint64_t bins[2048];
};

// Called once per histogram, which is borrowed for the call. `layer`: whether the operator is a layer.
using lte_push_histogram =
    void (*)(void* sink, const char* name, size_t length, bool layer, const void* parameter, const lte_histogram* histogram);
}

namespace lockstep::histogram {

namespace {

constexpr uint32_t fraction_bits = 21;

// Moves the bins of zeros, infinities and NaN into their counters.
void sort_out(lte_histogram& out) {
  for (const uint32_t sign : {0U, 1024U}) {
    // Exponent 0: zero or subnormal; both count as zero. Exponent 255: infinite if the fraction begins with zeros, else NaN.
    for (uint32_t bin = sign; bin < sign + 4; ++bin) {
      out.zeros += std::exchange(out.bins[bin], 0);
    }
    out.infs += std::exchange(out.bins[sign + 1020], 0);
    for (uint32_t bin = sign + 1021; bin < sign + 1024; ++bin) {
      out.nans += std::exchange(out.bins[bin], 0);
    }
  }
}

} // namespace

// One pass: bins, minimum, maximum, and the sums of the elements and of their squares, in `lanes` parts each.
#ifdef __x86_64__
__attribute__((target_clones("avx2", "default")))
#endif
void count_floats(const float* values, int64_t length, lte_histogram& out) {
  constexpr int64_t lanes = 8;
  double sum[lanes]{}, squares[lanes]{};
  float least[lanes], greatest[lanes];
  std::fill_n(least, lanes, std::numeric_limits<float>::infinity());
  std::fill_n(greatest, lanes, -std::numeric_limits<float>::infinity());
  // Two tables, so that neighbours in the same bin do not wait for each other.
  std::array<std::array<uint32_t, 2048>, 2> tables{};
  uint64_t since = 0;
  const auto fold = [&] {
    for (auto& table : tables) {
      for (size_t bin = 0; bin < table.size(); ++bin) {
        out.bins[bin] += std::exchange(table[bin], 0);
      }
    }
    since = 0;
  };
  for (int64_t begin = 0; begin < length; begin += lanes) {
    const int64_t count = std::min(lanes, length - begin);
    for (int64_t lane = 0; lane < count; ++lane) {
      const float value = values[begin + lane];
      const bool finite = (std::bit_cast<uint32_t>(value) & 0x7f800000U) != 0x7f800000U;
      const float kept = finite ? value : 0.0F;
      least[lane] = finite && value < least[lane] ? value : least[lane];
      greatest[lane] = finite && value > greatest[lane] ? value : greatest[lane];
      sum[lane] += kept;
      squares[lane] += static_cast<double>(kept) * kept;
    }
    for (int64_t lane = 0; lane < count; ++lane) {
      ++tables[static_cast<size_t>(lane & 1)][std::bit_cast<uint32_t>(values[begin + lane]) >> fraction_bits];
    }
    since += lanes;
    if (since > (1U << 31)) {
      fold();
    }
  }
  fold();
  out.count = static_cast<uint64_t>(length);
  sort_out(out);
  double total = 0, total_squares = 0;
  out.min = std::numeric_limits<double>::infinity();
  out.max = -out.min;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    total += sum[lane];
    total_squares += squares[lane];
    out.min = std::min(out.min, static_cast<double>(least[lane]));
    out.max = std::max(out.max, static_cast<double>(greatest[lane]));
  }
  const auto finite = static_cast<double>(out.count - out.nans - out.infs);
  if (finite == 0) {
    out.min = out.max = 0;
    return;
  }
  out.mean = total / finite;
  out.std = std::sqrt(std::max(0.0, total_squares / finite - out.mean * out.mean));
}

namespace {

// The same by tensor operations on the tensor's device.
void count_on_device(const at::Tensor& flat, lte_histogram& out) {
  const auto bins = at::bitwise_and(at::bitwise_right_shift(flat.view(at::kInt), fraction_bits), 2047);
  const auto counts = at::bincount(bins, {}, 2048).to(at::kCPU);
  const auto finite = at::isfinite(flat);
  const auto kept = at::where(finite, flat, at::zeros({}, flat.options())).to(at::kDouble);
  const auto infinity = at::full({}, std::numeric_limits<float>::infinity(), flat.options());
  const auto least = at::where(finite, flat, infinity).min().to(at::kDouble);
  const auto greatest = at::where(finite, flat, infinity.neg()).max().to(at::kDouble);
  const auto numbers = at::stack({kept.sum(), kept.square().sum(), least, greatest}).to(at::kCPU);
  for (size_t bin = 0; bin < 2048; ++bin) {
    out.bins[bin] = static_cast<uint64_t>(counts.const_data_ptr<int64_t>()[bin]);
  }
  out.count = static_cast<uint64_t>(flat.numel());
  sort_out(out);
  const auto count = static_cast<double>(out.count - out.nans - out.infs);
  if (count == 0) {
    return;
  }
  const auto* number = numbers.const_data_ptr<double>();
  out.mean = number[0] / count;
  out.std = std::sqrt(std::max(0.0, number[1] / count - out.mean * out.mean));
  out.min = number[2];
  out.max = number[3];
}

// Of a tensor with more than `most` elements, counts at most `most` evenly spaced ones; if `most` is 0, counts all.
void count_tensor(const at::Tensor& tensor, lte_histogram& out, int64_t most = 0) {
  auto dense = tensor.layout() == at::kStrided ? tensor.detach() : tensor.detach().to_dense();
  if (dense.numel() == 0) {
    return;
  }
  // In the order of memory: the order of elements does not matter.
  const bool whole = dense.is_non_overlapping_and_dense();
  if (most > 0 && dense.numel() > most && whole) {
    // Odd, so that it does not hit the same column of rows whose length is a power of two.
    const int64_t stride = ((dense.numel() + most - 1) / most) | 1;
    dense = dense.as_strided({(dense.numel() + stride - 1) / stride}, {stride}, dense.storage_offset()).contiguous();
  } else if (whole) {
    dense = dense.as_strided({dense.numel()}, {1}, dense.storage_offset());
  }
  const auto flat = dense.to(at::kFloat).contiguous().view({-1});
  if (dense.device().is_cpu() && dense.is_contiguous()) {
    count_floats(flat.const_data_ptr<float>(), flat.numel(), out);
  } else {
    count_on_device(flat, out);
  }
}

// The operators that count as layers. Operators that they call inside are not reported.
const std::unordered_set<std::string_view> watched = {
    "aten::linear", "aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution", "aten::_convolution",
    "aten::embedding", "aten::layer_norm", "aten::batch_norm", "aten::group_norm", "aten::instance_norm",
    "aten::rms_norm", "aten::relu", "aten::relu_", "aten::relu6", "aten::leaky_relu", "aten::leaky_relu_",
    "aten::gelu", "aten::gelu_", "aten::silu", "aten::silu_", "aten::mish", "aten::elu", "aten::selu", "aten::celu",
    "aten::softplus", "aten::hardswish", "aten::hardtanh", "aten::tanh", "aten::tanh_", "aten::sigmoid",
    "aten::sigmoid_", "aten::glu", "aten::prelu", "aten::max_pool1d", "aten::max_pool2d", "aten::avg_pool2d",
    "aten::adaptive_avg_pool2d", "aten::scaled_dot_product_attention", "aten::lstm", "aten::gru", "aten::addmm",
};

constexpr std::string_view prefix = "aten::";

// Operators whose output is uninitialised memory.
bool allocates(std::string_view name) {
  name.remove_prefix(prefix.size());
  return name.starts_with("empty") || name.starts_with("new_empty") || name.starts_with("resize");
}

// Whether the operator returns only a view of memory, which may be uninitialised.
bool views(const at::RecordFunction& function) {
  const auto schema = function.operator_schema();
  if (!schema.has_value() || schema->returns().empty()) {
    return false;
  }
  const auto* alias = schema->returns()[0].alias_info();
  return alias != nullptr && !alias->isWrite();
}

struct Seen {
  std::string name;
  bool layer = false;
  const void* parameter = nullptr;
  lte_histogram histogram{};
};

// The watch of one thread, which runs a forward pass.
struct Watch {
  at::CallbackHandle handle{};
  // Number of nested layers, and of nested operators of any kind, that run now.
  int64_t layers = 0;
  int64_t calls = 0;
  int64_t most = 0;
  // Whether the first operator of any kind that returns a NaN is still searched.
  bool tracing = false;
  std::vector<std::unique_ptr<Seen>> seen;
};

thread_local std::unique_ptr<Watch> watch;

struct Call : at::ObserverContext {
  bool layer = false;
  // Not nested in another one.
  bool outermost = false;
  // Address of the first parameter among the inputs of a layer.
  const void* parameter = nullptr;
};

const void* first_parameter(const at::RecordFunction& function) {
  for (const auto& input : function.inputs()) {
    if (!input.isTensor()) {
      continue;
    }
    const at::Tensor& tensor = input.toTensor();
    if (tensor.defined() && tensor.has_storage() && tensor.requires_grad() && tensor.is_leaf()) {
      return tensor.const_data_ptr();
    }
  }
  return nullptr;
}

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction& function) {
  if (watch == nullptr) {
    return nullptr;
  }
  const std::string_view name = function.name();
  const bool layer = watched.contains(name);
  if (!layer && !(watch->tracing && name.starts_with(prefix) && !allocates(name))) {
    return nullptr;
  }
  auto call = std::make_unique<Call>();
  call->layer = layer;
  const int64_t calls = watch->calls++;
  call->outermost = (layer ? watch->layers++ : calls) == 0;
  call->parameter = layer ? first_parameter(function) : nullptr;
  return call;
}

void leave(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* call = static_cast<Call*>(context);
  if (call == nullptr || watch == nullptr) {
    return;
  }
  --watch->calls;
  watch->layers -= call->layer ? 1 : 0;
  const auto& outputs = function.outputs();
  if (!call->outermost || outputs.empty() || !outputs[0].isTensor() || !(call->layer || watch->tracing)) {
    return;
  }
  const at::Tensor& tensor = outputs[0].toTensor();
  if (!tensor.defined() || !at::isFloatingType(tensor.scalar_type())) {
    return;
  }
  // The operators that count must not be watched, and must not be part of the autograd graph.
  at::DisableRecordFunctionGuard quiet;
  c10::NoGradGuard no_grad;
  if (!call->layer && (!at::isnan(tensor).any().item<bool>() || views(function))) {
    return;
  }
  auto seen = std::make_unique<Seen>();
  seen->name = std::string_view(function.name()).substr(prefix.size());
  seen->layer = call->layer;
  seen->parameter = call->parameter;
  count_tensor(tensor, seen->histogram, watch->most);
  watch->tracing = watch->tracing && seen->histogram.nans == 0;
  watch->seen.push_back(std::move(seen));
}

void begin(int64_t most) {
  TORCH_CHECK(watch == nullptr, "a forward pass is already watched on this thread");
  watch = std::make_unique<Watch>();
  watch->most = most;
  watch->tracing = most == 0;
  watch->handle = at::addThreadLocalCallback(
      at::RecordFunctionCallback(enter, leave).needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
}

void end(lte_push_histogram sink_fn, void* sink) {
  if (watch == nullptr) {
    return;
  }
  const auto done = std::move(watch);
  at::removeCallback(done->handle);
  for (const auto& seen : done->seen) {
    sink_fn(sink, seen->name.data(), seen->name.size(), seen->layer, seen->parameter, &seen->histogram);
  }
}

} // namespace

} // namespace lockstep::histogram

extern "C" {

// `out` is zeroed by the caller.
char* lte_histogram_of(const at::Tensor* tensor, lte_histogram* out) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    lockstep::histogram::count_tensor(*tensor, *out);
  });
}

// Begins to count the activations of layers on this thread: of each tensor at most `most` elements. If `most` is 0: all elements, and also
// the output of the first operator of any kind that returns a NaN.
char* lte_forward_watch(int64_t most) {
  return lockstep::guard([&] { lockstep::histogram::begin(most); });
}

// Ends the watch, and passes on the histograms in the order of the forward pass.
char* lte_forward_seen(lte_push_histogram sink_fn, void* sink) {
  return lockstep::guard([&] { lockstep::histogram::end(sink_fn, sink); });
}

} // extern "C"
