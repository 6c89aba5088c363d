// A loaded TorchScript module, and what its graphs tell about it.
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

// A place in an object of the module, by the dotted path that names it.
struct Slot {
  torch::jit::ObjectPtr object;
  size_t index;
  std::string name;

  const c10::IValue& value() const {
    return object->getSlot(index);
  }
};

// A tensor that no checkpoint holds, by the name that an error gives it.
struct Unheld {
  std::string name;
  at::Tensor tensor;
};

// Stands for a tensor that is written in the graph itself, as traced modules have them.
inline const char* const constant_name = "(a constant)";

inline bool begins(std::string_view text, std::string_view with) {
  return text.substr(0, with.size()) == with;
}

inline std::string joined(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

// Objects of plain classes have neither parameters nor buffers, and libtorch fails an assertion when it is asked.
inline bool is_parameter(const c10::ClassTypePtr& type, size_t slot) {
  return type->is_module() && type->is_parameter(slot);
}

// As libtorch lists them: a buffer that may be none (`Optional[Tensor]`) stands in no list, and so in no checkpoint.
inline bool is_buffer(const c10::ClassTypePtr& type, size_t slot) {
  return type->is_module() && type->is_buffer(slot) && type->getAttribute(slot)->isSubtypeOf(*c10::TensorType::get());
}

namespace walk {

// Calls `see` with `value` and every value below it, also those in containers, by the path of the attribute. Each object is
// entered once.
void each_value(
    const c10::IValue& value,
    const std::string& path,
    const std::function<void(const std::string&, const c10::IValue&)>& see);

// The place that a dotted path names; none for what lies in a list or the like.
std::optional<Slot> locate(const torch::jit::Module& root, const std::string& path);

// Calls `see` with every attribute of every object below `root`, by its place.
void each_slot(const torch::jit::Module& root, const std::function<void(const Slot&)>& see);

// The memory that a tensor lies in; null for one without.
const void* memory_of(const at::Tensor& tensor);

// The memory of all parameters and buffers, with the name of one that lies in it.
std::unordered_map<const void*, std::string> registered_memory(const torch::jit::Module& root);

// Tensors with plain bits that hold all that `tensor` holds: those of a sparse tensor, the integers and scales of a quantized one. Empty where
// there are none.
std::vector<at::Tensor> plain_parts(const at::Tensor& tensor);

} // namespace walk

namespace writes {

// What `forward` may do, as its graphs tell.
struct Found {
  // Attributes that are assigned.
  std::set<std::string> assigned;
  // Attributes that an operator changes in place, with the operator.
  std::map<std::string, std::string> changed;
  // Those that are changed where libtorch's version counter does not count.
  std::map<std::string, std::string> uncounted;
  // Operators that no run repeats, with the reason.
  std::map<std::string, std::string> denied;
  // Tensors, and lists of them, that are part of the code.
  std::vector<c10::IValue> constants;
  bool forks = false;
  // Whether something is changed uncounted, and the graphs do not tell what.
  bool evades = false;
  // Whether it takes memory as it is.
  bool empty = false;
  // The operator by which it reaches memory beside the elements of a tensor; empty if there is none.
  std::string strides;
};

// Goes through `forward` and everything that it calls.
Found find(const torch::jit::Module& root);

} // namespace writes

namespace denied {

// Why no run repeats what `node` does; null for all other operators. `attributes`: whether its first input may be, or may hold,
// an attribute or a constant.
const char* why(const torch::jit::Node* node, bool attributes);

// Whether what the operator of this name answers may hold memory that nobody wrote.
bool may_leave_unwritten(const std::string& name);

// Whether what the operator of this name answers may be an input's memory with a version counter of its own, although its schema does
// not say so.
bool may_hide_alias(const std::string& name);

// Whether the operator of this name reaches the memory of an input beside its elements.
bool reaches_by_strides(const std::string& name);

// Whether `node` begins a block under `torch.autocast`.
bool enters_autocast(const torch::jit::Node* node);

} // namespace denied

namespace unsaid {

// The inputs of `node` that it writes to although its schema does not say so.
std::vector<size_t> written(const torch::jit::Node* node, const c10::FunctionSchema& schema);

} // namespace unsaid

namespace types {

// Whether a value of this type can be changed.
bool is_mutable(const c10::TypePtr& type);

// Whether what lies in a value of this type can be changed.
bool holds_mutable(const c10::TypePtr& type);

// Whether a value is told by the address that it lies at when it is hashed or written out, or names a device. A tensor is hashed by its address, and
// written out by its elements: `tensors` says which of the two is meant.
bool has_address(const c10::TypePtr& type, bool tensors);

// Whether the type is, or holds, a `torch.Generator`.
bool is_generator(const c10::TypePtr& type);

} // namespace types

namespace modes {

// One sum over the bits of all parts.
uint64_t sum_of_parts(const at::Tensor& tensor);

// libtorch's switches of this thread and process that a module's code can turn.
class Modes {
 public:
  Modes();
  // The switch that is not as it was, in words; empty if all are.
  std::string changed() const;
  // Turns the ones of this thread back.
  void restore() const;

 private:
  std::vector<int64_t> before_;
};

// While it lives, autograd differentiates what TorchScript runs in this thread, as without TorchScript. The executor's own formulas
// pass gradients through `no_grad`, and differ for complex numbers and where two values are equal.
class ByAutograd {
  torch::jit::GraphOptimizerEnabledGuard plain_{false};
};

// The tensors that no checkpoint holds, as they are before `forward`.
class Kept {
 public:
  // With `bits`: what they hold; otherwise only whether libtorch counts a write.
  Kept(const std::vector<Unheld>& tensors, bool bits);
  // The one that is not as it was; empty if all are.
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
  // What follows is known after `lte_script_examine`.
  // The buffers (and frozen parameters) that `forward` assigns.
  std::vector<lockstep::script::Slot> assigned;
  // All buffers, and the frozen parameters.
  std::vector<at::Tensor> held;
  // The memory of all parameters and buffers, by the name of one.
  std::unordered_map<const void*, std::string> registered;
  // Constants of the graphs.
  std::vector<c10::IValue> constants;
  // Constants, and attributes that are neither parameter nor buffer: nothing may change them.
  std::vector<lockstep::script::Unheld> unheld;
  // Whether `forward` starts tasks.
  bool forks = false;
  // Whether it may change what the version counter does not count.
  bool evades = false;
  // Whether it takes memory as it is.
  bool empty = false;
};

} // extern "C"
