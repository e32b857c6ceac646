#include "findings.hpp"

#include <sstream>

namespace softmetal::msl {

std::string_view finding_kind_name(FindingKind kind) {
  switch (kind) {
    case FindingKind::unbound_buffer:
      return "unbound buffer";
    case FindingKind::out_of_bounds:
      return "out of bounds";
    case FindingKind::misaligned:
      return "misaligned access";
    case FindingKind::write_to_constant:
      return "write to read-only memory";
    case FindingKind::uninitialised_read:
      return "uninitialised threadgroup memory read";
    case FindingKind::divergent_barrier:
      return "divergent barrier";
    case FindingKind::divergent_collective:
      return "divergent simdgroup operation";
    case FindingKind::inactive_lane:
      return "shuffle from an inactive thread";
    case FindingKind::threadgroup_race:
      return "data race in threadgroup memory";
    case FindingKind::device_race:
      return "data race in device memory";
    case FindingKind::wild_pointer:
      return "wild pointer";
    case FindingKind::timeout:
      return "timeout";
  }
  return "unknown";
}

Counters& Counters::operator+=(const Counters& o) {
  threads += o.threads;
  threadgroups += o.threadgroups;
  matrix_operations += o.matrix_operations;
  barriers += o.barriers;
  simdgroup_barriers += o.simdgroup_barriers;
  simd_operations += o.simd_operations;
  atomics += o.atomics;
  device_bytes_read += o.device_bytes_read;
  device_bytes_written += o.device_bytes_written;
  threadgroup_bytes_read += o.threadgroup_bytes_read;
  threadgroup_bytes_written += o.threadgroup_bytes_written;
  constant_bytes_read += o.constant_bytes_read;
  float_operations += o.float_operations;
  integer_operations += o.integer_operations;
  special_operations += o.special_operations;
  return *this;
}

}  // namespace softmetal::msl

namespace softmetal::exec {
namespace {

std::string render(const msl::Finding& f) {
  auto triple = [](const msl::Size3& s) {
    return "(" + std::to_string(s.x) + "," + std::to_string(s.y) + "," + std::to_string(s.z) + ")";
  };
  std::ostringstream out;
  out << msl::finding_kind_name(f.kind) << ": kernel " << f.kernel << ", " << f.file << ":"
      << f.line << ", thread " << triple(f.thread) << " of threadgroup " << triple(f.threadgroup);
  if (f.buffer_index >= 0) out << ", index " << f.buffer_index;
  if (!f.buffer_label.empty()) out << " \"" << f.buffer_label << "\"";
  if (!f.text.empty()) out << ": " << f.text;
  return out.str();
}

}  // namespace

void FindingSink::add(msl::Finding finding) {
  std::lock_guard lock(mutex_);
  Key key{finding.kind, finding.file, finding.line, finding.buffer_index};
  if (auto known = index_.find(key); known != index_.end()) {
    ++findings_[known->second].count;
    return;
  }
  if (findings_.size() >= limit_) return;
  finding.text = render(finding);
  index_.emplace(std::move(key), findings_.size());
  findings_.push_back(std::move(finding));
}

std::vector<msl::Finding> FindingSink::take() {
  std::lock_guard lock(mutex_);
  return std::move(findings_);
}

}  // namespace softmetal::exec
