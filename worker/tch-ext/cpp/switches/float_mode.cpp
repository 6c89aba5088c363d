// The processor's floating-point mode: rounding, flush-to-zero, denormals-are-zero. Each thread has its own mode, which it inherits from
// the thread that starts it. A library built with -ffast-math changes the mode of the thread that loads it.
#include "shim.h"

#include <atomic>

#include <ATen/Parallel.h>
#include <dlfcn.h>
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace lockstep::float_mode {

namespace {

#ifdef __x86_64__
// All exceptions masked, round to nearest, subnormal numbers kept.
constexpr uint32_t default_mode = 0x1f80;
// Status flags, which operations set and which do not change results.
constexpr uint32_t sticky = 0x3f;

uint32_t read_mode() {
  return _mm_getcsr() & ~sticky;
}

void write_mode() {
  _mm_setcsr(default_mode);
}
#else
constexpr uint32_t default_mode = 0;

uint32_t read_mode() {
  return default_mode;
}

void write_mode() {}
#endif

// Runs `call` in this thread, and in each of the OpenMP threads in which operators of this thread compute.
void in_each_thread(void (*call)(void*), void* data) {
  call(data);
  // The threads belong to libtorch's copy of the OpenMP library, with which this code is not linked.
  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  const int threads = at::get_num_threads();
  if (parallel != nullptr && threads > 1) {
    parallel(call, data, static_cast<unsigned>(threads), 0);
  }
}

void set() {
  in_each_thread([](void*) { write_mode(); }, nullptr);
}

uint32_t get() {
  std::atomic<uint32_t> found{default_mode};
  in_each_thread(
      [](void* data) {
        const uint32_t mode = read_mode();
        if (mode != default_mode) {
          static_cast<std::atomic<uint32_t>*>(data)->store(mode);
        }
      },
      &found);
  return found.load();
}

} // namespace

} // namespace lockstep::float_mode

extern "C" {

// Sets the default mode in this thread and in the threads in which its operators compute.
void lte_float_mode_set() {
  lockstep::float_mode::set();
}

// The default mode if all these threads have it, or else the mode of a thread that differs.
uint32_t lte_float_mode_get(uint32_t* expected) {
  *expected = lockstep::float_mode::default_mode;
  return lockstep::float_mode::get();
}

} // extern "C"
