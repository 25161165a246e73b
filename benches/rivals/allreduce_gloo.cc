// In-place sums of f32 by Gloo over TCP on the loopback interface, timed as `plesio bench allreduce` times ours.
//
//   g++ -O3 -march=native -std=c++17 allreduce_gloo.cc -o allreduce_gloo -lgloo
//   for every rank: ./allreduce_gloo RANK RANKS EMPTY_FOLDER LARGEST_BYTES
//
// Lines as allreduce_mpi.c prints them, from rank 0.
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

int value(int rank, long at, int turn) { return 1 + static_cast<int>((at * 5 + rank * 3 + turn) % 7); }

int iterations(long bytes) { return bytes <= 65536 ? 101 : bytes <= 1048576 ? 31 : bytes <= 16777216 ? 9 : 5; }

template <typename T, typename Reduce>
void allreduce(const std::shared_ptr<gloo::Context>& context, std::vector<T>& tensor, Reduce reduce) {
  gloo::AllreduceOptions options(context);
  options.setOutput(tensor.data(), tensor.size());
  options.setReduceFunction([reduce](void* out, const void* a, const void* b, size_t count) {
    T* to = static_cast<T*>(out);
    const T *one = static_cast<const T*>(a), *two = static_cast<const T*>(b);
    for (size_t at = 0; at < count; at++) to[at] = reduce(one[at], two[at]);
  });
  gloo::allreduce(options);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const int me = atoi(argv[1]), ranks = atoi(argv[2]);
  const long largest = atol(argv[4]);
  gloo::transport::tcp::attr attr;
  attr.iface = "lo";
  auto device = gloo::transport::tcp::CreateDevice(attr);
  gloo::rendezvous::FileStore store(argv[3]);
  auto context = std::make_shared<gloo::rendezvous::Context>(me, ranks);
  context->connectFullMesh(store, device);
  const auto plus = [](auto a, auto b) { return a + b; };
  const auto most = [](auto a, auto b) { return std::max(a, b); };
  for (long bytes : {1024L, 65536L, 1048576L, 16777216L, 67108864L, 268435456L}) {
    if (bytes > largest) break;
    std::vector<float> tensor(bytes / 4);
    std::vector<double> times, wrong{0};
    const int runs = iterations(bytes);
    for (int run = -2; run < runs; run++) {
      for (size_t at = 0; at < tensor.size(); at++) tensor[at] = static_cast<float>(value(me, at, run + 2));
      gloo::BarrierOptions meet(context);
      gloo::barrier(meet);
      const auto began = std::chrono::steady_clock::now();
      allreduce(context, tensor, plus);
      std::vector<double> slowest{std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - began).count()};
      allreduce(context, slowest, most);
      if (run >= 0) times.push_back(slowest[0]);
      if (run != 0 && run != runs - 1) continue;
      for (size_t at = 0; at < tensor.size(); at++) {
        int sum = 0;
        for (int rank = 0; rank < ranks; rank++) sum += value(rank, at, run + 2);
        wrong[0] += tensor[at] != static_cast<float>(sum);
      }
    }
    allreduce(context, wrong, plus);
    if (me == 0) {
      std::sort(times.begin(), times.end());
      printf("%d %ld %.0f %.0f %.0f\n", ranks, bytes, times[runs / 2], times[0], wrong[0]);
      fflush(stdout);
    }
  }
  return 0;
}
