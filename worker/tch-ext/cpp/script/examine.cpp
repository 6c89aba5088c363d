// What of a module no run repeats, or no checkpoint holds: found before anything runs, and told by name.
#include "script.h"
#include "shim.h"

#include <array>
#include <string_view>

namespace lockstep::script::examine {

namespace {

// Whether checkpoints hold it, and `forward` may change it.
bool is_state(const Slot& slot) {
  const auto& type = slot.object->type();
  if (!slot.value().isTensor() || type->getAttribute(slot.index)->kind() != c10::TypeKind::TensorType) {
    return false;
  }
  const bool frozen = is_parameter(type, slot.index) && !slot.value().toTensor().requires_grad();
  return is_buffer(type, slot.index) || frozen;
}

// Whether `name` names the place `slot`, which has as many names as modules that share its own.
bool is_place(const torch::jit::Module& root, const std::string& name, const Slot& slot) {
  const auto named = walk::locate(root, name);
  return named && named->object == slot.object && named->index == slot.index;
}

// The name of another tensor in the memory of the one at `slot`.
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

// The name of a tensor that lies in more memory than its elements take.
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

// Objects that libtorch itself brings, and whose contents never change.
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

// The kind of a value whose state nobody can see from outside; empty for all others.
std::string opaque(const c10::IValue& value) {
  if (value.isObject()) {
    const std::string type = value.toObject()->type()->name()->qualifiedName();
    return begins(type, "__torch__.torch.classes.") && !is_packed(type) ? type : std::string();
  }
  const bool hides = value.isGenerator() || value.isFuture() || value.isRRef() || value.isPyObject() || value.isStream() ||
      value.isStorage();
  return hides ? value.tagKind() : std::string();
}

// Whether it is saved and loaded by code of its own. libtorch's own modules of this kind only pack what never changes.
bool packs_itself(const torch::jit::ObjectPtr& object) {
  const auto& type = object->type();
  return !begins(type->name()->qualifiedName(), "__torch__.torch.") &&
      (type->findMethod("__getstate__") != nullptr || type->findMethod("__setstate__") != nullptr);
}

// Tensors that nothing may change, and whose writes libtorch counts for themselves.
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
      tell(found.strides, "denied may reach the memory behind `" + *name + "`, which no checkpoint holds: register a tensor that "
          "has its memory for itself (`.clone()`)");
    }
  }
  for (const auto& [name, why] : found.denied) {
    tell(name, "denied " + why);
  }
}

} // namespace

} // namespace lockstep::script::examine

extern "C" {

// Learns what `forward` may do. What no run can do exactly is pushed, by the attribute's (the module's, the operator's) name:
// `opaque KIND`, `packs` (itself, by code of its own), `hook` (of the whole module), `assigns`, `changes OPERATOR`, `parameter` (assigned), `uncounted OPERATOR` (a
// parameter, past the version counter), `constant OPERATOR` (in place), `shares OTHER` (a buffer that is assigned, with the memory
// of another tensor), `denied WHY`.
char* lte_script_examine(lte_script* script, lte_push_text sink_fn, void* sink) {
  return lockstep::guard([&] { lockstep::script::examine::examine(*script, sink_fn, sink); });
}

uint8_t lte_script_evades(const lte_script* script) {
  return script->evades;
}

} // extern "C"
