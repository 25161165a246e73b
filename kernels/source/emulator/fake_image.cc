// What the fake device reads of an image: whether it is for this chip, and which kernels it has. See fake.h.
//
// No length is given with an image, so its own headers are believed, as a driver does; whoever loads it must know it
// to be whole.
#include "fake.h"

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <elf.h>

namespace fake {
namespace {

constexpr unsigned MACHINE_CUDA = 190;
constexpr unsigned MACHINE_AMDGPU = 224;
constexpr unsigned ABI_AMD_HSA = 64;
// From this version of NVIDIA's files on the chip stands in the second byte of the flags, before it in the first.
constexpr unsigned char CUDA_ABI_SECOND = 8;
constexpr unsigned char ENTRY = 0x10; // of a symbol's `st_other`

struct Mach {
  unsigned number;
  const char* name;
};
constexpr Mach MACHS[] = {
    {0x2c, "gfx900"},  {0x2f, "gfx906"},  {0x30, "gfx908"},  {0x3f, "gfx90a"},  {0x4c, "gfx942"},
    {0x4f, "gfx950"},  {0x36, "gfx1030"}, {0x41, "gfx1100"}, {0x46, "gfx1101"}, {0x47, "gfx1102"},
    {0x44, "gfx1103"}, {0x43, "gfx1150"}, {0x4a, "gfx1151"}, {0x55, "gfx1152"}, {0x48, "gfx1200"},
    {0x4e, "gfx1201"},
};

bool is_elf(const void* image) { return std::memcmp(image, ELFMAG, SELFMAG) == 0; }

// Calls `visit` with each symbol and its name.
template <class Visit> void symbols(const unsigned char* image, Visit visit) {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image);
  const auto* sections = reinterpret_cast<const Elf64_Shdr*>(image + header->e_shoff);
  for (unsigned index = 0; index < header->e_shnum; ++index) {
    const Elf64_Shdr& table = sections[index];
    const bool holds = table.sh_type == SHT_SYMTAB || table.sh_type == SHT_DYNSYM;
    if (!holds || table.sh_entsize != sizeof(Elf64_Sym) || table.sh_link >= header->e_shnum) continue;
    const Elf64_Shdr& names = sections[table.sh_link];
    const auto* all = reinterpret_cast<const Elf64_Sym*>(image + table.sh_offset);
    for (std::size_t symbol = 0; symbol < table.sh_size / sizeof(Elf64_Sym); ++symbol) {
      if (all[symbol].st_name >= names.sh_size || all[symbol].st_shndx == SHN_UNDEF) continue;
      const char* name = reinterpret_cast<const char*>(image + names.sh_offset + all[symbol].st_name);
      const std::size_t room = names.sh_size - all[symbol].st_name;
      visit(all[symbol], std::string(name, strnlen(name, room)));
    }
  }
}

void add(std::vector<std::string>& kernels, const std::string& name) {
  for (const std::string& known : kernels)
    if (known == name) return;
  kernels.push_back(name);
}

// Code runs on its own chip and on later ones of the same generation.
bool runs_here(unsigned sm) { return sm / 10 == capability() / 10 && sm <= capability(); }

Code read_cubin(const unsigned char* image, std::vector<std::string>& kernels) {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image);
  if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != MACHINE_CUDA) return InvalidImage;
  const bool second = header->e_ident[EI_ABIVERSION] >= CUDA_ABI_SECOND;
  if (!runs_here(header->e_flags >> (second ? 8 : 0) & 0xff)) return NoBinary;
  symbols(image, [&](const Elf64_Sym& symbol, const std::string& name) {
    if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && (symbol.st_other & ENTRY) != 0) add(kernels, name);
  });
  return Success;
}

// PTX without its comments.
std::string bare(const char* text) {
  std::string bare;
  while (*text != '\0') {
    if (text[0] == '/' && text[1] == '/') {
      text += std::strcspn(text, "\n");
    } else if (text[0] == '/' && text[1] == '*') {
      const char* end = std::strstr(text + 2, "*/");
      text = end != nullptr ? end + 2 : text + std::strlen(text);
    } else {
      bare += *text++;
    }
  }
  return bare;
}

// The word behind a directive, from `at` on; `at` is then behind it, or npos when there is none.
std::string word_behind(const std::string& text, const char* directive, std::size_t& at) {
  const std::size_t length = std::strlen(directive);
  while ((at = text.find(directive, at)) != std::string::npos) {
    at += length;
    if (at >= text.size() || !std::isspace(static_cast<unsigned char>(text[at]))) continue;
    const std::size_t begin = text.find_first_not_of(" \t\r\n", at);
    if (begin == std::string::npos) break;
    at = text.find_first_of(" \t\r\n,;({", begin);
    return text.substr(begin, at == std::string::npos ? at : at - begin);
  }
  at = std::string::npos;
  return "";
}

// The newest PTX that a driver of this version compiles, in tenths: CUDA 11.4 has PTX 7.4, CUDA 13.0 has 9.0.
unsigned newest_ptx() {
  const unsigned major = static_cast<unsigned>(settings().version) / 1000;
  const unsigned minor = static_cast<unsigned>(settings().version) % 1000 / 10;
  // CUDA 12.6 came without a new PTX, and 12.9 is one behind therefore.
  return major < 4 ? 0 : (major - 4) * 10 + (major == 12 && minor >= 6 ? minor - 1 : minor);
}

Code read_ptx(const char* image, std::vector<std::string>& kernels, std::string& log) {
  const std::string text = bare(image);
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos || text.compare(begin, 8, ".version") != 0) return InvalidImage;
  std::size_t at = 0;
  const std::string version = word_behind(text, ".version", at);
  const std::size_t dot = version.find('.');
  if (dot == std::string::npos) {
    log = "ptxas fatal   : Parsing error near '" + version + "': syntax error";
    return InvalidPtx;
  }
  const unsigned long tenths = std::strtoul(version.c_str(), nullptr, 10) * 10 +
                               std::strtoul(version.c_str() + dot + 1, nullptr, 10);
  const std::string newest = std::to_string(newest_ptx() / 10) + "." + std::to_string(newest_ptx() % 10);
  if (tenths > newest_ptx()) {
    log = "ptxas fatal   : Unsupported .version " + version + "; current version is '" + newest + "'";
    return UnsupportedPtx;
  }
  const std::string target = word_behind(text, ".target", at = 0);
  if (target.rfind("sm_", 0) != 0) {
    log = "ptxas fatal   : Missing .target directive";
    return InvalidPtx;
  }
  if (std::strtoul(target.c_str() + 3, nullptr, 10) > capability()) {
    log = "ptxas fatal   : SM version specified by .target is higher than default SM version assumed";
    return InvalidPtx;
  }
  long depth = 0;
  for (const char letter : text) {
    depth += letter == '{' ? 1 : letter == '}' ? -1 : 0;
    if (depth < 0) break;
  }
  if (depth != 0) {
    log = "ptxas fatal   : Parsing error: braces do not match";
    return InvalidPtx;
  }
  for (at = 0;;) {
    const std::string entry = word_behind(text, ".entry", at);
    if (at == std::string::npos && entry.empty()) return Success;
    add(kernels, entry);
    if (at == std::string::npos) return Success;
  }
}

} // namespace

Code read_cuda_image(const void* image, std::vector<std::string>& kernels, std::string& log) {
  if (is_elf(image)) return read_cubin(static_cast<const unsigned char*>(image), kernels);
  return read_ptx(static_cast<const char*>(image), kernels, log);
}

Code read_hip_image(const void* image, std::vector<std::string>& kernels) {
  if (!is_elf(image)) return InvalidImage;
  const auto* header = static_cast<const Elf64_Ehdr*>(image);
  if (header->e_machine != MACHINE_AMDGPU || header->e_ident[EI_OSABI] != ABI_AMD_HSA) return InvalidImage;
  bool here = false;
  for (const Mach& mach : MACHS)
    here = here || (mach.number == (header->e_flags & 0xff) && settings().architecture == mach.name);
  if (!here) return NoBinary;
  symbols(static_cast<const unsigned char*>(image), [&](const Elf64_Sym&, const std::string& name) {
    const std::size_t length = name.size();
    if (length > 3 && name.compare(length - 3, 3, ".kd") == 0) add(kernels, name.substr(0, length - 3));
  });
  return Success;
}

} // namespace fake
