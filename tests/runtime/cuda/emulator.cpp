// The scheduler behind emulator.hpp: fibers, barriers, warps, clusters.

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "emulator.hpp"
#include "watch.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace emulator {

Index thread_index, block_index, block_shape, grid_shape;

namespace {

constexpr std::size_t STACK_BYTES = 512 * 1024;
constexpr unsigned LANES_PER_WARP = 32;
constexpr unsigned char UNWRITTEN = 0xff;  // NaN in every floating-point type

typedef void* Context[5];

struct Barrier {
  unsigned expected = 0, arrived = 0;
  int line = 0;
};

struct Warp {
  Barrier barrier;
  double exchange[2][LANES_PER_WARP];
};

struct Block {
  unsigned index, rank, running;
  unsigned char* shared;
  Barrier barrier;
  std::vector<Warp> warps;
  unsigned epoch;
};

enum State { READY, WAITING, DONE };

struct Fiber {
  Context context;
  ucontext_t entry;
  unsigned char* stack = nullptr;
  bool started = false;
  State state = DONE;
  Barrier* barrier = nullptr;
  Block* block = nullptr;
  unsigned thread = 0, shuffles = 0, priority = 0;
};

std::vector<Fiber*> fibers;
// Of all that could run, the one of the lowest number does: a thread can be left far behind the others.
std::set<std::pair<unsigned, Fiber*>> ready;
unsigned last_priority;
std::vector<Block> blocks;
Barrier cluster;
unsigned cluster_epoch;
Fiber* current = nullptr;
Context scheduler;
const Launch* shape;
void (*task)(void*);
void* task_context;
std::string error;
std::uint64_t state_of_chance;

unsigned chance(unsigned below) {
  state_of_chance ^= state_of_chance << 13;
  state_of_chance ^= state_of_chance >> 7;
  state_of_chance ^= state_of_chance << 17;
  return static_cast<unsigned>((state_of_chance >> 32) % below);
}

#if defined(__SANITIZE_ADDRESS__)
const void* main_stack;
std::size_t main_stack_bytes;
void leave_for(Fiber* fiber) {
  if (fiber) {
    __sanitizer_start_switch_fiber(nullptr, fiber->stack, STACK_BYTES);
  } else {
    __sanitizer_start_switch_fiber(nullptr, main_stack, main_stack_bytes);
  }
}
void arrived_in(Fiber* fiber) {
  if (fiber) {
    const void* bottom;
    std::size_t bytes;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    if (!main_stack) main_stack = bottom, main_stack_bytes = bytes;
  } else {
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
  }
}
#else
void leave_for(Fiber*) {}
void arrived_in(Fiber*) {}
#endif

__attribute__((noinline, noreturn)) void jump(void** to) { __builtin_longjmp(to, 1); }

__attribute__((noinline)) void change(void** from, void** to) {
  if (__builtin_setjmp(from) == 0) jump(to);
}

void yield() {
  Fiber* self = current;
  leave_for(nullptr);
  change(self->context, scheduler);
  arrived_in(self);
}

[[noreturn]] void live() {
  arrived_in(current);
  for (;;) {
    task(task_context);
    current->state = DONE;
    --current->block->running;
    yield();
  }
}

void resume(Fiber* fiber) {
  current = fiber;
  thread_index = {fiber->thread, 0, 0};
  block_index = {fiber->block->index, 0, 0};
  leave_for(fiber);
  if (fiber->started) {
    change(scheduler, fiber->context);
  } else {
    fiber->started = true;
    getcontext(&fiber->entry);
    fiber->entry.uc_stack.ss_sp = fiber->stack;
    fiber->entry.uc_stack.ss_size = STACK_BYTES;
    fiber->entry.uc_link = nullptr;
    makecontext(&fiber->entry, live, 0);
    if (__builtin_setjmp(scheduler) == 0) setcontext(&fiber->entry);
  }
  arrived_in(nullptr);
  current = nullptr;
}

void make_ready(Fiber* fiber) {
  fiber->state = READY;
  ready.insert({fiber->priority, fiber});
}

void fail(const std::string& reason) {
  if (error.empty()) {
    error = reason;
    if (current) {
      error += " (block " + std::to_string(current->block->index) + ", thread " + std::to_string(current->thread) + ")";
    }
  }
  if (current) {
    current->state = WAITING;
    yield();  // and never return: the launch is over
  }
}

// Whether this fiber was the last to arrive.
bool meet(Barrier& barrier, int line) {
  if (barrier.arrived == 0) barrier.line = line;
  if (barrier.line != line) {
    fail("divergent barrier: line " + std::to_string(line) + " while others wait in line " +
         std::to_string(barrier.line));
  }
  if (++barrier.arrived == barrier.expected) {
    barrier.arrived = 0;
    for (Fiber* fiber : fibers) {
      if (fiber->state == WAITING && fiber->barrier == &barrier) make_ready(fiber);
    }
    return true;
  }
  current->state = WAITING;
  current->barrier = &barrier;
  yield();
  return false;
}

void start_cluster(unsigned first) {
  const unsigned threads = static_cast<unsigned>(shape->threads);
  cluster = {static_cast<unsigned>(shape->cluster) * threads, 0, 0};
  cluster_epoch = 0;
  for (unsigned rank = 0; rank < blocks.size(); ++rank) {
    Block& block = blocks[rank];
    block.index = first + rank;
    block.rank = rank;
    block.running = threads;
    block.barrier = {threads, 0, 0};
    block.epoch = 0;
    std::memset(block.shared, UNWRITTEN, shape->shared_bytes);
    watch::forget(block.shared);
    for (Warp& warp : block.warps) warp.barrier = {LANES_PER_WARP, 0, 0};
    for (unsigned thread = 0; thread < threads; ++thread) {
      Fiber* fiber = fibers[rank * threads + thread];
      fiber->barrier = nullptr;
      fiber->block = &block;
      fiber->thread = thread;
      fiber->shuffles = 0;
    }
  }
}

void order_by(std::vector<unsigned>& order) {
  for (unsigned i = 0; i < order.size(); ++i) {
    order[i] = shape->order == REVERSE ? static_cast<unsigned>(order.size()) - 1 - i : i;
  }
  if (shape->order == RANDOM) {
    for (unsigned i = static_cast<unsigned>(order.size()); i > 1; --i) std::swap(order[i - 1], order[chance(i)]);
  }
}

// Runs the fibers of one cluster to their end.
void run_cluster() {
  std::vector<unsigned> order(fibers.size());
  order_by(order);
  ready.clear();
  for (unsigned i = 0; i < order.size(); ++i) {
    fibers[i]->priority = order[i];
    make_ready(fibers[i]);
  }
  last_priority = static_cast<unsigned>(order.size());
  while (!ready.empty()) {
    Fiber* fiber = ready.begin()->second;
    ready.erase(ready.begin());
    resume(fiber);
    if (!error.empty()) return;
  }
  for (Fiber* fiber : fibers) {
    if (fiber->state == WAITING) {
      fail("divergent barrier: " + std::to_string(fiber->barrier->arrived) + " of " +
           std::to_string(fiber->barrier->expected) + " threads wait in line " +
           std::to_string(fiber->barrier->line) + " for ever");
      return;
    }
  }
}

void prepare() {
  const unsigned count = static_cast<unsigned>(shape->cluster * shape->threads);
  while (fibers.size() < count) {
    Fiber* fiber = new Fiber;
    void* stack = mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) std::abort();
    fiber->stack = static_cast<unsigned char*>(stack);
    fibers.push_back(fiber);
  }
  while (fibers.size() > count) {
    munmap(fibers.back()->stack, STACK_BYTES);
    delete fibers.back();
    fibers.pop_back();
  }
  blocks.resize(shape->cluster);
  for (Block& block : blocks) {
    block.warps.resize(shape->threads / LANES_PER_WARP);
    block.shared = static_cast<unsigned char*>(std::malloc(shape->shared_bytes + 1));
    watch::add(block.shared, shape->shared_bytes, watch::SHARED);
  }
}

}  // namespace

unsigned char* shared_memory() { return current->block->shared; }
unsigned cluster_rank() { return current->block->rank; }
unsigned cluster_size() { return static_cast<unsigned>(shape->cluster); }

void wait_for_block(int line) {
  if (meet(current->block->barrier, line)) ++current->block->epoch;
}

void wait_for_cluster(int line) {
  if (meet(cluster, line)) {
    ++cluster_epoch;
    for (Block& block : blocks) ++block.epoch;
  }
}

double cluster_read(const double* local, unsigned rank) {
  const std::ptrdiff_t offset = reinterpret_cast<const unsigned char*>(local) - current->block->shared;
  if (rank >= shape->cluster) fail("cluster_read: rank " + std::to_string(rank) + " is outside of the cluster");
  if (offset < 0 || offset + sizeof(double) > shape->shared_bytes) fail("cluster_read: outside of shared memory");
  if (blocks[rank].running < shape->threads) fail("cluster_read: a thread of that block has ended");
  const unsigned char* there = blocks[rank].shared + offset;
  watch::touch(there, sizeof(double), false);
  double value;
  std::memcpy(&value, there, sizeof value);
  return value;
}

// Vectors of the kernels' own, in registers on hardware, may lie anywhere.
void check_vector(const void* address) {
  if (reinterpret_cast<std::uintptr_t>(address) % 16 && current && !watch::own_stack(address)) {
    fail("misaligned access of 16 bytes");
  }
}

double shuffle_down(int line, unsigned mask, double value, int distance) {
  if (mask != 0xffffffffu) fail("shuffle: this emulation knows full warps only");
  Warp& warp = current->block->warps[current->thread / LANES_PER_WARP];
  const unsigned lane = current->thread % LANES_PER_WARP;
  // Two buffers: a lane can be one shuffle ahead of the others, never two.
  double* exchange = warp.exchange[current->shuffles++ % 2];
  exchange[lane] = value;
  meet(warp.barrier, line);
  const unsigned from = lane + static_cast<unsigned>(distance);
  return exchange[from < LANES_PER_WARP ? from : lane];
}

int run(const Launch& launch, void (*body)(void*), void* context) {
  error.clear();
  current = nullptr;
  shape = &launch;
  if (launch.threads % LANES_PER_WARP || !launch.threads || !launch.cluster || launch.blocks % launch.cluster) {
    error = "launch: threads must be a multiple of 32, blocks a multiple of the cluster";
    return 1;
  }
  task = body;
  task_context = context;
  state_of_chance = launch.seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du;
  block_shape = {static_cast<unsigned>(launch.threads), 1, 1};
  grid_shape = {static_cast<unsigned>(launch.blocks), 1, 1};
  prepare();
  watch::start();
  std::vector<unsigned> order(launch.blocks / launch.cluster);
  order_by(order);
  for (unsigned i : order) {
    start_cluster(i * static_cast<unsigned>(launch.cluster));
    run_cluster();
    if (!error.empty()) break;
  }
  for (Block& block : blocks) {
    watch::remove(block.shared);
    std::free(block.shared);
  }
  // After a failure fibers stand in the middle of the kernel: they start anew.
  if (!error.empty()) {
    for (Fiber* fiber : fibers) fiber->started = false;
  }
  return error.empty() ? 0 : 1;
}

namespace watch {

Where here() {
  return {current->block->index, current->thread, current->block->epoch, cluster_epoch};
}

bool running() { return current != nullptr; }

bool own_stack(const void* address) {
  const unsigned char* at = static_cast<const unsigned char*>(address);
  return at >= current->stack && at < current->stack + STACK_BYTES;
}

void report(const std::string& reason) { fail(reason); }

void pause() {
  if (shape->order != RANDOM || chance(64) != 0) return;
  current->priority = last_priority++;
  make_ready(current);
  yield();
}

}  // namespace watch

}  // namespace emulator

extern "C" const char* emulator_error() { return emulator::error.c_str(); }

extern "C" void* emulator_allocate(std::uint64_t bytes) { return std::malloc(bytes); }

extern "C" void emulator_free(void* memory) { std::free(memory); }
