#define HEINFER_ISA heinfer_avx2
#define HEINFER_TABLE avx2_kernels
#define HEINFER_NAME "avx2"
#include "../vec/avx2.h"
#include "kernels.inc"
