#include "metal/metal_chips.hpp"

#include <cctype>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "metal/metal_plan.hpp"
#include "metal/metal_program.hpp"

namespace ingot {
namespace {

/// "Apple M1 Max" -> "metal:m1-max"
std::string device_name(const std::string& chip) {
  std::string name = "metal:";
  for (const char c : chip.substr(chip.find(' ') + 1)) {
    name += c == ' ' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  return name;
}

class ChipBackend final : public Backend {
 public:
  explicit ChipBackend(metal::DeviceCaps caps)
      : caps_(std::move(caps)), name_(device_name(caps_.chip)) {}

  std::string name() const override { return name_; }
  std::string description() const override { return caps_.chip + ", to plan for only"; }
  Plan plan(const Problem& problem) const override {
    return metal::plan_metal(problem, caps_, name_);
  }
  std::string source(const Plan& plan, Pass pass) const override {
    return metal::source_of(plan, pass);
  }
  void forward(const Plan&, const ForwardArgs&) override { refuse(); }
  void backward(const Plan&, const BackwardArgs&) override { refuse(); }

 private:
  [[noreturn]] void refuse() const {
    throw Error(Code::unsupported, "unsupported: device " + name_ +
                                       " is a chip to plan for and cannot run; run on metal:0");
  }

  const metal::DeviceCaps caps_;
  const std::string name_;
};

}  // namespace

std::vector<std::unique_ptr<Backend>> make_metal_chip_backends() {
  std::vector<std::unique_ptr<Backend>> backends;
  for (metal::DeviceCaps& caps : metal::known_devices()) {
    backends.push_back(std::make_unique<ChipBackend>(std::move(caps)));
  }
  return backends;
}

}  // namespace ingot
