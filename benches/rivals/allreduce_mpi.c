/* In-place sums of f32 by any MPI, timed as `plesio bench allreduce` times ours.
 *
 *   mpicc -O2 allreduce_mpi.c -o allreduce_mpi && mpirun -n RANKS ./allreduce_mpi LARGEST_BYTES
 *
 * One line per size: ranks, bytes, median ns, least ns, wrong elements. Every rank writes its tensor anew and all meet before
 * each operation; its time is that of the slowest rank; two operations that are not counted come first. */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int value(int rank, long at, int turn)
{
    return 1 + (int)((at * 5 + rank * 3 + turn) % 7);
}

static int iterations(long bytes)
{
    return bytes <= 65536 ? 101 : bytes <= 1048576 ? 31 : bytes <= 16777216 ? 9 : 5;
}

int main(int argc, char **argv)
{
    static const long sizes[] = {1024, 65536, 1048576, 16777216, 67108864, 268435456};
    long largest = argc > 1 ? atol(argv[1]) : 67108864;
    int ranks, me;
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes && sizes[s] <= largest; s++) {
        long count = sizes[s] / 4, wrong = 0, all = 0;
        int runs = iterations(sizes[s]);
        float *tensor = malloc(sizes[s]);
        double *times = malloc(runs * sizeof *times);
        for (int run = -2; run < runs; run++) {
            for (long at = 0; at < count; at++)
                tensor[at] = (float)value(me, at, run + 2);
            MPI_Barrier(MPI_COMM_WORLD);
            double began = MPI_Wtime();
            MPI_Allreduce(MPI_IN_PLACE, tensor, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            double own = MPI_Wtime() - began, slowest;
            MPI_Allreduce(&own, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
            if (run >= 0)
                times[run] = slowest;
            if (run == 0 || run == runs - 1)
                for (long at = 0; at < count; at++) {
                    int sum = 0;
                    for (int rank = 0; rank < ranks; rank++)
                        sum += value(rank, at, run + 2);
                    wrong += tensor[at] != (float)sum;
                }
        }
        MPI_Reduce(&wrong, &all, 1, MPI_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
        if (me == 0) {
            qsort(times, runs, sizeof *times, ascending);
            printf("%d %ld %.0f %.0f %ld\n", ranks, sizes[s], times[runs / 2] * 1e9, times[0] * 1e9, all);
            fflush(stdout);
        }
        free(tensor);
        free(times);
    }
    MPI_Finalize();
    return 0;
}
