// Autocast. tch supports it only for CUDA and half precision.
#include "shim.h"

#include <ATen/autocast_mode.h>

extern "C" {

// The settings that `lte_autocast_leave` restores.
struct lte_autocast {
  uint8_t enabled;
  int8_t dtype;
};

char* lte_autocast_enter(int32_t device, lte_autocast* before) {
  return lockstep::guard([&] {
    const auto type = lockstep::device_of(device).type();
    before->enabled = at::autocast::is_autocast_enabled(type) ? 1 : 0;
    before->dtype = static_cast<int8_t>(at::autocast::get_autocast_dtype(type));
    at::autocast::set_autocast_dtype(type, at::kBFloat16);
    at::autocast::set_autocast_enabled(type, true);
    at::autocast::increment_nesting();
  });
}

char* lte_autocast_leave(int32_t device, const lte_autocast* before) {
  return lockstep::guard([&] {
    const auto type = lockstep::device_of(device).type();
    // The cache has casts of weights, which would be outdated after an optimizer step.
    if (at::autocast::decrement_nesting() == 0) {
      at::autocast::clear_cache();
    }
    at::autocast::set_autocast_enabled(type, before->enabled != 0);
    at::autocast::set_autocast_dtype(type, static_cast<at::ScalarType>(before->dtype));
  });
}

} // extern "C"
