"""What the machine can do at best: a copy, and a product of bfloat16 matrices, by torch."""

import statistics

import torch

from clock import Contestant, by_turns

COPY_BYTES = 1 << 30
EDGE = 8192


def ceilings(l2_bytes):
    free_bytes, _ = torch.cuda.mem_get_info()
    copy_bytes = min(COPY_BYTES, free_bytes // 8)
    source = torch.ones(copy_bytes, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    a = torch.randn((EDGE, EDGE), device="cuda").to(torch.bfloat16)
    b, c = a.T.contiguous(), torch.empty_like(a)
    times = by_turns(
        {
            "copy": Contestant(lambda: target.copy_(source), 1),
            "product": Contestant(lambda: torch.mm(a, b, out=c), 1),
        }
    )
    copy_us, product_us = (statistics.median(times[name]) for name in ("copy", "product"))
    return {
        "copy_bytes_per_s": 2 * copy_bytes / copy_us * 1e6,
        "bf16_flops_per_s": 2 * EDGE**3 / product_us * 1e6,
        "l2_bytes": l2_bytes,
    }
