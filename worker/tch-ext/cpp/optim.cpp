// Fused optimizers over lists of tensors: one fused call for all tensors that share weight decay and dtype.
//
// The lists of a group are built once. A step only puts this step's gradients into a list whose memory is kept, so
// it costs little more than the fused kernel.
#include "shim.h"

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

using lockstep::guard;

namespace {

// Mirrors `Kind` on the Rust side.
enum class Kind : int32_t { sgd = 0, adam = 1, adamw = 2 };

} // namespace

extern "C" {

struct lte_optim_config {
  int32_t kind;
  // SGD.
  double momentum, dampening;
  uint8_t nesterov;
  // Adam, AdamW.
  double beta1, beta2, epsilon;
};

struct lte_optim {
  // Parameters that share weight decay and dtype.
  struct Group {
    double weight_decay;
    std::vector<size_t> positions;
    std::vector<at::Tensor> params, grads, first, second, steps;
  };

  lte_optim_config config;
  std::vector<Group> groups;
  // Steps taken, as a scalar of 32-bit floats beside the parameters: what the fused Adam kernels read, and what
  // tells SGD that its momentum is still empty.
  at::Tensor step;
  // The same number on the host, so that SGD need not read it back from a device.
  int64_t taken = 0;
  // By parameter position; states are undefined where the kind has none.
  std::vector<at::Tensor> params, first, second;
};

char* lte_optim_new(
    const lte_optim_config* config,
    const at::Tensor* const* params,
    const double* weight_decays,
    size_t count,
    lte_optim** out) {
  return guard([&] {
    c10::NoGradGuard no_grad;
    auto optim = std::make_unique<lte_optim>();
    optim->config = *config;
    const auto kind = static_cast<Kind>(config->kind);
    const bool has_first = kind != Kind::sgd || config->momentum != 0.0;
    const bool has_second = kind != Kind::sgd;
    const auto device = count == 0 ? at::Device(at::kCPU) : params[0]->device();
    optim->step = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
    optim->params.reserve(count);
    optim->first.resize(count);
    optim->second.resize(count);

    std::map<std::pair<double, at::ScalarType>, size_t> index;
    for (size_t i = 0; i < count; ++i) {
      const auto& param = *params[i];
      TORCH_CHECK(param.device() == device, "parameters are on ", device, " and on ", param.device());
      optim->params.push_back(param);
      const auto key = std::make_pair(weight_decays[i], param.scalar_type());
      const auto [place, is_new] = index.try_emplace(key, optim->groups.size());
      if (is_new) {
        optim->groups.push_back({weight_decays[i], {}, {}, {}, {}, {}, {}});
      }
      auto& group = optim->groups[place->second];
      group.positions.push_back(i);
      group.params.push_back(param);
      if (has_first) {
        optim->first[i] = at::zeros_like(param, at::MemoryFormat::Preserve);
        group.first.push_back(optim->first[i]);
      }
      if (has_second) {
        optim->second[i] = at::zeros_like(param, at::MemoryFormat::Preserve);
        group.second.push_back(optim->second[i]);
        group.steps.push_back(optim->step);
      }
    }
    for (auto& group : optim->groups) {
      group.grads.reserve(group.params.size());
    }
    *out = optim.release();
  });
}

void lte_optim_free(lte_optim* optim) {
  delete optim;
}

// The caller has checked that there are as many gradients as parameters. `*undefined` names the first gradient
// that is undefined; nothing has changed then.
char* lte_optim_step(lte_optim* optim, const at::Tensor* const* grads, size_t count, double lr, int64_t* undefined) {
  return guard([&] {
    *undefined = -1;
    for (size_t i = 0; i < count; ++i) {
      if (!grads[i]->defined()) {
        *undefined = static_cast<int64_t>(i);
        return;
      }
      TORCH_CHECK(
          grads[i]->sizes() == optim->params[i].sizes(), "gradient ", i, " has shape ", grads[i]->sizes(),
          ", its parameter ", optim->params[i].sizes());
    }
    c10::NoGradGuard no_grad;
    const auto& config = optim->config;
    const auto kind = static_cast<Kind>(config.kind);
    if (kind != Kind::sgd) {
      optim->step.add_(1);
    }
    for (auto& group : optim->groups) {
      // Also after an exception the list must not keep gradients alive into the next step.
      group.grads.clear();
      for (const auto position : group.positions) {
        const auto& grad = *grads[position];
        const auto& param = optim->params[position];
        // The fused CPU kernels walk raw memory, so a gradient must lie in memory as its parameter does.
        const bool alike = grad.strides() == param.strides();
        group.grads.push_back(alike ? grad : at::empty_like(param, grad.options()).copy_(grad));
      }
      switch (kind) {
        case Kind::sgd:
          at::_fused_sgd_(
              group.params, group.grads, group.first, group.weight_decay, config.momentum, lr, config.dampening,
              config.nesterov != 0, /*maximize=*/false, /*is_first_step=*/config.momentum != 0.0 && optim->taken == 0);
          break;
        case Kind::adam:
          at::_fused_adam_(
              group.params, group.grads, group.first, group.second, {}, group.steps, lr, config.beta1, config.beta2,
              group.weight_decay, config.epsilon, /*amsgrad=*/false, /*maximize=*/false);
          break;
        case Kind::adamw:
          at::_fused_adamw_(
              group.params, group.grads, group.first, group.second, {}, group.steps, lr, config.beta1, config.beta2,
              group.weight_decay, config.epsilon, /*amsgrad=*/false, /*maximize=*/false);
          break;
      }
      group.grads.clear();
    }
    optim->taken += 1;
    if (kind == Kind::sgd) {
      optim->step.add_(1);
    }
  });
}

// Pushes `step`, then for each parameter position `first/<position>` and `second/<position>` where the kind has
// them. The tensors are the optimizer's own, not copies.
char* lte_optim_state(const lte_optim* optim, lte_push_tensor sink_fn, void* sink) {
  return guard([&] {
    lockstep::push(sink_fn, sink, "step", optim->step);
    for (size_t i = 0; i < optim->first.size(); ++i) {
      if (optim->first[i].defined()) {
        lockstep::push(sink_fn, sink, "first/" + std::to_string(i), optim->first[i]);
      }
      if (optim->second[i].defined()) {
        lockstep::push(sink_fn, sink, "second/" + std::to_string(i), optim->second[i]);
      }
    }
  });
}

// To be called after the state tensors were overwritten: takes the number of steps from `step`.
char* lte_optim_reloaded(lte_optim* optim) {
  return guard([&] { optim->taken = static_cast<int64_t>(optim->step.item<float>()); });
}

} // extern "C"
