// The program's files: .npy and safetensors readers and writers, and conversions.
#if __has_include("array.hpp")  // with the program
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "array.hpp"
#include "files.hpp"
#include "npy.hpp"
#include "safetensors.hpp"
#include "safetensors_header.hpp"
#include "views.hpp"

namespace ingot::cli {
namespace {

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

using Npy = Files;

TEST_F(Npy, ReadsWhatItWrites) {
  for (const ingot_dtype dtype : {INGOT_F16, INGOT_F32, INGOT_F64}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 3}, Shape{2, 0, 3}, Shape{1, 2, 3, 4}}) {
      const Array array = numbers(dtype, shape);
      const std::string header = npy_header(dtype, shape);
      EXPECT_EQ(header.size() % 64, 0U);
      write("a.npy", header + bytes_of(array));
      const Array got = load_npy(map_file(path("a.npy")));
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
  const Array array = load_npy(map_file(path("a.npy")));
  EXPECT_EQ(array.strides, (Shape{1, 2}));
  EXPECT_EQ(values_of(array), (std::vector<double>{0, 0.5, 1, 0.25, 0.75, 1.25}));
}

TEST_F(Npy, FilesThatChangeMeanwhileAreFoundOut) {
  const std::string file = npy_header(INGOT_F32, {2, 3}) + bytes_of(numbers(INGOT_F32, {6}));
  write("a.npy", file);
  const MappedFile mapped = map_file(path("a.npy"));
  const auto failure = [&] { return failure_of([&] { mapped.require_unchanged(); }); };
  EXPECT_EQ(failure(), "no failure");
  // Within the last page nothing but the size tells: what is missing reads as zeros.
  fs::resize_file(path("a.npy"), file.size() - 4);
  EXPECT_EQ(failure(), path("a.npy") + ": was changed while it was read");
  const MappedFile again = map_file(path("a.npy"));
  fs::last_write_time(path("a.npy"), fs::file_time_type::clock::now() + std::chrono::seconds(2));
  EXPECT_NE(failure_of([&] { again.require_unchanged(); }), "no failure");
}

TEST_F(Npy, MisalignedDataIsCopied) {
  const std::string body = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 1), } ";
  std::string file = "\x93NUMPY";
  file += {'\x01', '\0', static_cast<char>(body.size()), '\0'};
  file += body;
  ASSERT_NE(file.size() % 8, 0U);
  write("a.npy", file + bytes_of(numbers(INGOT_F64, {2})));
  const Array array = load_npy(map_file(path("a.npy")));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data.get()) % 8, 0U);
  EXPECT_EQ(values_of(array), (std::vector<double>{0, 0.25}));
}

// A file of six f32 with this header.
std::string npy_file(const std::string& body, char version = 1, char minor = 0) {
  std::string file = "\x93NUMPY";
  file += {version, minor, static_cast<char>(body.size()), '\0'};
  if (version > 1) file += std::string(2, '\0');
  return file + body + std::string(24, '\0');
}

std::string failure_of_npy(const std::string& file) {
  return failure_of([&] { parse_npy(std::as_bytes(std::span(file))); });
}

TEST(NpyHeader, IsReadAsNumpyReadsIt) {
  const std::string body = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = body;
    return changed.replace(changed.find(from), from.size(), to);
  };
  for (const char* descr :
       {"'=f4'", "'f4'", "'|f4'", "u'<f4'", "\"<f4\"", "'f'", "'<f'", "'float32'"}) {
    EXPECT_EQ(failure_of_npy(npy_file(with("'<f4'", descr))), "no failure") << descr;
  }
  EXPECT_EQ(failure_of_npy(npy_file(with("'descr'", "u'descr'"))), "no failure");
  for (const char* shape : {"(2L, 3L)", "(6L,)", "(6,)", "(2, 3,)", "(1, 1, 6)"}) {
    EXPECT_EQ(failure_of_npy(npy_file(with("(2, 3)", shape))), "no failure") << shape;
  }
  for (const char* shape : {"(6)", "(06,)", "(2, 03)", "(6l,)", "[2, 3]"}) {
    EXPECT_NE(failure_of_npy(npy_file(with("(2, 3)", shape))), "no failure") << shape;
  }
  EXPECT_NE(failure_of_npy(npy_file(with("'<f4'", "'<float32'"))), "no failure");
  EXPECT_EQ(failure_of_npy(npy_file(body, 2)), "no failure");
  EXPECT_NE(failure_of_npy(npy_file(with("(2, 3)", "(6L,)"), 3)), "no failure");
  EXPECT_EQ(failure_of_npy(npy_file(body, 1, 9)), ".npy version 1.9 is not 1, 2 or 3");
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

TEST(SafetensorsHeader, IsRefusedWhereTheFormatRefusesIt) {
  const std::string q = R"("q":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]})";
  EXPECT_EQ(parse_safetensors_header("{" + q + "} \n").tensors.at("q").shape, (Shape{2, 3}));
  const auto failure_with = [&](const std::string& from, const std::string& to) {
    std::string text = "{" + q + "}";
    text.replace(text.find(from), from.size(), to);
    return failure_of([&] { parse_safetensors_header(text); });
  };
  const auto expect = [&](const std::string& from, const std::string& to, const std::string& why) {
    EXPECT_EQ(failure_with(from, to), "bad safetensors header: " + why) << to;
  };
  for (const std::string key : {"dtype", "shape", "data_offsets"}) {
    const std::string value = key == "dtype" ? "\"F32\"" : "[0,24]";
    expect("}", ",\"" + key + "\":" + value + "}", key + " of tensor 'q' appears twice");
  }
  expect("{", R"({"__metadata__":{"a":"b","a":"c"},)", "metadata 'a' appears twice");
  expect("{", R"({"__metadata__":{},"__metadata__":{},)", "tensor '__metadata__' appears twice");
  expect("{", "\xEF\xBB\xBF{", "not a JSON object that starts with '{'");
  expect("{", " {", "not a JSON object that starts with '{'");
  expect("}}", std::string("}}\0", 3), "holds a NUL byte");
  expect("}}", std::string("}}\0{", 4), "holds a NUL byte");
  expect("}}", "}}{}", "not a JSON object");
  expect("[0,", "[-0,", "data_offsets of tensor 'q' holds '-0', not a size");
  expect("[2,3]", "[2,3.0]", "shape of tensor 'q' holds '3.0', not a size");
  expect("[2,3]", "[2,\"3\"]", "shape of tensor 'q' holds '3', not a size");
  expect("[2,3]", "[99999999999999999999]",
         "shape of tensor 'q' holds '99999999999999999999', not a size");
  expect("[2,3]", "[[2,3]]", "nested deeper than the format allows");
  expect("\"F32\"", "[]", "dtype of tensor 'q' is not a string");
}

TEST(SafetensorsHeader, KeysThatItDoesNotKnowAreLeftOut) {
  const std::string text =
      R"({"q":{"x":[1],"dtype":"F32","y":{"dtype":1},"shape":[],"data_offsets":[0,4],"z":null}})";
  EXPECT_EQ(parse_safetensors_header(text).tensors.at("q").dtype, "F32");
}

TEST_F(Safetensors, OtherTypesBesideAreOfNoConcern) {
  const std::pair<const char*, int> others[] = {{"C64", 24},    {"F8_E8M0", 3}, {"F8_E4M3", 3},
                                                {"F6_E2M3", 3}, {"F4", 2},      {"F77", 5}};
  for (const auto& [dtype, bytes] : others) {
    const std::string shape =
        dtype == std::string("F6_E2M3") || dtype == std::string("F4") ? "[4]" : "[3]";
    const std::string text =
        R"({"q":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"other":{"dtype":")" +
        std::string(dtype) + R"(","shape":)" + shape + R"(,"data_offsets":[4,)" +
        std::to_string(4 + bytes) + "]}}";
    std::string file(8, '\0');
    file[0] = static_cast<char>(text.size());
    write("a", file + text + std::string(static_cast<std::size_t>(4 + bytes), '\0'));
    const SafetensorsFile opened(path("a"));
    EXPECT_EQ(opened.tensor("q").shape, Shape{1});
    EXPECT_NE(failure_of([&] { opened.tensor("other"); }).find(dtype), std::string::npos);
    write("a", file + text + std::string(static_cast<std::size_t>(5 + bytes), '\0'));
    EXPECT_NE(failure_of([&] { SafetensorsFile{path("a")}; }), "no failure") << dtype;
  }
}

TEST(SafetensorsHeader, OfManyTensorsTakesTimeInProportion) {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i) {
    text += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
            R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  }
  EXPECT_EQ(parse_safetensors_header(text + "}").tensors.size(), 100000U);
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
