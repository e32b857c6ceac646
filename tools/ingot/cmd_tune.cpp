// ingot tune: measures tiles on this machine's GPU and keeps the best for later runs.
#include <fcntl.h>

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "atomic_file.hpp"
#include "commands.hpp"
#include "device_memory.hpp"
#include "environment.hpp"
#include "failure.hpp"
#include "mapped_file.hpp"
#include "options.hpp"
#include "process.hpp"
#include "terminal.hpp"
#include "text.hpp"
#include "workload.hpp"

namespace ingot::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct TuneOptions {
  Problem problem{
      .num_heads = 16, .num_heads_kv = 0, .seqlen_q = 4096, .seqlen_k = 4096, .head_dim = 128};
  std::string dtype = "bf16", table;
  std::optional<double> time;  ///< of each tile
  bool dry_run = false;
  VariantOptions variant;
  DeviceOptions device;

  double seconds() const { return time.value_or(0.2); }
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
  if (const std::string chosen = variable("INGOT_CUDA_TUNING"); !chosen.empty()) {
    if (chosen == "off") throw Failure("--table: INGOT_CUDA_TUNING is off, name a file");
    return chosen;
  }
  fs::path cache = variable("INGOT_CACHE_DIR");
  const fs::path caches = variable("XDG_CACHE_HOME"), home = variable("HOME");
  if (cache.empty() && caches.is_absolute()) cache = caches / "ingot";
  if (cache.empty() && home.is_absolute()) cache = home / ".cache/ingot";
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
    const SignalHold hold;
    std::string name = (fs::temp_directory_path() / "ingot-tune-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw Failure(name + ": cannot be created");
    folder_.emplace(AT_FDCWD, name);
    path_ = name + "/table.txt";
    file_.emplace(AT_FDCWD, path_);
    setenv("INGOT_CUDA_TUNING", path_.c_str(), 1);
  }
  ~TrialTable() {
    const SignalHold hold;
    std::error_code ignored;
    fs::remove_all(fs::path(path_).parent_path(), ignored);
    unsetenv("INGOT_CUDA_TUNING");
  }
  TrialTable(const TrialTable&) = delete;
  TrialTable& operator=(const TrialTable&) = delete;

  void write(const std::string& row) const { std::ofstream(path_) << row << '\n'; }

 private:
  std::string path_;
  std::optional<TemporaryName> folder_, file_;
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
    const Context context(o.device.thread_count());
    if (difference(usual, Plan(context, small.problem, device), small) > tolerance) return 0;
    const Plan plan(context, w.problem, device);
    return flops(w) / measure(plan, w, o.seconds(), device).median / 1e9;
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

/// The table with one row more. Where its folder is there, what cannot be written fails before
/// anything is measured.
class NewTable {
 public:
  explicit NewTable(const fs::path& path) : path_(path.string()) {
    std::error_code error;
    if (fs::exists(path.has_parent_path() ? path.parent_path() : ".", error)) open();
  }
  void append(const std::string& row) {
    std::error_code error;
    // The kernel cache trusts no folder that others may write to.
    const mode_t own = umask(077);
    fs::create_directories(fs::path(path_).parent_path(), error);  // open() says what is wrong
    umask(own);
    if (!file_) open();
    if (const auto bytes = fs::file_size(path_, error); !error && bytes > 0) {
      files_.write(*file_, map_file(path_).span());
    }
    files_.write(*file_, row + "\n");
    files_.commit();
  }

 private:
  void open() { file_ = files_.add(path_); }

  std::string path_;
  OutputFiles files_;
  std::optional<std::size_t> file_;
};

std::string gpu_name(const Context& context, const std::string& device) {
  for (const DeviceInfo& info : context.devices()) {
    if (info.name != device || !has_own_memory(device)) continue;
    return info.description.substr(0, info.description.find(','));
  }
  const std::string reason = absence_reason(context, device);
  throw Failure("--device: must be a CUDA device of this machine, got " + device +
                (reason.empty() ? "" : " (" + reason + ")"));
}

// Sizes that were not given follow the others.
Problem problem_of(const TuneOptions& o) {
  Problem p = o.problem;
  apply(o.variant, p);
  if (p.num_heads_kv == 0) p.num_heads_kv = p.num_heads;
  if (p.head_dim_v == 0) p.head_dim_v = p.head_dim;
  p.seqlen_k = p.seqlen_q;
  p.q_dtype = parse_dtype("--dtype", o.dtype);
  require_groups(p);
  return p;
}

void tune(const TuneOptions& o) {
  const fs::path path = table_path(o);
  const Workload w{"tune", "tune", problem_of(o), INGOT_FORWARD};
  Workload small = w;
  small.problem.seqlen_q = small.problem.seqlen_k =
      std::min<std::int64_t>(1000, w.problem.seqlen_q);

  const TrialTable trial;  // no table: the built-in tiles
  const Context context(o.device.thread_count());
  const std::string device = o.device.device == "cuda" ? "cuda:0" : o.device.device;
  const std::string gpu = gpu_name(context, device);
  std::optional<NewTable> table_file;
  if (!o.dry_run) table_file.emplace(path);
  const Plan plan(context, w.problem, device), usual(context, small.problem, device);
  const json kernel = kernel_of(plan);
  const double usual_tflops = flops(w) / measure(plan, w, o.seconds(), device).median / 1e9;
  std::cout << printable(gpu + ", " + row_key(kernel))
            << "\nbuilt-in tile: " << fixed(usual_tflops, 1) << " TFLOP/s\n";

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
      best.tflops > 0 ? gain_of(Context(o.device.thread_count()), plan, w, o.seconds(), device) : 0;
  if (gain < worth_a_row) {
    std::cout << "the built-in tile stays: nothing is faster by 1 %\n";
    return;
  }
  const std::string row = gpu + " | " + row_key(kernel) + " | " + text_of(best.tile) + " | " +
                          fixed(best.tflops, 1) + " TFLOP/s, " + fixed(100 * gain - 100, 1) +
                          " % above the built-in tile, ingot " + ingot_version() + " tune, " +
                          utc_date().substr(0, 10);
  if (table_file) table_file->append(row);
  std::cout << (o.dry_run ? "would be written to " : "written to ") << printable(path.string())
            << ":\n"
            << printable(row) << '\n';
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
  Problem& p = o->problem;
  add_integer(*c, "--heads", p.num_heads, 1, max_size, "query heads (default 16)");
  add_integer(*c, "--heads-kv", p.num_heads_kv, 1, max_size,
              "key/value heads (default: as --heads)");
  add_integer(*c, "--seqlen", p.seqlen_q, 1, max_size, "queries and keys (default 4096)");
  add_integer(*c, "--head-dim", p.head_dim, 1, 1024, "of q and k (default 128)");
  add_integer(*c, "--head-dim-v", p.head_dim_v, 1, 1024, "of v (default: as --head-dim)");
  add_text(*c, "--dtype", o->dtype, "of q, k, v and o: f32, f16, bf16 (default bf16)")
      ->type_name("T");
  add_seconds(*c, o->time, "time for each tile (default 0.2)");
  add_text(*c, "--table", o->table, "the table to add to")->type_name("FILE");
  c->add_flag("--dry-run", o->dry_run, "write nothing");
  add_variant_options(*c, o->variant);
  add_device_options(*c, o->device);
  c->callback([o] { tune(*o); });
}

}  // namespace ingot::cli
