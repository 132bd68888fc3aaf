// Watches every access to memory: bounds, reads of what nothing wrote, races.
//
// The compiler's thread sanitizer instrumentation calls a function at each access; watch.cpp defines those functions
// instead of the sanitizer's runtime. Without the instrumentation nothing is called and nothing is watched.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator::watch {

enum Kind : std::uint64_t { CONSTANT, OUTPUT, SHARED };

// Which thread touches memory, and after how many barriers of its block and of its cluster.
struct Where {
  unsigned block, thread, block_epoch, cluster_epoch;
};

void add(const void* memory, std::size_t bytes, Kind kind);
void remove(const void* memory);
void forget(const void* memory);
void start();
void enable();
void touch(const void* address, std::size_t bytes, bool writes);

// Provided by the scheduler.
Where here();
bool running();
bool own_stack(const void* address);
void report(const std::string& reason);
void pause();

}  // namespace emulator::watch
