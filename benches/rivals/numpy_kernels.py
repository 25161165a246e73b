"""The kernels of `plesio bench kernels` as somebody would write them in numpy: the rival of that bench, on one thread.

Orders come on stdin, one JSON object a line, and each is answered with one. The first names a kernel and where its buffers lie:
those that are only read are read in the bench's own memory, the others are copies. Then come any of
  {"results": true}: calls it on the first set, says how many bytes it wrote, and then those
  {"seconds": S}: calls it set after set for so long, and says what a call took
Temporaries are made once: what is timed is arithmetic, not the system's memory.
"""

import json
import mmap
import os
import sys
import time

import numpy as np

KERNELS = {}


def kernel(prepare):
    KERNELS[prepare.__name__] = prepare
    return prepare


@kernel
def slot_sum(told, *buffers):
    *slots, total = buffers
    weights = told["weights"]
    term = np.empty_like(total)

    def call():
        np.multiply(slots[0], weights[0], out=total, dtype=np.int64)
        for slot, weight in zip(slots[1:], weights[1:]):
            np.multiply(slot, weight, out=term, dtype=np.int64)
            np.add(total, term, out=total)

    return call


@kernel
def commit(told, *buffers):
    *slots, master = buffers
    term = np.empty_like(master)

    def call():
        for slot, weight in zip(slots, told["weights"]):
            np.multiply(slot, weight, out=term, dtype=np.int64)
            np.add(master, term, out=master)

    return call


def widen(bits, out):
    """bfloat16 as binary32."""
    np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)


def sum_of(told, inputs, out, norm):
    term = np.empty_like(out)
    weights = [np.float32(weight) for weight in told["weights"]]

    def call():
        np.multiply(inputs[0], weights[0], out=out)
        for x, weight in zip(inputs[1:], weights[1:]):
            np.multiply(x, weight, out=term)
            np.add(out, term, out=out)
        norm[0] = np.dot(out, out)

    return call


@kernel
def weighted_sum(told, *buffers):
    *inputs, out, norm = buffers
    return sum_of(told, inputs, out, norm)


@kernel
def weighted_sum_bf16(told, *buffers):
    *inputs, out, norm = buffers
    wide, term = np.empty_like(out), np.empty_like(out)
    weights = [np.float32(weight) for weight in told["weights"]]

    def call():
        out.fill(0)
        for x, weight in zip(inputs, weights):
            widen(x, wide)
            np.multiply(wide, weight, out=term)
            np.add(out, term, out=out)
        norm[0] = np.dot(out, out)

    return call


@kernel
def weighted_sum_q8(told, *buffers):
    *inputs, out, norm = buffers
    count = len(inputs) // 2
    pairs = list(zip(inputs[:count], inputs[count:], told["weights"]))
    sums, term = out.reshape(-1, 32), np.empty((out.size // 32, 32), np.float32)

    def call():
        sums.fill(0)
        for codes, scales, weight in pairs:
            np.multiply(codes.reshape(-1, 32), (scales.astype(np.float32) * np.float32(weight))[:, None], out=term)
            np.add(sums, term, out=sums)
        norm[0] = np.dot(out, out)

    return call


@kernel
def square_norms(told, *buffers):
    *inputs, norms = buffers

    def call():
        for k, x in enumerate(inputs):
            norms[k] = np.dot(x, x)

    return call


@kernel
def median(told, *buffers):
    *inputs, out = buffers
    middle = slice((len(inputs) - 1) // 2, len(inputs) // 2 + 1)

    def call():
        # Three times as fast as np.median.
        np.mean(np.sort(np.stack(inputs), axis=0)[middle], axis=0, out=out)

    return call


@kernel
def trimmed_mean(told, *buffers):
    *inputs, out = buffers
    kept = slice(told["trim"], len(inputs) - told["trim"])

    def call():
        np.mean(np.sort(np.stack(inputs), axis=0)[kept], axis=0, out=out)

    return call


@kernel
def top_k(told, x, indices, values):
    count = indices.size

    def call():
        magnitude = np.abs(x)
        floor = np.partition(magnitude, x.size - count)[x.size - count]
        above, equal = np.flatnonzero(magnitude > floor), np.flatnonzero(magnitude == floor)
        indices[:] = np.sort(np.concatenate([above, equal[: count - above.size]]))
        np.take(x, indices, out=values)

    return call


@kernel
def sign_pack(told, x, words):
    def call():
        words.view(np.uint8)[: (x.size + 7) // 8] = np.packbits(np.signbit(x), bitorder="little")

    return call


@kernel
def sign_vote(told, *buffers):
    *votes, out = buffers

    def call():
        count = np.unpackbits(votes[0].view(np.uint8))
        for vote in votes[1:]:
            np.add(count, np.unpackbits(vote.view(np.uint8)), out=count)
        out.view(np.uint8)[:] = np.packbits(count > len(votes) / 2)

    return call


@kernel
def quantise_q8(told, x, residue, codes, scales):
    value, left = np.empty((x.size // 32, 32), np.float32), residue.reshape(-1, 32)
    code = np.empty_like(value)

    def call():
        np.add(x.reshape(-1, 32), left, out=value)
        wanted = np.abs(value).max(axis=1) / np.float32(127)
        half = wanted.astype(np.float16)
        scales[:] = np.where(half < wanted, np.nextafter(half, np.float16(np.inf)), half)
        step = scales.astype(np.float32)[:, None]
        np.rint(value * (np.float32(1) / step), out=code)
        np.clip(code, -127, 127, out=code)
        codes.reshape(-1, 32)[:] = code
        np.subtract(value, code * step, out=left)

    return call


@kernel
def adamw(told, gradient, mean, variance, params):
    beta1, beta2 = told["beta1"], told["beta2"]
    rate = told["learning_rate"] / (1 - beta1 ** told["step"])
    correction = 1 / (1 - beta2 ** told["step"])
    one, two = np.empty_like(params), np.empty_like(params)

    def call():
        np.multiply(mean, beta1, out=mean)
        np.multiply(gradient, 1 - beta1, out=one)
        np.add(mean, one, out=mean)
        np.multiply(variance, beta2, out=variance)
        np.multiply(gradient, gradient, out=one)
        np.multiply(one, 1 - beta2, out=one)
        np.add(variance, one, out=variance)
        np.multiply(variance, correction, out=one)
        np.sqrt(one, out=one)
        np.add(one, told["epsilon"], out=one)
        np.multiply(mean, rate, out=two)
        np.divide(two, one, out=one)
        np.subtract(params, one, out=params)

    return call


def rows(told, *buffers):
    return [buffer.reshape(told["rows"], -1) for buffer in buffers]


def ranks(told, *buffers):
    return [buffer.reshape(told["rank"], -1) for buffer in buffers]


@kernel
def lora_forward(told, x, a, b, h, y):
    (x, h, y), (a, b) = rows(told, x, h, y), ranks(told, a, b)
    scaled, more = np.empty_like(h), np.empty_like(y)

    def call():
        np.matmul(x, a.T, out=h)
        np.multiply(h, told["scale"], out=scaled)
        np.matmul(scaled, b, out=more)
        np.add(y, more, out=y)

    return call


@kernel
def lora_backward(told, x, a, b, h, g, da, db, dx):
    (x, h, g, dx), (a, b, da, db) = rows(told, x, h, g, dx), ranks(told, a, b, da, db)
    scaled, factor, more = np.empty_like(h), np.empty_like(a), np.empty_like(dx)

    def call():
        np.multiply(h, told["scale"], out=scaled)
        np.matmul(scaled.T, g, out=factor)
        np.add(db, factor, out=db)
        np.matmul(g, b.T, out=h)
        np.multiply(h, told["scale"], out=h)
        np.matmul(h.T, x, out=factor)
        np.add(da, factor, out=da)
        np.matmul(h, a, out=more)
        np.add(dx, more, out=dx)

    return call


def read_order():
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def answer(said):
    print(json.dumps(said), flush=True)


def sets(order):
    """The buffers of every set, and of each set those that are written."""
    file = os.open(order["path"], os.O_RDONLY)
    memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
    for index in range(order["sets"]):
        buffers = []
        for buffer in order["buffers"]:
            offset = buffer["offset"] + index * buffer["stride"]
            view = np.frombuffer(memory, buffer["type"], buffer["count"], offset)
            buffers.append(view.copy() if buffer["written"] else view)
        yield buffers, [view for view, buffer in zip(buffers, order["buffers"]) if buffer["written"]]


def time_ns(calls, seconds):
    """The median over batches of what a call took."""
    count, at, times = 1, 0, []
    begin = time.perf_counter()
    while not times or time.perf_counter() - begin < 1.25 * seconds:
        start = time.perf_counter_ns()
        for _ in range(count):
            calls[at % len(calls)]()
            at += 1
        took = time.perf_counter_ns() - start
        if took < 50_000:
            count, times = 2 * count, []
        elif time.perf_counter() - begin > 0.25 * seconds:
            times.append(took / count)
    return float(np.median(times))


def main():
    order = read_order()
    prepare = KERNELS[order["kernel"]]
    made = [(prepare(order["told"], *buffers), written) for buffers, written in sets(order)]
    calls = [call for call, _ in made]
    answer({})
    while order := read_order():
        if "results" in order:
            call, written = made[0]
            call()
            answer({"bytes": sum(view.nbytes for view in written)})
            for view in written:
                sys.stdout.buffer.write(view.tobytes())
            sys.stdout.buffer.flush()
        else:
            answer({"time_ns": time_ns(calls, order["seconds"])})


main()
