// The attributes of a module and the constants of its graphs, each as a text that changes if the value changes.
#include "script.h"
#include "shim.h"

#include <cstdio>
#include <unordered_set>

#include <ATen/core/ivalue.h>
#include <c10/util/Exception.h>

namespace lockstep::script::attributes {

namespace {

// Longer texts are replaced by their digest.
constexpr size_t longest_text = 80;

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

// FNV-1a.
uint64_t digest_of(const std::string& text) {
  uint64_t digest = 0xcbf29ce484222325;
  for (const unsigned char byte : text) {
    digest = (digest ^ byte) * 0x100000001b3;
  }
  return digest;
}

std::string shortened(const std::string& text) {
  return text.size() > longest_text ? "digest " + hex(digest_of(text)) : text;
}

class Attributes {
 public:
  Attributes(lte_push_text sink_fn, void* sink) : sink_fn_(sink_fn), sink_(sink) {}

  void tell(const torch::jit::Module& module, const std::vector<c10::IValue>& constants) {
    const auto root = module._ivalue();
    registered_below(root);
    seen_.clear();
    tell_object(root, "", true);
    for (const auto& constant : constants) {
      std::string text;
      describe(constant, text);
      push(sink_fn_, sink_, constant_name, shortened(text));
    }
  }

 private:
  // The type of the attribute does not matter: the bias of a convolution is an optional tensor.
  static bool is_registered(const torch::jit::ObjectPtr& object, size_t slot) {
    const auto& type = object->type();
    return (is_parameter(type, slot) || is_buffer(type, slot)) && object->getSlot(slot).isTensor();
  }

  // Collects the parameters and buffers. A tensor in the memory of one of them changes and is restored with it.
  void registered_below(const torch::jit::ObjectPtr& object) {
    if (!seen_.insert(object.get()).second) {
      return;
    }
    for (size_t slot = 0; slot < object->type()->numAttributes(); ++slot) {
      const auto& value = object->getSlot(slot);
      if (is_registered(object, slot)) {
        registered_.push_back(value.toTensor());
      } else if (value.isObject()) {
        registered_below(value.toObject());
      }
    }
  }

  void tell_object(const torch::jit::ObjectPtr& object, const std::string& path, bool module) {
    if (!seen_.insert(object.get()).second) {
      return;
    }
    const auto& type = object->type();
    for (size_t slot = 0; slot < type->numAttributes(); ++slot) {
      const auto& name = type->getAttributeName(slot);
      const auto& value = object->getSlot(slot);
      const auto full = path.empty() ? name : path + "." + name;
      if (is_registered(object, slot)) {
        // Only the identity of the tensor, because its contents may change.
        const auto address = reinterpret_cast<uintptr_t>(value.toTensor().unsafeGetTensorImpl());
        push(sink_fn_, sink_, full, "tensor " + hex(address));
      } else if (value.isObject()) {
        tell_object(value.toObject(), full, value.isModule());
      } else if (!(module && value.isBool() && name == "training")) {
        std::string text;
        describe(value, text);
        push(sink_fn_, sink_, full, shortened(text));
      }
    }
  }

  void describe(const c10::IValue& value, std::string& text) {
    if (value.isNone()) {
      text += "None";
    } else if (value.isTensor()) {
      text += of_tensor(value.toTensor());
    } else if (value.isBool()) {
      text += value.toBool() ? "True" : "False";
    } else if (value.isInt()) {
      text += std::to_string(value.toInt());
    } else if (value.isDouble()) {
      text += number(value.toDouble());
    } else if (value.isComplexDouble()) {
      text += number(value.toComplexDouble().real()) + "+" + number(value.toComplexDouble().imag()) + "j";
    } else if (value.isString()) {
      text += "'" + value.toStringRef() + "'";
    } else if (value.isDevice()) {
      text += value.toDevice().str();
    } else if (value.isList()) {
      text += "[";
      for (const c10::IValue& element : value.toListRef()) {
        describe(element, text);
        text += ", ";
      }
      text += "]";
    } else if (value.isTuple()) {
      text += "(";
      for (const auto& element : value.toTupleRef().elements()) {
        describe(element, text);
        text += ", ";
      }
      text += ")";
    } else if (value.isGenericDict()) {
      text += "{";
      for (const auto& entry : value.toGenericDict()) {
        describe(entry.key(), text);
        text += ": ";
        describe(entry.value(), text);
        text += ", ";
      }
      text += "}";
    } else if (value.isObject()) {
      const auto object = value.toObject();
      text += "<";
      if (seen_.insert(object.get()).second) {
        for (size_t slot = 0; slot < object->type()->numAttributes(); ++slot) {
          describe(object->getSlot(slot), text);
          text += ", ";
        }
      }
      text += ">";
    } else {
      text += value.tagKind();
    }
  }

  std::string of_tensor(const at::Tensor& tensor) const {
    if (!tensor.defined() || walk::plain_parts(tensor).empty()) {
      return "a tensor without plain bits";
    }
    const bool plain = tensor.layout() == at::kStrided && !tensor.is_quantized();
    return plain && in_registered(tensor) ? "a view" : form_of_parts(tensor);
  }

  static std::string form_of_parts(const at::Tensor& tensor) {
    std::string text = std::string(c10::toString(tensor.scalar_type())) + " [";
    for (const auto size : tensor.sizes()) {
      text += std::to_string(size) + ", ";
    }
    return text + "] of bits " + hex(modes::sum_of_parts(tensor));
  }

  bool in_registered(const at::Tensor& tensor) const {
    const auto* from = static_cast<const char*>(tensor.const_data_ptr());
    for (const auto& registered : registered_) {
      if (registered.layout() != at::kStrided || !registered.is_non_overlapping_and_dense()) {
        continue;
      }
      const auto* start = static_cast<const char*>(registered.const_data_ptr());
      const bool within = start <= from && from + tensor.nbytes() <= start + registered.nbytes();
      if (within && tensor.is_non_overlapping_and_dense() && tensor.numel() > 0) {
        return true;
      }
    }
    return false;
  }

  lte_push_text sink_fn_;
  void* sink_;
  std::vector<at::Tensor> registered_;
  std::unordered_set<const void*> seen_;
};

} // namespace

} // namespace lockstep::script::attributes

extern "C" {

// Pushes every attribute of the module and of the objects in it, by dotted path; for a parameter or buffer, only the identity of the
// tensor. Then the constants of its graphs, if `lte_script_examine` was called before.
char* lte_script_attributes(const lte_script* script, lte_push_text sink_fn, void* sink) {
  return lockstep::guard([&] { lockstep::script::attributes::Attributes(sink_fn, sink).tell(script->module, script->constants); });
}

} // extern "C"
