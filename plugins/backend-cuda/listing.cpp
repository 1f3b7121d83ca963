#include "plugins/backend-cuda/listing.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/base/sha256.h"
#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

void list_templates(const Registry& registry, apr_kernel_template_fn fn, void* user) {
  Sha256 shared;
  for (const NamedText& header : registry.headers) shared.update(header.text);
  shared.update(codec_contract());
  const std::string headers = shared.finish_hex();
  const auto pointers = [](const std::vector<std::string>& list) {
    std::vector<const char*> out;
    for (const std::string& text : list) out.push_back(text.c_str());
    return out;
  };
  for (const Template& t : registry.templates) {
    std::vector<apr_kernel_param> params;
    std::vector<const apr_kernel_param*> param_list;
    for (const TemplateParam& p : t.params)
      params.push_back({sizeof(apr_kernel_param), p.name.c_str(), p.meaning.c_str(), p.values.data(), nullptr,
                        static_cast<uint32_t>(p.values.size()), p.preset});
    for (const apr_kernel_param& p : params) param_list.push_back(&p);
    const std::vector<const char*> layouts = pointers(t.layouts), formats = pointers(t.formats);
    const std::string arch = fmt::format("sm_{}{}", t.arch, t.arch_specific ? "a" : ""),
                      hash = sha256_hex(headers + t.text).substr(0, 16);
    apr_kernel_template k{};
    k.struct_size = sizeof k;
    k.name = t.name.c_str(), k.op = to_string(t.op), k.view = to_string(t.view),
    k.summary = t.summary.c_str();
    k.arch = arch.c_str(), k.origin = t.file.c_str(), k.hash = hash.c_str();
    k.m_min = t.m_min, k.m_max = t.m_max;
    k.layouts = layouts.data(), k.n_layouts = static_cast<uint32_t>(layouts.size());
    k.formats = formats.data(), k.n_formats = static_cast<uint32_t>(formats.size());
    k.params = param_list.data(), k.n_params = static_cast<uint32_t>(param_list.size());
    fn(user, &k);
  }
}

Target paper_target(const std::string& arch, const std::vector<int>& supported) {
  // Multiprocessors, and bytes of shared memory that a CTA may have, of a well-known card of each
  // architecture.
  struct Known {
    int capability, multiprocessors, max_shared;
  };
  constexpr Known kKnown[] = {{80, 108, 166912}, {86, 84, 101376},   {89, 142, 101376},
                              {90, 132, 232448}, {100, 148, 232448}, {120, 188, 101376}};
  std::string names;
  for (const Known& known : kKnown) {
    const std::string name = fmt::format("sm_{}{}", known.capability, known.capability >= 90 ? "a" : "");
    if (arch == name)
      return make_target(known.capability, known.multiprocessors, known.max_shared, supported);
    names += " " + name;
  }
  throw failure(APR_INVALID, "setting arch={}: without a device kernels can be decided for{}", arch, names);
}

apr_kernel_code KernelCode::info() const {
  apr_kernel_code c{};
  c.struct_size = sizeof c;
  c.function = function.c_str(), c.isa = isa.c_str(), c.source = source.c_str(),
  c.assembly = assembly.c_str();
  c.compiler = compiler.c_str(), c.key = key.c_str();
  c.registers = registers, c.shared_bytes = shared_bytes, c.spill_bytes = spill_bytes, c.threads = threads,
  c.ctas = ctas;
  return c;
}

namespace {

// The constant apr_launch of a cubin, which is an ELF file.
std::optional<LaunchShape> launch_shape_of(const std::string& cubin) {
  Elf64_Ehdr header;
  if (cubin.size() < sizeof header) return std::nullopt;
  std::memcpy(&header, cubin.data(), sizeof header);
  const auto section = [&](uint64_t i) {
    Elf64_Shdr s{};
    const uint64_t at = header.e_shoff + i * sizeof s;
    if (i < header.e_shnum && at + sizeof s <= cubin.size()) std::memcpy(&s, cubin.data() + at, sizeof s);
    return s;
  };
  for (uint64_t i = 0; i < header.e_shnum; ++i) {
    const Elf64_Shdr table = section(i);
    if (table.sh_type != SHT_SYMTAB) continue;
    const Elf64_Shdr names = section(table.sh_link);
    for (uint64_t at = 0;
         at + sizeof(Elf64_Sym) <= table.sh_size && table.sh_offset + at + sizeof(Elf64_Sym) <= cubin.size();
         at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, cubin.data() + table.sh_offset + at, sizeof symbol);
      const uint64_t name = names.sh_offset + symbol.st_name;
      if (name >= cubin.size() || std::strcmp(cubin.c_str() + name, "apr_launch") != 0 ||
          symbol.st_size != sizeof(LaunchShape))
        continue;
      const uint64_t from = section(symbol.st_shndx).sh_offset + symbol.st_value;
      LaunchShape shape;
      if (from + sizeof shape > cubin.size()) return std::nullopt;
      std::memcpy(&shape, cubin.data() + from, sizeof shape);
      return shape;
    }
  }
  return std::nullopt;
}

// The number before `unit` in the assembler's report: "Used 40 registers", "16 bytes spill stores".
int32_t number_before(const std::string& report, const std::string& unit) {
  const size_t at = report.find(unit);
  if (at == std::string::npos) return -1;
  size_t from = at;
  while (from > 0 && report[from - 1] >= '0' && report[from - 1] <= '9') --from;
  return from == at ? -1 : std::atoi(report.c_str() + from);
}

}  // namespace

KernelCode code_of(const Workshop& workshop, const Explained& entry) {
  const Choice& choice = *entry.choice;
  KernelCode code;
  code.function = choice.name;
  code.isa = workshop.target.arch;
  if (choice.source.source.empty()) {
    code.compiler = "built with the program; the driver compiles its PTX";
    return code;
  }
  code.source = choice.source.source;
  code.key = choice.key;
  if (choice.source.literal) {
    code.assembly = choice.source.source;
    code.compiler = "literal PTX; the driver compiles it";
    return code;
  }
  if (workshop.nvrtc == nullptr) {
    code.compiler = workshop.nvrtc_reason;
    return code;
  }
  std::vector<std::string> options = choice.source.options;
  options.emplace_back("--ptxas-options=-v");
  const Compiled compiled = compile(*workshop.nvrtc, "prelude of " + choice.source.name, choice.source.source,
                                    choice.source.headers, options);
  code.assembly = compiled.ptx;
  code.compiler = compiled.log;
  code.registers = number_before(compiled.log, " registers");
  const int32_t stores = number_before(compiled.log, " bytes spill stores"),
                loads = number_before(compiled.log, " bytes spill loads");
  if (stores >= 0 && loads >= 0) code.spill_bytes = stores + loads;
  if (const auto shape = launch_shape_of(compiled.cubin)) {
    code.threads = static_cast<int32_t>(shape->block);
    code.shared_bytes =
        static_cast<int32_t>(shape->shared_bytes) + std::max(number_before(compiled.log, " bytes smem"), 0);
    const uint32_t y =
        shape->tile_m == 0 ? shape->grid_y : (entry.m_most + shape->tile_m - 1) / shape->tile_m;
    code.ctas = static_cast<int32_t>(shape->grid_x * y * shape->grid_z);
  }
  return code;
}

}  // namespace apr::cuda
