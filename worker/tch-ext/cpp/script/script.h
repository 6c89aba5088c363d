// A loaded TorchScript module, and the analysis of its graphs.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

namespace lockstep::script {

// An attribute of an object of the module, with its dotted path.
struct Slot {
  torch::jit::ObjectPtr object;
  size_t index;
  std::string name;

  const c10::IValue& value() const {
    return object->getSlot(index);
  }
};

// A tensor that checkpoints do not hold, with its name in errors.
struct Unheld {
  std::string name;
  at::Tensor tensor;
};

// The name of all tensors that are constants of a graph, as in traced modules.
inline const char* const constant_name = "(a constant)";

inline bool begins(std::string_view text, std::string_view with) {
  return text.substr(0, with.size()) == with;
}

inline std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

// Objects of plain classes have neither parameters nor buffers; for them libtorch's functions fail an assertion.
inline bool is_parameter(const c10::ClassTypePtr& type, size_t slot) {
  return type->is_module() && type->is_parameter(slot);
}

// As in libtorch's list of buffers: a buffer of type `Optional[Tensor]` is not in that list, and so in no checkpoint.
inline bool is_buffer(const c10::ClassTypePtr& type, size_t slot) {
  return type->is_module() && type->is_buffer(slot) && type->getAttribute(slot)->isSubtypeOf(*c10::TensorType::get());
}

namespace walk {

// Calls `see` with `value` and every value in it, also in containers, with the path of the attribute. Each object is entered once.
void each_value(
    const c10::IValue& value,
    const std::string& path,
    const std::function<void(const std::string&, const c10::IValue&)>& see);

// The slot of a dotted path; none for a value in a list or another container.
std::optional<Slot> locate(const torch::jit::Module& root, const std::string& path);

// Calls `see` with the slot of every attribute of every object below `root`.
void each_slot(const torch::jit::Module& root, const std::function<void(const Slot&)>& see);

// The identity of a tensor's memory; null for a tensor without memory.
const void* memory_of(const at::Tensor& tensor);

// The memory of all parameters and buffers, each with the name of one of them.
std::unordered_map<const void*, std::string> registered_memory(const torch::jit::Module& root);

// Plain tensors with the whole contents of `tensor`: values and indices of a sparse tensor, integers and scales of a quantized one. Empty
// if there are none.
std::vector<at::Tensor> plain_parts(const at::Tensor& tensor);

} // namespace walk

namespace writes {

// The possible effects of `forward`, according to its graphs.
struct Found {
  // Attributes that are assigned.
  std::set<std::string> assigned;
  // Attributes that are changed in place, with the operator.
  std::map<std::string, std::string> changed;
  // Attributes that are changed without libtorch's version counter, with the operator.
  std::map<std::string, std::string> uncounted;
  // Operators that are not allowed, with the reason.
  std::map<std::string, std::string> denied;
  // Tensors, and lists of tensors, that are part of the code.
  std::vector<c10::IValue> constants;
  bool forks = false;
  // Whether something may be changed without its version counter that the graphs do not show.
  bool evades = false;
  // Whether it may read uninitialised memory.
  bool empty = false;
  // The operator by which it may reach memory beyond the elements of a tensor; empty if there is none.
  std::string strides;
};

// Analyses `forward` and all functions that it calls.
Found find(const torch::jit::Module& root);

} // namespace writes

namespace denied {

// The reason why the operator of `node` is not allowed; null if it is allowed. `attributes`: whether its first input may be or contain an
// attribute or a constant.
const char* why(const torch::jit::Node* node, bool attributes);

// Whether the output of the operator of this name may contain uninitialised memory.
bool may_leave_unwritten(const std::string& name);

// Whether the output of the operator of this name may share the memory of an input, with another version counter, although its schema
// does not show it.
bool may_hide_alias(const std::string& name);

// Whether the operator of this name can reach memory beyond the elements of its input.
bool reaches_by_strides(const std::string& name);

// Whether `node` begins a block under `torch.autocast`.
bool enters_autocast(const torch::jit::Node* node);

} // namespace denied

namespace unsaid {

// The indices of the inputs that `node` writes to although its schema does not show it.
std::vector<size_t> written(const torch::jit::Node* node, const c10::FunctionSchema& schema);

} // namespace unsaid

namespace types {

// Whether a value of this type can be changed.
bool is_mutable(const c10::TypePtr& type);

// Whether a value of this type can contain values that can be changed.
bool holds_mutable(const c10::TypePtr& type);

// Whether the hash or the text of a value of this type depends on its address or on a device. A tensor is hashed by its address, but
// written by its elements: `tensors` is true for a hash.
bool has_address(const c10::TypePtr& type, bool tensors);

// Whether the type is, or holds, a `torch.Generator`.
bool is_generator(const c10::TypePtr& type);

} // namespace types

namespace modes {

// A sum over the bits of all plain parts.
uint64_t sum_of_parts(const at::Tensor& tensor);

// The switches of libtorch, of this thread and process, that a module's code can change.
class Modes {
 public:
  Modes();
  // The switch that has changed, in words; empty if none has.
  std::string changed() const;
  // Restores whether gradients are computed.
  void restore() const;

 private:
  std::vector<int64_t> before_;
};

// While it lives, autograd differentiates the TorchScript code of this thread, as without TorchScript. The executor's own formulas pass
// gradients through `no_grad`, and differ for complex numbers and for equal values.
class ByAutograd {
  torch::jit::GraphOptimizerEnabledGuard plain_{false};
};

// The values before `forward` of the tensors that checkpoints do not hold.
class Kept {
 public:
  // With `bits`, compares the contents; otherwise only the version counters.
  Kept(const std::vector<Unheld>& tensors, bool bits);
  // The name of a tensor that has changed; empty if none has.
  std::string changed() const;

 private:
  std::vector<uint64_t> marks() const;
  const std::vector<Unheld>& tensors_;
  bool bits_;
  std::vector<uint64_t> before_;
};

} // namespace modes

} // namespace lockstep::script

extern "C" {

struct lte_script {
  torch::jit::Module module;
  // The following fields are set by `lte_script_examine`.
  // The buffers (and frozen parameters) that `forward` assigns.
  std::vector<lockstep::script::Slot> assigned;
  // All buffers, and the frozen parameters.
  std::vector<at::Tensor> held;
  // The memory of all parameters and buffers, each with the name of one of them.
  std::unordered_map<const void*, std::string> registered;
  // Constants of the graphs.
  std::vector<c10::IValue> constants;
  // Constants, and attributes that are neither parameters nor buffers: `forward` must not change them.
  std::vector<lockstep::script::Unheld> unheld;
  // Whether `forward` starts tasks.
  bool forks = false;
  // Whether it may make changes that version counters do not count.
  bool evades = false;
  // Whether it may read uninitialised memory.
  bool empty = false;
};

} // extern "C"
