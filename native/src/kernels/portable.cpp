#define HEINFER_ISA heinfer_portable
#define HEINFER_TABLE portable_kernels
#define HEINFER_NAME "portable"
#include "../vec/portable.h"
#include "kernels.inc"
