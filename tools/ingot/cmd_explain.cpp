// ingot explain: which kernel a problem runs, with which blocks and memory, and why.
#include <ingot/ingot.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.hpp"
#include "failure.hpp"
#include "options.hpp"
#include "parts.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

struct ExplainOptions {
  std::int64_t batch = 1, heads = 1, heads_kv = 0, seqlen_q = 0, seqlen_k = -1;
  std::int64_t head_dim = 0, head_dim_v = 0;
  std::string dtype = "f32", out_dtype;
  bool json = false, source = false, backward = false;
  VariantOptions variant;
  PartOptions parts;
  DeviceOptions device;
};

// Sizes that were not given follow the others, as in a problem of self-attention.
Problem problem_of(const ExplainOptions& o) {
  Problem p{.batch = o.batch,
            .num_heads = o.heads,
            .num_heads_kv = o.heads_kv != 0 ? o.heads_kv : o.heads,
            .seqlen_q = o.seqlen_q,
            .seqlen_k = o.seqlen_k >= 0 ? o.seqlen_k : o.seqlen_q,
            .head_dim = o.head_dim,
            .head_dim_v = o.head_dim_v != 0 ? o.head_dim_v : o.head_dim,
            .q_dtype = parse_dtype("--dtype", o.dtype)};
  require_groups(p);
  if (!o.out_dtype.empty()) p.o_dtype = parse_dtype("--out-dtype", o.out_dtype);
  apply(o.variant, p);
  o.parts.apply(p);
  return p;
}

std::string explanation(const ExplainOptions& o, const Plan& plan) {
  if (o.source) return plan.source(o.backward ? INGOT_BACKWARD : INGOT_FORWARD);
  if (!o.json) return printable_lines(plan.explain());
  return json_text(nlohmann::ordered_json::parse(plan.explain(INGOT_JSON)));
}

void explain(const ExplainOptions& o) {
  const Context context(o.device.thread_count());
  const std::string text = explanation(o, Plan(context, problem_of(o), o.device.device));
  std::cout << text << (text.ends_with('\n') ? "" : "\n");
}

}  // namespace

void add_explain(CLI::App& app, int&) {
  auto o = std::make_shared<ExplainOptions>();
  CLI::App* c =
      app.add_subcommand("explain", "Say which kernel runs, its blocks and memory, and why");
  c->footer(
      "Examples:\n"
      "  ingot explain --heads 32 --heads-kv 8 --seqlen-q 2048 --head-dim 128 --dtype bf16\n"
      "  ingot explain --heads 32 --seqlen-q 1 --seqlen-k 8192 --head-dim 128 --causal "
      "bottom_right");
  add_integer(*c, "--batch", o->batch, 0, max_size, "batch entries (default 1)");
  add_integer(*c, "--heads", o->heads, 1, max_size, "query heads (default 1)");
  add_integer(*c, "--heads-kv", o->heads_kv, 1, max_size, "key/value heads (default: as --heads)");
  add_integer(*c, "--seqlen-q", o->seqlen_q, 0, max_size, "query rows")->required();
  add_integer(*c, "--seqlen-k", o->seqlen_k, 0, max_size, "keys (default: as --seqlen-q)");
  add_integer(*c, "--head-dim", o->head_dim, 1, max_size, "of q and k, 1..1024")->required();
  add_integer(*c, "--head-dim-v", o->head_dim_v, 1, max_size,
              "of v and o (default: as --head-dim)");
  add_text(*c, "--dtype", o->dtype, "of q, k and v: f32, f16, bf16 (default f32)")->type_name("T");
  add_text(*c, "--out-dtype", o->out_dtype, "of o (default: as --dtype)")->type_name("T");
  add_variant_options(*c, o->variant);
  add_part_options(*c, o->parts);
  add_device_options(*c, o->device);
  auto* json = c->add_flag("--json", o->json, "print JSON");
  auto* source =
      c->add_flag("--source", o->source, "print the text of a kernel that is compiled just in time")
          ->excludes(json);
  c->add_flag("--backward", o->backward, "with --source: the kernel of the backward pass")
      ->needs(source);
  c->callback([o] { explain(*o); });
}

}  // namespace ingot::cli
