// The program's files: .npy and safetensors readers and writers, conversions, and outputs that
// appear together.
#if __has_include("array.hpp")  // with the program
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "array.hpp"
#include "atomic_file.hpp"
#include "failure.hpp"
#include "npy.hpp"
#include "safetensors.hpp"
#include "views.hpp"

namespace ingot::cli {
namespace {

namespace fs = std::filesystem;

// A folder of its own for every test.
class Files : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "ingot_io_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path(name), std::ios::binary) << text;
  }
  std::string read(const std::string& name) const {
    std::ifstream file(path(name), std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::size_t count() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  fs::path folder_;
};

Array numbers(ingot_dtype dtype, const Shape& shape) {
  Array array = make_array(dtype, shape);
  for (std::int64_t i = 0; i < element_count(shape); ++i) {
    write_element(static_cast<double>(i) / 4, dtype,
                  array.data.get() + i * static_cast<std::int64_t>(dtype_bytes(dtype)));
  }
  return array;
}

std::string bytes_of(const Array& array) {
  return {reinterpret_cast<const char*>(array.data.get()), packed_bytes(array)};
}

template <class F>
std::string failure_of(F&& f) {
  try {
    f();
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "no failure";
}

using Npy = Files;

TEST_F(Npy, ReadsWhatItWrites) {
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_F32, INGOT_F64}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 3}, Shape{2, 0, 3}, Shape{1, 2, 3, 4}}) {
      const Array array = numbers(dtype, shape);
      const std::string header = npy_header(dtype, shape);
      EXPECT_EQ(header.size() % 64, 0U);
      write("a.npy", header + bytes_of(array));
      const Array got = load_npy(path("a.npy"));
      EXPECT_EQ(got.dtype, dtype);
      EXPECT_EQ(got.shape, shape);
      EXPECT_EQ(values_of(got), values_of(array));
    }
  }
}

TEST_F(Npy, FortranOrderIsStrides) {
  std::string file = npy_header(INGOT_F32, {2, 3});
  file.replace(file.find("False"), 5, "True ");
  write("a.npy", file + bytes_of(numbers(INGOT_F32, {6})));
  const Array array = load_npy(path("a.npy"));
  EXPECT_EQ(array.strides, (Shape{1, 2}));
  EXPECT_EQ(values_of(array), (std::vector<double>{0, 0.5, 1, 0.25, 0.75, 1.25}));
}

TEST_F(Npy, MisalignedDataIsCopied) {
  const std::string body = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 1), } ";
  std::string file = "\x93NUMPY";
  file += {'\x01', '\0', static_cast<char>(body.size()), '\0'};
  file += body;
  ASSERT_NE(file.size() % 8, 0U);
  write("a.npy", file + bytes_of(numbers(INGOT_F64, {2})));
  const Array array = load_npy(path("a.npy"));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data.get()) % 8, 0U);
  EXPECT_EQ(values_of(array), (std::vector<double>{0, 0.25}));
}

TEST(NpyHeader, HasNoBf16) {
  EXPECT_NE(failure_of([] { npy_header(INGOT_BF16, {2}); }).find("safetensors"), std::string::npos);
}

TEST(NpyHeader, EveryCutIsRefused) {
  const std::string file = npy_header(INGOT_F32, {2, 3}) + bytes_of(numbers(INGOT_F32, {6}));
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(failure_of([&] { parse_npy(std::as_bytes(std::span(file.data(), size))); }),
              "no failure")
        << size;
  }
  EXPECT_EQ(parse_npy(std::as_bytes(std::span(file))).shape, (Shape{2, 3}));
}

using Safetensors = Files;

TEST_F(Safetensors, ReadsWhatItWrites) {
  std::vector<std::pair<std::string, Array>> tensors;
  std::string data;
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16, INGOT_F32, INGOT_F64}) {
    tensors.emplace_back(dtype_name(dtype), numbers(dtype, {2, 5}));
    data += bytes_of(tensors.back().second);
  }
  tensors.emplace_back("empty", make_array(INGOT_F32, {0, 4}));
  const std::string header = safetensors_header(tensors, {{"text", "na\xC3\xAFve"}});
  EXPECT_EQ(header.size() % 8, 0U);
  write("a", header + data);
  const SafetensorsFile file(path("a"));
  EXPECT_EQ(file.metadata().at("text"), "na\xC3\xAFve");
  EXPECT_FALSE(file.contains("q"));
  for (const auto& [name, array] : tensors) {
    const Array got = file.tensor(name);
    EXPECT_EQ(got.dtype, array.dtype);
    EXPECT_EQ(got.shape, array.shape);
    EXPECT_EQ(values_of(got), values_of(array));
  }
}

TEST_F(Safetensors, EveryCutIsRefused) {
  const std::vector<std::pair<std::string, Array>> tensors{{"q", numbers(INGOT_F32, {2, 3})}};
  const std::string file = safetensors_header(tensors, {}) + bytes_of(tensors[0].second);
  for (std::size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(failure_of([&] { parse_safetensors(std::as_bytes(std::span(file.data(), size))); }),
              "no failure");
  }
}

TEST(Conversion, HalfAndBfloatKeepEveryValueThroughDouble) {
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_BF16}) {
    for (std::uint32_t i = 0; i < 65536; ++i) {
      const auto bits = static_cast<std::uint16_t>(i);
      std::uint16_t back = 0;
      const double value = read_element(reinterpret_cast<const std::byte*>(&bits), dtype);
      write_element(value, dtype, reinterpret_cast<std::byte*>(&back));
      if (std::isnan(value)) {
        EXPECT_TRUE(std::isnan(read_element(reinterpret_cast<const std::byte*>(&back), dtype)));
      } else {
        ASSERT_EQ(back, bits) << dtype_name(dtype) << ' ' << value;
      }
    }
  }
}

double rounded(double value, ingot_dtype dtype) {
  std::uint16_t bits = 0;
  write_element(value, dtype, reinterpret_cast<std::byte*>(&bits));
  return read_element(reinterpret_cast<const std::byte*>(&bits), dtype);
}

TEST(Conversion, RoundsToNearestEven) {
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(rounded(1 + std::ldexp(1, -11), INGOT_F16), 1);
  EXPECT_EQ(rounded(1 + 3 * std::ldexp(1, -11), INGOT_F16), 1 + std::ldexp(1, -9));
  EXPECT_EQ(rounded(65519, INGOT_F16), 65504);
  EXPECT_EQ(rounded(65520, INGOT_F16), inf);
  EXPECT_EQ(rounded(-1e300, INGOT_F16), -inf);
  EXPECT_EQ(rounded(std::ldexp(1, -25), INGOT_F16), 0);
  EXPECT_EQ(rounded(std::ldexp(1.5, -25), INGOT_F16), std::ldexp(1, -24));
  EXPECT_EQ(rounded(2047.9, INGOT_F16), 2048);
  EXPECT_EQ(rounded(1 + std::ldexp(1, -8), INGOT_BF16), 1);
  EXPECT_EQ(rounded(1 + 3 * std::ldexp(1, -8), INGOT_BF16), 1 + std::ldexp(1, -6));
  EXPECT_EQ(rounded(3.4e38, INGOT_BF16), inf);
  EXPECT_EQ(rounded(std::ldexp(1, -134), INGOT_BF16), 0);
}

TEST(Views, RanksAndLayouts) {
  const Array four = make_array(INGOT_F32, {2, 3, 5, 7});
  EXPECT_EQ(sizes_of(four, Layout::bhsd), (Sizes{2, 3, 5, 7}));
  EXPECT_EQ(sizes_of(four, Layout::bshd), (Sizes{2, 5, 3, 7}));
  EXPECT_EQ(tensor_of(four, Layout::bshd).stride[1], 7);
  const Array three = make_array(INGOT_F32, {3, 5, 7});
  EXPECT_EQ(sizes_of(three, Layout::bhsd), (Sizes{1, 3, 5, 7}));
  EXPECT_EQ(sizes_of(three, Layout::bshd), (Sizes{1, 5, 3, 7}));
  EXPECT_EQ(sizes_of(make_array(INGOT_F32, {5, 7}), Layout::bshd), (Sizes{1, 1, 5, 7}));
  EXPECT_EQ(shape_of({2, 3, 5, 7}, 4, Layout::bshd), (Shape{2, 5, 3, 7}));
  EXPECT_EQ(lse_shape({2, 3, 5, 7}, 3), (Shape{3, 5}));
}

using Outputs = Files;

TEST_F(Outputs, AppearTogether) {
  OutputFiles files;
  const std::size_t a = files.add(path("a")), b = files.add(path("b"));
  files.write(a, "one");
  files.write(b, "two");
  EXPECT_FALSE(fs::exists(path("a")) || fs::exists(path("b")));
  files.commit();
  EXPECT_EQ(read("a") + read("b"), "onetwo");
  EXPECT_EQ(count(), 2U);
}

TEST_F(Outputs, LeaveNothingWithoutCommit) {
  write("a", "old");
  {
    OutputFiles files;
    files.write(files.add(path("a")), "new");
    files.add(path("b"));
    EXPECT_EQ(count(), 3U);
  }
  EXPECT_EQ(count(), 1U);
  EXPECT_EQ(read("a"), "old");
}

TEST_F(Outputs, LeaveNothingWhenOneCannotBeRenamed) {
  OutputFiles files;
  files.write(files.add(path("a")), "one");
  files.write(files.add(path("b")), "two");
  fs::create_directory(path("b"));  // appeared in the meantime
  EXPECT_NE(failure_of([&] { files.commit(); }).find("/b: "), std::string::npos);
  EXPECT_EQ(count(), 1U);
}

TEST(Shapes, ProductsThatOverflowAreRefused) {
  EXPECT_EQ(checked_bytes({}, 4), 4);
  EXPECT_EQ(checked_bytes({5, 0, 7}, 4), 0);
  const std::int64_t big = std::int64_t{1} << 31;
  EXPECT_EQ(checked_bytes({big, big / 2}, 2), std::int64_t{1} << 62);
  EXPECT_EQ(failure_of([&] { checked_bytes({big, big}, 2); }),
            "shape [2147483648, 2147483648] is over 2^63 bytes");
  EXPECT_NE(failure_of([&] { checked_bytes({0, big, big, 2}, 1); }), "no failure");
  EXPECT_EQ(failure_of([&] { checked_bytes({-1}, 1); }), "shape [-1] has a negative size");
}

}  // namespace
}  // namespace ingot::cli
#endif
