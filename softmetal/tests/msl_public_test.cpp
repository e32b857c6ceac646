#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "msl_harness.hpp"
#include "msl_numbers.hpp"

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

CompileOptions options_for(bool nax) {
  CompileOptions options;
  if (nax) options.language_version = "4.0";
  return options;
}

/// mlx::steel::AttnParams.
struct AttentionParameters {
  int batch, heads, head_dim, rows, columns, group;
  float scale;
  int row_blocks, column_blocks, full_row_blocks, full_column_blocks, row_rest, column_rest, offset;
  std::int64_t strides[4][3];
};

/// The largest error of causal attention of one head, softmax(scale Q K^T) V, against double.
double attention_error(const Numbers& q, const Numbers& k, const Numbers& v, const Numbers& o,
                       std::size_t base, std::size_t n, std::size_t d, double scale) {
  double worst = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::vector<double> w(i + 1);
    double sum = 0;
    for (std::size_t j = 0; j <= i; ++j) {
      double s = 0;
      for (std::size_t c = 0; c < d; ++c) s += double(q[base + i * d + c]) * k[base + j * d + c];
      sum += w[j] = std::exp(s * scale);
    }
    for (std::size_t c = 0; c < d; ++c) {
      double x = 0;
      for (std::size_t j = 0; j <= i; ++j) x += w[j] / sum * v[base + j * d + c];
      note(worst, std::abs(x - o[base + i * d + c]));
    }
  }
  return worst;
}

/// Causal attention, 2 heads, ragged edges, against double precision.
void attention(const std::string& root, Format format, bool nax) {
  constexpr std::size_t n = 77, d = 64, heads = 2;
  const int bq = nax ? 64 : 32, bk = 32, rows = n;
  const std::string file = nax ? "steel_attention_nax.metal" : "steel_attention.metal";
  const std::string text =
      Paster(root).file(root + "/mlx/backend/metal/kernels/steel/attn/kernels/" + file);
  const std::string type = name_of(format);
  Program p(
      text,
      "steel_attention_" + type + "_bq" + std::to_string(bq) + "_bk32_bd64_wm4_wn1_mask" + type,
      switches({{200, false}, {201, false}, {300, false}, {301, true}, {302, false}}), true,
      options_for(nax));
  Numbers q(format, ramp(heads * n * d)), k(format, ramp(heads * n * d, 0.9f)),
      v(format, ramp(heads * n * d, 2)), o(format, std::vector<float>(heads * n * d, -99));
  AttentionParameters a{1, heads,     d,         rows,      rows,      1, 0.125f, 0,
                        0, rows / bq, rows / bk, rows % bq, rows % bk, 0, {}};
  a.row_blocks = (rows + bq - 1) / bq;
  a.column_blocks = (rows + bk - 1) / bk;
  for (auto& s : a.strides) {
    s[0] = heads * n * d;
    s[1] = n * d;
    s[2] = d;
  }
  p.buffer(0, q.bytes).buffer(1, k.bytes).buffer(2, v.bytes).buffer(3, o.bytes).bytes(4, a);
  EXPECT_CLEAN(p.groups({static_cast<std::uint32_t>(a.row_blocks), heads, 1}, {32, 4, 1}));
  double worst = 0;
  for (std::size_t h = 0; h < heads; ++h) {
    note(worst, attention_error(q, k, v, o, h * n * d, n, d, 0.125));
  }
  std::printf("attention%s, %s, causal, ragged: worst error %.1e\n", nax ? " NAX" : "",
              type.c_str(), worst);
  // P is rounded to the format before it is multiplied with V, of size 2, and O is rounded.
  EXPECT(worst < (format == Format::f32 ? 4e-6 : 8 * rounding(format)));
}

/// mlx::steel::GEMMParams.
struct ProductParameters {
  int m, n, k, lda, ldb, ldd, tiles_n, tiles_m;
  std::int64_t batch_strides[3];
  int swizzle, full_k_blocks, batch_dimensions;
};

void product(const std::string& root, Format format, bool nax) {
  const std::size_t m = nax ? 100 : 70, n = nax ? 90 : 50, k = nax ? 300 : 40;
  const std::size_t block = nax ? 64 : 32, depth = nax ? 256 : 16;
  const std::string text =
      Paster(root).file(root + "/mlx/backend/metal/kernels/steel/gemm/kernels/" +
                        (nax ? "steel_gemm_fused_nax" : "steel_gemm_fused") + ".metal");
  const std::string type = name_of(format);
  Program p(
      text,
      (nax ? "steel_gemm_fused_nax_nn_" : "steel_gemm_fused_nn_") + type + "_" + type +
          (nax ? "_bm64_bn64_bk256_wm2_wn2" : "_bm32_bn32_bk16_wm2_wn2"),
      switches({{10, false}, {100, false}, {110, false}, {200, false}, {201, false}, {202, false}}),
      true, options_for(nax));
  Numbers a(format, ramp(m * k)), b(format, ramp(k * n, 2)),
      c(format, std::vector<float>(m * n, -99));
  auto blocks = [](std::size_t x, std::size_t by) { return static_cast<int>((x + by - 1) / by); };
  const int im = static_cast<int>(m), in = static_cast<int>(n), ik = static_cast<int>(k);
  ProductParameters g{im,
                      in,
                      ik,
                      ik,
                      in,
                      in,
                      blocks(n, block),
                      blocks(m, block),
                      {0, 0, 0},
                      0,
                      static_cast<int>(k / depth),
                      0};
  p.buffer(0, a.bytes).buffer(1, b.bytes).buffer(3, c.bytes).bytes(4, g);
  EXPECT_CLEAN(
      p.groups({static_cast<std::uint32_t>(g.tiles_n), static_cast<std::uint32_t>(g.tiles_m), 1},
               {32, 2, 2}));
  double worst = 0, size = 0;
  for (std::size_t i = 0; i < m; ++i) {
    for (std::size_t j = 0; j < n; ++j) {
      double x = 0;
      for (std::size_t l = 0; l < k; ++l) x += double(a[i * k + l]) * b[l * n + j];
      note(worst, std::abs(x - c[i * n + j]));
      size = std::max(size, std::abs(x));
    }
  }
  std::printf("gemm%s, %s, ragged: worst error %.1e of %.0f\n", nax ? " NAX" : "", type.c_str(),
              worst, size);
  EXPECT(worst < (format == Format::f32 ? 1e-4 : 1.5 * size * rounding(format)));
}

std::string kernel_text(const std::string& root, const std::string& file) {
  return Paster(root).file(root + "/mlx/backend/metal/kernels/" + file);
}

void softmax(const std::string& root, const std::string& kernel, Format format,
             std::uint32_t threads) {
  constexpr std::size_t rows = 3, n = 1001;
  Program p(kernel_text(root, "softmax.metal"), kernel);
  Numbers in(format, ramp(rows * n, 4)), out(format, std::vector<float>(rows * n, -99));
  p.buffer(0, in.bytes).buffer(1, out.bytes).bytes(2, static_cast<int>(n));
  EXPECT_CLEAN(p.groups({rows}, {threads}));
  double worst = 0;
  for (std::size_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += std::exp(double(in[r * n + i]));
    for (std::size_t i = 0; i < n; ++i) {
      const double x = std::exp(double(in[r * n + i])) / sum;
      // Below the normal numbers of half, roundings are absolute.
      const double scale = format == Format::f16 ? std::max(x, 0x1p-14) : x;
      note(worst, std::abs(out[r * n + i] - x) / scale);
    }
  }
  std::printf("%s: worst relative error %.1e\n", kernel.c_str(), worst);
  EXPECT(worst < (format == Format::f32 ? 2e-6 : 1.5 * rounding(format) + 2e-6));
}

void reduction(const std::string& root) {
  Program p(kernel_text(root, "reduce.metal"), "all_reduce_sumfloat32");
  constexpr std::size_t n = 5003;
  auto in = ramp(n);
  std::vector<float> out(1, -99);
  p.buffer(0, in).buffer(1, out).bytes(2, n).bytes(3, n);
  EXPECT_CLEAN(p.groups({1}, {256}));
  double sum = 0;
  for (float x : in) sum += x;
  std::printf("all_reduce_sumfloat32: error %.1e\n", std::abs(sum - out[0]));
  EXPECT_NEAR(out[0], sum, 1e-3);
}

/// Values, their places, and complex numbers (by real part, then imaginary part).
void sort(const std::string& root) {
  const std::string text = kernel_text(root, "sort.metal");
  constexpr int n = 500;
  auto run = [&](const std::string& kernel, auto& in, auto& out) {
    Program p(text, kernel);
    p.buffer(0, in).buffer(1, out).bytes(2, n).bytes(3, 1).bytes(4, 1).bytes(5, n).bytes(6, n);
    EXPECT_CLEAN(p.groups({1, 2}, {128}));
  };
  auto in = ramp(2 * n);
  std::vector<float> out(2 * n, -99);
  run("c_block_sort_float32_float32_bn128_tn4", in, out);
  std::vector<std::uint32_t> places(2 * n, 9999);
  run("carg_block_sort_float32_uint32_bn128_tn4", in, places);
  for (int s = 0; s < 2; ++s) {
    std::vector<float> expected(in.begin() + s * n, in.begin() + (s + 1) * n);
    std::sort(expected.begin(), expected.end());
    EXPECT(std::equal(expected.begin(), expected.end(), out.begin() + s * n));
    for (int i = 0; i < n; ++i) {
      const auto from =
          static_cast<std::size_t>(s * n) + places[static_cast<std::size_t>(s * n + i)];
      EXPECT(in[from] == expected[static_cast<std::size_t>(i)]);
    }
  }
  using Complex = std::pair<float, float>;
  std::vector<Complex> numbers, sorted(2 * n);
  const auto parts = ramp(4 * n);
  for (std::size_t i = 0; i < 2 * n; ++i) {
    numbers.emplace_back(std::round(parts[2 * i] * 8), parts[2 * i + 1]);
  }
  run("c_block_sort_complex64_complex64_bn128_tn4", numbers, sorted);
  for (int s = 0; s < 2; ++s) std::sort(numbers.begin() + s * n, numbers.begin() + (s + 1) * n);
  EXPECT(numbers == sorted);
  std::puts("sort, arg sort, complex sort: exact");
}

void scan(const std::string& root) {
  const std::string text = kernel_text(root, "scan.metal");
  constexpr std::size_t n = 3001;
  auto in = ramp(2 * n);
  for (const bool reverse : {false, true}) {
    Program p(text, std::string("contig_scan_") + (reverse ? "reverse_exclusive" : "inclusive") +
                        "_sum_float32_float32");
    std::vector<float> out(2 * n, -99);
    p.buffer(0, in).buffer(1, out).bytes(2, n);
    // With fewer simdgroups it reads sums that nobody wrote, though it does not use them.
    EXPECT_CLEAN(p.groups({1, 2}, {1024}));
    double worst = 0;
    for (std::size_t r = 0; r < 2; ++r) {
      double sum = 0;
      for (std::size_t i = 0; i < n; ++i) {
        const std::size_t at = r * n + (reverse ? n - 1 - i : i);
        const double before = sum;
        sum += in[at];
        note(worst, std::abs(out[at] - (reverse ? before : sum)));
      }
    }
    std::printf("scan%s: worst error %.1e\n", reverse ? ", reverse exclusive" : "", worst);
    EXPECT(worst < 1e-3);
  }
}

/// With a change of type, and a transposed source.
void copies(const std::string& root) {
  const std::string text = kernel_text(root, "copy.metal");
  constexpr std::uint32_t n = 777;
  auto in = ramp(n, 3);
  Numbers half(Format::f16, std::vector<float>(n, -99));
  Program narrow(text, "v_copyfloat32float16");
  EXPECT_CLEAN(narrow.buffer(0, in).buffer(1, half.bytes).bytes(2, n).threads({n}, {64}));
  for (std::uint32_t i = 0; i < n; ++i) {
    EXPECT(half[i] == static_cast<float>(static_cast<_Float16>(in[i])));
  }
  Program strided(text, "g2_copyfloat32float32");
  constexpr std::uint32_t rows = 21, columns = 37;
  const std::int64_t strides[2] = {1, rows};
  std::vector<float> out(n, -99);
  EXPECT_CLEAN(
      strided.buffer(0, in).buffer(1, out).bytes(3, strides).threads({columns, rows}, {8, 8}));
  for (std::uint32_t r = 0; r < rows; ++r) {
    for (std::uint32_t c = 0; c < columns; ++c) EXPECT(out[r * columns + c] == in[c * rows + r]);
  }
  std::puts("copies: exact");
}

void run_all(const std::string& root) {
  for (const Format format : {Format::f32, Format::f16, Format::bf16}) {
    for (const bool nax : {false, true}) {
      attention(root, format, nax);
      product(root, format, nax);
    }
  }
  softmax(root, "block_softmax_float32", Format::f32, 256);
  softmax(root, "looped_softmax_precise_float16", Format::f16, 1024);
  reduction(root);
  sort(root);
  scan(root);
  copies(root);
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
    const fs::path folder = std::string(root) + "/mlx/backend/metal/kernels";
    for (const auto& item : fs::recursive_directory_iterator(folder)) {
      if (item.path().extension() == ".metal") {
        names.push_back(fs::relative(item.path(), folder).string());
      }
    }
    std::sort(names.begin(), names.end());
  }
  const int broken = compile_all(root, names);
  try {
    run_all(root);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "exception: %s\n", e.what());
    return 1;
  }
  return broken == 0 ? report() : 1;
}
