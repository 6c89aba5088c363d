// Walks through the objects and tensors of a TorchScript value, also in containers, with the dotted paths of attributes.
#include "script.h"

namespace lockstep::script::walk {

namespace {

class Walk {
 public:
  explicit Walk(const std::function<void(const std::string&, const c10::IValue&)>& see) : see_(see) {}

  void enter(const c10::IValue& value, const std::string& path) {
    if (value.isObject() && !seen_.insert(value.toObject().get()).second) {
      return;
    }
    see_(path, value);
    if (value.isObject()) {
      const auto object = value.toObject();
      for (size_t i = 0; i < object->type()->numAttributes(); ++i) {
        enter(object->getSlot(i), joined(path, object->type()->getAttributeName(i)));
      }
    } else if (value.isList()) {
      for (const c10::IValue& element : value.toListRef()) {
        enter(element, path);
      }
    } else if (value.isTuple()) {
      for (const auto& element : value.toTupleRef().elements()) {
        enter(element, path);
      }
    } else if (value.isGenericDict()) {
      for (const auto& entry : value.toGenericDict()) {
        enter(entry.key(), path);
        enter(entry.value(), path);
      }
    }
  }

 private:
  const std::function<void(const std::string&, const c10::IValue&)>& see_;
  std::unordered_set<const void*> seen_;
};

} // namespace

void each_value(
    const c10::IValue& value,
    const std::string& path,
    const std::function<void(const std::string&, const c10::IValue&)>& see) {
  Walk(see).enter(value, path);
}

std::optional<Slot> locate(const torch::jit::Module& root, const std::string& path) {
  auto object = root._ivalue();
  for (size_t from = 0;;) {
    const auto dot = path.find('.', from);
    const auto name = path.substr(from, dot == std::string::npos ? dot : dot - from);
    const auto index = object->type()->findAttributeSlot(name);
    if (!index) {
      return std::nullopt;
    }
    if (dot == std::string::npos) {
      return Slot{object, *index, path};
    }
    const auto& inner = object->getSlot(*index);
    if (!inner.isObject()) {
      return std::nullopt;
    }
    object = inner.toObject();
    from = dot + 1;
  }
}

void each_slot(const torch::jit::Module& root, const std::function<void(const Slot&)>& see) {
  each_value(root._ivalue(), "", [&](const std::string& path, const c10::IValue& value) {
    if (!value.isObject()) {
      return;
    }
    const auto object = value.toObject();
    for (size_t index = 0; index < object->type()->numAttributes(); ++index) {
      see(Slot{object, index, joined(path, object->type()->getAttributeName(index))});
    }
  });
}

const void* memory_of(const at::Tensor& tensor) {
  return tensor.defined() && tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
}

std::unordered_map<const void*, std::string> registered_memory(const torch::jit::Module& root) {
  std::unordered_map<const void*, std::string> memory;
  each_slot(root, [&](const Slot& slot) {
    const auto& type = slot.object->type();
    const bool registered = is_parameter(type, slot.index) || is_buffer(type, slot.index);
    const void* own = registered && slot.value().isTensor() ? memory_of(slot.value().toTensor()) : nullptr;
    if (own != nullptr) {
      memory.emplace(own, slot.name);
    }
  });
  return memory;
}

std::vector<at::Tensor> plain_parts(const at::Tensor& tensor) {
  if (!tensor.defined()) {
    return {};
  }
  if (tensor.is_quantized()) {
    if (tensor.qscheme() == at::kPerTensorAffine || tensor.qscheme() == at::kPerTensorSymmetric) {
      return {tensor.int_repr(), at::scalar_tensor(tensor.q_scale(), at::kDouble), at::scalar_tensor(tensor.q_zero_point(), at::kLong)};
    }
    return {tensor.int_repr(), tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()};
  }
  switch (tensor.layout()) {
    case at::kStrided:
      return {tensor};
    case at::kSparse:
      return {tensor._values(), tensor._indices()};
    case at::kSparseCsr:
    case at::kSparseBsr:
      return {tensor.values(), tensor.crow_indices(), tensor.col_indices()};
    case at::kSparseCsc:
    case at::kSparseBsc:
      return {tensor.values(), tensor.ccol_indices(), tensor.row_indices()};
    default:
      return {};
  }
}

} // namespace lockstep::script::walk
