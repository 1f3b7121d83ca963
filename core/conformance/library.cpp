// A plugin library as a file: its ELF tables say what it exports, needs and searches.
#include <elf.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>

#include "apr/abi.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/mapped_file.h"
#include "core/conformance/conformance.h"
#include "core/plugin/library.h"
#include "core/plugin/trust.h"

namespace apr::conformance {
namespace fs = std::filesystem;

namespace {

struct Elf {
  std::vector<std::string> exported, imported;  // dynamic symbols
  std::vector<std::string> needed, run_paths;
  bool executable_stack = false, text_relocations = false;
};

// Reads within the file's bytes only.
class Reader {
 public:
  explicit Reader(const fs::path& path) : path_(path), file_(MappedFile::open(path.native())) {}

  template <typename T>
  T at(uint64_t offset) const {
    if (offset > file_->size() || file_->size() - offset < sizeof(T)) fail();
    T value;
    std::memcpy(&value, file_->data() + offset, sizeof(T));
    return value;
  }
  std::string text(uint64_t table, uint64_t size, uint64_t index) const {
    if (index >= size || table > file_->size() || file_->size() - table < size) fail();
    const auto* first = reinterpret_cast<const char*>(file_->data() + table + index);
    return {first, strnlen(first, size - index)};
  }
  [[noreturn]] void fail() const { throw Error("{}: its ELF tables reach beyond the file", path_.native()); }

 private:
  const fs::path& path_;
  std::shared_ptr<MappedFile> file_;
};

std::vector<std::string> split_path(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t from = 0; from <= text.size();) {
    const size_t colon = std::min(text.find(':', from), text.size());
    parts.push_back(text.substr(from, colon - from));
    from = colon + 1;
  }
  return parts;
}

Elf read_elf(const fs::path& path) {
  const Reader file(path);
  const auto header = file.at<ElfW(Ehdr)>(0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_type != ET_DYN)
    throw Error("{}: not an ELF shared library", path.native());
  Elf elf;
  for (int i = 0; i < header.e_phnum; ++i) {
    const auto segment = file.at<ElfW(Phdr)>(header.e_phoff + static_cast<uint64_t>(i) * header.e_phentsize);
    if (segment.p_type == PT_GNU_STACK && (segment.p_flags & PF_X)) elf.executable_stack = true;
  }
  const auto section = [&](uint64_t index) {
    return file.at<ElfW(Shdr)>(header.e_shoff + index * header.e_shentsize);
  };
  bool symbols = false;
  for (int i = 0; i < header.e_shnum; ++i) {
    const ElfW(Shdr) s = section(static_cast<uint64_t>(i));
    if (s.sh_type != SHT_DYNSYM && s.sh_type != SHT_DYNAMIC) continue;
    const ElfW(Shdr) strings = section(s.sh_link);
    const auto text = [&](uint64_t index) { return file.text(strings.sh_offset, strings.sh_size, index); };
    if (s.sh_type == SHT_DYNSYM) {
      symbols = true;
      for (uint64_t at = sizeof(ElfW(Sym)); at + sizeof(ElfW(Sym)) <= s.sh_size; at += sizeof(ElfW(Sym))) {
        const auto symbol = file.at<ElfW(Sym)>(s.sh_offset + at);
        if (ELF64_ST_BIND(symbol.st_info) == STB_LOCAL) continue;
        if (symbol.st_shndx == SHN_UNDEF) {
          elf.imported.push_back(text(symbol.st_name));
        } else if (ELF64_ST_VISIBILITY(symbol.st_other) == STV_DEFAULT ||
                   ELF64_ST_VISIBILITY(symbol.st_other) == STV_PROTECTED) {
          elf.exported.push_back(text(symbol.st_name));
        }
      }
      continue;
    }
    for (uint64_t at = 0; at + sizeof(ElfW(Dyn)) <= s.sh_size; at += sizeof(ElfW(Dyn))) {
      const auto entry = file.at<ElfW(Dyn)>(s.sh_offset + at);
      if (entry.d_tag == DT_NULL) break;
      if (entry.d_tag == DT_NEEDED) elf.needed.push_back(text(entry.d_un.d_val));
      if (entry.d_tag == DT_RPATH || entry.d_tag == DT_RUNPATH)
        for (std::string& part : split_path(text(entry.d_un.d_val))) elf.run_paths.push_back(std::move(part));
      if (entry.d_tag == DT_TEXTREL || (entry.d_tag == DT_FLAGS && (entry.d_un.d_val & DF_TEXTREL)))
        elf.text_relocations = true;
    }
  }
  if (!symbols) throw Error("{}: has no table of dynamic symbols", path.native());
  return elf;
}

Finding trusted(const fs::path& library, const fs::path& manifest) {
  for (const fs::path& part : {library, manifest, library.parent_path()})
    if (const auto reason = distrust(part)) return fail("refused", *reason);
  return pass("yours or root's alone");
}

Finding exports(const Elf& elf) {
  std::vector<std::string> others;
  bool entry = false;
  for (const std::string& name : elf.exported) {
    if (name == APR_PLUGIN_SYMBOL) {
      entry = true;
    } else if (!name.starts_with("__odr_asan.")) {  // AddressSanitizer's own, one for every exported object
      others.push_back(printable(name));
    }
  }
  if (!entry) return fail("no entry", "exports no " APR_PLUGIN_SYMBOL);
  if (others.empty()) return pass(APR_PLUGIN_SYMBOL);
  const size_t n = others.size();
  others.resize(std::min<size_t>(n, 3));
  return fail(fmt::format("{} more", n), fmt::format("also exports {}{}: compile with -fvisibility=hidden, "
                                                     "make functions static, and link static libraries "
                                                     "with -Wl,--exclude-libs,ALL",
                                                     joined(others), n > others.size() ? ", ..." : ""));
}

// A plugin calls the C library, the C++ runtime and what it brings along; never the program that opened it.
Finding imports(const Elf& elf) {
  for (const std::string& name : elf.imported)
    if (name.starts_with("apr_") || name.find("N3apr") != std::string::npos)
      return fail(printable(name),
                  "an undefined symbol of apr: the program exports nothing, all that a plugin gets it gets "
                  "by its functions' arguments");
  std::set<std::string> others;
  for (const std::string& name : elf.needed) {
    if (name.starts_with("libapr"))
      return fail(printable(name), "needs a library of apr: a plugin is built against the headers alone");
    constexpr std::string_view kUsual[] = {"libc.",     "libm.",       "libstdc++.", "libc++.", "libc++abi.",
                                           "libgcc_s.", "libpthread.", "libdl.",     "ld-linux"};
    if (std::none_of(std::begin(kUsual), std::end(kUsual),
                     [&](std::string_view usual) { return name.starts_with(usual); }))
      others.insert(printable(name));
  }
  return pass(others.empty() ? std::string("C and C++ runtime") : "also " + joined(others));
}

Finding run_path(const Elf& elf) {
  for (const std::string& part : elf.run_paths)
    if (part != "$ORIGIN" && !part.starts_with("$ORIGIN/"))
      return fail(printable(part), fmt::format("the library searches '{}' for what it needs: a folder of the "
                                               "machine that built it, or the working directory; "
                                               "remove the run path, or make it $ORIGIN/...",
                                               printable(part)));
  return pass(elf.run_paths.empty() ? "none" : joined(elf.run_paths, ":"));
}

Finding memory(const Elf& elf) {
  if (elf.executable_stack)
    return fail("executable stack",
                "link with -Wl,-z,noexecstack; assembler files need .section .note.GNU-stack");
  if (elf.text_relocations) return fail("text relocations", "compile with -fPIC");
  return pass("no executable data");
}

}  // namespace

const apr_plugin* check_library(const Manifest& manifest, Listener& listener) {
  Recorder recorder(listener, "library");
  // Opening a library runs its code: one that others may have written is not opened.
  if (recorder.run("permissions", "", [&] { return trusted(manifest.library, manifest.path); }) !=
      Verdict::Pass)
    return nullptr;
  Elf elf;
  const Verdict readable = recorder.run("file", "ELF library", [&] {
    elf = read_elf(manifest.library);
    return pass(human_bytes(fs::file_size(manifest.library)));
  });
  if (readable != Verdict::Pass) return nullptr;
  recorder.run("exports", "entry alone", [&] { return exports(elf); });
  recorder.run("needs", "not apr", [&] { return imports(elf); });
  recorder.run("run path", "$ORIGIN", [&] { return run_path(elf); });
  recorder.run("memory", "", [&] { return memory(elf); });
  const apr_plugin* plugin = nullptr;
  recorder.run("tables", "plugin.toml", [&] {
    plugin = &open_library(manifest);
    return pass(fmt::format("ABI {}.{}", plugin->abi_major, plugin->abi_minor));
  });
  return plugin;
}

}  // namespace apr::conformance
