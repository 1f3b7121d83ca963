#include "core/text/spm.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/text/space_mark.h"

namespace apr {

namespace {

// The bytes that text's first character takes; a byte that begins no valid one is a character of its own.
size_t character_length(std::string_view text) {
  const size_t length = utf8_length(text);
  return length == 0 ? 1 : length;
}

}  // namespace

SpmEncoder::SpmEncoder(const Vocab& vocab) : vocab_(&vocab), index_(vocab.text, vocab.text.size()) {
  std::fill(std::begin(byte_token_), std::end(byte_token_), -1);
  for (int32_t id = 0; id < vocab.size(); ++id) {
    if (vocab.type[static_cast<size_t>(id)] == TokenType::Byte) byte_token_[vocab.byte_value(id)] = id;
    if (!vocab.mergeable(id)) continue;
    index_.add(id);
    if (words_are_independent_ && space_after_another_character(vocab.text[static_cast<size_t>(id)])) {
      words_are_independent_ = false;
    }
  }
}

void SpmEncoder::encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const {
  std::string& escaped = scratch.escaped;
  escaped.clear();
  for (const char c : text) {
    if (c == ' ') {
      escaped += kSpaceMark;
    } else {
      escaped += c;
    }
  }
  const std::string_view all = escaped;
  size_t begin = 0;
  while (begin < all.size()) {
    size_t end = all.size();
    if (words_are_independent_) {
      size_t in_word = begin;
      while (all.substr(in_word).starts_with(kSpaceMark)) in_word += kSpaceMark.size();
      end = std::min(end, all.find(kSpaceMark, in_word));
    }
    encode_segment(all.substr(begin, end - begin), scratch, out);
    begin = end;
  }
}

void SpmEncoder::encode_segment(std::string_view segment, Scratch& scratch, std::vector<int32_t>& out) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  for (size_t at = 0; at < segment.size();) {
    const size_t length = character_length(segment.substr(at));
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + length), index - 1, index + 1,
                       index_.find(segment.substr(at, length))});
    at += length;
  }
  symbols.back().next = kNone;

  const auto later = [](const Scratch::Candidate& a, const Scratch::Candidate& b) {
    return a.score < b.score || (a.score == b.score && a.left > b.left);
  };
  const auto candidate = [&](uint32_t at) {
    const auto& left = symbols[at];
    if (left.next == kNone) return false;
    const uint32_t end = symbols[left.next].end;
    const int32_t id = index_.find(segment.substr(left.begin, end - left.begin));
    if (id >= 0) heap.push_back({vocab_->score[static_cast<size_t>(id)], at, left.begin, end, id});
    return id >= 0;
  };
  for (uint32_t i = 0; i < symbols.size(); ++i) candidate(i);
  std::make_heap(heap.begin(), heap.end(), later);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    auto& left = symbols[best.left];
    if (left.begin == left.end || left.next == kNone) continue;
    auto& right = symbols[left.next];
    if (right.end != best.end || left.end == best.end) continue;
    left.end = right.end;
    left.id = best.id;
    left.next = right.next;
    right.begin = right.end;
    if (left.next != kNone) symbols[left.next].prev = best.left;
    if (left.prev != kNone && candidate(left.prev)) std::push_heap(heap.begin(), heap.end(), later);
    if (candidate(best.left)) std::push_heap(heap.begin(), heap.end(), later);
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) emit(segment, symbols[i], out);
}

void SpmEncoder::emit(std::string_view segment, const Scratch::Symbol& symbol,
                      std::vector<int32_t>& out) const {
  if (symbol.id >= 0) {
    out.push_back(symbol.id);
    return;
  }
  const std::string_view character = segment.substr(symbol.begin, symbol.end - symbol.begin);
  const bool bytes = std::all_of(character.begin(), character.end(),
                                 [&](char c) { return byte_token_[static_cast<uint8_t>(c)] >= 0; });
  if (bytes) {
    for (const char c : character) out.push_back(byte_token_[static_cast<uint8_t>(c)]);
  } else if (vocab_->unk) {
    out.push_back(*vocab_->unk);
  } else {
    throw Error("{}: the vocabulary has no token for '{}' of the text, no byte tokens and no unknown token",
                vocab_->origin, printable(character));
  }
}

}  // namespace apr
