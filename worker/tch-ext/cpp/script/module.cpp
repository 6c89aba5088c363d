// TorchScript modules, with the features that tch lacks: dotted names, buffers, errors instead of panics.
#include "script.h"
#include "shim.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <ATen/Context.h>
#include <ATen/ops/clone.h>
#include <c10/core/GradMode.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/serialization/import.h>

namespace lockstep::script::module {

namespace {

// Flattens the output of a model: a tensor, or nested tuples and lists of tensors, in order.
void collect(const c10::IValue& value, lte_push_tensor sink_fn, void* sink) {
  if (value.isTensor()) {
    push(sink_fn, sink, "", value.toTensor());
  } else if (value.isTuple()) {
    for (const auto& element : value.toTupleRef().elements()) {
      collect(element, sink_fn, sink);
    }
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      push(sink_fn, sink, "", tensor);
    }
  } else if (value.isList()) {
    for (const c10::IValue& element : value.toListRef()) {
      collect(element, sink_fn, sink);
    }
  } else {
    TORCH_CHECK(false, "`forward` returns a `", value.tagKind(), "`: return one tensor, the output that the job's `model.output` names");
  }
}

// The order of the elements in memory: the strides of the dimensions with more than one element. Empty for sparse tensors.
std::vector<int64_t> order_of(const at::Tensor& tensor) {
  std::vector<int64_t> order;
  for (int64_t i = 0; tensor.layout() == at::kStrided && i < tensor.dim(); ++i) {
    if (tensor.size(i) > 1) {
      order.push_back(tensor.stride(i));
    }
  }
  return order;
}

std::string form_of(const c10::IValue& value) {
  if (!value.isTensor() || !value.toTensor().defined()) {
    return value.tagKind();
  }
  const auto& tensor = value.toTensor();
  return c10::str(tensor.scalar_type(), " of shape ", tensor.sizes(), " on ", tensor.device());
}

// Replaces each buffer that `forward` assigns by a copy, and puts the registered tensor back afterwards. So holders of the registered
// tensor see the new values, and the backward pass keeps the values that it saved.
class Lent {
 public:
  Lent(const std::vector<Slot>& slots, const std::unordered_map<const void*, std::string>& registered)
      : slots_(slots), registered_(registered) {
    c10::NoGradGuard no_grad;
    own_.reserve(slots.size());
    for (const auto& slot : slots) {
      own_.push_back(slot.value().toTensor());
      const auto lent = own_.back().detach().clone();
      order_.push_back(order_of(lent));
      slot.object->setSlot(slot.index, lent);
    }
  }

  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

  ~Lent() {
    for (size_t i = 0; i < own_.size(); ++i) {
      slots_[i].object->setSlot(slots_[i].index, own_[i]);
    }
  }

  // Copies the assigned values into the registered tensors. If a buffer has another form, copies nothing, and returns the reason.
  std::string take() {
    for (size_t i = 0; i < own_.size(); ++i) {
      const auto now = form_of(slots_[i].value()), before = form_of(own_[i]);
      if (now != before || slots_[i].value().toTensor().layout() != own_[i].layout()) {
        return c10::str("`forward` changed the buffer `", slots_[i].name, "` from ", before, " to ", now,
            ": a buffer must keep its type and shape");
      }
      if (order_of(slots_[i].value().toTensor()) != order_[i]) {
        return c10::str("`forward` changed the strides of the buffer `", slots_[i].name, "` to ",
            slots_[i].value().toTensor().strides(), ": a buffer must keep its strides, which checkpoints do not hold");
      }
    }
    if (const auto reason = shared(); !reason.empty()) {
      return reason;
    }
    c10::NoGradGuard no_grad;
    for (size_t i = 0; i < own_.size(); ++i) {
      own_[i].copy_(slots_[i].value().toTensor().detach());
    }
    return {};
  }

 private:
  // The reason to reject an assigned tensor that shares memory with another one: it is copied, so afterwards it would not change with the
  // other tensor, as it does in PyTorch.
  std::string shared() const {
    const auto memory = [](const Slot& slot) { return walk::memory_of(slot.value().toTensor()); };
    const std::string* other = nullptr;
    for (size_t i = 0; i < slots_.size(); ++i) {
      const void* own = memory(slots_[i]);
      if (const auto found = registered_.find(own); found != registered_.end()) {
        other = &found->second;
      }
      for (size_t j = 0; j < i && own != nullptr; ++j) {
        other = memory(slots_[j]) == own ? &slots_[j].name : other;
      }
      if (other != nullptr) {
        return c10::str("`forward` made the buffer `", slots_[i].name, "` share memory with `", *other,
            "`: assign a copy (`.clone()`)");
      }
    }
    return {};
  }

  const std::vector<Slot>& slots_;
  const std::unordered_map<const void*, std::string>& registered_;
  std::vector<at::Tensor> own_;
  // The order of the copies.
  std::vector<std::vector<int64_t>> order_;
};

// For a module that may read uninitialised memory: new memory is filled, so that it has the same contents in every run, if the run uses
// deterministic operators. Memory that is written before it is read has the same bits as without.
class Filled {
 public:
  explicit Filled(bool on) : before_(at::globalContext().deterministicFillUninitializedMemory()) {
    at::globalContext().setDeterministicFillUninitializedMemory(on || before_);
  }

  Filled(const Filled&) = delete;
  Filled& operator=(const Filled&) = delete;

  ~Filled() {
    at::globalContext().setDeterministicFillUninitializedMemory(before_);
  }

 private:
  bool before_;
};

// The contents of a file in memory, which live until the module is loaded.
class Bytes : public caffe2::serialize::ReadAdapterInterface {
 public:
  Bytes(const char* begin, size_t size) : begin_(begin), size_(size) {}

  size_t size() const override {
    return size_;
  }

  size_t read(uint64_t at, void* to, size_t count, const char* /*what*/) const override {
    const size_t there = at < size_ ? std::min<size_t>(count, size_ - at) : 0;
    std::memcpy(to, begin_ + at, there);
    return there;
  }

 private:
  const char* begin_;
  size_t size_;
};

// The change that `forward` made beside parameters and buffers, in words; empty if there is none.
std::string left_behind(const modes::Modes& modes, const modes::Kept& kept) {
  if (const auto mode = modes.changed(); !mode.empty()) {
    modes.restore();
    return c10::str("`forward` changes ", mode, " and does not restore it: restore it before `forward` returns");
  }
  if (const auto name = kept.changed(); !name.empty()) {
    const auto what = name == constant_name ? "a tensor that is part of its code"
                                                      : "the attribute `" + name + "`";
    return c10::str("`forward` changed ", what, ", but checkpoints do not hold it: register it as a buffer "
        "(`register_buffer`)");
  }
  return {};
}

// Detaches buffers, so that the next pass begins without the autograd history of this one, which checkpoints do not hold. This is no error
// of the module, because libtorch's executor marks some detached results as having a history.
void forget_history(const std::vector<at::Tensor>& tensors) {
  for (const auto& tensor : tensors) {
    if (tensor.requires_grad() && !tensor.is_leaf()) {
      tensor.detach_();
    }
  }
}

// Runs the module's tasks at the point where they are started: in one thread, with one order of random numbers and gradients.
c10::IValue run_in_order(torch::jit::Module& module, std::vector<c10::IValue> arguments) {
  const auto launch = [](std::function<void()> task) { task(); };
  const auto future = module.get_method("forward").run_async(std::move(arguments), {}, launch);
  future->waitAndThrow();
  return future->value();
}

// Runs `forward`, and pushes its output. If it made a change that is not allowed, pushes nothing, and returns the reason.
std::string run(
    lte_script& script, const at::Tensor* const* inputs, size_t count, lte_push_tensor sink_fn, void* sink) {
  std::vector<c10::IValue> arguments;
  arguments.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    arguments.emplace_back(*inputs[i]);
  }
  const modes::Kept kept(script.unheld, script.evades);
  Lent lent(script.assigned, script.registered);
  const Filled filled(script.empty);
  const modes::ByAutograd by_autograd;
  const modes::Modes modes;
  const auto answer = script.forks ? run_in_order(script.module, std::move(arguments))
                                   : script.module.forward(std::move(arguments));
  auto reason = left_behind(modes, kept);
  if (reason.empty()) {
    reason = lent.take();
  }
  if (reason.empty()) {
    forget_history(script.held);
    collect(answer, sink_fn, sink);
  }
  return reason;
}

} // namespace

} // namespace lockstep::script::module

extern "C" {

char* lte_script_load(const char* path, int32_t device, lte_script** out) {
  return lockstep::guard([&] {
    auto module = torch::jit::load(std::string(path), lockstep::device_of(device));
    *out = new lte_script{std::move(module), {}, {}, {}, {}, {}};
  });
}

char* lte_script_load_bytes(const char* bytes, size_t size, int32_t device, lte_script** out) {
  return lockstep::guard([&] {
    auto module = torch::jit::load(std::make_shared<lockstep::script::module::Bytes>(bytes, size), lockstep::device_of(device));
    *out = new lte_script{std::move(module), {}, {}, {}, {}, {}};
  });
}

void lte_script_free(lte_script* script) {
  delete script;
}

char* lte_script_parameters(const lte_script* script, lte_push_tensor sink_fn, void* sink) {
  return lockstep::guard([&] {
    for (const auto& parameter : script->module.named_parameters(/*recurse=*/true)) {
      lockstep::push(sink_fn, sink, parameter.name, parameter.value);
    }
  });
}

char* lte_script_buffers(const lte_script* script, lte_push_tensor sink_fn, void* sink) {
  return lockstep::guard([&] {
    for (const auto& buffer : script->module.named_buffers(/*recurse=*/true)) {
      lockstep::push(sink_fn, sink, buffer.name, buffer.value);
    }
  });
}

// `*refused` is null, or an owned text with the change that is not allowed.
char* lte_script_forward(
    lte_script* script,
    const at::Tensor* const* inputs,
    size_t count,
    lte_push_tensor sink_fn,
    void* sink,
    char** refused) {
  *refused = nullptr;
  return lockstep::guard([&] {
    const auto reason = lockstep::script::module::run(*script, inputs, count, sink_fn, sink);
    if (!reason.empty()) {
      *refused = lockstep::owned_text(reason);
    }
  });
}

char* lte_script_train(lte_script* script, uint8_t on) {
  return lockstep::guard([&] { script->module.train(on != 0); });
}

char* lte_script_save(const lte_script* script, const char* path) {
  return lockstep::guard([&] { script->module.save(std::string(path)); });
}

} // extern "C"
