// Shared by all files of the shim: how errors, names, texts and tensors are passed to Rust.
//
// No exception crosses into Rust. Each entry point runs its body in `guard`, which returns null for success, and otherwise an owned text
// that Rust frees with `lte_text_free`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

extern "C" {
// Called once per named tensor; Rust takes ownership of `tensor`.
using lte_push_tensor = void (*)(void* sink, const char* name, size_t length, at::Tensor* tensor);
// Called once per named text; Rust copies both.
using lte_push_text = void (*)(void* sink, const char* name, size_t length, const char* text, size_t text_length);

// Frees a text of `owned_text`.
void lte_text_free(char* text);
}

namespace lockstep {

// An owned copy of `text` for Rust. If it cannot be allocated, a static text that `lte_text_free` recognises.
char* owned_text(std::string_view text) noexcept;

template <class Body>
char* guard(Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const c10::Error& error) {
    return owned_text(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return owned_text(error.what());
  } catch (...) {
    return owned_text("an exception of an unknown type");
  }
}

inline void push(lte_push_text sink_fn, void* sink, std::string_view name, std::string_view text) {
  sink_fn(sink, name.data(), name.size(), text.data(), text.size());
}

inline void push(lte_push_tensor sink_fn, void* sink, std::string_view name, const at::Tensor& tensor) {
  sink_fn(sink, name.data(), name.size(), new at::Tensor(tensor));
}

// The device with the number `index`: -1 is the CPU, `i >= 0` is CUDA device `i`.
at::Device device_of(int32_t index);

} // namespace lockstep
