// Streams, events, graphs. Work is done when it is submitted.
#include <atomic>
#include <utility>

#include "driver/objects.hpp"

namespace softcuda {
namespace {

std::atomic<std::uint64_t> last_id = 1;

}  // namespace

Stream& stream_of(Stream* handle) {
  static Stream default_stream{1, nullptr};
  return handle == nullptr ? default_stream : *handle;
}

int submit(Stream* handle, std::function<int()> operation) {
  Stream& stream = stream_of(handle);
  if (stream.capture != nullptr) {
    stream.capture->nodes.push_back(std::move(operation));
    return success;
  }
  return operation();
}

}  // namespace softcuda

using softcuda::Event;
using softcuda::Graph;
using softcuda::Stream;

CUDA_API int cuStreamCreate(Stream** stream, unsigned) {
  *stream = new Stream{++softcuda::last_id, nullptr};
  return softcuda::success;
}
CUDA_API int cuStreamDestroy_v2(Stream* stream) {
  delete stream;
  return softcuda::success;
}
CUDA_API int cuStreamSynchronize(Stream* stream) {
  if (softcuda::stream_of(stream).capture != nullptr) return softcuda::capture_unsupported;
  return softcuda::success;
}
CUDA_API int cuStreamIsCapturing(Stream* stream, int* status) {
  *status = softcuda::stream_of(stream).capture != nullptr ? 1 : 0;
  return softcuda::success;
}
CUDA_API int cuStreamGetId(Stream* stream, unsigned long long* id) {
  *id = softcuda::stream_of(stream).id;
  return softcuda::success;
}
CUDA_API int cuThreadExchangeStreamCaptureMode(int* mode) {
  thread_local int current = 0;
  std::swap(*mode, current);
  return softcuda::success;
}

// ---- graphs ----

CUDA_API int cuStreamBeginCapture_v2(Stream* stream, int) {
  if (stream == nullptr || stream->capture != nullptr) return softcuda::invalid_value;
  stream->capture = new Graph;
  return softcuda::success;
}
CUDA_API int cuStreamEndCapture(Stream* stream, Graph** graph) {
  if (stream == nullptr || stream->capture == nullptr) return softcuda::invalid_value;
  *graph = std::exchange(stream->capture, nullptr);
  return softcuda::success;
}
CUDA_API int cuGraphInstantiateWithFlags(Graph** executable, const Graph* graph,
                                         unsigned long long) {
  *executable = new Graph(*graph);
  return softcuda::success;
}
CUDA_API int cuGraphLaunch(Graph* executable, Stream*) {
  for (const auto& node : executable->nodes) {
    if (const int result = node()) return result;
  }
  return softcuda::success;
}
CUDA_API int cuGraphExecDestroy(Graph* executable) {
  delete executable;
  return softcuda::success;
}
CUDA_API int cuGraphDestroy(Graph* graph) {
  delete graph;
  return softcuda::success;
}

// ---- events ----

CUDA_API int cuEventCreate(Event** event, unsigned) {
  *event = new Event;
  return softcuda::success;
}
CUDA_API int cuEventDestroy_v2(Event* event) {
  delete event;
  return softcuda::success;
}
CUDA_API int cuEventRecord(Event* event, Stream* stream) {
  return softcuda::submit(stream, [event] {
    event->time = std::chrono::steady_clock::now();
    event->is_recorded = true;
    return softcuda::success;
  });
}
CUDA_API int cuEventQuery(Event*) { return softcuda::success; }
CUDA_API int cuEventSynchronize(Event*) { return softcuda::success; }
CUDA_API int cuEventElapsedTime(float* milliseconds, const Event* begin, const Event* end) {
  if (!begin->is_recorded || !end->is_recorded) return softcuda::invalid_value;
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return softcuda::success;
}
