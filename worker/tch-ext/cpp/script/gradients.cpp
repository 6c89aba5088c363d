// Tests how the code of TorchScript modules is differentiated in this process. The answer is part of the numerics fingerprint.
#include "script.h"
#include "shim.h"

#include <ATen/ops/max.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/tensor.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/api/compilation_unit.h>
#include <torch/csrc/jit/frontend/resolver.h>

namespace lockstep::script::gradients {

namespace {

// If the two inputs of `max` are equal, autograd gives half of the gradient to each, but the executor's formula gives them none.
const char* const tie = R"(
def tie(x, y):
    z = torch.max(x, y)
    return torch.tanh(z * x + y) * z
)";

at::Tensor eager_tie(const at::Tensor& x, const at::Tensor& y) {
  const auto z = at::max(x, y);
  return at::tanh(z * x + y) * z;
}

double slope(const std::function<at::Tensor(const at::Tensor&, const at::Tensor&)>& f) {
  const auto x = at::tensor(0.5, at::kDouble).set_requires_grad(true);
  const auto y = at::tensor(0.5, at::kDouble);
  return torch::autograd::grad({f(x, y)}, {x}).at(0).item<double>();
}

bool by_autograd() {
  c10::AutoGradMode on(true);
  torch::jit::CompilationUnit unit;
  unit.define(std::nullopt, tie, torch::jit::nativeResolver(), nullptr);
  auto& scripted = unit.get_function(c10::QualifiedName("tie"));
  const auto run = [&](const at::Tensor& x, const at::Tensor& y) {
    const modes::ByAutograd by_autograd;
    return scripted({x, y}).toTensor();
  };
  const double wanted = slope(eager_tie);
  // A profiling executor uses its formulas only after its first runs.
  bool equal = true;
  for (int turn = 0; turn < 3; ++turn) {
    equal = equal && slope(run) == wanted;
  }
  return equal;
}

} // namespace

} // namespace lockstep::script::gradients

extern "C" {

// `*out` is an owned text.
char* lte_script_gradients(char** out) {
  return lockstep::guard([&] {
    *out = lockstep::owned_text(lockstep::script::gradients::by_autograd() ? "autograd" : "the executor's formulas");
  });
}

} // extern "C"
