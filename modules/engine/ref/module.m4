dnl SPDX-License-Identifier: Apache-2.0
dnl Float expressions must have no excess precision: results are compared bit by bit between machines.
PD_MODULE([ref], [engine in this process, reads llama-architecture GGUF files],
  [AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <float.h>
#if (FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16) || defined(__FAST_MATH__)
#error excess precision
#endif
typedef float v8 __attribute__((vector_size(32)));]],
     [[v8 a = { 0 }, b = __builtin_shufflevector(a, a, 0, 2, 4, 6, 8, 10, 12, 14); return (int)b[0];]])],
     [pd_have=yes], [pd_have=no])],
  [the compiler lacks exact float arithmetic or vector shuffles])
