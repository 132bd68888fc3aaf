// A libcuda.so.1 without a GPU: as much of the CUDA driver API as bnfold, cuda.core and cuda.bindings call.
//
// Device memory is the process's own, streams run at once, and kernels run in the emulator: a "cubin" is the text
// "emulated:" followed by the path of an emulated kernel library. The environment says what is to be wrong:
// FAKE_CUDA_INIT (what cuInit returns), FAKE_CUDA_VERSION, FAKE_CUDA_DEVICES, FAKE_CUDA_CAPABILITY, FAKE_CUDA_BYTES.
// FAKE_CUDA_LOG names a file that every function asked for and not known here is written to.

#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace {

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, NOT_FOUND = 500,
              LAUNCH_FAILED = 719 };

struct EmulatedLaunch {
  std::uint64_t blocks, threads, cluster, shared_bytes, order, seed;
};

struct Library {
  void* handle;
};

struct Kernel {
  int (*launch)(const EmulatedLaunch*, void**);
  const char* (*error)();
  std::uint64_t arguments;
  unsigned shared_limit = 48 * 1024;
};

// cuda.h: CUlaunchConfig and CUlaunchAttribute.
struct LaunchAttribute {
  int id;
  char pad[4];
  unsigned value[16];
};
struct LaunchConfig {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  LaunchAttribute* attributes;
  unsigned count;
};
constexpr int CLUSTER_DIMENSION = 4;

int setting(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

int primary_context;
thread_local void* stack_of_contexts[64];
thread_local int depth = 0;
std::mutex guard;
std::map<void*, std::size_t> allocations;
std::size_t allocated = 0;
unsigned largest_cluster = 0;

std::size_t memory_bytes() { return static_cast<std::size_t>(setting("FAKE_CUDA_BYTES", 1 << 30)); }

}  // namespace

extern "C" {

int cuInit(unsigned) { return setting("FAKE_CUDA_INIT", SUCCESS); }

int cuDriverGetVersion(int* version) {
  *version = setting("FAKE_CUDA_VERSION", 13000);
  return SUCCESS;
}

int cuGetErrorName(int error, const char** name) {
  *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == NO_DEVICE   ? "CUDA_ERROR_NO_DEVICE"
          : error == 999         ? "CUDA_ERROR_UNKNOWN"
                                 : nullptr;
  return *name ? SUCCESS : INVALID_VALUE;
}
int cuGetErrorString(int, const char** text) {
  *text = "what the fake driver reports";
  return SUCCESS;
}

int cuDeviceGetCount(int* count) {
  *count = setting("FAKE_CUDA_DEVICES", 1);
  return SUCCESS;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < setting("FAKE_CUDA_DEVICES", 1) ? SUCCESS : 101;
}
int cuDeviceGetName(char* name, int bytes, int) {
  std::snprintf(name, static_cast<std::size_t>(bytes), "Fake GPU");
  return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const int capability = setting("FAKE_CUDA_CAPABILITY", 90);
  switch (attribute) {
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 16: *value = 4; break;  // multiprocessors
    case 97: *value = capability >= 90 ? 232448 : 101376; break;  // shared memory per block, on demand
    default: *value = 1;
  }
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
  *context = &primary_context;
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease(int) { return SUCCESS; }
int cuCtxGetCurrent(void** context) {
  *context = depth ? stack_of_contexts[depth - 1] : nullptr;
  return SUCCESS;
}
int cuCtxSetCurrent(void* context) {
  stack_of_contexts[depth ? depth - 1 : depth++] = context;
  return SUCCESS;
}
int cuCtxPushCurrent(void* context) {
  stack_of_contexts[depth++] = context;
  return SUCCESS;
}
int cuCtxPopCurrent(void** context) {
  if (!depth) return INVALID_CONTEXT;
  *context = stack_of_contexts[--depth];
  return SUCCESS;
}
int cuCtxGetDevice(int* device) {
  *device = 0;
  return depth ? SUCCESS : INVALID_CONTEXT;
}
int cuStreamGetCtx(void*, void** context) { return cuCtxGetCurrent(context); }
int cuStreamSynchronize(void*) { return depth ? SUCCESS : INVALID_CONTEXT; }

int cuMemGetInfo(std::size_t* free, std::size_t* total) {
  *total = memory_bytes();
  *free = *total - allocated;
  return SUCCESS;
}
int cuMemAllocAsync(void** address, std::size_t bytes, void*) {
  if (!depth) return INVALID_CONTEXT;
  const std::lock_guard<std::mutex> lock(guard);
  if (allocated + bytes > memory_bytes()) return OUT_OF_MEMORY;
  *address = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(*address, 0xff, bytes);
  allocations[*address] = bytes;
  allocated += bytes;
  return SUCCESS;
}
int cuMemFreeAsync(void* address, void*) {
  const std::lock_guard<std::mutex> lock(guard);
  const auto found = allocations.find(address);
  if (found == allocations.end()) return INVALID_VALUE;
  allocated -= found->second;
  std::memset(address, 0xff, found->second);
  std::free(address);
  allocations.erase(found);
  return SUCCESS;
}
int cuMemsetD8Async(void* to, unsigned char value, std::size_t bytes, void*) {
  std::memset(to, value, bytes);
  return SUCCESS;
}
int cuMemcpyHtoDAsync(void* to, const void* from, std::size_t bytes, void*) {
  std::memcpy(to, from, bytes);
  return SUCCESS;
}
int cuMemcpyDtoHAsync(void* to, const void* from, std::size_t bytes, void*) {
  std::memcpy(to, from, bytes);
  return SUCCESS;
}
// For the tests: bytes of device memory that are taken, contexts that are pushed, the largest cluster launched.
std::size_t fake_allocated() { return allocated; }
int fake_depth() { return depth; }
unsigned fake_cluster() { return largest_cluster; }

int cuPointerGetAttribute(void* value, int attribute, void*) {
  // CU_POINTER_ATTRIBUTE_MEMORY_TYPE is the device's; every other one of an int is the device 0.
  *static_cast<unsigned*>(value) = attribute == 2 ? 2 : 0;
  return SUCCESS;
}

int cuPointerGetAttributes(unsigned count, const int* attributes, void** values, void* address) {
  for (unsigned i = 0; i < count; ++i) cuPointerGetAttribute(values[i], attributes[i], address);
  return SUCCESS;
}

int cuLibraryLoadData(void** library, const void* code, void*, void*, unsigned, void*, void*, unsigned) {
  const std::string text(static_cast<const char*>(code));
  const std::string mark = "emulated:";
  if (text.compare(0, mark.size(), mark) != 0) return 200;
  void* handle = dlopen(text.c_str() + mark.size(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return 200;
  *library = new Library{handle};
  return SUCCESS;
}
int cuLibraryUnload(void*) { return SUCCESS; }
int cuLibraryGetKernel(void** kernel, void* library, const char* name) {
  void* handle = static_cast<Library*>(library)->handle;
  const std::string symbol = name;
  auto launch = reinterpret_cast<int (*)(const EmulatedLaunch*, void**)>(dlsym(handle, ("launch_" + symbol).c_str()));
  auto arguments = reinterpret_cast<std::uint64_t (*)()>(dlsym(handle, ("arguments_" + symbol).c_str()));
  if (!launch) return NOT_FOUND;
  *kernel = new Kernel{launch, reinterpret_cast<const char* (*)()>(dlsym(handle, "emulator_error")), arguments()};
  return SUCCESS;
}
int cuKernelSetAttribute(int attribute, int value, void* kernel, int) {
  if (attribute == 8) static_cast<Kernel*>(kernel)->shared_limit = static_cast<unsigned>(value);
  return SUCCESS;
}
int cuKernelGetParamInfo(void* kernel, std::size_t index, std::size_t* offset, std::size_t* bytes) {
  if (index >= static_cast<Kernel*>(kernel)->arguments) return INVALID_VALUE;
  *offset = index * 8;
  *bytes = 8;
  return SUCCESS;
}

int cuLaunchKernelEx(const LaunchConfig* config, void* function, void** values, void**) {
  Kernel& kernel = *static_cast<Kernel*>(function);
  if (!depth) return INVALID_CONTEXT;
  unsigned cluster = 1;
  for (unsigned i = 0; i < config->count; ++i) {
    if (config->attributes[i].id == CLUSTER_DIMENSION) cluster = config->attributes[i].value[0];
  }
  if (config->grid[0] % cluster || config->shared_bytes > kernel.shared_limit || cluster > 8) return INVALID_VALUE;
  if (config->grid[1] != 1 || config->grid[2] != 1 || config->block[1] != 1 || config->block[2] != 1) return INVALID_VALUE;
  largest_cluster = std::max(largest_cluster, cluster);
  const EmulatedLaunch shape = {config->grid[0], config->block[0], cluster, config->shared_bytes, 2, 1};
  const std::lock_guard<std::mutex> lock(guard);
  if (kernel.launch(&shape, values) == 0) return SUCCESS;
  std::fprintf(stderr, "fake driver: %s\n", kernel.error());
  return LAUNCH_FAILED;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** values, void** extra) {
  const LaunchConfig config = {{gx, gy, gz}, {bx, by, bz}, shared, stream, nullptr, 0};
  return cuLaunchKernelEx(&config, function, values, extra);
}

int cuGetProcAddress_v2(const char* symbol, void** function, int, std::uint64_t, int* status) {
  *function = dlsym(RTLD_DEFAULT, symbol);
  Dl_info info, own;
  // Only what this library defines.
  if (*function && !(dladdr(*function, &info) && dladdr(reinterpret_cast<void*>(cuInit), &own) &&
                     info.dli_fbase == own.dli_fbase)) {
    *function = nullptr;
  }
  if (!*function) {
    if (const char* path = std::getenv("FAKE_CUDA_LOG")) {
      if (std::FILE* log = std::fopen(path, "a")) std::fprintf(log, "%s\n", symbol), std::fclose(log);
    }
  }
  if (status) *status = *function ? 0 : 1;
  return *function ? SUCCESS : NOT_FOUND;
}
int cuGetProcAddress(const char* symbol, void** function, int version, std::uint64_t flags) {
  return cuGetProcAddress_v2(symbol, function, version, flags, nullptr);
}

}  // extern "C"
