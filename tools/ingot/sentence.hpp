// Attention of a captured sentence: which word looks at which.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "array.hpp"

namespace ingot::cli {

/// Queries, keys and values of every layer of a sentence encoder, a layer being a batch entry, and
/// its tokens.
struct Sentence {
  Array q, k, v;           ///< f32, [layers, heads, tokens, head_dim]
  std::optional<Array> o;  ///< what the encoder's own attention gave, where the file has it
  std::vector<std::string> tokens;  ///< printable
  std::string model, text;
  float scale = 0;

  std::int64_t layers() const { return q.shape[0]; }
  std::int64_t heads() const { return q.shape[1]; }
};

/// A safetensors file with tensors q, k, v and metadata tokens (a JSON list) and, optionally,
/// scale, model and text. Throws Failure "PATH: reason".
Sentence load_sentence(const std::string& path);

/// The captured sentence installed with the program, or of the tree it was built in. Throws Failure
/// where there is none.
std::string default_sentence();

/// Probabilities [tokens, tokens], row after row.
using Weights = std::vector<double>;

/// exp(scale * <q, k> - lse) of one head, with the lse [layers, heads, tokens] that a device
/// returned.
Weights head_weights(const Sentence& sentence, const Array& lse, std::int64_t layer,
                     std::int64_t head);
/// The mean over all layers and heads.
Weights mean_weights(const Sentence& sentence, const Array& lse);

struct HeadIndex {
  std::int64_t layer = 0, head = 0;
};
/// The head whose words look most at single other words, apart from neighbours, [CLS], [SEP] and
/// punctuation.
HeadIndex most_focused(const Sentence& sentence, const Array& lse);

/// A line a row: the token, shaded cells, and the words it attends to most.
std::string picture(const Sentence& sentence, const Weights& weights, bool colour,
                    std::size_t width);

}  // namespace ingot::cli
