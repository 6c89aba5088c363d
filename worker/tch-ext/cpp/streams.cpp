// Streams of a device, through libtorch's interface for all kinds of devices: nothing here is specific to CUDA.
#include "shim.h"

#include <memory>

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

struct lte_mark {
  c10::Event event;
};

extern "C" {

// Gives this thread its own stream on `device`.
char* lte_stream_leave_default(int32_t device) {
  return lockstep::guard([&] {
    const auto on = lockstep::device_of(device);
    const c10::impl::VirtualGuardImpl streams(on.type());
    streams.exchangeStream(streams.getStreamFromGlobalPool(on, /*isHighPriority=*/true));
  });
}

// Creates a mark after the work that this thread's stream on `device` has been given so far.
char* lte_mark_new(int32_t device, lte_mark** out) {
  return lockstep::guard([&] {
    const auto on = lockstep::device_of(device);
    auto mark = std::make_unique<lte_mark>(lte_mark{c10::Event(on.type())});
    mark->event.record(c10::impl::VirtualGuardImpl(on.type()).getStream(on));
    *out = mark.release();
  });
}

// Makes later work of this thread's stream on `device` begin after the mark is reached.
char* lte_mark_wait(const lte_mark* mark, int32_t device) {
  return lockstep::guard([&] {
    const auto on = lockstep::device_of(device);
    mark->event.block(c10::impl::VirtualGuardImpl(on.type()).getStream(on));
  });
}

// Whether the mark is reached.
char* lte_mark_is_reached(const lte_mark* mark, uint8_t* reached) {
  return lockstep::guard([&] { *reached = mark->event.query() ? 1 : 0; });
}

// Waits until the mark is reached.
char* lte_mark_synchronize(const lte_mark* mark) {
  return lockstep::guard([&] { mark->event.synchronize(); });
}

void lte_mark_free(lte_mark* mark) {
  delete mark;
}

} // extern "C"
