// ingot model: the modelled speed of attention kernels on an Apple chip that need not be there.
#include <algorithm>
#include <cmath>
#include <ingot/ingot.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands.hpp"
#include "dtype.hpp"
#include "failure.hpp"
#include "model.hpp"
#include "model_plan.hpp"
#include "options.hpp"
#include "terminal.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

using Json = nlohmann::ordered_json;

struct ModelOptions {
  std::string chip, dtype = "f16", pass = "all", causal = "none";
  std::vector<std::int64_t> head_dims{32, 64, 128, 256, 384};
  std::int64_t head_dim_v = 0, seqlen = 8192, batch = 1, heads = 8, heads_kv = 0;
  bool published = false, json = false;
};

Problem problem_of(const ModelOptions& o, std::int64_t head_dim) {
  Problem p{.batch = o.batch,
            .num_heads = o.heads,
            .num_heads_kv = o.heads_kv != 0 ? o.heads_kv : o.heads,
            .seqlen_q = o.seqlen,
            .seqlen_k = o.seqlen,
            .head_dim = head_dim,
            .head_dim_v = o.head_dim_v != 0 ? o.head_dim_v : head_dim,
            .q_dtype = parse_dtype("--dtype", o.dtype)};
  VariantOptions variant;
  variant.causal = o.causal;
  apply(variant, p);
  return p;
}

KernelProblem kernel_problem(const Problem& p, Kernel kernel) {
  return {.kernel = kernel,
          .element_bytes = p.q_dtype == Dtype::f32 ? 4 : 2,
          .head_dim = p.head_dim,
          .head_dim_v = p.head_dim_v,
          .seqlen_q = p.seqlen_q,
          .seqlen_k = p.seqlen_k,
          .batch = p.batch,
          .heads = p.num_heads,
          .heads_kv = p.num_heads_kv,
          .causal = p.causal != Causal::none};
}

std::string percent(double share) { return fixed(100 * share, 1); }

Json to_json(const KernelProblem& p, const KernelShape& s, const Modelled& m) {
  return {{"pass", name(p.kernel)},
          {"head_dim", p.head_dim},
          {"shape", s.label},
          {"clocks_per_tile", m.clocks.tile},
          {"issue_clocks", m.clocks.issue},
          {"l2_clocks", m.clocks.l2},
          {"threadgroup_clocks", m.clocks.threadgroup},
          {"utilisation", m.utilisation},
          {"plain_utilisation", m.plain_utilisation},
          {"fill", m.fill},
          {"threadgroups", m.groups},
          {"memory_bound", m.memory_bound},
          {"modelled_ms", m.seconds * 1e3},
          {"modelled_ginstrs", m.ginstrs}};
}

void add_row(TextTable& table, const KernelProblem& p, const KernelShape& s, const Modelled& m,
             const std::string& published) {
  table.add({s.label, name(p.kernel), std::to_string(p.head_dim), fixed(m.clocks.tile, 0),
             fixed(m.clocks.issue, 0), fixed(m.clocks.l2, 0), fixed(m.clocks.threadgroup, 0),
             percent(m.utilisation), percent(m.plain_utilisation), published, percent(m.fill),
             fixed(m.seconds * 1e3, 3), fixed(m.ginstrs, 0) + (m.memory_bound ? "*" : "")});
}

struct Mean {
  std::string what;
  double sum = 0, plain_sum = 0;
  int points = 0;

  void add(const Published& point) {
    sum += 100 * std::abs(error_of(point));
    plain_sum += 100 * std::abs(error_of(point, Terms::plain));
    ++points;
  }
  std::string text() const {
    return what + ": " + fixed(sum / points, 1) + " points (" + std::to_string(points) +
           " figures; plain " + fixed(plain_sum / points, 1) + ")\n";
  }
};

// What this chip's rows are worth: the mean error against what is published of it, or of the chips
// there are figures of.
std::string errors_text(const Chip& chip) {
  std::vector<Mean> means;
  for (const Published& point : published()) {
    if (means.empty() || means.back().what != point.chip) means.push_back({point.chip});
    means.back().add(point);
  }
  std::string text = "mean absolute error of the model against published figures (--published):\n";
  bool own = false;
  for (const Mean& mean : means) own = own || mean.what == chip.name;
  if (!own) text += "  none is published of " + std::string(chip.name) + "; of others:\n";
  for (const Mean& mean : means) {
    if (!own || mean.what == chip.name) text += "  " + mean.text();
  }
  return text;
}

std::vector<Kernel> kernels_of(const std::string& pass) {
  std::vector<Kernel> kernels;
  for (const Kernel kernel : {Kernel::forward, Kernel::dq, Kernel::dkv}) {
    if (pass == "all" || pass == name(kernel)) kernels.push_back(kernel);
  }
  return kernels;
}

// metal-flash-attention has one table for head_dim and head_dim_v, and none for GQA or masks: its
// row is its blocks in this model, not a thing it can run.
void print_chip(const ModelOptions& o) {
  const Chip& chip = find_chip(o.chip);
  const Context context;
  TextTable table({"blocks", "pass", "head_dim", "clk/tile", "issue", "L2", "tg", "ALU %",
                   "plain %", "published %", "fill %", "ms", "GINSTRS"});
  Json rows = Json::array();
  for (const std::int64_t head_dim : o.head_dims) {
    const Problem problem = problem_of(o, head_dim);
    const Plan plan(context, problem, "metal:" + o.chip);
    const Json explained = Json::parse(plan.explain(INGOT_JSON));
    for (const Kernel kernel : kernels_of(o.pass)) {
      const KernelProblem p = kernel_problem(problem, kernel);
      const Published* point = find_published(chip, p);
      std::string figure = point == nullptr ? "" : percent(point->ginstrs / peak_ginstrs(chip));
      for (const KernelShape& s : {predecessor_shape(chip, p), planned_shape(explained, p)}) {
        const Modelled m = model(chip, p, s);
        add_row(table, p, s, m, std::exchange(figure, ""));
        rows.push_back(to_json(p, s, m));
      }
    }
  }
  if (o.json) {
    std::cout << json_text(Json{{"modelled", true}, {"chip", o.chip}, {"rows", rows}});
    return;
  }
  std::cout << "modelled, not measured: " << chip.name << ", " << chip.cores << " cores at "
            << chip.ghz << " GHz, peak " << fixed(peak_ginstrs(chip), 0) << " GINSTRS; " << o.dtype
            << ", batch " << o.batch << ", heads " << o.heads << ", " << o.seqlen << " x "
            << o.seqlen << ", causal " << o.causal << "\n"
            << table.text()
            << "ALU %: credited instructions over issue slots of a full grid. GINSTRS and ms: this "
               "call, with fill and launch; *: bound by memory. plain %: ALU % without the working "
               "set of family 9 and newer. published %: measured, of one head without mask.\n"
            << errors_text(chip);
}

Json to_json(const Published& point, double modelled) {
  return {{"chip", point.chip},
          {"pass", name(point.kernel)},
          {"element_bytes", point.element_bytes},
          {"head_dim", point.head_dim},
          {"published_ginstrs", point.ginstrs},
          {"modelled_ginstrs", modelled * peak_ginstrs(find_chip(point.chip))},
          {"error_points", 100 * error_of(point)},
          {"plain_error_points", 100 * error_of(point, Terms::plain)},
          {"fit", point.fit == Fit::none      ? "none"
                  : point.fit == Fit::overlap ? "overlap"
                                              : "working_set"}};
}

void add_row(TextTable& table, const Published& point) {
  const Chip& chip = find_chip(point.chip);
  const KernelProblem p = problem_of(point);
  const KernelShape s = predecessor_shape(chip, p);
  const double modelled = tile_utilisation(chip, p, s);
  table.add({point.chip, name(p.kernel), std::to_string(p.element_bytes),
             std::to_string(p.head_dim), s.label.substr(s.label.rfind(' ') + 1),
             fixed(point.ginstrs, 0), fixed(modelled * peak_ginstrs(chip), 0),
             percent(point.ginstrs / peak_ginstrs(chip)), percent(modelled),
             fixed(100 * error_of(point), 1) + (point.fit == Fit::none ? "~" : ""),
             fixed(100 * error_of(point, Terms::plain), 1)});
}

// The model against every published figure of the predecessor, with the error beside each.
void print_published(const ModelOptions& o) {
  TextTable table({"chip", "pass", "bytes", "head_dim", "blocks", "published", "modelled",
                   "published %", "modelled %", "error", "plain error"});
  Json rows = Json::array();
  Mean fitted{"the 19 points of the fit"}, m1_max{"m1-max, all"}, m4{"m4, head_dim up to 128"},
      m4_wide{"m4, head_dim above 128"}, unseen{"m4, figures that no fit saw"};
  for (const Published& point : published()) {
    const bool old = std::string(point.chip) == "m1-max";
    (old ? m1_max : point.head_dim <= 128 ? m4 : m4_wide).add(point);
    if (point.fit == Fit::overlap) fitted.add(point);
    if (!old && point.fit == Fit::none) unseen.add(point);
    add_row(table, point);
    const Chip& chip = find_chip(point.chip);
    const KernelProblem p = problem_of(point);
    rows.push_back(to_json(point, tile_utilisation(chip, p, predecessor_shape(chip, p))));
  }
  if (o.json) {
    std::cout << json_text(Json{{"modelled", true}, {"rows", rows}});
    return;
  }
  std::cout << "metal-flash-attention: published GINSTRS beside this model of its blocks "
               "(modelled); ~: a point that no fit saw; plain: without the working set\n"
            << table.text();
  for (const Mean& mean : {fitted, m1_max, m4, m4_wide, unseen}) {
    std::cout << "mean absolute error, " << mean.text();
  }
}

void print_model(const ModelOptions& o) {
  if (o.published) return print_published(o);
  if (o.chip.empty()) throw UsageError("--chip: must be given (or --published)");
  print_chip(o);
}

}  // namespace

void add_model(CLI::App& app, int&) {
  auto o = std::make_shared<ModelOptions>();
  CLI::App* c = app.add_subcommand(
      "model", "Modelled (not measured) speed on an Apple chip that need not be there");
  c->footer(
      "Examples:\n"
      "  ingot model --chip m1-max --dtype f16 --seqlen 16384\n"
      "  ingot model --chip m4 --head-dim 128 --pass forward --causal top_left\n"
      "  ingot model --published\n"
      "The model and where its constants come from: docs/metal.md.");
  add_text(*c, "--chip", o->chip, "m1, m1-max, m2-pro, m3-max, m4, ...")->type_name("NAME");
  const auto head_dims = [o](const std::vector<std::string>& texts) {
    o->head_dims.clear();
    for (const std::string& text : texts) {
      o->head_dims.push_back(parse_integer("--head-dim", text, 1, 1024));
    }
  };
  c->add_option_function<std::vector<std::string>>("--head-dim", head_dims,
                                                   "of q and k (default: 32 64 128 256 384)")
      ->type_name("N");
  constexpr std::int64_t most = 1 << 20;
  add_integer(*c, "--head-dim-v", o->head_dim_v, 1, 1024, "of v and o (default: as --head-dim)");
  add_text(*c, "--dtype", o->dtype, "f32, f16, bf16 (default f16)")->type_name("T");
  c->add_option("--pass", o->pass, "forward, dq, dkv, all (default all)")
      ->check(CLI::IsMember({"forward", "dq", "dkv", "all"}))
      ->type_name("PASS");
  add_integer(*c, "--seqlen", o->seqlen, 1, most, "queries, and keys (default 8192)");
  add_integer(*c, "--batch", o->batch, 1, most, "batch entries (default 1)");
  add_integer(*c, "--heads", o->heads, 1, most, "query heads (default 8)");
  add_integer(*c, "--heads-kv", o->heads_kv, 1, most, "key/value heads (default: as --heads)");
  c->add_option("--causal", o->causal, "none, top_left, bottom_right")
      ->check(CLI::IsMember({"none", "top_left", "bottom_right"}))
      ->type_name("KIND");
  const std::vector<CLI::Option*> of_a_chip = c->get_options();
  CLI::Option* published =
      c->add_flag("--published", o->published,
                  "the model beside every published figure of metal-flash-attention");
  for (CLI::Option* option : of_a_chip) {
    if (option != c->get_help_ptr()) published->excludes(option);
  }
  c->add_flag("--json", o->json, "print JSON");
  c->callback([o] { print_model(*o); });
}

}  // namespace ingot::cli
