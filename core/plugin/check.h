// The checks of a plugin's tables, one for each kind of struct. Each throws apr::Error that begins with the
// library's file and names the struct's member that is wrong. They read data only; no function of the plugin
// is called.
#pragma once

#include <cstddef>
#include <string>

#include "apr/backend.h"
#include "apr/quant.h"

namespace apr {

void check_format(const apr_quant_format& format, const std::string& where);
void check_backend(const apr_backend& backend, const std::string& where);

// `of` is the object in the message: "format 'q4_k'". The sizes must be equal: structs grow only together
// with the ABI's minor version, and a plugin with a newer one has been refused before.
void check_struct_size(const std::string& where, const std::string& of, const char* type, uint32_t size,
                       size_t expected);
// A required string: non-null, non-empty, at most 1024 bytes.
void check_text(const std::string& where, const std::string& of, const char* member, const char* text);
// A required function or pointer.
void check_present(const std::string& where, const std::string& of, const char* member, bool present);

}  // namespace apr
