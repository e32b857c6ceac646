#include "core/plan.hpp"

#include <nlohmann/json.hpp>
#include <sstream>

namespace ingot {
namespace {

using Json = nlohmann::ordered_json;

Json to_json(const Problem& p) {
  return {{"batch", p.batch},
          {"num_heads", p.num_heads},
          {"num_heads_kv", p.num_heads_kv},
          {"seqlen_q", p.seqlen_q},
          {"seqlen_k", p.seqlen_k},
          {"head_dim", p.head_dim},
          {"head_dim_v", p.head_dim_v},
          {"q_dtype", name(p.q)},
          {"k_dtype", name(p.k)},
          {"v_dtype", name(p.v)},
          {"o_dtype", name(p.o)},
          {"dout_dtype", name(p.dout)},
          {"dq_dtype", name(p.dq)},
          {"dk_dtype", name(p.dk)},
          {"dv_dtype", name(p.dv)},
          {"causal", name(p.causal)},
          {"window_left", p.window_left},
          {"window_right", p.window_right},
          {"scale", p.scale},
          {"softcap", p.softcap},
          {"precision", name(p.precision)},
          {"workspace_limit", p.workspace_limit}};
}

Json to_json(const Literal& literal) {
  return std::visit(
      [](const auto& value) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, TypeName>)
          return value.name;
        else
          return value;
      },
      literal.value);
}

Json to_json(const KernelPlan& kernel) {
  Json config = Json::object();
  for (const Literal& literal : kernel.config) config[literal.name] = to_json(literal);
  return {{"file", kernel.file},
          {"grid", kernel.grid},
          {"threads", kernel.threads},
          {"shared_bytes", kernel.shared_bytes},
          {"config", config}};
}

Json to_json(const PassPlan& pass) {
  Json config = Json::object();
  pass.config.visit([&](const char* field, const auto& value) { config[field] = value; });
  Json json = {{"config", config},
               {"units", pass.units},
               {"workspace_bytes", pass.workspace_bytes},
               {"why", pass.why}};
  for (const KernelPlan& kernel : pass.kernels) json["kernels"].push_back(to_json(kernel));
  return json;
}

void write_kernel(std::ostream& out, const KernelPlan& kernel) {
  out << "  kernel " << kernel.file << ": grid " << kernel.grid[0] << " x " << kernel.grid[1]
      << " x " << kernel.grid[2] << ", " << kernel.threads << " threads, " << kernel.shared_bytes
      << " bytes shared\n   ";
  for (const Literal& literal : kernel.config) {
    out << ' ' << literal.name << '=';
    const Json value = to_json(literal);
    out << (value.is_string() ? value.get<std::string>() : value.dump());
  }
  out << '\n';
}

void write_pass(std::ostream& out, const char* title, const PassPlan& pass) {
  out << title << '\n';
  pass.config.visit([&](const char* field, const auto& value) {
    out << "  " << field << std::string(16 - std::string_view(field).size(), ' ')
        << Json(value).dump() << '\n';
  });
  out << "  units           " << pass.units << '\n';
  out << "  workspace       " << pass.workspace_bytes << " bytes\n";
  for (const KernelPlan& kernel : pass.kernels) write_kernel(out, kernel);
  for (const std::string& sentence : pass.why) out << "  - " << sentence << '\n';
}

}  // namespace

std::string explain_text(const Plan& plan) {
  std::ostringstream out;
  out << "device            " << plan.device << '\n';
  write_pass(out, "forward", plan.forward);
  write_pass(out, "backward", plan.backward);
  return out.str();
}

std::string explain_json(const Plan& plan) {
  const Json json = {{"device", plan.device},
                     {"problem", to_json(plan.problem)},
                     {"forward", to_json(plan.forward)},
                     {"backward", to_json(plan.backward)}};
  return json.dump(2);
}

}  // namespace ingot
