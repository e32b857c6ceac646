// Every row of cases.hpp on every device of this machine. INGOT_TEST_FULL=1 in the environment runs
// the whole table, INGOT_TEST_QUICK=1 the few rows that a sanitizer can bear, INGOT_TEST_EVERY=N
// those and one in N of the others.
#include "conformance.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "devices.hpp"

namespace ingot::conformance {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && value[0] != '\0' && std::string(value) != "0";
}

/// The reference computes in fp64 what it defines; on it only the conversions, strides and guards
/// are tested.
bool worth_running(const std::string& device, const Case& c, bool smoke_only) {
  const bool cheap = smoke_only || device == "reference";
  return !cheap || c.tier == Tier::smoke;
}

struct Parameter {
  std::string device;
  Case row;

  friend void PrintTo(const Parameter& p, std::ostream* os) {
    *os << p.device << " " << p.row.name;
  }
};

/// Whether INGOT_TEST_EVERY picks a row: by its name, since dtypes take turns in the table.
bool is_picked(const Case& c) {
  const char* value = std::getenv("INGOT_TEST_EVERY");
  const unsigned long every = value == nullptr ? 1 : std::strtoul(value, nullptr, 10);
  std::uint32_t hash = 2166136261;  // FNV-1a
  for (const char x : c.name) hash = (hash ^ static_cast<unsigned char>(x)) * 16777619;
  return c.tier == Tier::smoke || every < 2 || hash % every == 0;
}

std::vector<Parameter> parameters() {
  std::vector<Parameter> all;
  for (const std::string& device : device_names(shared_context())) {
    for (const Case& c : cases(is_set("INGOT_TEST_FULL"))) {
      if (!worth_running(device, c, is_set("INGOT_TEST_QUICK"))) continue;
      if (is_picked(c)) all.push_back({device, c});
    }
  }
  return all;
}

std::string test_name(const testing::TestParamInfo<Parameter>& info) {
  std::string name = info.param.device + "_" + info.param.row.name;
  std::replace_if(
      name.begin(), name.end(),
      [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

class Conformance : public testing::TestWithParam<Parameter> {};

TEST_P(Conformance, AgreesWithReference) {
  const auto& [device, row] = GetParam();
  const Outcome outcome = run_case(shared_context(), device.c_str(), row);
  if (outcome.status == Status::skipped && device != "cpu" && device != "reference")
    GTEST_SKIP() << outcome.message;
  if (outcome.status != Status::passed) FAIL() << outcome.message;
}

INSTANTIATE_TEST_SUITE_P(Table, Conformance, testing::ValuesIn(parameters()), test_name);

TEST(ConformanceDevices, NvidiaGpuIsCovered) {
  const std::vector<std::string> names = device_names(shared_context());
  if (std::find(names.begin(), names.end(), "cuda:0") == names.end())
    GTEST_SKIP() << "skipped: no NVIDIA GPU";
  EXPECT_EQ(names.front(), "cuda:0");
}

/// The largest error of plain attention in f32 as a part of its floor: what is allowed to a device
/// grows with it, so it must be small, or a mistake of the reference would widen every bound.
double error_of_plain(const Case& c) {
  const ingot_problem p = resolved(c.problem);
  const Operands t(p, c.layout, c.parts);
  fill(t, p, c);
  Outcome outcome;
  const Reference want = reference(shared_context(), p, t, outcome);
  EXPECT_EQ(outcome.status, Status::passed) << outcome.message;
  const PlainResult got = plain(p, t);
  const std::pair<const Dense*, const Measure*> results[] = {
      {&want.o, &got.o},          {&want.lse, &got.lse}, {&want.dq, &got.dq},
      {&want.dk, &got.dk},        {&want.dv, &got.dv},   {&want.dbias, &got.dbias},
      {&want.dsinks, &got.dsinks}};
  double worst = 0;
  for (const auto& [dense, measure] : results) {
    Norm error, floor;
    for (std::size_t i = 0; i < dense->data.size(); ++i) {
      const double difference = measure->value.data[i] - dense->data[i];
      if (!std::isfinite(difference)) continue;
      error.add(difference), floor.add(measure->floor.data[i]);
    }
    if (error.largest > 0) worst = std::max(worst, error.largest / floor.largest);
  }
  return worst;
}

TEST(ConformanceTable, PlainAttentionAgreesWithTheReferenceOnTheParts) {
  int count = 0;
  for (const Case& c : cases(false)) {
    const bool is_f32 = resolved(c.problem).q_dtype == INGOT_F32;
    if (!c.parts.any() || !is_f32 || c.data >= Data::large_scores_1e6 || c.name.size() % 3 != 0)
      continue;
    EXPECT_LT(error_of_plain(c), 10) << c.name;
    ++count;
  }
  EXPECT_GT(count, 30);
}

TEST(ConformanceTable, NamesAreUniqueAndEveryTierIsThere) {
  const std::vector<Case> all = cases(true);
  std::unordered_set<std::string> names;
  std::array<int, 3> tiers{};
  for (const Case& c : all) {
    EXPECT_TRUE(names.insert(c.name).second) << c.name;
    ++tiers[static_cast<std::size_t>(c.tier)];
  }
  EXPECT_EQ(cases(false).size(), static_cast<std::size_t>(tiers[0] + tiers[1]));
  for (const int count : tiers) EXPECT_GT(count, 20);
}

}  // namespace
}  // namespace ingot::conformance
