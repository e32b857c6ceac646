#include "compute_pass.hpp"

#include <algorithm>
#include <cstring>

#include "counters.hpp"
#include "registry.hpp"
#include "residency.hpp"

namespace softmetal {
namespace {

std::uint64_t address_of(const Buffer& buffer, std::uint64_t offset) {
  return reinterpret_cast<std::uint64_t>(buffer.memory()) + offset;
}

msl::Size3 size3(const Extent& extent) {
  return {static_cast<std::uint32_t>(extent.width), static_cast<std::uint32_t>(extent.height),
          static_cast<std::uint32_t>(extent.depth)};
}

void report_kernel_finding(const msl::Finding& finding, const msl::Size3& threadgroup,
                           Execution& execution) {
  KernelSite site;
  site.kernel = finding.kernel;
  site.line = static_cast<std::uint32_t>(finding.line);
  site.thread = {finding.threadgroup.x * threadgroup.x + finding.thread.x,
                 finding.threadgroup.y * threadgroup.y + finding.thread.y,
                 finding.threadgroup.z * threadgroup.z + finding.thread.z};
  site.buffer = finding.buffer_index;
  site.offset = static_cast<std::uint64_t>(finding.offset);
  std::string rule(msl::finding_kind_name(finding.kind));
  std::replace(rule.begin(), rule.end(), ' ', '-');
  report(Severity::error, rule, finding.text, site);
  if (finding.kind == msl::FindingKind::timeout) {
    execution.fail(CommandError::timeout, finding.text);
  }
}

msl::ExecOptions exec_options(const msl::Pipeline& code, bool uses) {
  msl::ExecOptions options = msl::exec_options_from_environment();
  options.uses = uses && code.instrumented();
  if (!code.instrumented()) {
    options.bounds = options.races = options.uninitialised = options.counters = false;
  }
  return options;
}

bool any_untracked(const std::vector<Ref<Buffer>>& buffers) {
  return std::any_of(buffers.begin(), buffers.end(),
                     [](const auto& buffer) { return buffer->options().untracked(); });
}

// What the executor says a dispatch touched, as addresses.
void append_uses(Uses& uses, const msl::DispatchResult& result, const msl::DispatchInput& input) {
  for (std::size_t i = 0; i < result.uses.size(); ++i) {
    const auto base = reinterpret_cast<std::uint64_t>(input.buffers[i].data);
    const auto append = [base](const std::vector<msl::ByteRange>& ranges, std::vector<Span>& to) {
      for (const msl::ByteRange& range : ranges) {
        to.push_back({base + range.begin, base + range.end});
      }
    };
    append(result.uses[i].read, uses.read);
    append(result.uses[i].written, uses.written);
    append(result.uses[i].atomic, uses.atomic);
  }
}

void sort_and_merge(std::vector<Span>& spans) {
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::vector<Span> merged;
  for (const Span& span : spans) {
    if (!merged.empty() && span.begin <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, span.end);
    } else {
      merged.push_back(span);
    }
  }
  spans = std::move(merged);
}

// Takes the memory `cut` out of `spans`.
std::vector<Span> without(const std::vector<Span>& spans, const Span& cut) {
  std::vector<Span> rest;
  for (const Span& span : spans) {
    if (span.begin < std::min(span.end, cut.begin)) {
      rest.push_back({span.begin, std::min(span.end, cut.begin)});
    }
    if (std::max(span.begin, cut.end) < span.end) {
      rest.push_back({std::max(span.begin, cut.end), span.end});
    }
  }
  return rest;
}

std::vector<Span> inside(const std::vector<Span>& spans, const Span& limit) {
  std::vector<Span> part;
  for (const Span& span : spans) {
    const Span cut{std::max(span.begin, limit.begin), std::min(span.end, limit.end)};
    if (cut.begin < cut.end) {
      part.push_back(cut);
    }
  }
  return part;
}

void add_slot(std::vector<msl::BufferSlot>& slots, const Allocation& allocation) {
  if (const auto* buffer = dynamic_cast<const Buffer*>(&allocation)) {
    slots.push_back({buffer->memory(), buffer->length(), buffer->label_text(), true});
  } else if (const auto* heap = dynamic_cast<const Heap*>(&allocation)) {
    slots.push_back({heap->memory(), heap->size(), heap->label_text(), true});
  }
}

// Binds the slots; the buffers that are bound are kept in `buffers`. False when one is gone.
bool bind_slots(const DispatchCommand& command, msl::DispatchInput& input,
                std::vector<Ref<Buffer>>& buffers) {
  for (std::size_t i = 0; i < command.slots.size(); ++i) {
    const Slot& slot = command.slots[i];
    if (slot.buffer) {
      Ref<Buffer> buffer =
          slot.buffer.at_execution(text("kernel '", command.pipeline->kernel(), "'"));
      if (!buffer) {
        return false;
      }
      input.buffers[i] = {buffer->memory(), buffer->length(), buffer->label_text(), true,
                          slot.offset};
      buffers.push_back(std::move(buffer));
    } else if (!slot.bytes.empty()) {
      input.buffers[i] = {const_cast<std::byte*>(slot.bytes.data()), slot.bytes.size(), "setBytes",
                          false};
    }
  }
  return true;
}

void set_grid(msl::DispatchInput& input, const Extent& grid, const DispatchCommand& command) {
  const Extent& group = command.threadgroup;
  input.threads_per_threadgroup = size3(group);
  if (!command.exact) {
    input.threadgroups = size3(grid);
    return;
  }
  input.threads_per_grid = size3(grid);
  input.threadgroups = size3({(grid.width + group.width - 1) / group.width,
                              (grid.height + group.height - 1) / group.height,
                              (grid.depth + group.depth - 1) / group.depth});
}

}  // namespace

Ref<Buffer> UsedBuffer::at_execution(const std::string& user) const {
  if (kept_) {
    return kept_;
  }
  const registry::Found found = registry::find(plain_);
  if (found.live != nullptr) {
    return static_cast<Buffer*>(found.live);
  }
  error("freed-in-flight",
        text(user, " uses a buffer that was deallocated before it ran: ", found.obituary,
             "; the command buffer does not retain its resources"));
  return nullptr;
}

std::vector<msl::BufferSlot> Pass::resident_slots(const Execution& execution) const {
  std::vector<msl::BufferSlot> slots;
  for (const Ref<Allocation>& allocation : resident_) {
    add_slot(slots, *allocation);
  }
  for (const Ref<ResidencySet>& set : execution.residency_sets) {
    for (const Ref<Allocation>& allocation : set->resident()) {
      add_slot(slots, *allocation);
    }
  }
  return slots;
}

std::string Pass::describe(std::uint64_t address, const std::vector<Ref<Buffer>>& buffers) const {
  for (const Ref<Buffer>& buffer : buffers) {
    const std::uint64_t begin = address_of(*buffer, 0);
    if (address >= begin && address < begin + buffer->length()) {
      return text(buffer->name_for_findings(), " at offset ", address - begin);
    }
  }
  return text("address ", address);
}

void Pass::check_barriers(const Touched& touched) {
  for (const Uses& earlier : since_barrier_) {
    if (const auto clash = conflict(earlier, touched.uses)) {
      error("missing-barrier",
            text(touched.uses.what, " ", clash->kind, ", ", earlier.what, ", in ",
                 describe(clash->address, touched.buffers),
                 "; there is no barrier between them in ", name_, ", which is concurrent"));
      break;
    }
  }
  since_barrier_.push_back(touched.uses);
}

void Pass::note(const Touched& touched, Execution& execution) {
  if (concurrent_) {
    check_barriers(touched);
  }
  for (const Ref<Buffer>& buffer : touched.buffers) {
    if (!buffer->options().untracked()) {
      continue;
    }
    const Span all{address_of(*buffer, 0), address_of(*buffer, buffer->length())};
    const Uses part{text(touched.uses.what, " in ", name_), inside(touched.uses.read, all),
                    inside(touched.uses.written, all), inside(touched.uses.atomic, all)};
    if (part.empty()) {
      continue;
    }
    if (const auto clash = buffer->history.add(part, execution.order)) {
      error("missing-fence",
            text(part.what, " ", clash->conflict.kind, ", ", clash->earlier, ", in ",
                 describe(clash->conflict.address, touched.buffers),
                 "; the buffer is untracked and no fence, event or wait orders them"));
    }
  }
}

// The grid of an indirect dispatch, read from its buffer; nothing when that is gone.
std::optional<Extent> Pass::indirect_grid(const DispatchCommand& command, Touched& touched) const {
  Ref<Buffer> arguments = command.indirect.at_execution(touched.uses.what);
  if (!arguments) {
    return std::nullopt;
  }
  std::uint32_t groups[3];
  std::memcpy(groups, arguments->memory() + command.indirect_offset, sizeof(groups));
  const std::uint64_t at = address_of(*arguments, command.indirect_offset);
  touched.uses.read.push_back({at, at + sizeof(groups)});
  touched.buffers.push_back(std::move(arguments));
  return Extent{groups[0], groups[1], groups[2]};
}

void Pass::launch(const DispatchCommand& command, const msl::DispatchInput& input, Touched& touched,
                  Execution& execution) {
  const msl::Pipeline& code = command.pipeline->code();
  try {
    const bool wants_uses = concurrent_ || any_untracked(touched.buffers);
    const msl::DispatchResult result = msl::dispatch(code, input, exec_options(code, wants_uses));
    count_dispatch(command.pipeline->kernel(), result.counters, code.instrumented());
    for (const msl::Finding& finding : result.findings) {
      report_kernel_finding(finding, input.threads_per_threadgroup, execution);
    }
    append_uses(touched.uses, result, input);
  } catch (const std::exception& failure) {
    execution.fail(CommandError::internal, text(touched.uses.what, ": ", failure.what()));
  }
  sort_and_merge(touched.uses.read);
  sort_and_merge(touched.uses.written);
  sort_and_merge(touched.uses.atomic);
  note(touched, execution);
  for (const Ref<Buffer>& buffer : touched.buffers) {
    buffer->check_guard();
  }
}

void Pass::run_command(DispatchCommand& command, Execution& execution) {
  msl::DispatchInput input;
  Touched touched;
  touched.uses.what = text("kernel '", command.pipeline->kernel(), "'");
  const std::optional<Extent> grid =
      command.indirect ? indirect_grid(command, touched) : command.grid;
  if (!grid || !bind_slots(command, input, touched.buffers)) {
    execution.fail(CommandError::invalid_resource, "a buffer was deallocated before it was used");
    return;
  }
  if (grid->count() == 0) {
    return;  // an indirect grid may be empty
  }
  set_grid(input, *grid, command);
  input.threadgroup_bytes = command.threadgroup_lengths;
  input.resident = resident_slots(execution);
  launch(command, input, touched, execution);
}

void Pass::run_command(CopyCommand& command, Execution& execution) {
  const Ref<Buffer> source = command.source.at_execution("a copy");
  const Ref<Buffer> target = command.target.at_execution("a copy");
  if (!source || !target) {
    execution.fail(CommandError::invalid_resource, "a buffer was deallocated before it was copied");
    return;
  }
  std::memmove(target->memory() + command.target_offset, source->memory() + command.source_offset,
               command.bytes);
  const std::uint64_t from = address_of(*source, command.source_offset);
  const std::uint64_t to = address_of(*target, command.target_offset);
  note({{"a copy", {{from, from + command.bytes}}, {{to, to + command.bytes}}, {}},
        {source, target}},
       execution);
}

void Pass::run_command(FillCommand& command, Execution& execution) {
  const Ref<Buffer> target = command.target.at_execution("a fill");
  if (!target) {
    execution.fail(CommandError::invalid_resource, "a buffer was deallocated before it was filled");
    return;
  }
  std::memset(target->memory() + command.range.location, command.value, command.range.length);
  const std::uint64_t at = address_of(*target, command.range.location);
  note({{"a fill", {}, {{at, at + command.range.length}}, {}}, {target}}, execution);
}

void Pass::run_command(BarrierCommand& command, Execution&) {
  if (command.all) {
    since_barrier_.clear();
    return;
  }
  for (Uses& uses : since_barrier_) {
    for (const Span& span : command.only) {
      uses.read = without(uses.read, span);
      uses.written = without(uses.written, span);
      uses.atomic = without(uses.atomic, span);
    }
  }
}

void Pass::run_command(UpdateFenceCommand& command, Execution& execution) {
  const std::lock_guard lock(command.fence->mutex);
  command.fence->updated = true;
  command.fence->behind.insert(execution.order.behind.begin(), execution.order.behind.end());
  command.fence->behind.insert(execution.order.id);
}

void Pass::run_command(WaitFenceCommand& command, Execution& execution) {
  const std::lock_guard lock(command.fence->mutex);
  if (!command.fence->updated) {
    error("fence-never-updated", text(name_, " waits for ", command.fence->name_for_findings(),
                                      ", which no earlier encoder updates"));
  }
  execution.order.behind.insert(command.fence->behind.begin(), command.fence->behind.end());
}

void Pass::sample_times(const SampleAttachment& attachment) {
  if (attachment.samples) {
    samples_.push_back({attachment.samples, attachment.start_index, attachment.end_index});
  }
}

void Pass::run(Execution& execution) {
  for (const Sample& sample : samples_) {
    if (sample.start != dont_sample) {
      sample.samples->sample_now(sample.start);
    }
  }
  execution.order.id = next_moment();
  const auto behind_before = execution.order.behind;
  for (Command& command : commands_) {
    if (!execution.failure) {
      std::visit([&](auto& one) { run_command(one, execution); }, command);
    }
  }
  for (const Sample& sample : samples_) {
    if (sample.end != dont_sample) {
      sample.samples->sample_now(sample.end);
    }
  }
  // A fence orders one encoder only; an event behind this pass vouches for all that it followed.
  auto order_of_this_pass = std::move(execution.order.behind);
  execution.order.behind = behind_before;
  execution.passes.insert(execution.order.id);
  execution.passes.merge(order_of_this_pass);
  commands_.clear();
}

}  // namespace softmetal
