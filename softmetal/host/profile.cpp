#include "profile.hpp"

#include <cstdio>
#include <cstdlib>

#include <softmetal/softmetal.h>

#include "environment.hpp"

namespace softmetal {
namespace {

constexpr std::uint64_t gib = std::uint64_t{1} << 30;

// Names, families and core counts as Apple states them; the architecture ends in a letter for the
// size of the chip (g base and pro, s max, d ultra); memory is one configuration of several.
constexpr Profile profiles[] = {
    {"m1", "Apple M1", "applegpu_g13g", 7, 8, 16},
    {"m1-pro", "Apple M1 Pro", "applegpu_g13g", 7, 16, 16},
    {"m1-max", "Apple M1 Max", "applegpu_g13s", 7, 32, 32},
    {"m1-ultra", "Apple M1 Ultra", "applegpu_g13d", 7, 64, 64},
    {"m2", "Apple M2", "applegpu_g14g", 8, 10, 16},
    {"m2-pro", "Apple M2 Pro", "applegpu_g14g", 8, 19, 32},
    {"m2-max", "Apple M2 Max", "applegpu_g14s", 8, 38, 64},
    {"m2-ultra", "Apple M2 Ultra", "applegpu_g14d", 8, 76, 128},
    {"m3", "Apple M3", "applegpu_g15g", 9, 10, 16},
    {"m3-pro", "Apple M3 Pro", "applegpu_g15g", 9, 18, 36},
    {"m3-max", "Apple M3 Max", "applegpu_g15s", 9, 40, 64},
    {"m3-ultra", "Apple M3 Ultra", "applegpu_g15d", 9, 80, 256},
    {"m4", "Apple M4", "applegpu_g16g", 9, 10, 16},
    {"m4-pro", "Apple M4 Pro", "applegpu_g16g", 9, 20, 48},
    {"m4-max", "Apple M4 Max", "applegpu_g16s", 9, 40, 64},
    {"m5", "Apple M5", "applegpu_g17g", 10, 10, 16},
    {"m5-pro", "Apple M5 Pro", "applegpu_g17g", 10, 20, 48},
    {"m5-max", "Apple M5 Max", "applegpu_g17s", 10, 40, 64},
};

}  // namespace

// macOS lets a GPU wire about two thirds of a small memory and three quarters of a large one.
std::uint64_t Profile::working_set() const {
  return memory_gib <= 36 ? memory_gib * gib * 2 / 3 : memory_gib * gib * 3 / 4;
}

std::uint64_t Profile::max_buffer() const {
  return memory_gib <= 36 ? memory_gib * gib / 2 : memory_gib * gib * 9 / 16;
}

const Profile& profile() {
  const std::string wanted = environment("SOFTMETAL_DEVICE", "m1");
  for (const Profile& candidate : profiles) {
    if (wanted == candidate.key) {
      return candidate;
    }
  }
  std::fprintf(stderr, "softmetal: SOFTMETAL_DEVICE=%s is not one of:", wanted.c_str());
  for (const Profile& candidate : profiles) {
    std::fprintf(stderr, " %s", candidate.key);
  }
  std::fprintf(stderr, "\n");
  std::abort();
}

}  // namespace softmetal

unsigned softmetal_gpu_core_count(void) { return softmetal::profile().cores; }
