#include "core/plan.hpp"

#include "core/json_writer.hpp"

namespace ingot {
namespace {

void write(JsonWriter& json, const Problem& p) {
  json.begin_object();
  json.member("batch", p.batch);
  json.member("num_heads", p.num_heads);
  json.member("num_heads_kv", p.num_heads_kv);
  json.member("seqlen_q", p.seqlen_q);
  json.member("seqlen_k", p.seqlen_k);
  json.member("head_dim", p.head_dim);
  json.member("head_dim_v", p.head_dim_v);
  json.member("q_dtype", name(p.q));
  json.member("k_dtype", name(p.k));
  json.member("v_dtype", name(p.v));
  json.member("o_dtype", name(p.o));
  json.member("dout_dtype", name(p.dout));
  json.member("dq_dtype", name(p.dq));
  json.member("dk_dtype", name(p.dk));
  json.member("dv_dtype", name(p.dv));
  json.member("causal", name(p.causal));
  json.member("window_left", p.window_left);
  json.member("window_right", p.window_right);
  json.member("scale", static_cast<double>(p.scale));
  json.member("softcap", static_cast<double>(p.softcap));
  json.member("precision", name(p.precision));
  json.member("workspace_limit", p.workspace_limit);
  json.member("alibi", p.parts.alibi);
  json.member("mask", p.parts.mask);
  json.member("prefix", p.parts.prefix);
  json.member("bias_dtype", p.parts.bias ? name(p.parts.bias_dtype) : "none");
  json.member("sinks_dtype", p.parts.sinks ? name(p.parts.sinks_dtype) : "none");
  json.member("dropout", static_cast<double>(p.parts.dropout));
  json.end_object();
}

/// Calls f with the literal's value, a type by its name.
template <class F>
void with_value(const Literal& literal, F&& f) {
  std::visit(
      [&](const auto& value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, TypeName>) {
          f(value.name);
        } else {
          f(value);
        }
      },
      literal.value);
}

void write(JsonWriter& json, const KernelPlan& kernel) {
  json.begin_object();
  json.member("file", kernel.file);
  json.key("grid");
  json.begin_array();
  for (const std::int64_t extent : kernel.grid) json.value(extent);
  json.end_array();
  json.member("threads", kernel.threads);
  json.member("shared_bytes", kernel.shared_bytes);
  json.key("config");
  json.begin_object();
  for (const Literal& literal : kernel.config) {
    json.key(literal.name);
    with_value(literal, [&](const auto& value) { json.value(value); });
  }
  json.end_object();
  json.end_object();
}

void write(JsonWriter& json, const PassPlan& pass) {
  json.begin_object();
  json.key("config");
  json.begin_object();
  pass.config.visit([&](const char* field, const auto& value) { json.member(field, value); });
  json.end_object();
  json.member("units", pass.units);
  json.member("workspace_bytes", pass.workspace_bytes);
  json.key("why");
  json.begin_array();
  for (const std::string& sentence : pass.why) json.value(sentence);
  json.end_array();
  if (!pass.kernels.empty()) {
    json.key("kernels");
    json.begin_array();
    for (const KernelPlan& kernel : pass.kernels) write(json, kernel);
    json.end_array();
  }
  json.end_object();
}

// Text is appended to a string, not put into a stream: that swallows std::bad_alloc and goes on
// without the rest.
template <class T>
void append(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += value ? "true" : "false";
  } else if constexpr (std::integral<T>) {
    out += std::to_string(value);
  } else {
    out += value;
  }
}

template <class... Parts>
void append_all(std::string& out, const Parts&... parts) {
  (append(out, parts), ...);
}

void append_kernel(std::string& out, const KernelPlan& kernel) {
  append_all(out, "  kernel ", kernel.file, ": grid ", kernel.grid[0], " x ", kernel.grid[1], " x ",
             kernel.grid[2], ", ", kernel.threads, " threads, ", kernel.shared_bytes,
             " bytes shared\n   ");
  for (const Literal& literal : kernel.config) {
    append_all(out, " ", literal.name, "=");
    with_value(literal, [&](const auto& value) { append(out, value); });
  }
  out += '\n';
}

void append_pass(std::string& out, std::string_view title, const PassPlan& pass) {
  append_all(out, title, "\n");
  pass.config.visit([&](std::string_view field, const auto& value) {
    append_all(out, "  ", field, std::string(16 - field.size(), ' '));
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string_view>) {
      append_all(out, "\"", value, "\"\n");
    } else {
      append_all(out, value, "\n");
    }
  });
  append_all(out, "  units           ", pass.units, "\n");
  append_all(out, "  workspace       ", pass.workspace_bytes, " bytes\n");
  for (const KernelPlan& kernel : pass.kernels) append_kernel(out, kernel);
  for (const std::string& sentence : pass.why) append_all(out, "  - ", sentence, "\n");
}

}  // namespace

std::string explain_text(const Plan& plan) {
  std::string out;
  append_all(out, "device            ", plan.device, "\n");
  append_pass(out, "forward", plan.forward);
  append_pass(out, "backward", plan.backward);
  return out;
}

std::string explain_json(const Plan& plan) {
  JsonWriter json;
  json.begin_object();
  json.member("device", plan.device);
  json.key("problem");
  write(json, plan.problem);
  json.key("forward");
  write(json, plan.forward);
  json.key("backward");
  write(json, plan.backward);
  json.end_object();
  return json.text();
}

}  // namespace ingot
