// The commands of the program. Each adds its options to `app`; when it is chosen, its work runs
// inside CLI::App::parse() and leaves 0 (done) or 1 (failed) in `exit_code`, or throws.
#pragma once

#include <CLI/CLI.hpp>

namespace ingot::cli {

void add_devices(CLI::App& app, int& exit_code);
void add_explain(CLI::App& app, int& exit_code);
void add_run(CLI::App& app, int& exit_code);
void add_check(CLI::App& app, int& exit_code);
void add_bench(CLI::App& app, int& exit_code);
void add_demo(CLI::App& app, int& exit_code);
void add_model(CLI::App& app, int& exit_code);
void add_tune(CLI::App& app, int& exit_code);

}  // namespace ingot::cli
