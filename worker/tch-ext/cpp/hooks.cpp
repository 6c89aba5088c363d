// Gradient hooks: a Rust callback that is called when the gradient of a tensor has been computed.
#include "shim.h"

#include <memory>
#include <stdexcept>

extern "C" {

// Returns null, or a text of `lte_text_new` if the callback panicked.
using lte_hook_call = char* (*)(void* callback, const at::Tensor* grad);
using lte_hook_drop = void (*)(void* callback);

// An owned text with the given bytes, for a callback that reports a failure.
char* lte_text_new(const char* start, size_t length) {
  return lockstep::owned_text({start, length});
}

// Takes ownership of `callback`. `drop` frees it when the hook is removed or the tensor is freed, also if this call fails.
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
        // Ends the backward pass; its caller gets the exception.
        throw std::runtime_error(text);
      }
    });
  });
}

char* lte_hook_remove(const at::Tensor* tensor, uint32_t position) {
  return lockstep::guard([&] { tensor->remove_hook(position); });
}

} // extern "C"
