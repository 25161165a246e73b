# Sums of f32 by PCCL over TCP on the loopback interface, timed as `plesio bench allreduce` times ours; the result lies
# beside the input, as PCCL has it. Its wheel (pypccl) wants Python 3.12, glibc 2.38 and a libcuda.so.1 in the library path, of
# which sums of the CPU's tensors use nothing.
#
#   for every rank: python3 allreduce_pccl.py RANK RANKS EMPTY_FOLDER LARGEST_BYTES
#
# Lines as allreduce_mpi.c prints them, from rank 0, which also runs PCCL's master.
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pccl

if sys.argv[1] == "master":
    pccl.MasterNode(listen_address=f"127.0.0.1:{sys.argv[2]}").run()
    sys.exit()

me, ranks, folder, largest = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
meet = f"{folder}/port"
master = None
if me == 0:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    master = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", sys.executable, __file__, "master", str(port)])
    time.sleep(1)
    with open(meet + ".new", "w") as file:
        file.write(str(port))
    os.rename(meet + ".new", meet)
while not os.path.exists(meet):
    time.sleep(0.01)
with open(meet) as file:
    link = pccl.Communicator(f"127.0.0.1:{file.read()}", 0, 1)
link.connect(n_attempts=30)
while link.get_attribute(pccl.Attribute.GLOBAL_WORLD_SIZE) < ranks:
    if link.are_peers_pending():
        link.update_topology()
    time.sleep(0.02)


def reduce(tensor, kind, operation, output):
    link.all_reduce(
        tensor,
        output,
        op=operation,
        operand_descriptor=pccl.ReduceOperandDescriptor(kind, pccl.DistributionHint.NORMAL),
        quantization_options=pccl.QuantizationOptions(kind, pccl.QuantizationAlgorithm.NONE),
    )
    return output


def agree(number, operation):
    return reduce(np.array([number], np.float64), pccl.DataType.DOUBLE, operation, np.empty(1))[0]


def value(rank, at, turn):
    return (1 + (at * 5 + rank * 3 + turn) % 7).astype(np.float32)


def runs_of(size):
    return 51 if size <= 65536 else 15 if size <= 1 << 20 else 7 if size <= 16 << 20 else 5


for size in (1 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20, 256 << 20):
    if size > largest:
        break
    at = np.arange(size // 4, dtype=np.int32)
    output = np.empty(size // 4, np.float32)
    times, wrong = [], 0
    runs = runs_of(size)
    for run in range(-2, runs):
        tensor = value(me, at, run + 2)
        agree(0, pccl.ReduceOp.MAX)
        begin = time.perf_counter_ns()
        reduce(tensor, pccl.DataType.FLOAT, pccl.ReduceOp.SUM, output)
        took = agree(time.perf_counter_ns() - begin, pccl.ReduceOp.MAX)
        if run >= 0:
            times.append(took)
        if run in (0, runs - 1):
            for rank in range(ranks):
                output -= value(rank, at, run + 2)
            wrong += np.count_nonzero(output)
    wrong = agree(wrong, pccl.ReduceOp.SUM)
    times.sort()
    if me == 0:
        print(ranks, size, f"{times[runs // 2]:.0f}", f"{times[0]:.0f}", f"{wrong:.0f}", flush=True)
if master:
    master.kill()
# Its threads do not end with it.
os._exit(0)
