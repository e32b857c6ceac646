// ingot: exact attention from the command line. Exit codes: 0 done, 1 failed, 2 wrong usage.
#include <CLI/CLI.hpp>
#include <exception>
#include <ingot/ingot.hpp>
#include <initializer_list>
#include <iostream>
#include <new>
#include <string>

#include "commands.hpp"
#include "failure.hpp"
#include "process.hpp"
#include "text.hpp"

namespace {

using ingot::cli::printable;
using ingot::cli::printable_lines;

constexpr const char* description =
    "Exact attention (FlashAttention), forward and backward: O = softmax(Q K^T * scale + mask) V.";

constexpr const char* footer =
    "Examples:\n"
    "  ingot run --q q.npy --k k.npy --v v.npy --o o.npy --causal top_left\n"
    "  ingot run --in qkv.safetensors --out o.safetensors\n"
    "  ingot check --quick\n"
    "  ingot bench --filter decode\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage. `ingot COMMAND --help` explains each command.";

// Messages quote what files and paths hold.
int fail(const std::string& message, int code) {
  std::cerr << "ingot: " << printable(message) << '\n';
  return code;
}

// The log of a compiler has several lines.
int fail(const ingot::Error& error) {
  if (error.status() != INGOT_COMPILE_FAILED) return fail(error.what(), 1);
  std::cerr << "ingot: " << printable_lines(error.what()) << '\n';
  return 1;
}

int printed(int code) {
  return std::cout.flush() ? code : fail("cannot write to standard output", 1);
}

int run(CLI::App& app, int argc, char** argv, const int& exit_code) {
  try {
    app.parse(argc, argv);
    if (app.get_subcommands().empty()) {
      return fail(
          "a command is missing: devices, explain, run, check, bench, demo, model or tune (see "
          "`ingot --help`)",
          2);
    }
    return printed(exit_code);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? printed(0) : 2;
  } catch (const ingot::cli::UsageError& error) {
    return fail(error.what(), 2);
  } catch (const ingot::Error& error) {
    return fail(error);
  } catch (const std::bad_alloc&) {
    return fail("out of memory", 1);
  } catch (const std::exception& error) {
    return fail(error.what(), 1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  ingot::cli::open_standard_streams();
  ingot::cli::handle_signals();
  int exit_code = 0;
  CLI::App app{description, "ingot"};
  app.footer(footer);
  app.set_version_flag("--version", std::string("ingot ") + ingot_version());
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return "ingot: " + printable(error.what()) + " (see `ingot --help`)\n";
  });
  for (const auto add : {ingot::cli::add_devices, ingot::cli::add_explain, ingot::cli::add_run,
                         ingot::cli::add_check, ingot::cli::add_bench, ingot::cli::add_demo,
                         ingot::cli::add_model, ingot::cli::add_tune}) {
    add(app, exit_code);
  }
  app.require_subcommand(0, 1);
  return run(app, argc, argv, exit_code);
}
