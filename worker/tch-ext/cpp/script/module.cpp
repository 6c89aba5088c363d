// TorchScript modules with what tch loses: true names, buffers, an error instead of a panic.
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

// Flattens what a model may answer: a tensor, or tuples and lists of them, in order.
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
    TORCH_CHECK(false, "`forward` answers a `", value.tagKind(), "`: let it answer one tensor, what the job's `model.output` names");
  }
}

// In which order the elements lie: the strides of each dimension that has more than one. Of a sparse tensor there are none.
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

// Lends `forward` a copy of each buffer that it assigns, and puts the registered tensor back afterwards: whoever holds that
// tensor sees what the module made of it, while the backward pass keeps the values that it saved.
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

  // Takes over what is there now. Nothing is taken, and the reason answered, if a buffer has another form.
  std::string take() {
    for (size_t i = 0; i < own_.size(); ++i) {
      const auto now = form_of(slots_[i].value()), before = form_of(own_[i]);
      if (now != before || slots_[i].value().toTensor().layout() != own_[i].layout()) {
        return c10::str("`forward` made the buffer `", slots_[i].name, "` ", now, ", and it is ", before,
            ": a buffer keeps its type and shape");
      }
      if (order_of(slots_[i].value().toTensor()) != order_[i]) {
        return c10::str("`forward` made the buffer `", slots_[i].name, "` lie otherwise in memory, with strides ",
            slots_[i].value().toTensor().strides(), ": a buffer keeps its strides, which no checkpoint holds");
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
  // What is there now is copied, and would not change with the other tensor from then on, as it does in PyTorch.
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
  // Of what was lent.
  std::vector<std::vector<int64_t>> order_;
};

// New memory has the same contents in every run, where the run asks for deterministic operators: for a module that takes memory as
// it is. What it writes first and reads then has the same bits as ever.
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

// A file that was read already, which its owner keeps until the module is loaded.
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

// What `forward` changed beside parameters and buffers, in words.
std::string left_behind(const modes::Modes& modes, const modes::Kept& kept) {
  if (const auto mode = modes.changed(); !mode.empty()) {
    modes.restore();
    return c10::str("`forward` changes ", mode, " for whatever runs next: put it back before it returns");
  }
  if (const auto name = kept.changed(); !name.empty()) {
    const auto what = name == constant_name ? "a tensor that is part of its code"
                                                      : "the attribute `" + name + "`";
    return c10::str("`forward` changed ", what, ", and checkpoints do not hold it: register it as a buffer "
        "(`register_buffer`)");
  }
  return {};
}

// The next pass begins without this one's history of gradients, which no checkpoint holds; within a pass it counts. (libtorch's
// executor says that some results have a history although they were detached, so that it is no mistake of the module's.)
void forget_history(const std::vector<at::Tensor>& tensors) {
  for (const auto& tensor : tensors) {
    if (tensor.requires_grad() && !tensor.is_leaf()) {
      tensor.detach_();
    }
  }
}

// Tasks that the module starts run where they are started: one thread, one order of draws and gradients.
c10::IValue run_in_order(torch::jit::Module& module, std::vector<c10::IValue> arguments) {
  const auto launch = [](std::function<void()> task) { task(); };
  const auto future = module.get_method("forward").run_async(std::move(arguments), {}, launch);
  future->waitAndThrow();
  return future->value();
}

// Pushes what `forward` answers; or the reason, if it changed what it must not.
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

// `*refused` is null, or an owned text that says what `forward` made of a buffer.
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
