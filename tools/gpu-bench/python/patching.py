"""What needs no torch: parameters with the addresses of this process, and how often things are repeated."""

import math
import struct

# How many times what the L2 holds all sets together have.
L2_TIMES = 4
SETS_MIN = 3
SETS_MAX = 64
# A graph is at least so long, so that its begin and end do not count.
GRAPH_US = 400.0
ROUNDS_MAX = 64
REPLAYS = 50
REPLAYS_MIN = 5
# Longest that one contestant of a row may take for all of its replays.
CONTESTANT_US = 1_500_000.0


def patched(recorded, addresses):
    """Bytes in which each place has the address of its buffer here."""
    raw = bytearray.fromhex(recorded["hex"])
    for at_bytes, buffer, offset_bytes in recorded["places"]:
        struct.pack_into("<Q", raw, at_bytes, addresses[buffer] + offset_bytes)
    return bytes(raw)


def sets_of(moved_bytes, l2_bytes):
    """How many input sets make sure that none is still in the L2 when its turn comes again."""
    return min(SETS_MAX, max(SETS_MIN, math.ceil(L2_TIMES * l2_bytes / moved_bytes)))


def rounds_of(pass_us):
    """How many passes over all sets make a graph that is long enough."""
    return min(ROUNDS_MAX, max(1, math.ceil(GRAPH_US / max(pass_us, 0.1))))


def replays_of(replay_us):
    """How many replays there is time for."""
    return max(REPLAYS_MIN, min(REPLAYS, int(CONTESTANT_US / max(replay_us, 0.1))))


def family(name):
    """A tensor's group and its place there: `x.3` is the fourth of `x`; `out` stands alone."""
    group, dot, index = name.partition(".")
    return (group, int(index)) if dot else (name, None)


def finite(number):
    """JSON has no NaN."""
    return number if math.isfinite(number) else None
