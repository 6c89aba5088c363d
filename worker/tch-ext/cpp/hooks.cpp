// Gradient-ready hooks: a Rust callback on a tensor, called when its gradient has been computed.
#include "shim.h"

#include <memory>
#include <stdexcept>

extern "C" {

// Answers null, or a text made by `lte_text_new` when the callback panicked.
using lte_hook_call = char* (*)(void* callback, const at::Tensor* grad);
using lte_hook_drop = void (*)(void* callback);

// An owned text with the bytes given, for a callback that reports a failure.
char* lte_text_new(const char* start, size_t length) {
  return lockstep::owned_text({start, length});
}

// Takes over `callback`, which `drop` frees when the hook is removed or the tensor goes, also if this call fails.
char* lte_hook_add(
    const at::Tensor* tensor,
    void* callback,
    lte_hook_call call,
    lte_hook_drop drop,
    uint32_t* position) {
  return lockstep::guard([&] {
    const std::shared_ptr<void> owned(callback, drop);
    *position = tensor->register_hook([owned, call](const at::TensorBase& grad) {
      const at::Tensor seen(grad);
      if (char* message = call(owned.get(), &seen)) {
        const std::string text(message);
        lte_text_free(message);
        // Leaves the backward pass as an error of whoever started it.
        throw std::runtime_error(text);
      }
    });
  });
}

char* lte_hook_remove(const at::Tensor* tensor, uint32_t position) {
  return lockstep::guard([&] { tensor->remove_hook(position); });
}

} // extern "C"
