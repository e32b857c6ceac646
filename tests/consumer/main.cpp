// Forward and backward of two equal keys: o is the mean of the values, dv gets half of dout each;
// and a group of two such passes.
#include <array>
#include <cmath>
#include <cstdio>
#include <exception>
#include <ingot/ingot.hpp>
#include <span>
#include <string>

namespace {

bool near(float value, float expected) { return std::fabs(value - expected) < 1e-4F; }

bool run() {
  const std::array<float, 2> q{1.0F, 2.0F};
  const std::array<float, 4> k{0.5F, 0.5F, 0.5F, 0.5F};
  const std::array<float, 4> v{1.0F, 10.0F, 2.0F, 30.0F};
  const std::array<float, 2> dout{4.0F, 6.0F};
  std::array<float, 2> o{};
  std::array<float, 4> dv{};
  float lse = 0.0F;

  const ingot::Context context;
  const ingot::Problem problem{.seqlen_q = 1, .seqlen_k = 2, .head_dim = 2, .head_dim_v = 2};
  const ingot::Plan plan(context, problem, "cpu");
  const ingot::Tensor lse_view{&lse, {1, 1, 1, 1}};
  plan.forward({.q = ingot::bhsd(q.data(), 1, 1, 2),
                .k = ingot::bhsd(k.data(), 1, 2, 2),
                .v = ingot::bhsd(v.data(), 1, 2, 2),
                .o = ingot::bhsd(o.data(), 1, 1, 2),
                .lse = lse_view});
  plan.backward({.q = ingot::bhsd(q.data(), 1, 1, 2),
                 .k = ingot::bhsd(k.data(), 1, 2, 2),
                 .v = ingot::bhsd(v.data(), 1, 2, 2),
                 .o = ingot::bhsd(o.data(), 1, 1, 2),
                 .lse = lse_view,
                 .dout = ingot::bhsd(dout.data(), 1, 1, 2),
                 .dv = ingot::bhsd(dv.data(), 1, 2, 2)});
  std::array<float, 4> grouped{};
  const ingot::ForwardArgs args{.q = ingot::bhsd(q.data(), 1, 1, 2),
                                .k = ingot::bhsd(k.data(), 1, 2, 2),
                                .v = ingot::bhsd(v.data(), 1, 2, 2),
                                .o = ingot::bhsd(grouped.data(), 1, 1, 2)};
  std::array<ingot::ForwardArgs, 2> both{args, args};
  both[1].o = ingot::bhsd(grouped.data() + 2, 1, 1, 2);
  const std::array<const ingot::Plan*, 2> plans{&plan, &plan};
  ingot::forward_group(plans, both);
  if (grouped != std::array<float, 4>{o[0], o[1], o[0], o[1]}) return false;
  try {
    ingot::forward_group(std::span(plans).first(1), both);
    return false;
  } catch (const ingot::Error& error) {
    if (std::string(error.what()) != "args: must be one for each of the 1 plans, got 2")
      return false;
  }
  std::printf("o = %g %g, dv = %g %g %g %g\n", o[0], o[1], dv[0], dv[1], dv[2], dv[3]);
  return near(o[0], 1.5F) && near(o[1], 20.0F) && near(dv[0], 2.0F) && near(dv[1], 3.0F) &&
         near(dv[2], 2.0F) && near(dv[3], 3.0F);
}

}  // namespace

int main() {
  try {
    return run() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
