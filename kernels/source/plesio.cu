// Every kernel: the one translation unit of every artefact, and of the emulator.
#include "aggregate.h"
#include "codec.h"
#include "lora_expand.h"
#include "lora_grouped.h"
#include "lora_outer.h"
#include "lora_shrink.h"
#include "optimiser.h"
#include "product.h"
#include "q8.h"
#include "robust.h"
#include "slot.h"
#include "sparse.h"
#include "vote.h"
#if !defined(__CUDACC__) && !defined(__NVPTX__) && !defined(__AMDGCN__)
#include "emulator/planted.h"
#endif
