#include "plugins/backend-cuda/program.h"

#include <fmt/format.h>

#include <algorithm>

#include "ptx-templates/args.h"

namespace apr::cuda {

const char* to_string(Form form) {
  switch (form) {
    case Form::Float:
      return "f32";
    case Form::Int8:
      return "int8";
    case Form::F16:
      return "f16";
    case Form::Bf16x2:
      return "bf16x2";
    case Form::F16x2:
      return "f16x2";
    case Form::Token:
      return "token";
    case Form::Candidates:
      return "candidates";
  }
  return "?";
}

std::string describe(const Program& program) {
  std::string text = fmt::format("{} m={}: {} launches\n", program.head ? "head" : "body",
                                 program.m == 0 ? "any" : std::to_string(program.m), program.steps.size());
  const auto name = [&](int32_t buffer) {
    const Buffer& b = program.buffers[static_cast<size_t>(buffer)];
    return fmt::format("{}{}:{}[{}]",
                       b.place == Buffer::Place::Inlet    ? "in "
                       : b.place == Buffer::Place::Outlet ? "out "
                                                          : "",
                       buffer, to_string(b.form), b.width);
  };
  for (const Step& step : program.steps) {
    text += fmt::format("  {:<24} {}", step.stage, describe(step.spec));
    for (const int32_t in : step.input)
      if (in >= 0) text += " <- " + name(in);
    if (step.residual >= 0) text += " + " + name(step.residual);
    for (const int32_t out : step.outputs) text += " -> " + name(out);
    text += "\n";
  }
  return text;
}

namespace {

uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
constexpr uint64_t kAlign = 256;

}  // namespace

BufferLayout buffer_layout(const Buffer& buffer, uint32_t rows) {
  BufferLayout layout{{0, 0, 0}, 0};
  const uint64_t r = rows;
  const auto parts = [&](uint64_t a, uint64_t b, uint64_t c) {
    layout.part[1] = round_up(a, kAlign);
    layout.part[2] = layout.part[1] + round_up(b, kAlign);
    layout.bytes = layout.part[2] + round_up(c, kAlign);
  };
  switch (buffer.form) {
    case Form::Float:
      parts(r * buffer.width * 4, 0, 0);
      break;
    case Form::Token:
      parts(r * 4, 0, 0);
      break;
    case Form::Candidates:
      parts(r * buffer.width * sizeof(Candidate), 0, 0);
      break;
    case Form::Int8: {
      const uint64_t k = round_up(buffer.width, 32);
      parts(r * k, r * (k / 16) * 4, r * (k / 16) * 4);  // kActBlock of args.h
      break;
    }
    case Form::F16:
      parts(r * round_up(buffer.width, 64) * 2, 0, r * 4);
      break;
    case Form::Bf16x2:
    case Form::F16x2: {
      const uint64_t term = r * round_up(buffer.width, 64) * 2;
      parts(term, term, r * 4);
      break;
    }
  }
  return layout;
}

Arena place_buffers(const Program& program, uint32_t rows) {
  struct Life {
    size_t first = SIZE_MAX, last = 0;
  };
  std::vector<Life> lives(program.buffers.size());
  const auto touch = [&](int32_t buffer, size_t step) {
    if (buffer < 0) return;
    Life& life = lives[static_cast<size_t>(buffer)];
    life.first = std::min(life.first, step);
    life.last = std::max(life.last, step);
  };
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    for (const int32_t in : step.input) touch(in, i);
    touch(step.residual, i);
    for (const int32_t out : step.outputs) touch(out, i);
  }
  Arena arena{std::vector<uint64_t>(program.buffers.size(), UINT64_MAX), 0};
  struct Placed {
    uint64_t begin, end;
    size_t buffer;
  };
  std::vector<Placed> placed;  // by begin
  for (size_t b = 0; b < program.buffers.size(); ++b) {
    if (program.buffers[b].place != Buffer::Place::Arena || lives[b].first == SIZE_MAX) continue;
    const uint64_t bytes = buffer_layout(program.buffers[b], rows).bytes;
    // First fit among those that live at the same time; a step's inputs and outputs count as together.
    uint64_t at = 0;
    for (const Placed& p : placed) {
      if (lives[p.buffer].last < lives[b].first || lives[p.buffer].first > lives[b].last) continue;
      if (at + bytes <= p.begin) break;
      at = std::max(at, p.end);
    }
    const Placed mine = {at, at + bytes, b};
    placed.insert(std::upper_bound(placed.begin(), placed.end(), mine,
                                   [](const Placed& x, const Placed& y) { return x.begin < y.begin; }),
                  mine);
    arena.offsets[b] = at;
    arena.bytes = std::max(arena.bytes, at + bytes);
  }
  return arena;
}

}  // namespace apr::cuda
