"""The same results by Triton, as somebody would write them who knows it well. See twins.py."""

import torch
import triton
import triton.language as tl

from twins import twin

# Parts of a row that one program shrinks.
SPLITS = tl.constexpr(8)


@triton.jit
def quantise_kernel(input, residue, codes, scales, BLOCKS: tl.constexpr):
    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)
    at = block[:, None] * 32 + tl.arange(0, 32)[None, :]
    value = tl.load(input + at) + tl.load(residue + at)
    wanted = tl.max(tl.abs(value), axis=1) / 127.0
    nearest = wanted.to(tl.float16)
    bits = nearest.to(tl.int16, bitcast=True)
    up = tl.where(nearest.to(tl.float32) < wanted, bits + 1, bits).to(tl.int16)
    scale = up.to(tl.float16, bitcast=True)
    scale = tl.where(scale.to(tl.float32) < 6.103515625e-05, 0.0, scale).to(tl.float16)
    step = scale.to(tl.float32)
    inverse = tl.where(step > 0, 1.0 / step, 0.0)
    # Adding this and taking it away rounds half to even.
    code = (value * inverse[:, None] + 12582912.0) - 12582912.0
    tl.store(residue + at, value - code * step[:, None])
    tl.store(codes + at, code.to(tl.int8))
    tl.store(scales + block, scale)


@twin(allowed=0.01)
def quantise_q8_triton(t, n):
    blocks = t["input"].numel() // 32
    codes = torch.empty_like(t["codes"])
    scales = torch.empty_like(t["scales"])
    quantise_kernel[(blocks // 32,)](t["input"], t["residue"], codes, scales, BLOCKS=32)
    return {"codes": codes, "scales": scales, "residue": t["residue"]}


@triton.jit
def shrink_kernel(x, a, h, width, RANK: tl.constexpr, STEP: tl.constexpr):
    token, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    part = width // SPLITS
    rank, lane = tl.arange(0, RANK), tl.arange(0, STEP)
    total = tl.zeros((RANK, STEP), tl.float32)
    for begin in range(split * part, (split + 1) * part, STEP):
        row = tl.load(x + token * width + begin + lane).to(tl.float32)
        factors = tl.load(a + (token * RANK + rank[:, None]) * width + begin + lane[None, :]).to(tl.float32)
        total += factors * row[None, :]
    tl.store(h + (token * SPLITS + split) * RANK + rank, tl.sum(total, axis=1))


@triton.jit
def expand_kernel(h, b, y, width, scale, RANK: tl.constexpr, STEP: tl.constexpr):
    token, begin = tl.program_id(0).to(tl.int64), tl.program_id(1) * STEP
    rank, lane = tl.arange(0, RANK), tl.arange(0, STEP)
    split = tl.arange(0, SPLITS)
    parts = tl.load(h + (token * SPLITS + split[:, None]) * RANK + rank[None, :])
    coefficients = tl.sum(parts, axis=0) * scale
    factors = tl.load(b + (token * RANK + rank[:, None]) * width + begin + lane[None, :]).to(tl.float32)
    place = y + token * width + begin + lane
    total = tl.load(place).to(tl.float32) + tl.sum(factors * coefficients[:, None], axis=0)
    tl.store(place, total.to(tl.bfloat16))


@twin(allowed=0.02)
def lora_decode_triton(t, n):
    """Each token has its own adapter, in order, as the row has it."""
    width, rank, tokens = n["width"], n["rank"], t["a"].shape[0]
    h = torch.empty((tokens, SPLITS.value, rank), dtype=torch.float32, device=t["x"].device)
    step = min(256, width // SPLITS.value)
    shrink_kernel[(tokens, SPLITS.value)](t["x"], t["a"], h, width, RANK=rank, STEP=step)
    step = min(256, width)
    expand_kernel[(tokens, width // step)](h, t["b"], t["y"], width, n["scale"], RANK=rank, STEP=step)
    return {"y": t["y"]}
