// Turns a run-time WeightQuantType into a compile-time one, exhaustively: `visit(type, f)` calls
// f(std::integral_constant<WeightQuantType, T>{}) for the one T that equals type, Extension included.
// Every f(...) must return the same type. Meant for the moment when a weight is bound, not for inner loops.
#pragma once

#include <type_traits>
#include <utility>

#include "core/base/error.h"
#include "core/dispatch/weight_quant_type.h"

namespace apr {

template <WeightQuantType T>
using QtypeConstant = std::integral_constant<WeightQuantType, T>;

template <typename F>
decltype(auto) visit(WeightQuantType type, F&& f) {
  switch (type) {
    case WeightQuantType::F32:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::F32>{});
    case WeightQuantType::F16:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::F16>{});
    case WeightQuantType::BF16:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::BF16>{});
    case WeightQuantType::F8_E4M3:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::F8_E4M3>{});
    case WeightQuantType::F8_E5M2:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::F8_E5M2>{});
    case WeightQuantType::Q4_0:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q4_0>{});
    case WeightQuantType::Q4_1:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q4_1>{});
    case WeightQuantType::Q5_0:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q5_0>{});
    case WeightQuantType::Q5_1:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q5_1>{});
    case WeightQuantType::Q8_0:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q8_0>{});
    case WeightQuantType::Q2_K:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q2_K>{});
    case WeightQuantType::Q3_K:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q3_K>{});
    case WeightQuantType::Q4_K:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q4_K>{});
    case WeightQuantType::Q5_K:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q5_K>{});
    case WeightQuantType::Q6_K:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Q6_K>{});
    case WeightQuantType::IQ4_NL:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::IQ4_NL>{});
    case WeightQuantType::IQ4_XS:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::IQ4_XS>{});
    case WeightQuantType::MXFP4:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::MXFP4>{});
    case WeightQuantType::Extension:
      return std::forward<F>(f)(QtypeConstant<WeightQuantType::Extension>{});
  }
  // Reached only by a cast from a number that is no enumerator.
  throw Error("internal error: {} is not a WeightQuantType", static_cast<unsigned>(type));
}

}  // namespace apr
