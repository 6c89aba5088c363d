// Wraps a TorchScript module in another one that transforms its inputs and outputs.
#include "script.h"
#include "shim.h"

#include <string>

#include <torch/csrc/jit/api/module.h>

extern "C" {

char* lte_script_save_wrapped(
    const lte_script* script,
    const char* source,
    const char* const* names,
    const at::Tensor* const* buffers,
    size_t count,
    const char* path) {
  return lockstep::guard([&] {
    const auto unit = script->module._ivalue()->compilation_unit();
    torch::jit::Module outer(c10::QualifiedName("__torch__.lockstep.RawInputs"), unit, /*shouldMangle=*/true);
    outer.register_module("model", script->module);
    for (size_t i = 0; i < count; ++i) {
      outer.register_buffer(names[i], *buffers[i]);
    }
    outer.define(source);
    outer.train(false);
    outer.save(std::string(path));
  });
}

} // extern "C"
