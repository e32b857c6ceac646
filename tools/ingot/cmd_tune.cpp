// ingot tune: measures tiles on this machine's GPU and keeps the best for later runs.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>

#include "atomic_file.hpp"
#include "commands.hpp"
#include "environment.hpp"
#include "failure.hpp"
#include "options.hpp"
#include "terminal.hpp"
#include "workload.hpp"

namespace ingot::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct TuneOptions {
  Problem problem{.num_heads = 16, .seqlen_q = 4096, .seqlen_k = 4096, .head_dim = 128};
  std::string dtype = "bf16", table;
  double seconds = 0.2;
  bool dry_run = false;
  VariantOptions variant;
  DeviceOptions device;
};

/// name=value of what a candidate changes.
using Tile = std::map<std::string, json>;

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string text_of(const Tile& tile) {
  std::string text;
  for (const auto& [name, value] : tile) {
    text += (text.empty() ? "" : " ") + name + "=" + text_of(value);
  }
  return text;
}

/// Where the library looks for the table; see docs/cuda.md.
fs::path table_path(const TuneOptions& o) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  if (!o.table.empty()) return o.table;
  if (const std::string chosen = variable("INGOT_CUDA_TUNING"); !chosen.empty()) return chosen;
  fs::path cache = variable("INGOT_CACHE_DIR");
  if (cache.empty() && !variable("XDG_CACHE_HOME").empty()) {
    cache = fs::path(variable("XDG_CACHE_HOME")) / "ingot";
  }
  if (cache.empty() && !variable("HOME").empty())
    cache = fs::path(variable("HOME")) / ".cache/ingot";
  if (cache.empty() || cache == "off") throw Failure("--table: there is no folder for caches");
  return cache / "tuning" / "cuda.txt";
}

/// The forward kernel that a plan starts with.
json kernel_of(const Plan& plan) {
  return json::parse(plan.explain(INGOT_JSON))["forward"]["kernels"].at(0)["config"];
}

/// The fields of a Config that say which kernels a row is for.
std::string row_key(const json& kernel) {
  std::string key = text_of(kernel["kernel"]);
  for (const char* name :
       {"arch", "element", "planes", "head_dim", "head_dim_v", "masked", "softcap"}) {
    key += std::string(" ") + name + "=" + text_of(kernel[name]);
  }
  return key;
}

/// Tiles beside the one in use; those that the device cannot have are found out by their plans.
std::vector<Tile> candidates(const json& kernel) {
  const bool warpgroups = kernel["warpgroups"].get<int>() > 0;
  const int step = warpgroups ? 16 : 32, now = kernel["block_n"].get<int>();
  std::vector<Tile> tiles;
  for (int block_n = std::max(step, now - 4 * step); block_n <= now + 4 * step; block_n += step) {
    if (!warpgroups) {
      for (const int stages : {2, 3}) tiles.push_back({{"block_n", block_n}, {"stages", stages}});
      continue;
    }
    for (const bool ordered : {true, false}) {
      for (const int cluster : {1, 2}) {
        tiles.push_back({{"block_n", block_n}, {"ordered", ordered}, {"cluster", cluster}});
      }
    }
  }
  return tiles;
}

/// A table of one row in a file of its own, that the library reads while this lives.
class TrialTable {
 public:
  TrialTable() {
    std::string name = (fs::temp_directory_path() / "ingot-tune-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw Failure(name + ": cannot be created");
    folder_ = name;
    setenv("INGOT_CUDA_TUNING", (folder_ / "table.txt").c_str(), 1);
  }
  ~TrialTable() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
    unsetenv("INGOT_CUDA_TUNING");
  }
  TrialTable(const TrialTable&) = delete;
  TrialTable& operator=(const TrialTable&) = delete;

  void write(const std::string& row) const { std::ofstream(folder_ / "table.txt") << row << '\n'; }

 private:
  fs::path folder_;
};

/// Largest difference of o between two plans of one problem, on host memory.
double difference(const Plan& a, const Plan& b, const Workload& w) {
  const Problem& p = w.problem;
  const Array q = normal_array(w, p.num_heads, p.seqlen_q, p.head_dim, 1);
  const Array k = normal_array(w, p.num_heads_kv, p.seqlen_k, p.head_dim, 2);
  const Array v = normal_array(w, p.num_heads_kv, p.seqlen_k, p.head_dim_v, 3);
  const auto o_of = [&](const Plan& plan) {
    const Array o = normal_array(w, p.num_heads, p.seqlen_q, p.head_dim_v, 4);
    plan.forward({.q = bhsd(q.data.get(), p.num_heads, p.seqlen_q, p.head_dim),
                  .k = bhsd(k.data.get(), p.num_heads_kv, p.seqlen_k, p.head_dim),
                  .v = bhsd(v.data.get(), p.num_heads_kv, p.seqlen_k, p.head_dim_v),
                  .o = bhsd(o.data.get(), p.num_heads, p.seqlen_q, p.head_dim_v)});
    return values_of(o);
  };
  const std::vector<double> x = o_of(a), y = o_of(b);
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = std::abs(x[i] - y[i]);
    worst = d <= worst ? worst : std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

constexpr double worth_a_row = 1.01;

struct Trial {
  Tile tile;
  double tflops = 0;
};

/// The speed of a tile; 0 where the device cannot have it, or it gives something else.
double try_tile(const TuneOptions& o, const Workload& w, const Workload& small, const Plan& usual,
                const std::string& device) {
  constexpr double tolerance = 0.02;  // of weights that are sums of normal numbers
  try {
    const Context context(o.device.threads);
    if (difference(usual, Plan(context, small.problem, device), small) > tolerance) return 0;
    const Plan plan(context, w.problem, device);
    return flops(w) / measure(plan, w, o.seconds, device).median / 1e9;
  } catch (const Error& error) {
    if (error.status() == INGOT_UNSUPPORTED || error.status() == INGOT_COMPILE_FAILED ||
        error.status() == INGOT_DEVICE_ERROR) {
      return 0;
    }
    throw;
  }
}

/// How many times faster the tile of the table is, both measured again in turns: a chip gets warmer
/// while many tiles are tried.
double gain_of(const Context& tuned_context, const Plan& usual, const Workload& w, double seconds,
               const std::string& device) {
  const Plan tuned(tuned_context, w.problem, device);
  double usual_ms = INFINITY, tuned_ms = INFINITY;
  for (int round = 0; round < 3; ++round) {
    usual_ms = std::min(usual_ms, measure(usual, w, seconds, device).median);
    tuned_ms = std::min(tuned_ms, measure(tuned, w, seconds, device).median);
  }
  return usual_ms / tuned_ms;
}

void append_row(const fs::path& path, const std::string& row) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::stringstream before;
  if (const std::ifstream file(path); file) before << file.rdbuf();
  OutputFiles files;
  const std::size_t file = files.add(path.string());
  files.write(file, before.str() + row + "\n");
  files.commit();
}

std::string gpu_name(const Context& context, const std::string& device) {
  for (const DeviceInfo& info : context.devices()) {
    if (info.name == device) return info.description.substr(0, info.description.find(','));
  }
  throw Failure("--device: must be a CUDA device of this machine, got " + device + " (" +
                absence_reason(context, device) + ")");
}

void tune(TuneOptions o) {
  const fs::path path = table_path(o);
  apply(o.variant, o.problem);
  if (o.problem.num_heads_kv == 1) o.problem.num_heads_kv = o.problem.num_heads;
  if (o.problem.head_dim_v == 0) o.problem.head_dim_v = o.problem.head_dim;
  o.problem.seqlen_k = o.problem.seqlen_q;
  o.problem.q_dtype = parse_dtype("--dtype", o.dtype);
  const Workload w{"tune", "tune", o.problem, INGOT_FORWARD};
  Workload small = w;
  small.problem.seqlen_q = small.problem.seqlen_k =
      std::min<std::int64_t>(1000, w.problem.seqlen_q);

  const TrialTable trial;  // no table: the built-in tiles
  const Context context(o.device.threads);
  const std::string device = o.device.device == "cuda" ? "cuda:0" : o.device.device;
  const std::string gpu = gpu_name(context, device);
  const Plan plan(context, w.problem, device), usual(context, small.problem, device);
  const json kernel = kernel_of(plan);
  const double usual_tflops = flops(w) / measure(plan, w, o.seconds, device).median / 1e9;
  std::cout << gpu << ", " << row_key(kernel) << "\nbuilt-in tile: " << fixed(usual_tflops, 1)
            << " TFLOP/s\n";

  std::vector<Trial> trials;
  const std::vector<Tile> tiles = candidates(kernel);
  Progress progress(tiles.size());
  for (const Tile& tile : tiles) {
    progress.show(trials.size(), text_of(tile));
    trial.write(gpu + " | " + row_key(kernel) + " | " + text_of(tile));
    trials.push_back({tile, try_tile(o, w, small, usual, device)});
  }
  progress.clear();
  std::ranges::sort(trials, std::greater<>(), &Trial::tflops);
  TextTable table({"tile", "TFLOP/s"});
  for (const Trial& t : trials) {
    table.add({text_of(t.tile), t.tflops > 0 ? fixed(t.tflops, 1) : "not possible"});
  }
  std::cout << table.text();
  const Trial& best = trials.front();
  trial.write(gpu + " | " + row_key(kernel) + " | " + text_of(best.tile));
  const double gain =
      best.tflops > 0 ? gain_of(Context(o.device.threads), plan, w, o.seconds, device) : 0;
  if (gain < worth_a_row) {
    std::cout << "the built-in tile stays: nothing is faster by 1 %\n";
    return;
  }
  const std::string row = gpu + " | " + row_key(kernel) + " | " + text_of(best.tile) + " | " +
                          fixed(best.tflops, 1) + " TFLOP/s, " + fixed(100 * gain - 100, 1) +
                          " % above the built-in tile, ingot " + ingot_version() + " tune, " +
                          utc_date().substr(0, 10);
  if (!o.dry_run) append_row(path, row);
  std::cout << (o.dry_run ? "would be written to " : "written to ") << path.string() << ":\n"
            << row << '\n';
}

}  // namespace

void add_tune(CLI::App& app, int&) {
  auto o = std::make_shared<TuneOptions>();
  o->device.device = "cuda:0";
  CLI::App* c = app.add_subcommand("tune", "Measure tiles on this GPU and keep the best");
  c->footer(
      "Tiles around the built-in one are compiled, compared with it and timed. A faster one is "
      "written as a row of\n"
      "the table that every later run reads: tuning/cuda.txt in the folder of the kernel cache, or "
      "the file that\n"
      "INGOT_CUDA_TUNING names (\"off\": none). `ingot explain` says when a tile is of the table.\n"
      "Example:\n"
      "  ingot tune --device cuda --head-dim 128 --dtype bf16 --causal bottom_right");
  c->add_option("--heads", o->problem.num_heads, "query heads (default 16)")->type_name("N");
  c->add_option("--heads-kv", o->problem.num_heads_kv, "key/value heads (default: as --heads)")
      ->type_name("N");
  c->add_option("--seqlen", o->problem.seqlen_q, "queries and keys (default 4096)")->type_name("N");
  c->add_option("--head-dim", o->problem.head_dim, "of q and k (default 128)")->type_name("N");
  c->add_option("--head-dim-v", o->problem.head_dim_v, "of v (default: as --head-dim)")
      ->type_name("N");
  c->add_option("--dtype", o->dtype, "of q, k, v and o: f32, f16, bf16 (default bf16)")
      ->type_name("T");
  c->add_option("--seconds", o->seconds, "time for each tile (default 0.2)")
      ->check(CLI::Range(0.0, 3600.0))
      ->type_name("S");
  c->add_option("--table", o->table, "the table to add to")->type_name("FILE");
  c->add_flag("--dry-run", o->dry_run, "write nothing");
  add_variant_options(*c, o->variant);
  add_device_options(*c, o->device);
  c->callback([o] { tune(*o); });
}

}  // namespace ingot::cli
