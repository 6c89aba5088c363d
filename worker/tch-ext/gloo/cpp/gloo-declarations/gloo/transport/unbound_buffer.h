#pragma once

namespace gloo::transport {

// Destroyed through its virtual destructor only, as `std::unique_ptr` does.
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

} // namespace gloo::transport
