// A loaded TorchScript module, and what its graphs tell about it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>

namespace lockstep {

// A place in an object of the module, by the dotted path that names it.
struct Slot {
  torch::jit::ObjectPtr object;
  size_t index;
  std::string name;

  const c10::IValue& value() const {
    return object->getSlot(index);
  }
};

} // namespace lockstep

extern "C" {

struct lte_script {
  torch::jit::Module module;
  // The buffers (and frozen parameters) that `forward` assigns; known after `lte_script_examine`.
  std::vector<lockstep::Slot> assigned;
  // Whether `forward` starts tasks; known after `lte_script_examine`.
  bool forks = false;
};

} // extern "C"
