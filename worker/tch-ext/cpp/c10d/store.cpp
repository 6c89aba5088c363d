// The key-value store by which the members of a group find each other.
#include "group.h"

#include <torch/csrc/distributed/c10d/TCPStore.hpp>

extern "C" {

// A server on the listening socket `fd`, whose ownership it takes, and a client of it on `host`:`port`. Without the socket, c10d would
// listen on every interface; this socket is bound to the caller's address.
char* lte_store_serve(
    const char* host, uint16_t port, int32_t fd, int64_t timeout_ms, lte_store** out, int32_t* failure) {
  return lockstep::classified(failure, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = true;
    options.waitWorkers = false;
    options.masterListenFd = fd;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new lte_store{c10::make_intrusive<c10d::TCPStore>(std::string(host), options)};
  });
}

char* lte_store_connect(const char* host, uint16_t port, int64_t timeout_ms, lte_store** out, int32_t* failure) {
  return lockstep::classified(failure, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new lte_store{c10::make_intrusive<c10d::TCPStore>(std::string(host), options)};
  });
}

void lte_store_free(lte_store* store) {
  delete store;
}

} // extern "C"
