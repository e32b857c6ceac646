// ingot demo: attention of a real sentence encoder on every device, checked, pictured and timed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <memory>

#include "atomic_file.hpp"
#include "attention.hpp"
#include "commands.hpp"
#include "failure.hpp"
#include "options.hpp"
#include "sentence.hpp"
#include "svg.hpp"
#include "terminal.hpp"
#include "text.hpp"
#include "workload.hpp"

namespace ingot::cli {
namespace {

struct DemoOptions {
  std::string data, svg;
  std::int64_t layer = 0, head = 0;  ///< from 1; 0: the most focused
  DeviceOptions device;
};

// Largest error a result may have, as a part of the largest number of the reference's result.
constexpr double tolerance = 1e-5;

struct Error {
  double error = 0, magnitude = 0;
  bool good() const { return error <= tolerance * magnitude; }
};

Error compare(const Array& got, const Array& want) {
  const std::vector<double> a = values_of(got), b = values_of(want);
  Error result;
  for (std::size_t i = 0; i < a.size(); ++i) {
    result.magnitude = std::max(result.magnitude, std::fabs(b[i]));
    const double error = std::fabs(a[i] - b[i]);
    if (!(error <= result.error)) result.error = error;  // a NaN stays
  }
  return result;
}

std::string scientific(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", value);
  return text;
}

Problem problem_of(const Sentence& s, const AttentionInput& in) {
  Problem p = ingot::cli::problem_of(in.q, in.k, in.v, Layout::bhsd);
  p.scale = s.scale;
  return p;
}

// f64 on the reference. The gradient is that of half the squared length of o, so dout = o.
AttentionResult reference(const Context& context, const Sentence& s, Array& dout) {
  AttentionInput in{converted(s.q, INGOT_F64),
                    converted(s.k, INGOT_F64),
                    converted(s.v, INGOT_F64),
                    {},
                    Layout::bhsd};
  const Problem p = problem_of(s, in);
  const Plan plan(context, p, "reference");
  dout = converted(attention(plan, p, in).o, INGOT_F32);
  in.dout = converted(dout, INGOT_F64);
  return attention(plan, p, in);
}

// The results, and the shortest times of several runs: the first ones pay for memory.
AttentionResult best_of(const Plan& plan, const Problem& p, const AttentionInput& in) {
  AttentionResult best = attention(plan, p, in);
  for (int i = 0; i < 9; ++i) {
    AttentionResult next = attention(plan, p, in);
    next.forward_ms = std::min(next.forward_ms, best.forward_ms);
    next.backward_ms = std::min(next.backward_ms, best.backward_ms);
    best = std::move(next);
  }
  return best;
}

bool check_device(const Context& context, const std::string& device, const Sentence& s,
                  const Array& dout, const AttentionResult& want, AttentionResult& got) {
  const AttentionInput in{s.q, s.k, s.v, dout, Layout::bhsd};
  const Problem p = problem_of(s, in);
  const Plan plan(context, p, device);
  got = best_of(plan, p, in);
  const std::pair<const char*, Error> errors[] = {{"o", compare(got.o, want.o)},
                                                  {"lse", compare(got.lse, want.lse)},
                                                  {"dq", compare(*got.dq, *want.dq)},
                                                  {"dk", compare(*got.dk, *want.dk)},
                                                  {"dv", compare(*got.dv, *want.dv)}};
  bool good = true;
  std::cout << device << ": forward " << fixed(got.forward_ms, 2) << " ms, backward "
            << fixed(got.backward_ms, 2) << " ms; largest errors against f64:";
  for (const auto& [name, error] : errors) {
    std::cout << ' ' << name << ' ' << scientific(error.error);
    good = good && error.good();
  }
  std::cout << (good ? " -> correct\n" : " -> WRONG (more than 1e-5 of the largest number)\n");
  return good;
}

HeadIndex chosen_head(const DemoOptions& o, const Sentence& s, const Array& lse) {
  const auto require = [](const char* option, std::int64_t value, std::int64_t most) {
    if (value <= most) return;
    throw UsageError(std::string(option) + ": must be 1 to " + std::to_string(most) + ", got " +
                     std::to_string(value));
  };
  require("--layer", o.layer, s.layers());
  require("--head", o.head, s.heads());
  if (o.layer == 0 && o.head == 0) return most_focused(s, lse);
  return {std::max<std::int64_t>(o.layer, 1) - 1, std::max<std::int64_t>(o.head, 1) - 1};
}

/// The picture, if one is wanted: a place that cannot be written fails before the work.
class Picture {
 public:
  Picture(const std::string& path, const std::string& data) : path_(path) {
    if (!path.empty()) file_ = files_.add(path, std::span(&data, 1));
  }
  void write(const HeatMap& map) {
    if (path_.empty()) return;
    files_.write(file_, draw(map));
    files_.commit();
    std::cout << "\nheat map: " << printable(path_) << '\n';
  }

 private:
  std::string path_;
  OutputFiles files_;
  std::size_t file_ = 0;
};

void show_attention(const DemoOptions& o, const Sentence& s, const Array& lse,
                    const std::string& device, Picture& svg) {
  const HeadIndex at = chosen_head(o, s, lse);
  const Weights weights = head_weights(s, lse, at.layer, at.head);
  const std::string name =
      "layer " + std::to_string(at.layer + 1) + ", head " + std::to_string(at.head + 1);
  std::cout << "\nWhat each word attends to, " << name
            << " (columns in the order of the rows; exp(scale q.k - lse) with " << device
            << "'s lse):\n"
            << picture(s, weights, colour_output(), terminal_width()) << "\nThe mean of all "
            << s.layers() * s.heads() << " heads:\n"
            << picture(s, mean_weights(s, lse), colour_output(), terminal_width());
  svg.write({"What each word attends to", s.model + ", " + name + ", computed on " + device, "word",
             "attends to", s.tokens, weights});
}

void show_speed(const Context& context, const std::vector<std::string>& devices) {
  constexpr double seconds = 0.1;
  for (const std::string& device : devices) {
    const std::vector<Workload> f32 = model_workloads(Dtype::f32),
                                bf16 = model_workloads(Dtype::bf16);
    TextTable table({"forward on " + device, "f32 ms", "GFLOP/s", "bf16 ms", "GFLOP/s"});
    Progress progress(f32.size());
    for (std::size_t i = 0; i < f32.size(); ++i) {
      progress.show(i, f32[i].shape);
      std::vector<std::string> row{f32[i].shape};
      for (const Workload* w : {&f32[i], &bf16[i]}) {
        const Spread time = measure(Plan(context, w->problem, device), *w, seconds, device);
        row.push_back(fixed(time.median, 2));
        row.push_back(fixed(flops(*w) / time.median / 1e6, 0));
      }
      table.add(row);
    }
    progress.clear();
    std::cout << "\nShapes of well-known models (batch x heads/key heads x tokens x head_dim):\n"
              << table.text();
  }
}

std::vector<std::string> chosen_devices(const Context& context, const std::string& device) {
  if (device != "auto") return {device};
  std::vector<std::string> names;
  for (const DeviceInfo& info : context.devices()) {
    if (info.name != "reference") names.push_back(info.name);
  }
  return names;
}

int demo(const DemoOptions& o) {
  const std::string data = o.data.empty() ? default_sentence() : o.data;
  const Sentence s = load_sentence(data);
  Picture svg(o.svg, data);
  const Context context(o.device.thread_count());
  const std::vector<std::string> devices = chosen_devices(context, o.device.device);
  std::cout << "\"" << printable(s.text) << "\"\n"
            << printable(s.model) << ": " << s.layers() << " layers, " << s.heads() << " heads, "
            << s.tokens.size() << " tokens, head_dim " << s.q.shape[3] << "\n\n";
  Array dout;
  const AttentionResult want = reference(context, s, dout);
  if (s.o) {
    std::cout << "reference: the encoder's own f32 attention is within "
              << scientific(compare(*s.o, want.o).error) << " of it\n";
  }
  AttentionResult shown = want;
  std::string shown_device = "reference";
  bool good = true;
  for (const std::string& device : devices) {
    AttentionResult got;
    good = check_device(context, device, s, dout, want, got) && good;
    if (device == devices.front()) shown = got, shown_device = device;
  }
  show_attention(o, s, shown.lse, shown_device, svg);
  if (!good) throw Failure("a device disagrees with the reference");
  std::vector<std::string> timed = devices;
  std::erase(timed, "reference");
  show_speed(context, timed);
  return 0;
}

}  // namespace

void add_demo(CLI::App& app, int& exit_code) {
  auto o = std::make_shared<DemoOptions>();
  CLI::App* c =
      app.add_subcommand("demo", "Attention of a real sentence, checked, pictured and timed");
  c->footer(
      "Runs forward and backward on queries, keys and values that a sentence encoder made of real "
      "text, compares\n"
      "every device with the f64 reference, shows which word attends to which, and times shapes of "
      "known models.\n"
      "Example:\n"
      "  ingot demo --layer 4 --head 2 --svg attention.svg");
  add_text(*c, "--data", o->data, "captured q, k, v (default: minilm.safetensors of ingot's own)")
      ->type_name("IN.safetensors");
  add_text(*c, "--svg", o->svg, "write the heat map as a picture")->type_name("OUT.svg");
  add_integer(*c, "--layer", o->layer, 1, 1000000,
              "layer to show, from 1 (default: where words look most at single words)");
  add_integer(*c, "--head", o->head, 1, 1000000, "head to show, from 1");
  add_device_options(*c, o->device);
  c->callback([o, &exit_code] { exit_code = demo(*o); });
}

}  // namespace ingot::cli
