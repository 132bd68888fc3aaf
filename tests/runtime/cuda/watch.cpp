// See watch.hpp.

#include "watch.hpp"

#include <map>
#include <vector>

// The linker's bounds of this library: thread indices and constants are in it.
extern "C" __attribute__((visibility("hidden"))) const unsigned char __ehdr_start[], _end[];

namespace emulator::watch {

namespace {

struct Mark {
  std::uint64_t launch = 0;
  Where who = {};
};

// What is known of a byte.
struct Byte {
  bool written = false;
  bool shared_reading = false;  // more than one thread read it since `read`
  Mark write, read;
};

struct Region {
  std::size_t bytes;
  Kind kind;
  std::vector<Byte> state;
};

std::map<const unsigned char*, Region> regions;
std::uint64_t launches = 0;
bool instrumented = false;

// Whether no barrier lies between an access and now.
bool concurrent(const Mark& mark, const Where& now) {
  if (mark.launch != launches) return false;
  if (mark.who.block != now.block) return mark.who.cluster_epoch == now.cluster_epoch;
  return mark.who.thread != now.thread && mark.who.block_epoch == now.block_epoch;
}

}  // namespace

void add(const void* memory, std::size_t bytes, Kind kind) {
  std::vector<Byte> state(kind == CONSTANT ? 0 : bytes);
  regions[static_cast<const unsigned char*>(memory)] = {bytes, kind, std::move(state)};
}

void remove(const void* memory) { regions.erase(static_cast<const unsigned char*>(memory)); }

void forget(const void* memory) {
  Region& region = regions.at(static_cast<const unsigned char*>(memory));
  region.state.assign(region.bytes, {});
}

void start() { ++launches; }

void enable() { instrumented = true; }

void touch(const void* address, std::size_t bytes, bool writes) {
  const unsigned char* at = static_cast<const unsigned char*>(address);
  if (!instrumented || !running() || own_stack(at) || (at >= __ehdr_start && at < _end)) return;
  auto after = regions.upper_bound(at);
  if (after == regions.begin()) return report("access outside of every buffer");
  auto& [begin, region] = *--after;
  const std::size_t offset = static_cast<std::size_t>(at - begin);
  const std::string what = writes ? "write" : "read";
  if (offset + bytes > region.bytes) {
    return report("out of bounds: " + what + " of " + std::to_string(bytes) + " bytes at " + std::to_string(offset) +
                  " of a buffer of " + std::to_string(region.bytes));
  }
  if (region.kind == CONSTANT) {
    if (writes) report("write to an input");
    return;
  }
  const Where now = here();
  for (std::size_t i = offset; i < offset + bytes; ++i) {
    Byte& byte = region.state[i];
    const std::string place = " of byte " + std::to_string(i) + (region.kind == SHARED ? " of shared memory" : "");
    if (concurrent(byte.write, now)) return report("race: " + what + place + " that another thread writes");
    if (writes) {
      const bool read = byte.read.launch == launches && byte.shared_reading
                            ? byte.read.who.block != now.block ? byte.read.who.cluster_epoch == now.cluster_epoch
                                                               : byte.read.who.block_epoch == now.block_epoch
                            : concurrent(byte.read, now);
      if (read) return report("race: write" + place + " that another thread reads");
      byte.written = true;
      byte.write = {launches, now};
    } else {
      if (!byte.written) return report("read" + place + " that nothing has written");
      byte.shared_reading = concurrent(byte.read, now);
      byte.read = {launches, now};
    }
  }
  pause();
}

}  // namespace emulator::watch

using emulator::watch::touch;

// Arguments of the launch: inputs are CONSTANT, what kernels may write is OUTPUT.
extern "C" void watch_add(const void* memory, std::uint64_t bytes, std::uint64_t kind) {
  emulator::watch::add(memory, bytes, static_cast<emulator::watch::Kind>(kind));
}
extern "C" void watch_remove(const void* memory) { emulator::watch::remove(memory); }

// What -fsanitize=thread calls.
extern "C" {
void __tsan_init() { emulator::watch::enable(); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define ACCESS(bytes)                                                         \
  void __tsan_read##bytes(void* at) { touch(at, bytes, false); }              \
  void __tsan_write##bytes(void* at) { touch(at, bytes, true); }              \
  void __tsan_unaligned_read##bytes(void* at) { touch(at, bytes, false); }    \
  void __tsan_unaligned_write##bytes(void* at) { touch(at, bytes, true); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void* at, unsigned long bytes) { touch(at, bytes, false); }
void __tsan_write_range(void* at, unsigned long bytes) { touch(at, bytes, true); }
}
