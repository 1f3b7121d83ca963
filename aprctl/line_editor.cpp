// Lines that can be edited, by libedit.
#include <fmt/format.h>
#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "aprctl/line_input.h"

namespace apr::ctl {
namespace {

// libedit reads characters and not bytes, so it must know how they are encoded. The "C" locale knows ASCII alone, and
// terminals are UTF-8 all the same. False where nothing but ASCII could be typed.
bool set_encoding() {
  const auto ascii = [] { return std::string_view(nl_langinfo(CODESET)) == "ANSI_X3.4-1968"; };
  std::setlocale(LC_CTYPE, "");
  if (ascii()) std::setlocale(LC_CTYPE, "C.UTF-8");
  return !ascii();
}

bool can_edit() {
  if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0) return false;
  const char* terminal = std::getenv("TERM");
  return terminal != nullptr && std::string_view(terminal) != "dumb" && std::string_view(terminal) != "" &&
         set_encoding();
}

class EditedLines final : public LineInput {
 public:
  // An answer goes to stdout, which may be a file; what is typed is shown where the prompt is.
  EditedLines() : edit_(el_init("aprctl", stdin, stderr, stderr)), lines_(history_init()) {
    if (!usable()) return;
    HistEvent event;
    history(lines_, &event, H_SETSIZE, 1000);
    history(lines_, &event, H_SETUNIQUE, 1);
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(
        edit_, EL_PROMPT, +[](EditLine* of) {
          EditedLines* self = nullptr;
          el_get(of, EL_CLIENTDATA, &self);
          return self->prompt_.data();
        });
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_HIST, history, lines_);
    // Signals do what they would do, after the terminal is put back as it was.
    el_set(edit_, EL_SIGNAL, 1);
    el_source(edit_, nullptr);  // ~/.editrc
  }
  ~EditedLines() override {
    if (edit_ != nullptr) el_end(edit_);
    if (lines_ != nullptr) history_end(lines_);
  }
  EditedLines(const EditedLines&) = delete;
  EditedLines& operator=(const EditedLines&) = delete;

  bool usable() const { return edit_ != nullptr && lines_ != nullptr; }

  std::optional<std::string> next(const std::string& prompt) override {
    // libedit draws one line again and again: the lines before it are printed once.
    const size_t line_begin = prompt.rfind('\n') + 1;
    fmt::print(stderr, "{}", std::string_view(prompt).substr(0, line_begin));
    prompt_ = prompt.substr(line_begin);
    int bytes = 0;
    const char* typed = el_gets(edit_, &bytes);
    if (typed == nullptr || bytes <= 0) {
      fmt::print(stderr, "\n");  // the cursor stands behind the prompt
      return std::nullopt;
    }
    std::string line(typed, static_cast<size_t>(bytes));
    if (line.ends_with('\n')) line.pop_back();
    HistEvent event;
    if (!line.empty()) history(lines_, &event, H_ENTER, line.c_str());
    return line;
  }

 private:
  EditLine* edit_;
  History* lines_;
  std::string prompt_;
};

}  // namespace

std::unique_ptr<LineInput> open_line_editor() {
  if (!can_edit()) return nullptr;
  auto editor = std::make_unique<EditedLines>();
  if (!editor->usable()) return nullptr;
  return editor;
}

}  // namespace apr::ctl
