// The functions of a TCP connection that a group needs, as libtorch exports them.
#pragma once

#include <exception>
#include <string>

namespace gloo::transport::tcp {

// In gloo, `transport::Pair` is its first base, so that the address of one is the address of the other.
class Pair {
 public:
  // Fails whatever waits on this connection, now and later, and closes it. Returns the reason: this one, or that of
  // an earlier failure.
  std::exception_ptr signalExceptionExternal(const std::string& message);

  // Whether it is open: once it was, it is until the peer closes it, dies, or a failure is signalled.
  bool isConnected();
};

} // namespace gloo::transport::tcp
