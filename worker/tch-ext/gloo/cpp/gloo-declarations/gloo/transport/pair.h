// The functions of a TCP connection that a group needs, as libtorch exports them.
#pragma once

#include <exception>
#include <string>

namespace gloo::transport::tcp {

// In gloo, `transport::Pair` is its first base class, so both have the same address.
class Pair {
 public:
  // Makes all waiting and later operations on this connection fail, and closes it. Returns the reason: this one, or that of an earlier
  // failure.
  std::exception_ptr signalExceptionExternal(const std::string& message);

  // Whether the connection is open: false before it is opened, and after the peer has closed it or died, or a failure was signalled.
  bool isConnected();
};

} // namespace gloo::transport::tcp
