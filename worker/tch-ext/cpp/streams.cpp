// Streams of a device, by libtorch's interface that all kinds of devices share: nothing here is CUDA's own.
#include "shim.h"

#include <memory>

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

struct lte_mark {
  c10::Event event;
};

extern "C" {

// What this thread computes on `device` goes to a stream of its own from now on.
char* lte_stream_leave_default(int32_t device) {
  return lockstep::guard([&] {
    const auto on = lockstep::device_of(device);
    const c10::impl::VirtualGuardImpl streams(on.type());
    streams.exchangeStream(streams.getStreamFromGlobalPool(on, /*isHighPriority=*/true));
  });
}

// Marks what this thread's stream on `device` has been given until now.
char* lte_mark_new(int32_t device, lte_mark** out) {
  return lockstep::guard([&] {
    const auto on = lockstep::device_of(device);
    auto mark = std::make_unique<lte_mark>(lte_mark{c10::Event(on.type())});
    mark->event.record(c10::impl::VirtualGuardImpl(on.type()).getStream(on));
    *out = mark.release();
  });
}

// What this thread's stream on `device` is given from now on begins when all before the mark is done.
char* lte_mark_wait(const lte_mark* mark, int32_t device) {
  return lockstep::guard([&] {
    const auto on = lockstep::device_of(device);
    mark->event.block(c10::impl::VirtualGuardImpl(on.type()).getStream(on));
  });
}

// Whether all before the mark is done.
char* lte_mark_is_reached(const lte_mark* mark, uint8_t* reached) {
  return lockstep::guard([&] { *reached = mark->event.query() ? 1 : 0; });
}

// Returns when all before the mark is done.
char* lte_mark_synchronize(const lte_mark* mark) {
  return lockstep::guard([&] { mark->event.synchronize(); });
}

void lte_mark_free(lte_mark* mark) {
  delete mark;
}

} // extern "C"
