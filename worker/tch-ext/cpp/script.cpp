// TorchScript modules with what tch loses: true names, buffers, an error instead of a panic.
#include "shim.h"

#include <memory>
#include <string>
#include <vector>

#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

using lockstep::guard;

namespace {

// Flattens what a model may answer: a tensor, or tuples and lists of them, in order.
void collect(const c10::IValue& value, lte_push_tensor sink_fn, void* sink) {
  if (value.isTensor()) {
    lockstep::push(sink_fn, sink, "", value.toTensor());
  } else if (value.isTuple()) {
    for (const auto& element : value.toTupleRef().elements()) {
      collect(element, sink_fn, sink);
    }
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      lockstep::push(sink_fn, sink, "", tensor);
    }
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      collect(element, sink_fn, sink);
    }
  } else {
    TORCH_CHECK(false, "the module answered a `", value.tagKind(), "`, which is no tensor, tuple or list of tensors");
  }
}

} // namespace

extern "C" {

struct lte_script {
  torch::jit::Module module;
};

char* lte_script_load(const char* path, int32_t device, lte_script** out) {
  return guard([&] {
    auto module = torch::jit::load(std::string(path), lockstep::device_of(device));
    *out = new lte_script{std::move(module)};
  });
}

void lte_script_free(lte_script* script) {
  delete script;
}

char* lte_script_parameters(const lte_script* script, lte_push_tensor sink_fn, void* sink) {
  return guard([&] {
    for (const auto& parameter : script->module.named_parameters(/*recurse=*/true)) {
      lockstep::push(sink_fn, sink, parameter.name, parameter.value);
    }
  });
}

char* lte_script_buffers(const lte_script* script, lte_push_tensor sink_fn, void* sink) {
  return guard([&] {
    for (const auto& buffer : script->module.named_buffers(/*recurse=*/true)) {
      lockstep::push(sink_fn, sink, buffer.name, buffer.value);
    }
  });
}

char* lte_script_forward(
    lte_script* script,
    const at::Tensor* const* inputs,
    size_t count,
    lte_push_tensor sink_fn,
    void* sink) {
  return guard([&] {
    std::vector<c10::IValue> arguments;
    arguments.reserve(count);
    for (size_t i = 0; i < count; ++i) {
      arguments.emplace_back(*inputs[i]);
    }
    collect(script->module.forward(std::move(arguments)), sink_fn, sink);
  });
}

char* lte_script_train(lte_script* script, uint8_t on) {
  return guard([&] { script->module.train(on != 0); });
}

char* lte_script_to(lte_script* script, int32_t device) {
  return guard([&] { script->module.to(lockstep::device_of(device)); });
}

char* lte_script_save(const lte_script* script, const char* path) {
  return guard([&] { script->module.save(std::string(path)); });
}

} // extern "C"
