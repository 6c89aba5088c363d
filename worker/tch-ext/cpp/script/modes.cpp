// Values outside of the module's parameters and buffers that `forward` must not change: libtorch's switches, and tensors that checkpoints
// do not hold.
#include "bits.h"
#include "script.h"

#include <array>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <c10/core/AutogradState.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>

namespace lockstep::script::modes {

namespace {

struct Switch {
  const char* name;
  int64_t (*now)();
};

const std::array<Switch, 12> switches{{
    {"whether gradients are computed (`torch.set_grad_enabled`)", [] { return int64_t{c10::GradMode::is_enabled()}; }},
    {"inference mode", [] { return int64_t{c10::InferenceMode::is_enabled()}; }},
    {"forward-mode gradients", [] { return int64_t{c10::AutogradState::get_tls_state().get_fw_grad_mode()}; }},
    {"autocast", [] { return int64_t{at::autocast::is_autocast_enabled(at::kCPU)}; }},
    {"autocast", [] { return int64_t{at::autocast::is_autocast_enabled(at::kCUDA)}; }},
    {"the type of autocast", [] { return static_cast<int64_t>(at::autocast::get_autocast_dtype(at::kCPU)); }},
    {"the type of autocast", [] { return static_cast<int64_t>(at::autocast::get_autocast_dtype(at::kCUDA)); }},
    {"the default type (`torch.set_default_dtype`)",
     [] { return static_cast<int64_t>(c10::get_default_dtype_as_scalartype()); }},
    {"the number of threads (`torch.set_num_threads`)", [] { return int64_t{at::get_num_threads()}; }},
    {"deterministic operators", [] { return int64_t{at::globalContext().deterministicAlgorithms()}; }},
    {"deterministic operators", [] { return int64_t{at::globalContext().deterministicAlgorithmsWarnOnly()}; }},
    {"what new memory holds", [] { return int64_t{at::globalContext().deterministicFillUninitializedMemory()}; }},
}};

} // namespace

uint64_t sum_of_parts(const at::Tensor& tensor) {
  const auto parts = walk::plain_parts(tensor);
  std::vector<const at::Tensor*> list;
  for (const auto& part : parts) {
    list.push_back(&part);
  }
  std::vector<uint64_t> sums(parts.size());
  bits::sums(list.data(), list.size(), sums.data());
  uint64_t all = 0;
  for (const auto sum : sums) {
    all = all * 0x100000001b3 + sum;
  }
  return all;
}

Modes::Modes() {
  before_.reserve(switches.size());
  for (const auto& one : switches) {
    before_.push_back(one.now());
  }
}

std::string Modes::changed() const {
  for (size_t i = 0; i < switches.size(); ++i) {
    if (switches[i].now() != before_[i]) {
      return switches[i].name;
    }
  }
  return {};
}

void Modes::restore() const {
  c10::GradMode::set_enabled(before_[0] != 0);
}

Kept::Kept(const std::vector<Unheld>& tensors, bool bits) : tensors_(tensors), bits_(bits), before_(marks()) {}

std::string Kept::changed() const {
  const auto now = marks();
  for (size_t i = 0; i < now.size(); ++i) {
    if (now[i] != before_[i]) {
      return tensors_[i % tensors_.size()].name;
    }
  }
  return {};
}

std::vector<uint64_t> Kept::marks() const {
  std::vector<uint64_t> all(tensors_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const auto& tensor = tensors_[i].tensor;
    const auto version = tensor.is_inference() ? 0 : static_cast<uint64_t>(tensor._version());
    all[i] = 2 * version + (tensor.requires_grad() ? 1 : 0);
  }
  for (size_t i = 0; bits_ && i < tensors_.size(); ++i) {
    all.push_back(sum_of_parts(tensors_[i].tensor));
  }
  return all;
}

} // namespace lockstep::script::modes
