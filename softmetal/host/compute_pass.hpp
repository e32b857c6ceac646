// The recorded commands of a compute or blit encoder, and how they run.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <variant>
#include <vector>

#include "command_buffer.hpp"
#include "counter_samples.hpp"
#include "event.hpp"
#include "heap.hpp"
#include "pipeline.hpp"
#include "resource.hpp"

namespace softmetal {

// A buffer that a command uses. Command buffers with unretained references do not keep it alive.
class UsedBuffer {
 public:
  UsedBuffer() = default;
  UsedBuffer(Buffer* buffer, bool retain) : plain_(buffer), kept_(retain ? buffer : nullptr) {}
  explicit operator bool() const { return plain_ != nullptr; }
  Buffer* at_encoding() const { return plain_; }
  // Null, and a finding that names `user`, when the buffer is gone.
  Ref<Buffer> at_execution(const std::string& user) const;

 private:
  Buffer* plain_ = nullptr;
  Ref<Buffer> kept_;
};

// What is bound at one buffer index.
struct Slot {
  UsedBuffer buffer;
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes;  // setBytes
  bool bound() const { return buffer || !bytes.empty(); }
};

using Slots = std::array<Slot, msl::kMaxBuffers>;
using ThreadgroupLengths = std::array<std::size_t, msl::kMaxThreadgroupSlots>;

struct DispatchCommand {
  Ref<ComputePipeline> pipeline;
  Slots slots;
  ThreadgroupLengths threadgroup_lengths{};
  Extent grid;  // threadgroups, or threads when exact
  bool exact = false;
  Extent threadgroup;
  UsedBuffer indirect;  // holds the threadgroups of the grid, three 32-bit numbers
  std::uint64_t indirect_offset = 0;
};
struct CopyCommand {
  UsedBuffer source;
  std::uint64_t source_offset = 0;
  UsedBuffer target;
  std::uint64_t target_offset = 0;
  std::uint64_t bytes = 0;
};
struct FillCommand {
  UsedBuffer target;
  Range range;
  std::uint8_t value = 0;
};
struct BarrierCommand {
  std::vector<Span> only;  // the memory of the named resources; empty: all
  bool all = false;
};
struct UpdateFenceCommand {
  Ref<Fence> fence;
};
struct WaitFenceCommand {
  Ref<Fence> fence;
};
using Command = std::variant<DispatchCommand, CopyCommand, FillCommand, BarrierCommand,
                             UpdateFenceCommand, WaitFenceCommand>;

class Pass : public Step {
 public:
  explicit Pass(std::string name, bool concurrent)
      : name_(std::move(name)), concurrent_(concurrent) {}
  void add(Command command) { commands_.push_back(std::move(command)); }
  void make_resident(Ref<Allocation> allocation) { resident_.push_back(std::move(allocation)); }
  void sample_times(const SampleAttachment& attachment);
  void run(Execution& execution) override;

 private:
  void run_command(DispatchCommand& command, Execution& execution);
  void run_command(CopyCommand& command, Execution& execution);
  void run_command(FillCommand& command, Execution& execution);
  void run_command(BarrierCommand& command, Execution& execution);
  void run_command(UpdateFenceCommand& command, Execution& execution);
  void run_command(WaitFenceCommand& command, Execution& execution);
  // What a command touched, and the buffers that are bound to it.
  struct Touched {
    Uses uses;
    std::vector<Ref<Buffer>> buffers;
  };
  std::optional<Extent> indirect_grid(const DispatchCommand& command, Touched& touched) const;
  void launch(const DispatchCommand& command, const msl::DispatchInput& input, Touched& touched,
              Execution& execution);
  void check_barriers(const Touched& touched);
  void note(const Touched& touched, Execution& execution);
  std::string describe(std::uint64_t address, const std::vector<Ref<Buffer>>& buffers) const;
  std::vector<msl::BufferSlot> resident_slots(const Execution& execution) const;

  std::string name_;
  bool concurrent_;
  std::vector<Command> commands_;
  std::vector<Ref<Allocation>> resident_;
  std::vector<Uses> since_barrier_;
  struct Sample {
    Ref<CounterSamples> samples;
    std::uint64_t start;
    std::uint64_t end;
  };
  std::vector<Sample> samples_;
};

}  // namespace softmetal
