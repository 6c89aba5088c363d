// The processor's float mode: rounding, flush-to-zero, denormals-are-zero. Each thread has its own, which it inherits from
// the thread that starts it; a library built with -ffast-math changes that of the thread that loads it.
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
// All exceptions masked, round to nearest, subnormal numbers as they are.
constexpr uint32_t default_mode = 0x1f80;
// What an operation leaves behind for whoever asks, which changes no result.
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

// Runs `call` in this thread and in each of the OpenMP threads that operators of this thread compute in.
void in_each_thread(void (*call)(void*), void* data) {
  call(data);
  // The pool belongs to the OpenMP library that libtorch brings, which this unit is not built against.
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

// Sets the default mode in this thread and in those that its operators compute in.
void lte_float_mode_set() {
  lockstep::float_mode::set();
}

// The default mode where all these threads have it, or the mode of one that has another.
uint32_t lte_float_mode_get(uint32_t* expected) {
  *expected = lockstep::float_mode::default_mode;
  return lockstep::float_mode::get();
}

} // extern "C"
