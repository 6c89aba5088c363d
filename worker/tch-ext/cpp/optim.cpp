// Fused optimizers over lists of tensors: one fused call for all tensors with the same weight decay and element type.
//
// The lists of a group are built once. A step only puts its gradients into a list whose memory is reused, so it costs little more than
// the fused kernel. A parameter that takes no part in a step is not changed, and neither are its moments and its count of steps, as in
// torch.optim for a parameter whose `grad` is None.
#include "shim.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ops/_fused_adam.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/_fused_sgd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

namespace lockstep::optim {

namespace {

// The Rust side has the same numbers in `Kind`.
enum class Kind : int32_t { sgd = 0, adam = 1, adamw = 2 };

} // namespace

} // namespace lockstep::optim

extern "C" {

// Waits until the parameter at `position` and its state may change. Returns 0 if they must not change.
using lte_ready = uint8_t (*)(void* context, size_t position);

struct lte_optim_config {
  int32_t kind;
  // For SGD.
  double momentum, dampening;
  uint8_t nesterov;
  // For Adam and AdamW.
  double beta1, beta2, epsilon;
};

struct lte_optim {
  using Kind = lockstep::optim::Kind;

  // The lists of one fused call.
  struct Lists {
    std::vector<at::Tensor> params, grads, first, second, steps;
  };

  // The arguments of one step. If `found_inf` is 1, the kernels change nothing.
  struct Rate {
    double lr;
    std::optional<at::Tensor> found_inf;
  };

  // Parameters with the same weight decay and element type.
  struct Group {
    double weight_decay;
    std::vector<size_t> positions;
    Lists all;
  };

  lte_optim_config config;
  std::vector<Group> groups;
  // Number of steps, as a 32-bit float on the device of the parameters. The fused Adam kernels read it for every parameter that took part
  // in all steps.
  at::Tensor step;
  // The same number on the host.
  int64_t taken = 0;
  // By parameter position: number of steps that the parameter took part in.
  std::vector<int64_t> counts;
  // By parameter position: the same number on the device; undefined while it equals `step`.
  std::vector<at::Tensor> own_steps;
  // By parameter position. States that the kind does not have are undefined.
  std::vector<at::Tensor> params, first, second;
  // Whether a parameter has gaps in memory.
  bool gaps = false;

  bool has_second() const {
    return static_cast<Kind>(config.kind) != Kind::sgd;
  }

  // The end of the portion that begins at `begin`: parameters that are updated together if the step waits for its parameters.
  size_t portion_end(const Group& group, size_t begin) const {
    constexpr int64_t elements = 1 << 18;
    int64_t taken = 0;
    size_t end = begin;
    while (end < group.positions.size() && taken < elements) {
      taken += params[group.positions[end++]].numel();
    }
    return end;
  }

  // Puts each parameter's count of steps into the lists: its own one, or `step`.
  void spread_steps() {
    for (auto& group : groups) {
      for (size_t k = 0; k < group.positions.size() && has_second(); ++k) {
        const auto& own = own_steps[group.positions[k]];
        group.all.steps[k] = own.defined() ? own : step;
      }
    }
  }

  void sgd(Lists& lists, double weight_decay, const Rate& rate, bool first_of_momentum) {
    const auto fused = [&](Lists& all) {
      at::_fused_sgd_(
          all.params, all.grads, all.first, weight_decay, config.momentum, rate.lr, config.dampening,
          config.nesterov != 0, /*maximize=*/false, first_of_momentum, /*grad_scale=*/{}, rate.found_inf);
    };
    const auto& any = lists.params.front();
    if (config.momentum == 0.0 || !any.is_cpu() || !at::isReducedFloatingType(any.scalar_type())) {
      fused(lists);
      return;
    }
    // For 16-bit floats libtorch's kernel reads wrong memory for the momentum. This computes what the kernel should: in 32 bits, and then
    // rounded.
    const auto widened = [](const std::vector<at::Tensor>& list) {
      std::vector<at::Tensor> wide;
      for (const auto& tensor : list) {
        wide.push_back(tensor.to(at::kFloat));
      }
      return wide;
    };
    Lists wide{widened(lists.params), widened(lists.grads), widened(lists.first), {}, {}};
    fused(wide);
    for (size_t i = 0; i < lists.params.size(); ++i) {
      lists.params[i].copy_(wide.params[i]);
      lists.first[i].copy_(wide.first[i]);
    }
  }

  // The fused CPU kernels treat a tensor as consecutive memory from its first element on. So a parameter with gaps is updated in a dense
  // copy.
  void call(Lists& lists, double weight_decay, const Rate& rate, bool first_of_momentum) {
    if (!gaps) {
      kernel(lists, weight_decay, rate, first_of_momentum);
      return;
    }
    Lists dense = lists;
    for (auto& param : dense.params) {
      if (!param.is_non_overlapping_and_dense()) {
        param = at::empty_like(param).copy_(param);
      }
    }
    kernel(dense, weight_decay, rate, first_of_momentum);
    for (size_t i = 0; i < lists.params.size(); ++i) {
      if (!lists.params[i].is_same(dense.params[i])) {
        lists.params[i].copy_(dense.params[i]);
      }
    }
  }

  void kernel(Lists& lists, double weight_decay, const Rate& rate, bool first_of_momentum) {
    switch (static_cast<Kind>(config.kind)) {
      case Kind::sgd:
        sgd(lists, weight_decay, rate, first_of_momentum);
        break;
      case Kind::adam:
        at::_fused_adam_(
            lists.params, lists.grads, lists.first, lists.second, {}, lists.steps, rate.lr, config.beta1, config.beta2,
            weight_decay, config.epsilon, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, rate.found_inf);
        break;
      case Kind::adamw:
        at::_fused_adamw_(
            lists.params, lists.grads, lists.first, lists.second, {}, lists.steps, rate.lr, config.beta1, config.beta2,
            weight_decay, config.epsilon, /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, rate.found_inf);
        break;
    }
  }
};

char* lte_optim_new(
    const lte_optim_config* config,
    const at::Tensor* const* params,
    const double* weight_decays,
    size_t count,
    lte_optim** out) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    auto optim = std::make_unique<lte_optim>();
    optim->config = *config;
    const auto kind = static_cast<lte_optim::Kind>(config->kind);
    const bool has_first = kind != lte_optim::Kind::sgd || config->momentum != 0.0;
    const bool has_second = kind != lte_optim::Kind::sgd;
    const auto device = count == 0 ? at::Device(at::kCPU) : params[0]->device();
    optim->step = at::zeros({}, at::TensorOptions().dtype(at::kFloat).device(device));
    optim->params.reserve(count);
    optim->first.resize(count);
    optim->second.resize(count);
    optim->counts.resize(count);
    optim->own_steps.resize(count);

    std::map<std::pair<double, at::ScalarType>, size_t> index;
    for (size_t i = 0; i < count; ++i) {
      const auto& param = *params[i];
      TORCH_CHECK(param.device() == device, "parameters are on ", device, " and on ", param.device());
      optim->params.push_back(param);
      optim->gaps = optim->gaps || !param.is_non_overlapping_and_dense();
      const auto key = std::make_pair(weight_decays[i], param.scalar_type());
      const auto [place, is_new] = index.try_emplace(key, optim->groups.size());
      if (is_new) {
        optim->groups.push_back({weight_decays[i], {}, {}});
      }
      auto& group = optim->groups[place->second];
      group.positions.push_back(i);
      group.all.params.push_back(param);
      if (has_first) {
        optim->first[i] = at::zeros_like(param, at::MemoryFormat::Preserve);
        group.all.first.push_back(optim->first[i]);
      }
      if (has_second) {
        optim->second[i] = at::zeros_like(param, at::MemoryFormat::Preserve);
        group.all.second.push_back(optim->second[i]);
        group.all.steps.push_back(optim->step);
      }
    }
    for (auto& group : optim->groups) {
      group.all.grads.reserve(group.all.params.size());
    }
    *out = optim.release();
  });
}

void lte_optim_free(lte_optim* optim) {
  delete optim;
}

// The caller has checked that there is a gradient for each parameter, and a byte of `used`, unless `used` is null: then all take part.
// `*undefined` is the position of the first gradient that is used but undefined; nothing has changed then.
//
// If `found_inf` is not null and its value is 1, no tensor changes.
//
// With `ready`, parameters are updated in portions, after `ready` was called for each of them. If it returns 0, the step ends, and only
// some parameters are updated.
char* lte_optim_step(
    lte_optim* optim,
    const at::Tensor* const* grads,
    const uint8_t* used,
    size_t count,
    double lr,
    const at::Tensor* found_inf,
    lte_ready ready,
    void* context,
    int64_t* undefined) {
  return lockstep::guard([&] {
    *undefined = -1;
    const auto is_used = [&](size_t i) { return used == nullptr || used[i] != 0; };
    for (size_t i = 0; i < count; ++i) {
      if (!is_used(i)) {
        continue;
      }
      if (!grads[i]->defined()) {
        *undefined = static_cast<int64_t>(i);
        return;
      }
      TORCH_CHECK(
          grads[i]->sizes() == optim->params[i].sizes(), "gradient ", i, " has shape ", grads[i]->sizes(),
          ", its parameter ", optim->params[i].sizes());
    }
    c10::NoGradGuard no_grad;
    const lte_optim::Rate rate{lr, found_inf == nullptr ? std::optional<at::Tensor>() : *found_inf};
    const bool has_momentum = !optim->has_second() && optim->config.momentum != 0.0;
    bool all_used = true, behind = false;
    for (size_t i = 0; i < count; ++i) {
      auto& own = optim->own_steps[i];
      if (!is_used(i)) {
        all_used = false;
        if (!own.defined()) {
          own = optim->step.clone();
          behind = true;
        }
      } else if (own.defined()) {
        own.add_(1);
      }
    }
    if (behind) {
      optim->spread_steps();
    }
    optim->step.add_(1);
    for (auto& group : optim->groups) {
      // A fused call takes one flag for all its parameters: whether their momentum is still empty.
      const auto is_first = [&](size_t position) { return has_momentum && optim->counts[position] == 0; };
      bool whole = all_used;
      for (const auto position : group.positions) {
        whole = whole && is_first(position) == is_first(group.positions.front());
      }
      const auto laid_out = [&](size_t position) {
        const auto& grad = *grads[position];
        const auto& param = optim->params[position];
        // The fused CPU kernels walk raw memory, so a gradient must have the memory layout of its parameter.
        const bool fits = grad.strides() == param.strides() && grad.is_non_overlapping_and_dense();
        return fits ? grad : at::empty_like(param, grad.options()).copy_(grad);
      };
      const auto number = group.positions.size();
      for (size_t begin = 0, end = 0; begin < number; begin = end) {
        end = ready == nullptr ? number : optim->portion_end(group, begin);
        for (size_t k = begin; k < end && ready != nullptr; ++k) {
          if (is_used(group.positions[k]) && ready(context, group.positions[k]) == 0) {
            return;
          }
        }
        if (whole && end - begin == number) {
          // Cleared first, because an exception in an earlier step may have left gradients in the list.
          group.all.grads.clear();
          for (const auto position : group.positions) {
            group.all.grads.push_back(laid_out(position));
          }
          optim->call(group.all, group.weight_decay, rate, is_first(group.positions.front()));
          group.all.grads.clear();
          continue;
        }
        for (const bool first_of_momentum : {false, true}) {
          lte_optim::Lists some;
          for (size_t k = begin; k < end; ++k) {
            const auto position = group.positions[k];
            if (!is_used(position) || is_first(position) != first_of_momentum) {
              continue;
            }
            some.params.push_back(group.all.params[k]);
            some.grads.push_back(laid_out(position));
            if (!group.all.first.empty()) {
              some.first.push_back(group.all.first[k]);
            }
            if (optim->has_second()) {
              some.second.push_back(group.all.second[k]);
              some.steps.push_back(group.all.steps[k]);
            }
          }
          if (!some.params.empty()) {
            optim->call(some, group.weight_decay, rate, first_of_momentum);
          }
        }
      }
    }
    if (found_inf != nullptr) {
      optim->step.sub_(*found_inf);
    }
    optim->taken += 1;
    for (size_t i = 0; i < count; ++i) {
      if (found_inf != nullptr && is_used(i) && optim->own_steps[i].defined()) {
        optim->own_steps[i].sub_(*found_inf);
      }
      optim->counts[i] += is_used(i) ? 1 : 0;
    }
  });
}

// Pushes `step`, then for each parameter position `first/<position>` and `second/<position>`, as far as the kind has them. The tensors are
// not copies.
char* lte_optim_state(const lte_optim* optim, lte_push_tensor sink_fn, void* sink) {
  return lockstep::guard([&] {
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

// The number of steps, and by parameter position the number of steps that it took part in. `out` has room for all parameters.
void lte_optim_counts(const lte_optim* optim, int64_t* taken, int64_t* out) {
  *taken = optim->taken;
  std::copy(optim->counts.begin(), optim->counts.end(), out);
}

// To be called after the state tensors were overwritten. Takes the number of steps from `step`, and that of each parameter from `counts`;
// if `counts` is null, all parameters took part in every step.
char* lte_optim_reloaded(lte_optim* optim, const int64_t* counts) {
  return lockstep::guard([&] {
    c10::NoGradGuard no_grad;
    optim->taken = static_cast<int64_t>(optim->step.item<float>());
    for (size_t i = 0; i < optim->params.size(); ++i) {
      optim->counts[i] = counts == nullptr ? optim->taken : counts[i];
      const bool behind = optim->counts[i] != optim->taken;
      optim->own_steps[i] = behind ? at::zeros_like(optim->step).fill_(optim->counts[i]) : at::Tensor();
    }
    optim->spread_steps();
  });
}

} // extern "C"
