// What is behind libdispatch's objects.
#pragma once

#include <memory>
#include <string>

#include "serial_thread.hpp"

namespace softmetal {

std::shared_ptr<SerialThread> thread_of_queue(void* queue);
// The bytes of a dispatch_data_t; none for null.
std::string bytes_of_data(void* data);

}  // namespace softmetal
