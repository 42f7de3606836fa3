#define HEINFER_ISA heinfer_avx512
#define HEINFER_TABLE avx512_kernels
#define HEINFER_NAME "avx512"
#include "../vec/avx512.h"
#include "kernels.inc"
