// How often this process is the child of a fork of a process that had ingot loaded: threads and
// locks made before do not live on in the child.
#pragma once

namespace ingot {

unsigned fork_count();

}  // namespace ingot
