// When libtorch's CUDA libraries are loaded, and what is reached through them. They take longer to load than all else that
// a process does before it trains, so a machine without a driver goes without.
#include "cuda.h"
#include "cuda/half.h"

#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ATen/Version.h>

#ifdef LOCKSTEP_CUDA

extern "C" {
// The library of `cuda/`, inside this program.
extern const char lockstep_cuda_image[];
extern const char lockstep_cuda_image_end[];
}

namespace lockstep::cuda {

namespace {

// Whether this machine has a driver: CUDA's own runtime looks for the same file.
bool has_driver() {
  static const bool found = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) != nullptr;
  return found;
}

void* load(const char* library) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
  TORCH_CHECK(handle != nullptr, "libtorch's CUDA libraries cannot be loaded: ", dlerror());
  return handle;
}

// Where libtorch's libraries lie.
std::string torch_folder() {
  Dl_info found{};
  dladdr(reinterpret_cast<const void*>(&at::show_config), &found);
  const std::string path = found.dli_fname != nullptr ? found.dli_fname : "";
  return path.substr(0, path.rfind('/') + 1);
}

// Before `main`: libtorch asks for its CUDA libraries once, at its first use of any device, and keeps the answer. What goes
// wrong is said again, and heard, when a device is used.
__attribute__((constructor)) void load_where_a_driver_is() {
  if (has_driver()) {
    // By its place: the loader would look it up for whoever calls, and that is the loader itself.
    dlopen((torch_folder() + "libtorch_cuda.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  }
}

// The loader takes files only, so the image becomes one that has no name.
const Half& load_half() {
  const auto size = static_cast<size_t>(lockstep_cuda_image_end - lockstep_cuda_image);
  const int file = memfd_create("lockstep-cuda", MFD_CLOEXEC);
  TORCH_CHECK(file >= 0, "no memory file for the part of this program that uses CUDA");
  for (size_t done = 0; done < size;) {
    const auto wrote = write(file, lockstep_cuda_image + done, size - done);
    TORCH_CHECK(wrote > 0, "no memory for the part of this program that uses CUDA");
    done += static_cast<size_t>(wrote);
  }
  void* handle = load(("/proc/self/fd/" + std::to_string(file)).c_str());
  close(file);
  const auto* half = static_cast<const Half*>(dlsym(handle, "lockstep_cuda_half"));
  TORCH_CHECK(half != nullptr, "the part of this program that uses CUDA is not of its build");
  return *half;
}

const Half& half() {
  static const Half& half = load_half();
  return half;
}

} // namespace

void describe(const std::function<void(std::string_view, std::string_view)>& put) {
  if (has_driver()) {
    half().describe(put);
  }
}

std::unique_ptr<Group> make_nccl(
    const c10::intrusive_ptr<c10d::Store>& store,
    int rank,
    int size,
    int device,
    std::chrono::milliseconds timeout) {
  return half().make_nccl(store, rank, size, device, timeout);
}

} // namespace lockstep::cuda

#else

namespace lockstep::cuda {

void describe(const std::function<void(std::string_view, std::string_view)>&) {}

std::unique_ptr<Group> make_nccl(
    const c10::intrusive_ptr<c10d::Store>&, int, int, int, std::chrono::milliseconds) {
  TORCH_CHECK(false, "this libtorch was built without CUDA, and NCCL comes with it");
}

} // namespace lockstep::cuda

#endif
