#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "msl_harness.hpp"

// Kernels of a public project, read from SOFTMETAL_MLX (a checkout of ml-explore/mlx); without it
// the test does nothing and says so.

namespace softmetal::test {
namespace {

namespace fs = std::filesystem;

/// Pastes #include "mlx/..." and #include "..." in place, each file once, with line markers.
class Paster {
 public:
  explicit Paster(std::string root) : root_(std::move(root)) {}

  std::string file(const fs::path& path) {
    // It defines bfloat functions by private intrinsics; the standard library here has them.
    if (path.filename() == "bf16_math.h") return {};
    if (!seen_.insert(fs::weakly_canonical(path).string()).second) return {};
    std::ifstream in(path);
    if (!in) throw std::runtime_error("cannot read " + path.string());
    std::string out = "#line 1 \"" + path.filename().string() + "\"\n";
    int number = 0;
    for (std::string line; std::getline(in, line);) {
      ++number;
      if (line.starts_with("#pragma once")) line.clear();
      // clang finds c ? struct_in_one_space : struct_in_another ambiguous; complex sorts need it.
      const bool left_out = path.filename() == "sort.metal" || path.filename() == "reduce.metal";
      if (left_out && line.find("complex64") != std::string::npos) line = "// left out";
      if (!line.starts_with("#include \"")) {
        out += line + "\n";
        continue;
      }
      const std::string name = line.substr(10, line.find('"', 10) - 10);
      const fs::path local = path.parent_path() / name;
      out += file(fs::exists(local) ? local : fs::path(root_) / name);
      out += "#line " + std::to_string(number + 1) + " \"" + path.filename().string() + "\"\n";
    }
    return out;
  }

 private:
  std::string root_;
  std::set<std::string> seen_;
};

int compile_all(const std::string& root, const std::vector<std::string>& names) {
  int broken = 0;
  for (const std::string& name : names) {
    try {
      CompileOptions options;
      if (name.find("nax") != std::string::npos) options.language_version = "4.0";
      const auto library =
          Library::compile(Paster(root).file(root + "/mlx/backend/metal/kernels/" + name), options);
      std::printf("%-50s %4zu kernels\n", name.c_str(), library->function_names().size());
    } catch (const std::exception& e) {
      ++broken;
      const std::string what = e.what();
      const std::size_t at = what.find("error: ");
      const std::size_t line = at == std::string::npos ? 0 : what.rfind('\n', at) + 1;
      std::printf("%-50s %s\n", name.c_str(), what.substr(line, 400).c_str());
    }
  }
  return broken;
}

ConstantValues switches(std::initializer_list<std::pair<std::uint32_t, bool>> list) {
  ConstantValues values;
  for (const auto& [index, on] : list) {
    values.by_index[index] = constant_value<std::uint8_t>(ScalarType::bool_, on ? 1 : 0);
  }
  return values;
}

/// mlx::steel::AttnParams.
struct AttentionParameters {
  int batch, heads, head_dim, rows, columns, group;
  float scale;
  int row_blocks, column_blocks, full_row_blocks, full_column_blocks, row_rest, column_rest, offset;
  std::int64_t strides[4][3];
};

/// Causal attention in fp32, 2 heads, ragged edges, against double precision.
void attention(const std::string& root) {
  constexpr int n = 77, d = 64, heads = 2, bq = 32, bk = 32;
  const std::string text = Paster(root).file(
      root + "/mlx/backend/metal/kernels/steel/attn/kernels/steel_attention.metal");
  Program p(text, "steel_attention_float32_bq32_bk32_bd64_wm4_wn1_maskfloat32",
            switches({{200, false}, {201, false}, {300, false}, {301, true}, {302, false}}));
  auto q = ramp(heads * n * d), k = ramp(heads * n * d, 0.9f), v = ramp(heads * n * d, 2);
  std::vector<float> o(heads * n * d, -99);
  AttentionParameters a{1, heads, d, n, n, 1, 0.125f, 3, 3, 2, 2, n % bq, n % bk, 0, {}};
  for (auto& s : a.strides) {
    s[0] = heads * n * d;
    s[1] = n * d;
    s[2] = d;
  }
  p.buffer(0, q).buffer(1, k).buffer(2, v).buffer(3, o).bytes(4, a);
  EXPECT_CLEAN(p.groups({3, heads, 1}, {32, 4, 1}));
  double worst = 0;
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < n; ++i) {
      std::vector<double> w(static_cast<std::size_t>(i + 1));
      double sum = 0;
      for (int j = 0; j <= i; ++j) {
        double s = 0;
        for (int c = 0; c < d; ++c) s += double(q[(h * n + i) * d + c]) * k[(h * n + j) * d + c];
        sum += w[static_cast<std::size_t>(j)] = std::exp(s * 0.125);
      }
      for (int c = 0; c < d; ++c) {
        double x = 0;
        for (int j = 0; j <= i; ++j)
          x += w[static_cast<std::size_t>(j)] / sum * v[(h * n + j) * d + c];
        worst = std::max(worst, std::abs(x - o[(h * n + i) * d + c]));
      }
    }
  }
  std::printf("attention, fp32, causal, ragged: worst error %.1e\n", worst);
  EXPECT(worst < 2e-6);
}

/// mlx::steel::GEMMParams.
struct ProductParameters {
  int m, n, k, lda, ldb, ldd, tiles_n, tiles_m;
  std::int64_t batch_strides[3];
  int swizzle, full_k_blocks, batch_dimensions;
};

void product(const std::string& root) {
  constexpr int m = 70, n = 50, k = 40;
  const std::string text = Paster(root).file(
      root + "/mlx/backend/metal/kernels/steel/gemm/kernels/steel_gemm_fused.metal");
  Program p(
      text, "steel_gemm_fused_nn_float32_float32_bm32_bn32_bk16_wm2_wn2",
      switches(
          {{10, false}, {100, false}, {110, false}, {200, false}, {201, false}, {202, false}}));
  auto a = ramp(m * k), b = ramp(k * n, 2);
  std::vector<float> c(m * n, -99);
  ProductParameters g{m, n, k, k, n, n, 2, 3, {0, 0, 0}, 0, k / 16, 0};
  p.buffer(0, a).buffer(1, b).buffer(3, c).bytes(4, g);
  EXPECT_CLEAN(p.groups({2, 3, 1}, {32, 2, 2}));
  double worst = 0;
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double x = 0;
      for (int l = 0; l < k; ++l) x += double(a[i * k + l]) * b[l * n + j];
      worst = std::max(worst, std::abs(x - c[i * n + j]));
    }
  }
  std::printf("gemm, fp32, ragged: worst error %.1e\n", worst);
  EXPECT(worst < 2e-5);
}

}  // namespace
}  // namespace softmetal::test

int main(int count, char** arguments) {
  using namespace softmetal::test;
  const char* root = std::getenv("SOFTMETAL_MLX");
  if (root == nullptr) {
    std::puts("skipped: SOFTMETAL_MLX does not name a checkout of mlx");
    return 0;
  }
  std::vector<std::string> names(arguments + 1, arguments + count);
  if (names.empty()) {
    names = {"arange.metal",
             "arg_reduce.metal",
             "dot.metal",
             "fft.metal",
             "gemv.metal",
             "gemv_masked.metal",
             "layer_norm.metal",
             "logsumexp.metal",
             "quantized.metal",
             "random.metal",
             "reduce.metal",
             "rms_norm.metal",
             "rope.metal",
             "searchsorted.metal",
             "softmax.metal",
             "sort.metal",
             "scaled_dot_product_attention.metal",
             "steel/gemm/kernels/steel_gemm_fused.metal",
             "steel/gemm/kernels/steel_gemm_fused_nax.metal",
             "steel/attn/kernels/steel_attention.metal",
             "steel/attn/kernels/steel_attention_nax.metal"};
  }
  const int broken = compile_all(root, names);
  try {
    attention(root);
    product(root);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return broken == 0 ? report() : 1;
}
