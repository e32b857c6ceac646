// ingot run: attention on arrays in files.
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "atomic_file.hpp"
#include "attention.hpp"
#include "commands.hpp"
#include "failure.hpp"
#include "npy.hpp"
#include "options.hpp"
#include "safetensors.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

using nlohmann::json;
using Files = std::map<std::string, std::string>;  // tensor to path
using Tensors = std::vector<std::pair<std::string, Array>>;

struct RunOptions {
  Files files;  // .npy: q k v dout and the parts in, o lse dq dk dv dbias dsinks out
  std::string in, out, layout = "bhsd", out_dtype;
  bool json = false;
  VariantOptions variant;
  DropoutOptions dropout;
  DeviceOptions device;

  bool given(const std::string& tensor) const {
    const auto found = files.find(tensor);
    return found != files.end() && !found->second.empty();
  }
  bool wants_gradients() const {
    return given("dq") || given("dk") || given("dv") || given("dbias") || given("dsinks");
  }
};

constexpr const char* part_inputs[] = {"mask", "bias", "alibi", "sinks", "prefix-len"};
constexpr const char* result_names[] = {"o", "lse", "dq", "dk", "dv", "dbias", "dsinks"};

bool is_part(const std::string& name) {
  return std::find(std::begin(part_inputs), std::end(part_inputs), name) != std::end(part_inputs);
}

void check_npy_usage(const RunOptions& o) {
  for (const char* name : {"q", "k", "v"}) {
    if (!o.given(name))
      throw UsageError(std::string("--") + name + ": is missing (or --in and --out)");
  }
  if (!o.out.empty())
    throw UsageError("--out: goes with --in; .npy outputs are --o, --lse, --dq, --dk, --dv");
  if (!o.given("o") && !o.given("lse") && !o.wants_gradients()) {
    throw UsageError("nothing to write: give --o, --lse, --dq, --dk, --dv, --dbias or --dsinks");
  }
  if (o.wants_gradients() && !o.given("dout"))
    throw UsageError("--dout: is missing, gradients need it");
  if (o.given("dout") && !o.wants_gradients())
    throw UsageError("--dout: needs --dq, --dk, --dv, --dbias or --dsinks");
  for (const char* part : {"bias", "sinks"}) {
    const std::string gradient = std::string("d") + part;
    if (o.given(gradient) && !o.given(part)) {
      throw UsageError("--" + gradient + ": needs --" + part);
    }
  }
  if (!o.out_dtype.empty() && !o.given("o") && !o.wants_gradients()) {
    throw UsageError("--out-dtype: goes with --o, --dq, --dk or --dv; lse is f32");
  }
  if (o.out_dtype == "bf16") {
    throw UsageError(
        "--out-dtype bf16: the .npy format has no bf16; use --in and --out with "
        "safetensors files, or --out-dtype f32");
  }
}

void check_usage(const RunOptions& o) {
  if (o.in.empty()) return check_npy_usage(o);
  for (const auto& [name, path] : o.files) {
    if (!path.empty() && !is_part(name)) throw UsageError("--" + name + ": cannot go with --in");
  }
  if (o.out.empty()) throw UsageError("--out: is missing, --in needs it");
}

struct Loaded {
  Array q, k, v;
  std::optional<Array> dout;
  PartArrays parts;
  std::vector<MappedFile> files;

  std::vector<std::string> paths() const {
    std::vector<std::string> all;
    for (const MappedFile& file : files) all.push_back(file.path);
    return all;
  }
};

void load_parts(const RunOptions& o, Loaded& loaded) {
  const auto load_one = [&](const char* name, std::optional<Array>& array, NpyElements elements) {
    if (!o.given(name)) return;
    array = load_npy(loaded.files.emplace_back(map_file(o.files.at(name))), elements);
  };
  PartArrays& parts = loaded.parts;
  load_one("alibi", parts.alibi, NpyElements::numbers);
  load_one("bias", parts.bias, NpyElements::numbers);
  load_one("sinks", parts.sinks, NpyElements::numbers);
  load_one("mask", parts.mask, NpyElements::bytes);
  load_one("prefix-len", parts.prefix_len, NpyElements::lengths);
  parts.seed = o.dropout.seed.value_or(0);
}

Loaded load(const RunOptions& o) {
  Loaded loaded;
  if (!o.in.empty()) {
    const SafetensorsFile file(o.in);
    loaded = {file.tensor("q"), file.tensor("k"), file.tensor("v"), {}, {}, {file.mapped()}};
    if (file.contains("dout")) loaded.dout = file.tensor("dout");
    load_parts(o, loaded);
    return loaded;
  }
  const auto load_one = [&](const char* name) {
    return load_npy(loaded.files.emplace_back(map_file(o.files.at(name))));
  };
  loaded.q = load_one("q");
  loaded.k = load_one("k");
  loaded.v = load_one("v");
  if (o.given("dout")) loaded.dout = load_one("dout");
  load_parts(o, loaded);
  return loaded;
}

// Only the reference computes in f64; other devices get f32.
void narrow(Loaded& loaded, const std::string& device) {
  if (device == "reference") return;
  std::string names;
  const auto convert = [&](const char* name, Array& array) {
    if (array.dtype != INGOT_F64) return;
    array = converted(array, INGOT_F32);
    names += (names.empty() ? "" : ", ") + std::string(name);
  };
  convert("q", loaded.q);
  convert("k", loaded.k);
  convert("v", loaded.v);
  if (loaded.dout) convert("dout", *loaded.dout);
  if (names.empty()) return;
  std::cerr << "ingot: note: " << names
            << " converted from f64 to f32 (--device reference computes in f64)\n";
}

// Which results go to files, in the order they are written.
Tensors wanted(const RunOptions& o, const AttentionResult& result) {
  Tensors all{{"o", result.o}, {"lse", result.lse}};
  if (result.has_gradients()) {
    all.insert(all.end(), {{"dq", *result.dq}, {"dk", *result.dk}, {"dv", *result.dv}});
  }
  if (result.dbias) all.emplace_back("dbias", *result.dbias);
  if (result.dsinks) all.emplace_back("dsinks", *result.dsinks);
  if (o.in.empty()) std::erase_if(all, [&](const auto& item) { return !o.given(item.first); });
  return all;
}

// Temporary files exist from the start, so that a place that cannot be written fails before the
// work.
class Outputs {
 public:
  Outputs(const RunOptions& o, const std::vector<std::string>& inputs) : one_(!o.in.empty()) {
    if (one_) {
      handles_[""] = files_.add(o.out, inputs);
      return;
    }
    for (const char* name : result_names) {
      if (o.given(name)) handles_[name] = files_.add(o.files.at(name), inputs);
    }
  }

  void write(const Tensors& tensors) {
    if (one_) files_.write(handles_.at(""), safetensors_header(tensors, {}));
    for (const auto& [name, array] : tensors) {
      const std::size_t handle = handles_.at(one_ ? "" : name);
      if (!one_) files_.write(handle, npy_header(array.dtype, array.shape));
      files_.write(handle, {array.data.get(), packed_bytes(array)});
    }
    files_.commit();
  }

 private:
  bool one_;
  OutputFiles files_;
  std::map<std::string, std::size_t> handles_;
};

std::string path_of(const RunOptions& o, const std::string& name) {
  return o.in.empty() ? o.files.at(name) : o.out;
}

void print_summary(const RunOptions& o, const std::string& device, const Problem& problem,
                   const AttentionResult& result, const Tensors& tensors) {
  json outputs = json::object();
  for (const auto& [name, array] : tensors) {
    outputs[name] = {{"path", valid_utf8(path_of(o, name))},
                     {"dtype", std::string(dtype_name(array.dtype))},
                     {"shape", array.shape}};
  }
  json time{{"forward", result.forward_ms}};
  if (result.has_gradients()) time["backward"] = result.backward_ms;
  json summary{
      {"device", device}, {"problem", to_json(problem)}, {"time_ms", time}, {"outputs", outputs}};
  const auto name_of = [](Dtype dtype) { return dtype_name(static_cast<ingot_dtype>(dtype)); };
  summary["dtypes"] = {{"q", name_of(problem.q_dtype)},
                       {"k", name_of(problem.k_dtype)},
                       {"v", name_of(problem.v_dtype)},
                       {"o", dtype_name(result.o.dtype)}};
  if (o.json) {
    std::cout << json_text(summary);
    return;
  }
  std::cout << device << ": forward " << result.forward_ms << " ms";
  if (result.has_gradients()) std::cout << ", backward " << result.backward_ms << " ms";
  std::cout << '\n';
  for (const auto& [name, array] : tensors) {
    std::cout << name << ": " << dtype_name(array.dtype) << ' ' << shape_text(array.shape) << " -> "
              << printable(path_of(o, name)) << '\n';
  }
}

void run(const RunOptions& o) {
  check_usage(o);
  const Layout layout = o.layout == "bshd" ? Layout::bshd : Layout::bhsd;
  const Context context(o.device.thread_count());
  const std::string device = resolved_device(context, o.device.device);
  Loaded loaded = load(o);
  narrow(loaded, device);
  Problem problem = problem_of(loaded.q, loaded.k, loaded.v, layout);
  if (loaded.dout) problem.dout_dtype = static_cast<Dtype>(loaded.dout->dtype);
  if (!o.out_dtype.empty()) {
    problem.o_dtype = problem.dq_dtype = problem.dk_dtype = problem.dv_dtype =
        parse_dtype("--out-dtype", o.out_dtype);
  }
  apply(o.variant, problem);
  o.dropout.apply(problem);
  std::string narrowed;
  loaded.parts.turn_on(problem, narrowed);
  if (!narrowed.empty()) std::cerr << "ingot: note: " << narrowed << " converted from f64 to f32\n";
  AttentionInput input{loaded.q, loaded.k, loaded.v, loaded.dout, layout, loaded.parts};
  const bool all_gradients = !o.in.empty() && loaded.dout.has_value();
  input.wants_dbias = o.given("dbias") || (all_gradients && o.given("bias"));
  input.wants_dsinks = o.given("dsinks") || (all_gradients && o.given("sinks"));
  const Plan plan(context, problem, device);
  check(input, problem);
  Outputs outputs(o, loaded.paths());
  const AttentionResult result = attention(plan, problem, input);
  for (const MappedFile& file : loaded.files) file.require_unchanged();
  const Tensors tensors = wanted(o, result);
  outputs.write(tensors);
  print_summary(o, device, problem, result, tensors);
}

}  // namespace

void add_run(CLI::App& app, int&) {
  auto o = std::make_shared<RunOptions>();
  CLI::App* c =
      app.add_subcommand("run", "Compute attention, and its gradients, of arrays in files");
  c->footer(
      "Arrays have rank 4 [batch, heads, seqlen, head_dim], 3 [heads, seqlen, head_dim] or 2 "
      "[seqlen, head_dim];\n"
      "with --layout bshd heads come after seqlen. Fewer heads in k and v than in q: grouped-query "
      "attention.\n"
      "mask and bias are [batch, heads, rows, keys] in both layouts, alibi [batch, heads], sinks "
      "[heads] and prefix-len\n"
      "[batch]; axes may be 1 or, in front, missing. dbias has the shape of bias.\n"
      ".npy files hold f2, f4 or f8, masks b1 or u1, lengths i4 or i8. Output files appear "
      "complete or not at all; one that is "
      "read-only stays.\n"
      "Examples:\n"
      "  ingot run --q q.npy --k k.npy --v v.npy --o o.npy --causal top_left\n"
      "  ingot run --q q.npy --k k.npy --v v.npy --dout g.npy --dq dq.npy --dk dk.npy --dv dv.npy\n"
      "  ingot run --q q.npy --k k.npy --v v.npy --o o.npy --alibi slopes.npy --mask m.npy\n"
      "  ingot run --in qkv.safetensors --out o.safetensors --window 256,0 --json");
  const std::pair<const char*, const char*> inputs[] = {
      {"q", "queries"},
      {"k", "keys"},
      {"v", "values"},
      {"dout", "gradient of o, for the backward pass"},
      {"mask", "which keys a row may see: True, or a byte that is not 0"},
      {"bias", "added to the scores; -inf hides a key"},
      {"alibi", "slopes of ALiBi: slope * |key - row| is taken off the scores"},
      {"sinks", "one more logit for each head's softmax, without a value"},
      {"prefix-len", "keys at the start that every row sees, whatever --causal says"}};
  const std::pair<const char*, const char*> results[] = {
      {"o", "the result"},
      {"lse", "logarithm of the softmax's denominator, [batch, heads, seqlen], f32"},
      {"dq", "gradient of q"},
      {"dk", "gradient of k"},
      {"dv", "gradient of v"},
      {"dbias", "gradient of bias"},
      {"dsinks", "gradient of sinks"}};
  for (const auto& [name, text] : inputs) {
    add_text(*c, std::string("--") + name, o->files[name], text)->type_name("IN.npy");
  }
  for (const auto& [name, text] : results) {
    add_text(*c, std::string("--") + name, o->files[name], text)->type_name("OUT.npy");
  }
  add_text(*c, "--in", o->in, "tensors q, k, v and, for gradients, dout")
      ->type_name("IN.safetensors");
  add_text(*c, "--out", o->out, "tensors o, lse and, with dout, gradients of all inputs")
      ->type_name("OUT.safetensors");
  c->add_option("--layout", o->layout, "order of the axes (default bhsd)")
      ->check(CLI::IsMember({"bhsd", "bshd"}))
      ->type_name("ORDER");
  c->add_option("--out-dtype", o->out_dtype, "of o, dq, dk and dv (default: as q, k, v)")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f64"}))
      ->type_name("T");
  add_variant_options(*c, o->variant);
  add_dropout_options(*c, o->dropout);
  add_device_options(*c, o->device);
  c->add_flag("--json", o->json, "print a summary as JSON");
  c->callback([o] { run(*o); });
}

}  // namespace ingot::cli
