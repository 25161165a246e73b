// The compare-swaps that sort 2 to 32 lanes, as written by `cargo xtask networks`: change the generator.
//
// Knows: Batcher's odd-even merge sort. Does not know: what a swap is; the caller's `swap` leaves the smaller of
// two values in the first. Invariant: each list sorts, which the generator's tests prove. Lists and no loops: every
// index is a literal, so all lanes stay in registers.
#pragma once

#include "device.h"

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[2], Swap&& swap) {
  swap(v[0], v[1]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[3], Swap&& swap) {
  swap(v[0], v[1]); swap(v[0], v[2]); swap(v[1], v[2]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[4], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[5], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[0], v[4]);
  swap(v[2], v[4]); swap(v[1], v[2]); swap(v[3], v[4]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[6], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[0], v[4]); swap(v[1], v[5]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[7], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[4], v[6]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]); swap(v[2], v[6]); swap(v[2], v[4]);
  swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[8], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[9], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[0], v[8]); swap(v[4], v[8]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[10], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[0], v[8]); swap(v[1], v[9]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[11], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[8], v[10]); swap(v[9], v[10]); swap(v[0], v[8]);
  swap(v[1], v[9]); swap(v[2], v[10]); swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]);
  swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[12], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]);
  swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]);
  swap(v[7], v[8]); swap(v[9], v[10]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[13], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[8], v[12]); swap(v[10], v[12]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]);
  swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[14], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[12]);
  swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[0], v[8]); swap(v[1], v[9]);
  swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]); swap(v[5], v[13]); swap(v[4], v[8]);
  swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]);
  swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[15], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[12], v[14]); swap(v[13], v[14]); swap(v[8], v[12]);
  swap(v[9], v[13]); swap(v[10], v[14]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]);
  swap(v[11], v[12]); swap(v[13], v[14]); swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]);
  swap(v[3], v[11]); swap(v[4], v[12]); swap(v[5], v[13]); swap(v[6], v[14]); swap(v[4], v[8]);
  swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]);
  swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[16], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[17], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[16]); swap(v[8], v[16]); swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]);
  swap(v[7], v[11]); swap(v[12], v[16]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]); swap(v[15], v[16]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[18], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[0], v[16]); swap(v[1], v[17]); swap(v[8], v[16]); swap(v[9], v[17]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]);
  swap(v[13], v[17]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]); swap(v[15], v[16]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[19], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[16], v[18]); swap(v[17], v[18]); swap(v[0], v[16]); swap(v[1], v[17]);
  swap(v[2], v[18]); swap(v[8], v[16]); swap(v[9], v[17]); swap(v[10], v[18]); swap(v[4], v[8]);
  swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]);
  swap(v[14], v[18]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[20], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[0], v[16]); swap(v[1], v[17]); swap(v[2], v[18]); swap(v[3], v[19]); swap(v[8], v[16]);
  swap(v[9], v[17]); swap(v[10], v[18]); swap(v[11], v[19]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]); swap(v[14], v[18]);
  swap(v[15], v[19]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[21], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[16], v[20]); swap(v[18], v[20]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[0], v[16]);
  swap(v[1], v[17]); swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[8], v[16]);
  swap(v[9], v[17]); swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[4], v[8]);
  swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]);
  swap(v[14], v[18]); swap(v[15], v[19]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]);
  swap(v[18], v[20]); swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]);
  swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]);
  swap(v[19], v[20]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[22], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[20]); swap(v[19], v[21]);
  swap(v[17], v[18]); swap(v[19], v[20]); swap(v[0], v[16]); swap(v[1], v[17]); swap(v[2], v[18]);
  swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[8], v[16]); swap(v[9], v[17]);
  swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[4], v[8]);
  swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]);
  swap(v[14], v[18]); swap(v[15], v[19]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]);
  swap(v[18], v[20]); swap(v[19], v[21]); swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]);
  swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]); swap(v[15], v[16]);
  swap(v[17], v[18]); swap(v[19], v[20]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[23], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[20], v[22]); swap(v[21], v[22]); swap(v[16], v[20]); swap(v[17], v[21]);
  swap(v[18], v[22]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]);
  swap(v[21], v[22]); swap(v[0], v[16]); swap(v[1], v[17]); swap(v[2], v[18]); swap(v[3], v[19]);
  swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]); swap(v[8], v[16]); swap(v[9], v[17]);
  swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]);
  swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[2], v[4]); swap(v[3], v[5]);
  swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]);
  swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[24], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[0], v[16]);
  swap(v[1], v[17]); swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]);
  swap(v[6], v[22]); swap(v[7], v[23]); swap(v[8], v[16]); swap(v[9], v[17]); swap(v[10], v[18]);
  swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]); swap(v[15], v[23]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]);
  swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[2], v[4]); swap(v[3], v[5]);
  swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]);
  swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[25], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[16], v[24]);
  swap(v[20], v[24]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[17], v[18]);
  swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]); swap(v[0], v[16]); swap(v[1], v[17]);
  swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]);
  swap(v[7], v[23]); swap(v[8], v[24]); swap(v[8], v[16]); swap(v[9], v[17]); swap(v[10], v[18]);
  swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]); swap(v[15], v[23]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]);
  swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[20], v[24]); swap(v[2], v[4]);
  swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]);
  swap(v[14], v[16]); swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]);
  swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]);
  swap(v[11], v[12]); swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]);
  swap(v[21], v[22]); swap(v[23], v[24]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[26], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[16], v[24]); swap(v[17], v[25]); swap(v[20], v[24]); swap(v[21], v[25]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]); swap(v[17], v[18]); swap(v[19], v[20]);
  swap(v[21], v[22]); swap(v[23], v[24]); swap(v[0], v[16]); swap(v[1], v[17]); swap(v[2], v[18]);
  swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]); swap(v[7], v[23]);
  swap(v[8], v[24]); swap(v[9], v[25]); swap(v[8], v[16]); swap(v[9], v[17]); swap(v[10], v[18]);
  swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]); swap(v[15], v[23]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]);
  swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[20], v[24]); swap(v[21], v[25]);
  swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]);
  swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]);
  swap(v[22], v[24]); swap(v[23], v[25]); swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]);
  swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]); swap(v[15], v[16]);
  swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[27], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[24], v[26]); swap(v[25], v[26]); swap(v[16], v[24]); swap(v[17], v[25]); swap(v[18], v[26]);
  swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]); swap(v[18], v[20]); swap(v[19], v[21]);
  swap(v[22], v[24]); swap(v[23], v[25]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
  swap(v[23], v[24]); swap(v[25], v[26]); swap(v[0], v[16]); swap(v[1], v[17]); swap(v[2], v[18]);
  swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]); swap(v[7], v[23]);
  swap(v[8], v[24]); swap(v[9], v[25]); swap(v[10], v[26]); swap(v[8], v[16]); swap(v[9], v[17]);
  swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]);
  swap(v[15], v[23]); swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]);
  swap(v[12], v[16]); swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[20], v[24]);
  swap(v[21], v[25]); swap(v[22], v[26]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]);
  swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
  swap(v[23], v[24]); swap(v[25], v[26]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[28], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[26], v[27]); swap(v[24], v[26]); swap(v[25], v[27]); swap(v[25], v[26]); swap(v[16], v[24]);
  swap(v[17], v[25]); swap(v[18], v[26]); swap(v[19], v[27]); swap(v[20], v[24]); swap(v[21], v[25]);
  swap(v[22], v[26]); swap(v[23], v[27]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]);
  swap(v[23], v[25]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]);
  swap(v[25], v[26]); swap(v[0], v[16]); swap(v[1], v[17]); swap(v[2], v[18]); swap(v[3], v[19]);
  swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]); swap(v[7], v[23]); swap(v[8], v[24]);
  swap(v[9], v[25]); swap(v[10], v[26]); swap(v[11], v[27]); swap(v[8], v[16]); swap(v[9], v[17]);
  swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]);
  swap(v[15], v[23]); swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]);
  swap(v[12], v[16]); swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[20], v[24]);
  swap(v[21], v[25]); swap(v[22], v[26]); swap(v[23], v[27]); swap(v[2], v[4]); swap(v[3], v[5]);
  swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]);
  swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]);
  swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]);
  swap(v[11], v[12]); swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]);
  swap(v[21], v[22]); swap(v[23], v[24]); swap(v[25], v[26]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[29], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[26], v[27]); swap(v[24], v[26]); swap(v[25], v[27]); swap(v[25], v[26]); swap(v[24], v[28]);
  swap(v[26], v[28]); swap(v[25], v[26]); swap(v[27], v[28]); swap(v[16], v[24]); swap(v[17], v[25]);
  swap(v[18], v[26]); swap(v[19], v[27]); swap(v[20], v[28]); swap(v[20], v[24]); swap(v[21], v[25]);
  swap(v[22], v[26]); swap(v[23], v[27]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]);
  swap(v[23], v[25]); swap(v[26], v[28]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
  swap(v[23], v[24]); swap(v[25], v[26]); swap(v[27], v[28]); swap(v[0], v[16]); swap(v[1], v[17]);
  swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]);
  swap(v[7], v[23]); swap(v[8], v[24]); swap(v[9], v[25]); swap(v[10], v[26]); swap(v[11], v[27]);
  swap(v[12], v[28]); swap(v[8], v[16]); swap(v[9], v[17]); swap(v[10], v[18]); swap(v[11], v[19]);
  swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]); swap(v[15], v[23]); swap(v[4], v[8]);
  swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]);
  swap(v[14], v[18]); swap(v[15], v[19]); swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]);
  swap(v[23], v[27]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]); swap(v[26], v[28]); swap(v[1], v[2]);
  swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]);
  swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
  swap(v[23], v[24]); swap(v[25], v[26]); swap(v[27], v[28]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[30], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[26], v[27]); swap(v[24], v[26]); swap(v[25], v[27]); swap(v[25], v[26]); swap(v[28], v[29]);
  swap(v[24], v[28]); swap(v[25], v[29]); swap(v[26], v[28]); swap(v[27], v[29]); swap(v[25], v[26]);
  swap(v[27], v[28]); swap(v[16], v[24]); swap(v[17], v[25]); swap(v[18], v[26]); swap(v[19], v[27]);
  swap(v[20], v[28]); swap(v[21], v[29]); swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]);
  swap(v[23], v[27]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]);
  swap(v[26], v[28]); swap(v[27], v[29]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
  swap(v[23], v[24]); swap(v[25], v[26]); swap(v[27], v[28]); swap(v[0], v[16]); swap(v[1], v[17]);
  swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]);
  swap(v[7], v[23]); swap(v[8], v[24]); swap(v[9], v[25]); swap(v[10], v[26]); swap(v[11], v[27]);
  swap(v[12], v[28]); swap(v[13], v[29]); swap(v[8], v[16]); swap(v[9], v[17]); swap(v[10], v[18]);
  swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]); swap(v[14], v[22]); swap(v[15], v[23]);
  swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]); swap(v[7], v[11]); swap(v[12], v[16]);
  swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]); swap(v[20], v[24]); swap(v[21], v[25]);
  swap(v[22], v[26]); swap(v[23], v[27]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[14], v[16]); swap(v[15], v[17]);
  swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]); swap(v[26], v[28]);
  swap(v[27], v[29]); swap(v[1], v[2]); swap(v[3], v[4]); swap(v[5], v[6]); swap(v[7], v[8]);
  swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]); swap(v[15], v[16]); swap(v[17], v[18]);
  swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]); swap(v[25], v[26]); swap(v[27], v[28]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[31], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[26], v[27]); swap(v[24], v[26]); swap(v[25], v[27]); swap(v[25], v[26]); swap(v[28], v[29]);
  swap(v[28], v[30]); swap(v[29], v[30]); swap(v[24], v[28]); swap(v[25], v[29]); swap(v[26], v[30]);
  swap(v[26], v[28]); swap(v[27], v[29]); swap(v[25], v[26]); swap(v[27], v[28]); swap(v[29], v[30]);
  swap(v[16], v[24]); swap(v[17], v[25]); swap(v[18], v[26]); swap(v[19], v[27]); swap(v[20], v[28]);
  swap(v[21], v[29]); swap(v[22], v[30]); swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]);
  swap(v[23], v[27]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]);
  swap(v[26], v[28]); swap(v[27], v[29]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]);
  swap(v[23], v[24]); swap(v[25], v[26]); swap(v[27], v[28]); swap(v[29], v[30]); swap(v[0], v[16]);
  swap(v[1], v[17]); swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]);
  swap(v[6], v[22]); swap(v[7], v[23]); swap(v[8], v[24]); swap(v[9], v[25]); swap(v[10], v[26]);
  swap(v[11], v[27]); swap(v[12], v[28]); swap(v[13], v[29]); swap(v[14], v[30]); swap(v[8], v[16]);
  swap(v[9], v[17]); swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]);
  swap(v[14], v[22]); swap(v[15], v[23]); swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]);
  swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]);
  swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]); swap(v[23], v[27]); swap(v[2], v[4]);
  swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]);
  swap(v[14], v[16]); swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]);
  swap(v[23], v[25]); swap(v[26], v[28]); swap(v[27], v[29]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]);
  swap(v[25], v[26]); swap(v[27], v[28]); swap(v[29], v[30]);
}

template <class T, class Swap> DEVICE void sort_lanes(T (&v)[32], Swap&& swap) {
  swap(v[0], v[1]); swap(v[2], v[3]); swap(v[0], v[2]); swap(v[1], v[3]); swap(v[1], v[2]); swap(v[4], v[5]);
  swap(v[6], v[7]); swap(v[4], v[6]); swap(v[5], v[7]); swap(v[5], v[6]); swap(v[0], v[4]); swap(v[1], v[5]);
  swap(v[2], v[6]); swap(v[3], v[7]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[8], v[9]); swap(v[10], v[11]); swap(v[8], v[10]); swap(v[9], v[11]);
  swap(v[9], v[10]); swap(v[12], v[13]); swap(v[14], v[15]); swap(v[12], v[14]); swap(v[13], v[15]);
  swap(v[13], v[14]); swap(v[8], v[12]); swap(v[9], v[13]); swap(v[10], v[14]); swap(v[11], v[15]);
  swap(v[10], v[12]); swap(v[11], v[13]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[0], v[8]); swap(v[1], v[9]); swap(v[2], v[10]); swap(v[3], v[11]); swap(v[4], v[12]);
  swap(v[5], v[13]); swap(v[6], v[14]); swap(v[7], v[15]); swap(v[4], v[8]); swap(v[5], v[9]);
  swap(v[6], v[10]); swap(v[7], v[11]); swap(v[2], v[4]); swap(v[3], v[5]); swap(v[6], v[8]);
  swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[16], v[17]); swap(v[18], v[19]); swap(v[16], v[18]); swap(v[17], v[19]); swap(v[17], v[18]);
  swap(v[20], v[21]); swap(v[22], v[23]); swap(v[20], v[22]); swap(v[21], v[23]); swap(v[21], v[22]);
  swap(v[16], v[20]); swap(v[17], v[21]); swap(v[18], v[22]); swap(v[19], v[23]); swap(v[18], v[20]);
  swap(v[19], v[21]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[24], v[25]);
  swap(v[26], v[27]); swap(v[24], v[26]); swap(v[25], v[27]); swap(v[25], v[26]); swap(v[28], v[29]);
  swap(v[30], v[31]); swap(v[28], v[30]); swap(v[29], v[31]); swap(v[29], v[30]); swap(v[24], v[28]);
  swap(v[25], v[29]); swap(v[26], v[30]); swap(v[27], v[31]); swap(v[26], v[28]); swap(v[27], v[29]);
  swap(v[25], v[26]); swap(v[27], v[28]); swap(v[29], v[30]); swap(v[16], v[24]); swap(v[17], v[25]);
  swap(v[18], v[26]); swap(v[19], v[27]); swap(v[20], v[28]); swap(v[21], v[29]); swap(v[22], v[30]);
  swap(v[23], v[31]); swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]); swap(v[23], v[27]);
  swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]); swap(v[23], v[25]); swap(v[26], v[28]);
  swap(v[27], v[29]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]);
  swap(v[25], v[26]); swap(v[27], v[28]); swap(v[29], v[30]); swap(v[0], v[16]); swap(v[1], v[17]);
  swap(v[2], v[18]); swap(v[3], v[19]); swap(v[4], v[20]); swap(v[5], v[21]); swap(v[6], v[22]);
  swap(v[7], v[23]); swap(v[8], v[24]); swap(v[9], v[25]); swap(v[10], v[26]); swap(v[11], v[27]);
  swap(v[12], v[28]); swap(v[13], v[29]); swap(v[14], v[30]); swap(v[15], v[31]); swap(v[8], v[16]);
  swap(v[9], v[17]); swap(v[10], v[18]); swap(v[11], v[19]); swap(v[12], v[20]); swap(v[13], v[21]);
  swap(v[14], v[22]); swap(v[15], v[23]); swap(v[4], v[8]); swap(v[5], v[9]); swap(v[6], v[10]);
  swap(v[7], v[11]); swap(v[12], v[16]); swap(v[13], v[17]); swap(v[14], v[18]); swap(v[15], v[19]);
  swap(v[20], v[24]); swap(v[21], v[25]); swap(v[22], v[26]); swap(v[23], v[27]); swap(v[2], v[4]);
  swap(v[3], v[5]); swap(v[6], v[8]); swap(v[7], v[9]); swap(v[10], v[12]); swap(v[11], v[13]);
  swap(v[14], v[16]); swap(v[15], v[17]); swap(v[18], v[20]); swap(v[19], v[21]); swap(v[22], v[24]);
  swap(v[23], v[25]); swap(v[26], v[28]); swap(v[27], v[29]); swap(v[1], v[2]); swap(v[3], v[4]);
  swap(v[5], v[6]); swap(v[7], v[8]); swap(v[9], v[10]); swap(v[11], v[12]); swap(v[13], v[14]);
  swap(v[15], v[16]); swap(v[17], v[18]); swap(v[19], v[20]); swap(v[21], v[22]); swap(v[23], v[24]);
  swap(v[25], v[26]); swap(v[27], v[28]); swap(v[29], v[30]);
}
