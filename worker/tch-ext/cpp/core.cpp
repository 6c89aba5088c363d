// Texts, generator states, allocator statistics and raw bytes: the small entry points.
#include "shim.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <mutex>

#include <unistd.h>

#include <ATen/Context.h>
#include <ATen/core/Generator.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace lockstep::core {

namespace {

char no_memory[] = "out of memory while reporting an error";

} // namespace

} // namespace lockstep::core

namespace lockstep {

char* owned_text(std::string_view text) noexcept {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) {
    return core::no_memory;
  }
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  return copy;
}

at::Device device_of(int32_t index) {
  return index < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<at::DeviceIndex>(index));
}

} // namespace lockstep

extern "C" {

// Ends the process without the static destructors of its libraries. These would flush the standard streams, so that is done here.
[[noreturn]] void lte_leave(int32_t code) {
  std::cout.flush();
  std::cerr.flush();
  std::clog.flush();
  std::wcout.flush();
  std::wcerr.flush();
  std::wclog.flush();
  std::fflush(nullptr);
  ::_exit(code);
}

void lte_text_free(char* text) {
  if (text != lockstep::core::no_memory) {
    std::free(text);
  }
}

// The state of the default generator of `device`, as a byte tensor on the CPU.
char* lte_generator_get(int32_t device, at::Tensor** out) {
  return lockstep::guard([&] {
    auto generator = at::globalContext().defaultGenerator(lockstep::device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    *out = new at::Tensor(generator.get_state());
  });
}

// The caller has checked that `length` is the length of a state of `lte_generator_get`.
char* lte_generator_set(int32_t device, const uint8_t* bytes, size_t length) {
  return lockstep::guard([&] {
    auto state = at::empty({static_cast<int64_t>(length)}, at::kByte);
    std::memcpy(state.mutable_data_ptr<uint8_t>(), bytes, length);
    auto generator = at::globalContext().defaultGenerator(lockstep::device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_state(state);
  });
}

char* lte_generator_seed(int32_t device, uint64_t seed) {
  return lockstep::guard([&] {
    auto generator = at::globalContext().defaultGenerator(lockstep::device_of(device));
    std::lock_guard<std::mutex> lock(generator.mutex());
    generator.set_current_seed(seed);
  });
}

struct lte_allocator_stats {
  int64_t allocated, reserved, active, peak_allocated, peak_reserved, retries, ooms;
};

// `*found` is 0 if the process has no CUDA device `device`; CUDA is not initialised then.
char* lte_allocator_stats_get(int32_t device, lte_allocator_stats* out, int32_t* found) {
  return lockstep::guard([&] {
    *found = 0;
    if (!at::hasCUDA() || device < 0 || device >= static_cast<int32_t>(at::detail::getCUDAHooks().getNumGPUs())) {
      return;
    }
    at::globalContext().lazyInitDevice(at::kCUDA);
    const auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    *out = {
        stats.allocated_bytes[all].current,
        stats.reserved_bytes[all].current,
        stats.active_bytes[all].current,
        stats.allocated_bytes[all].peak,
        stats.reserved_bytes[all].peak,
        stats.num_alloc_retries,
        stats.num_ooms,
    };
    *found = 1;
  });
}

// The bytes of a dense CPU tensor in row-major order. `*kind`: 0 success, 1 not a dense CPU tensor, 2 not contiguous.
char* lte_cpu_bytes(const at::Tensor* tensor, uint8_t** data, size_t* length, int32_t* kind) {
  return lockstep::guard([&] {
    *data = nullptr;
    *length = 0;
    *kind = 0;
    if (!tensor->defined() || !tensor->device().is_cpu() || tensor->layout() != at::kStrided) {
      *kind = 1;
      return;
    }
    if (!tensor->is_contiguous()) {
      *kind = 2;
      return;
    }
    *length = tensor->nbytes();
    // `mutable_data_ptr` materialises a copy-on-write storage, so that Rust gets the tensor's own memory.
    *data = static_cast<uint8_t*>(tensor->mutable_data_ptr());
  });
}

// Whether a tensor is fully described by one strided memory of plain elements.
uint8_t lte_is_plain(const at::Tensor* tensor) {
  return tensor->defined() && tensor->layout() == at::kStrided && tensor->has_storage() && !tensor->is_quantized() &&
      !tensor->is_neg() && !tensor->is_conj();
}

// `out[i]` changes if any property of tensor `i` but its elements changes: type, shape, strides, offset in its memory, whether it requires
// gradients, and whether it is a leaf.
char* lte_forms(const at::Tensor* const* tensors, size_t count, uint64_t* out) {
  return lockstep::guard([&] {
    for (size_t i = 0; i < count; ++i) {
      const at::Tensor& tensor = *tensors[i];
      uint64_t form = 0xcbf29ce484222325;
      const auto mix = [&form](int64_t word) { form = (form ^ static_cast<uint64_t>(word)) * 0x100000001b3; };
      mix(static_cast<int64_t>(tensor.scalar_type()));
      mix(static_cast<int64_t>(tensor.layout()));
      mix(tensor.requires_grad() ? 2 : 1);
      mix(tensor.is_leaf() ? 2 : 1);
      mix(tensor.is_neg() ? 2 : 1);
      mix(tensor.is_conj() ? 2 : 1);
      mix(tensor.dim());
      for (const auto size : tensor.sizes()) {
        mix(size);
      }
      if (tensor.layout() == at::kStrided) {
        mix(tensor.storage_offset());
        for (const auto stride : tensor.strides()) {
          mix(stride);
        }
      }
      out[i] = form;
    }
  });
}

uint8_t lte_is_same(const at::Tensor* one, const at::Tensor* other) {
  return one->is_same(*other);
}

// A tensor over the bytes of another owner. `drop(holder)` is called when the last reference is gone; not if this call fails.
char* lte_tensor_over(uint8_t* data, size_t length, void* holder, void (*drop)(void*), at::Tensor** out) {
  return lockstep::guard([&] {
    auto deleter = [holder, drop](void*) { drop(holder); };
    const auto bytes = static_cast<int64_t>(length);
    *out = new at::Tensor(at::from_blob(data, {bytes}, deleter, at::TensorOptions(at::kByte)));
  });
}

} // extern "C"
