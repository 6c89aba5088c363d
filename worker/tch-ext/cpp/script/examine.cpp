// Finds effects of a module that are not reproducible, or that change state outside of checkpoints, before the module runs.
#include "script.h"
#include "shim.h"

#include <array>
#include <string_view>

namespace lockstep::script::examine {

namespace {

// Whether checkpoints hold the value of `slot`, and `forward` may change it: buffers, and frozen parameters.
bool is_state(const Slot& slot) {
  const auto& type = slot.object->type();
  if (!slot.value().isTensor() || type->getAttribute(slot.index)->kind() != c10::TypeKind::TensorType) {
    return false;
  }
  const bool frozen = is_parameter(type, slot.index) && !slot.value().toTensor().requires_grad();
  return is_buffer(type, slot.index) || frozen;
}

// Whether `name` is a name of `slot`. A slot has several names if several modules share its object.
bool is_place(const torch::jit::Module& root, const std::string& name, const Slot& slot) {
  const auto named = walk::locate(root, name);
  return named && named->object == slot.object && named->index == slot.index;
}

// The name of another tensor that shares memory with the tensor in `slot`.
std::optional<std::string> shares_memory(const torch::jit::Module& root, const Slot& slot) {
  const void* own = walk::memory_of(slot.value().toTensor());
  std::optional<std::string> found;
  walk::each_value(root._ivalue(), "", [&](const std::string& name, const c10::IValue& value) {
    const bool shares = value.isTensor() && own != nullptr && walk::memory_of(value.toTensor()) == own;
    if (shares && !found && !is_place(root, name, slot)) {
      found = name;
    }
  });
  return found;
}

// The name of a tensor whose memory is larger than its elements.
std::optional<std::string> in_larger_memory(const torch::jit::Module& root, const std::vector<c10::IValue>& constants) {
  std::optional<std::string> found;
  const auto look = [&](const std::string& name, const c10::IValue& value) {
    if (value.isTensor() && walk::memory_of(value.toTensor()) != nullptr && !found) {
      const auto& tensor = value.toTensor();
      if (tensor.storage().nbytes() > tensor.nbytes()) {
        found = name;
      }
    }
  };
  walk::each_value(root._ivalue(), "", look);
  for (const auto& constant : constants) {
    walk::each_value(constant, constant_name, look);
  }
  return found;
}

// Whether the type is one of libtorch's own classes whose contents never change.
bool is_packed(std::string_view type) {
  constexpr std::array<std::string_view, 5> kinds{"quantized.", "rnn.", "sparse.", "mkldnn.", "xnnpack."};
  constexpr std::string_view classes = "__torch__.torch.classes.";
  for (const auto kind : kinds) {
    if (begins(type, classes) && begins(type.substr(classes.size()), kind)) {
      return true;
    }
  }
  return false;
}

// The kind of a value whose state cannot be read; empty for all other values.
std::string opaque(const c10::IValue& value) {
  if (value.isObject()) {
    const std::string type = value.toObject()->type()->name()->qualifiedName();
    return begins(type, "__torch__.torch.classes.") && !is_packed(type) ? type : std::string();
  }
  const bool hides = value.isGenerator() || value.isFuture() || value.isRRef() || value.isPyObject() || value.isStream() ||
      value.isStorage();
  return hides ? value.tagKind() : std::string();
}

// Whether the object has its own code for saving and loading. libtorch's own modules with such code only pack values that never change.
bool packs_itself(const torch::jit::ObjectPtr& object) {
  const auto& type = object->type();
  return !begins(type->name()->qualifiedName(), "__torch__.torch.") &&
      (type->findMethod("__getstate__") != nullptr || type->findMethod("__setstate__") != nullptr);
}

// The tensors that `forward` must not change: constants, and attributes that do not share memory with a parameter or buffer.
std::vector<Unheld> unheld(const torch::jit::Module& root, const std::vector<c10::IValue>& constants) {
  const auto registered = walk::registered_memory(root);
  std::vector<Unheld> tensors;
  const auto take = [&](const std::string& name, const c10::IValue& value) {
    if (!value.isTensor() || registered.count(walk::memory_of(value.toTensor())) != 0) {
      return;
    }
    if (value.toTensor().defined()) {
      tensors.push_back({name, value.toTensor()});
    }
  };
  walk::each_value(root._ivalue(), "", take);
  for (const auto& constant : constants) {
    walk::each_value(constant, constant_name, take);
  }
  return tensors;
}

void examine(lte_script& script, lte_push_text sink_fn, void* sink) {
  const auto& module = script.module;
  const auto tell = [&](const std::string& name, const std::string& what) {
    push(sink_fn, sink, name, what);
  };
  walk::each_value(module._ivalue(), "", [&](const std::string& name, const c10::IValue& value) {
    if (const auto kind = opaque(value); !kind.empty()) {
      tell(name, "opaque " + kind);
    } else if (value.isObject() && packs_itself(value.toObject())) {
      tell(name, "packs");
    }
  });
  const auto& hooked = module._ivalue()->type();
  for (const auto* hook : hooked->getForwardPreHooks()) {
    tell(hook->name(), "hook");
  }
  for (const auto* hook : hooked->getForwardHooks()) {
    tell(hook->name(), "hook");
  }
  auto found = writes::find(module);
  script.forks = found.forks;
  script.evades = found.evades;
  script.empty = found.empty;
  script.unheld = unheld(module, found.constants);
  script.registered = walk::registered_memory(module);
  script.constants = std::move(found.constants);
  script.held.clear();
  walk::each_slot(module, [&](const Slot& slot) {
    if (is_state(slot)) {
      script.held.push_back(slot.value().toTensor());
    }
  });
  script.assigned.clear();
  std::set<std::pair<const void*, size_t>> known;
  for (const auto& name : found.assigned) {
    const auto slot = walk::locate(module, name);
    if (!slot || !is_state(*slot)) {
      const bool parameter = slot && is_parameter(slot->object->type(), slot->index);
      tell(name, parameter ? "parameter" : "assigns");
    } else if (const auto other = shares_memory(module, *slot)) {
      tell(name, "shares " + *other);
    } else if (known.emplace(slot->object.get(), slot->index).second) {
      script.assigned.push_back(*slot);
    }
  }
  for (const auto& [name, kind] : found.changed) {
    const auto slot = walk::locate(module, name);
    const auto type = slot ? slot->object->type() : nullptr;
    if (name == constant_name) {
      tell(name, "constant " + kind);
    } else if (!type || !(is_buffer(type, slot->index) || is_parameter(type, slot->index))) {
      tell(name, "changes " + kind);
    }
  }
  for (const auto& [name, kind] : found.uncounted) {
    const auto slot = walk::locate(module, name);
    if (slot && is_parameter(slot->object->type(), slot->index) && !is_state(*slot)) {
      tell(name, "uncounted " + kind);
    }
  }
  if (!found.strides.empty()) {
    if (const auto name = in_larger_memory(module, script.constants)) {
      tell(found.strides, "denied may reach memory beyond the elements of `" + *name + "`, which checkpoints do not hold: register a "
          "tensor with memory of its own (`.clone()`)");
    }
  }
  for (const auto& [name, why] : found.denied) {
    tell(name, "denied " + why);
  }
}

} // namespace

} // namespace lockstep::script::examine

extern "C" {

// Analyses `forward`, and pushes its irreproducible effects. The name is that of the attribute, module or operator; the text is one of:
//
// - `opaque KIND`: the state of the attribute cannot be read.
// - `packs`: the module has its own code for saving and loading.
// - `hook`: a hook of the whole module.
// - `assigns`: the attribute is assigned.
// - `changes OPERATOR`: the attribute is changed in place.
// - `parameter`: the parameter is assigned.
// - `uncounted OPERATOR`: the parameter is changed without its version counter.
// - `constant OPERATOR`: a constant is changed in place.
// - `shares OTHER`: the buffer is assigned, and shares memory with another tensor.
// - `denied WHY`: the operator is not allowed.
char* lte_script_examine(lte_script* script, lte_push_text sink_fn, void* sink) {
  return lockstep::guard([&] { lockstep::script::examine::examine(*script, sink_fn, sink); });
}

uint8_t lte_script_evades(const lte_script* script) {
  return script->evades;
}

} // extern "C"
