#include "core/dispatch/isa.h"

#include "core/base/error.h"

namespace apr {

std::string_view name(apr_isa isa) {
  switch (isa) {
    case APR_ISA_PORTABLE:
      return "portable";
    case APR_ISA_AVX2:
      return "avx2";
    case APR_ISA_AVX512:
      return "avx512";
  }
  throw Error("internal error: {} is no instruction set", static_cast<int>(isa));
}

}  // namespace apr
