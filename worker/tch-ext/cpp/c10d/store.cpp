// The key-value stores by which the members of a group find each other.
#include "group.h"

#include <cstring>

#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/HashStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using lockstep::classified;

extern "C" {

// A server on the listening socket `fd`, which it takes over, and its own client on `host`:`port`. c10d would listen
// on every interface; a socket of ours is bound to what the caller chose.
char* lte_store_serve(
    const char* host, uint16_t port, int32_t fd, int64_t timeout_ms, lte_store** out, int32_t* failure) {
  return classified(failure, [&] {
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
  return classified(failure, [&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.waitWorkers = false;
    options.timeout = std::chrono::milliseconds(timeout_ms);
    *out = new lte_store{c10::make_intrusive<c10d::TCPStore>(std::string(host), options)};
  });
}

char* lte_store_hash(int64_t timeout_ms, lte_store** out, int32_t* failure) {
  return classified(failure, [&] {
    auto store = c10::make_intrusive<c10d::HashStore>();
    store->setTimeout(std::chrono::milliseconds(timeout_ms));
    *out = new lte_store{store};
  });
}

char* lte_store_file(const char* path, int32_t members, int64_t timeout_ms, lte_store** out, int32_t* failure) {
  return classified(failure, [&] {
    auto store = c10::make_intrusive<c10d::FileStore>(std::string(path), members);
    store->setTimeout(std::chrono::milliseconds(timeout_ms));
    *out = new lte_store{store};
  });
}

char* lte_store_prefix(const lte_store* store, const char* prefix, lte_store** out, int32_t* failure) {
  return classified(failure, [&] {
    *out = new lte_store{c10::make_intrusive<c10d::PrefixStore>(std::string(prefix), store->store)};
  });
}

void lte_store_free(lte_store* store) {
  delete store;
}

char* lte_store_set(const lte_store* store, const char* key, const uint8_t* value, size_t length, int32_t* failure) {
  return classified(failure, [&] { store->store->set(key, std::vector<uint8_t>(value, value + length)); });
}

// Waits until the key is there. `*value` is freed with `lte_store_value_free`.
char* lte_store_get(
    const lte_store* store, const char* key, int64_t timeout_ms, uint8_t** value, size_t* length, int32_t* failure) {
  return classified(failure, [&] {
    store->store->wait({std::string(key)}, std::chrono::milliseconds(timeout_ms));
    const auto found = store->store->get(key);
    auto* copy = new uint8_t[found.size() + 1];
    std::memcpy(copy, found.data(), found.size());
    *value = copy;
    *length = found.size();
  });
}

void lte_store_value_free(uint8_t* value) {
  delete[] value;
}

} // extern "C"
