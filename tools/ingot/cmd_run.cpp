// ingot run: attention on arrays in files.
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

namespace ingot::cli {
namespace {

using nlohmann::json;
using Files = std::map<std::string, std::string>;  // tensor to path
using Tensors = std::vector<std::pair<std::string, Array>>;

struct RunOptions {
  Files files;  // .npy: q k v dout in, o lse dq dk dv out
  std::string in, out, layout = "bhsd", out_dtype;
  bool json = false;
  VariantOptions variant;
  DeviceOptions device;

  bool given(const std::string& tensor) const {
    const auto found = files.find(tensor);
    return found != files.end() && !found->second.empty();
  }
  bool wants_gradients() const { return given("dq") || given("dk") || given("dv"); }
};

void check_npy_usage(const RunOptions& o) {
  for (const char* name : {"q", "k", "v"}) {
    if (!o.given(name))
      throw UsageError(std::string("--") + name + ": is missing (or --in and --out)");
  }
  if (!o.out.empty())
    throw UsageError("--out: goes with --in; .npy outputs are --o, --lse, --dq, --dk, --dv");
  if (!o.given("o") && !o.given("lse") && !o.wants_gradients()) {
    throw UsageError("nothing to write: give --o, --lse, --dq, --dk or --dv");
  }
  if (o.wants_gradients() && !o.given("dout"))
    throw UsageError("--dout: is missing, gradients need it");
  if (o.given("dout") && !o.wants_gradients()) throw UsageError("--dout: needs --dq, --dk or --dv");
  if (o.out_dtype == "bf16") {
    throw UsageError(
        "--out-dtype bf16: the .npy format has no bf16; use --in and --out with "
        "safetensors files, or --out-dtype f32");
  }
}

void check_usage(const RunOptions& o) {
  if (o.in.empty()) return check_npy_usage(o);
  for (const auto& [name, path] : o.files) {
    if (!path.empty()) throw UsageError("--" + name + ": cannot go with --in");
  }
  if (o.out.empty()) throw UsageError("--out: is missing, --in needs it");
}

struct Loaded {
  Array q, k, v;
  std::optional<Array> dout;
  std::vector<std::string> paths;
};

Loaded load(const RunOptions& o) {
  Loaded loaded;
  if (!o.in.empty()) {
    const SafetensorsFile file(o.in);
    loaded = {file.tensor("q"), file.tensor("k"), file.tensor("v"), {}, {o.in}};
    if (file.contains("dout")) loaded.dout = file.tensor("dout");
    return loaded;
  }
  loaded = {
      load_npy(o.files.at("q")), load_npy(o.files.at("k")), load_npy(o.files.at("v")), {}, {}};
  if (o.given("dout")) loaded.dout = load_npy(o.files.at("dout"));
  for (const char* name : {"q", "k", "v", "dout"}) {
    if (o.given(name)) loaded.paths.push_back(o.files.at(name));
  }
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
    for (const char* name : {"o", "lse", "dq", "dk", "dv"}) {
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
    outputs[name] = {{"path", path_of(o, name)},
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
    std::cout << summary.dump(2) << '\n';
    return;
  }
  std::cout << device << ": forward " << result.forward_ms << " ms";
  if (result.has_gradients()) std::cout << ", backward " << result.backward_ms << " ms";
  std::cout << '\n';
  for (const auto& [name, array] : tensors) {
    std::cout << name << ": " << dtype_name(array.dtype) << ' ' << shape_text(array.shape) << " -> "
              << path_of(o, name) << '\n';
  }
}

void run(const RunOptions& o) {
  check_usage(o);
  const Layout layout = o.layout == "bshd" ? Layout::bshd : Layout::bhsd;
  const Context context(o.device.threads);
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
  const AttentionInput input{loaded.q, loaded.k, loaded.v, loaded.dout, layout};
  const Plan plan(context, problem, device);
  check(input, problem);
  Outputs outputs(o, loaded.paths);
  const AttentionResult result = attention(plan, problem, input);
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
      ".npy files hold f2, f4 or f8. Output files appear complete or not at all.\n"
      "Examples:\n"
      "  ingot run --q q.npy --k k.npy --v v.npy --o o.npy --causal top_left\n"
      "  ingot run --q q.npy --k k.npy --v v.npy --dout g.npy --dq dq.npy --dk dk.npy --dv dv.npy\n"
      "  ingot run --in qkv.safetensors --out o.safetensors --window 256,0 --json");
  const std::pair<const char*, const char*> inputs[] = {
      {"q", "queries"},
      {"k", "keys"},
      {"v", "values"},
      {"dout", "gradient of o, for the backward pass"}};
  const std::pair<const char*, const char*> outputs[] = {
      {"o", "the result"},
      {"lse", "logarithm of the softmax's denominator, [batch, heads, seqlen], f32"},
      {"dq", "gradient of q"},
      {"dk", "gradient of k"},
      {"dv", "gradient of v"}};
  for (const auto& [name, text] : inputs) {
    c->add_option(std::string("--") + name, o->files[name], text)->type_name("IN.npy");
  }
  for (const auto& [name, text] : outputs) {
    c->add_option(std::string("--") + name, o->files[name], text)->type_name("OUT.npy");
  }
  c->add_option("--in", o->in, "tensors q, k, v and, for gradients, dout")
      ->type_name("IN.safetensors");
  c->add_option("--out", o->out, "tensors o, lse and, with dout, dq, dk, dv")
      ->type_name("OUT.safetensors");
  c->add_option("--layout", o->layout, "order of the axes (default bhsd)")
      ->check(CLI::IsMember({"bhsd", "bshd"}))
      ->type_name("ORDER");
  c->add_option("--out-dtype", o->out_dtype, "of o, dq, dk and dv (default: as q, k, v)")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "f64"}))
      ->type_name("T");
  add_variant_options(*c, o->variant);
  add_device_options(*c, o->device);
  c->add_flag("--json", o->json, "print a summary as JSON");
  c->callback([o] { run(*o); });
}

}  // namespace ingot::cli
