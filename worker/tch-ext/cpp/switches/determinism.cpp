// The switches of libtorch that change numerics: functions that set and describe them. The names and texts of `describe` are part of the
// numerics fingerprint: do not change them.
#include "shim.h"

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/csrc/jit/codegen/fuser/interface.h>
#include <torch/csrc/jit/passes/tensorexpr_fuser.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/version.h>

#include "cuda.h"

namespace lockstep::determinism {

namespace {

const char* word(bool on) {
  return on ? "on" : "off";
}

const char* precision_word(at::Float32MatmulPrecision precision) {
  switch (precision) {
    case at::Float32MatmulPrecision::HIGHEST:
      return "highest";
    case at::Float32MatmulPrecision::HIGH:
      return "high";
    case at::Float32MatmulPrecision::MEDIUM:
      return "medium";
  }
  return "unknown";
}

// The rest of the line after `label` in `text`; empty if there is no such line.
std::string after(const std::string& text, const std::string& label) {
  const auto start = text.find(label);
  if (start == std::string::npos) {
    return {};
  }
  const auto from = start + label.size();
  return text.substr(from, text.find('\n', from) - from);
}

void describe(const std::function<void(std::string_view, std::string_view)>& put) {
  auto& context = at::globalContext();

  put("torch.version", TORCH_VERSION);
  put("torch.git", LOCKSTEP_TORCH_GIT);
  put("torch.config", at::show_config());
  put("torch.cxx_flags", at::get_cxx_flags());

  put("cpu.capability", at::get_cpu_capability());
  put("cpu.mkl", at::hasMKL() ? at::get_mkl_version() : "absent");
  put("cpu.onednn", at::hasMKLDNN() ? at::get_mkldnn_version() : "absent");
  put("cpu.onednn_used", word(context.userEnabledMkldnn()));
  put("cpu.openmp", at::hasOpenMP() ? at::get_openmp_version() : "absent");
  put("cpu.parallel_backend", after(at::get_parallel_info(), "ATen parallel backend: "));
  put("threads.intra_op", std::to_string(at::get_num_threads()));

  put("deterministic.algorithms",
      !context.deterministicAlgorithms() ? "off" : (context.deterministicAlgorithmsWarnOnly() ? "warn" : "error"));
  put("deterministic.fill_uninitialized", word(context.deterministicFillUninitializedMemory()));
  put("deterministic.cudnn", word(context.deterministicCuDNN()));
  put("cudnn.benchmark", word(context.benchmarkCuDNN()));
  put("cudnn.used", word(context.userEnabledCuDNN()));
  put("tf32.cublas", word(context.allowTF32CuBLAS()));
  put("tf32.cudnn", word(context.allowTF32CuDNN()));
  put("tf32.onednn", word(context.allowTF32OneDNN()));
  put("matmul.float32", precision_word(context.float32MatmulPrecision()));
  const std::array<std::pair<const char*, bool>, 4> attention{{
      {"flash", context.userEnabledFlashSDP()},
      {"memory_efficient", context.userEnabledMemEfficientSDP()},
      {"math", context.userEnabledMathSDP()},
      {"cudnn", context.userEnabledCuDNNSDP()},
  }};
  std::string kernels;
  for (const auto& [name, enabled] : attention) {
    if (enabled) {
      kernels += kernels.empty() ? name : std::string(" ") + name;
    }
  }
  put("attention.kernels", kernels);
  put("torchscript.executor", torch::jit::getExecutorMode() ? "profiling" : "simple");
  put("torchscript.profiling", word(torch::jit::getProfilingMode()));
  put("torchscript.fuser", word(torch::jit::tensorExprFuserEnabled()));

  cuda::describe(put);
}

} // namespace

} // namespace lockstep::determinism

extern "C" {

struct lte_switches {
  uint8_t deterministic_algorithms, cudnn_benchmark, cudnn_deterministic, tf32, fill_uninitialized;
  int32_t intra_op_threads;
  // 0 leaves the number unchanged.
  int32_t inter_op_threads;
};

char* lte_determinism_apply(const lte_switches* switches) {
  return lockstep::guard([&] {
    auto& context = at::globalContext();
    context.setDeterministicAlgorithms(switches->deterministic_algorithms != 0, /*warn_only=*/false);
    context.setDeterministicFillUninitializedMemory(switches->fill_uninitialized != 0);
    context.setBenchmarkCuDNN(switches->cudnn_benchmark != 0);
    context.setDeterministicCuDNN(switches->cudnn_deterministic != 0);
    context.setAllowTF32CuBLAS(switches->tf32 != 0);
    context.setAllowTF32CuDNN(switches->tf32 != 0);
    at::set_num_threads(switches->intra_op_threads);
    // libtorch accepts this number once in a process, and throws at the second time. So it is not set if it already has the value.
    const int wanted = switches->inter_op_threads;
    if (wanted > 0 && at::get_num_interop_threads() != static_cast<size_t>(wanted)) {
      at::set_num_interop_threads(wanted);
    }
  });
}

// The profiling executor specialises a graph after its first runs, so a resumed process would use other kernels in its first steps than an
// uninterrupted one. The simple executor compiles once. Fusion at run time is switched off, too: a fused kernel rounds differently from the
// operators that it replaces.
char* lte_pin_torchscript_executor() {
  return lockstep::guard([] {
    torch::jit::getProfilingMode() = false;
    torch::jit::getExecutorMode() = false;
    torch::jit::setTensorExprFuserEnabled(false);
    torch::jit::overrideCanFuseOnCPU(false);
    torch::jit::overrideCanFuseOnGPU(false);
  });
}

char* lte_describe(lte_push_text sink_fn, void* sink) {
  return lockstep::guard([&] {
    lockstep::determinism::describe(
        [&](std::string_view name, std::string_view text) { lockstep::push(sink_fn, sink, name, text); });
  });
}

} // extern "C"
