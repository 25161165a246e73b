// Every kernel: the one translation unit of every artefact, and of the emulator.
#include "codec.h"
#include "slot.h"
#if !defined(__CUDACC__) && !defined(__NVPTX__) && !defined(__AMDGCN__)
#include "emulator/planted.h"
#endif
