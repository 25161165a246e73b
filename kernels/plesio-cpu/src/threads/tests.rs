//! The cutting of calls, with kernels that only watch.

use super::*;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Elements of f32 whose bytes are enough to be cut.
const LARGE: usize = BYTES_MIN / 4 + 12_345;

/// Counts ranges as an outcome.
#[derive(Debug, Eq, PartialEq)]
struct Ranges(Vec<(usize, usize)>); // first element and number

impl Outcome for Ranges {
    fn and(mut self, first: usize, next: Self) -> Self {
        self.0.extend(next.0.into_iter().map(|(at, count)| (first + at, count)));
        self
    }
}

fn cuts(threads: usize, len: usize) -> Vec<(usize, usize)> {
    let data = vec![0.0f32; len];
    split(Cpu::detect().with_threads(threads), len, &data[..], |part: &[f32]| Ranges(vec![(0, part.len())])).0
}

#[test]
fn ranges_follow_each_other_and_begin_at_whole_blocks() {
    for threads in [2, 3, 7, 256] {
        for len in [LARGE, 2 * LARGE, 8 * LARGE] {
            let ranges = cuts(threads, len);
            assert!(ranges.len() > 1 && ranges.len() <= RANGES * threads, "{ranges:?}");
            let mut next = 0;
            for (first, count) in ranges {
                assert!(first == next && first.is_multiple_of(GRAIN) && count > 0, "{first} after {next}");
                next = first + count;
            }
            assert_eq!(next, len);
        }
    }
}

#[test]
fn small_calls_and_one_thread_are_not_cut() {
    assert_eq!(cuts(7, BYTES_MIN / 4 - 1), [(0, BYTES_MIN / 4 - 1)]);
    assert_eq!(cuts(1, LARGE), [(0, LARGE)]);
    assert_eq!(cuts(7, 0), [(0, 0)]);
}

#[test]
fn arguments_that_do_not_fit_go_to_the_kernel_as_they_are() {
    let (data, more) = (vec![0.0f32; LARGE], vec![0.0f32; LARGE + 1]);
    let slices = [&data[..], &more[..]];
    let whole = split(Cpu::detect().with_threads(4), LARGE, List::of(&slices), |list: List<'_, f32>| {
        Ranges(list.views().iter().map(|view| (0, view.len())).collect())
    });
    assert_eq!(whole.0, [(0, LARGE), (0, LARGE + 1)]);
}

#[test]
fn every_argument_is_cut_at_the_same_elements() {
    for codec in Codec::ALL {
        let len = LARGE + 1;
        let numbers: Vec<u32> = (0..len as u32).collect();
        let words: Vec<u32> = (0..len.div_ceil(32) as u32).map(|word| word * 32).collect();
        let bytes = vec![0u8; codec.encoded_bytes(len)];
        let slices = [&numbers[..], &numbers[..]];
        let mut out = vec![0u32; len];
        let parts = (
            (List::of(&slices), By(Unit::Coded(codec), &bytes[..])),
            By(Unit::Shared(32), &words[..]),
            Some(&mut out[..]),
            Coding::new(codec, 1),
        );
        split(Cpu::detect().with_threads(3), len, parts, |((list, bytes), words, out, coding)| {
            let (views, out) = (list.views(), out.expect("it was there"));
            let first = views[0][0];
            assert_eq!((views[0], views[1].len()), (views[1], out.len()));
            assert_eq!(u64::from(first), coding.first_element);
            assert_eq!((words.1[0], words.1.len()), (first, out.len().div_ceil(32)));
            assert_eq!(bytes.1.len(), codec.encoded_bytes(out.len()));
            out.copy_from_slice(views[0]);
        });
        assert_eq!(out, numbers);
    }
}

#[test]
fn more_than_one_thread_works_on_a_large_call() {
    let data = vec![0.0f32; LARGE];
    let seen = Mutex::new(BTreeSet::new());
    let turn = std::sync::Barrier::new(2);
    split(Cpu::detect().with_threads(2), LARGE, &data[..], |_: &[f32]| {
        let id = format!("{:?}", thread::current().id());
        // The first two ranges wait for each other, so one thread cannot have done both.
        if seen.lock().expect("no panic").insert(id) {
            turn.wait();
        }
    });
    assert_eq!(seen.into_inner().expect("no panic").len(), 2);
}

#[test]
fn a_panic_of_a_kernel_reaches_the_caller() {
    let data = vec![0.0f32; LARGE];
    for threads in [1, 2, 7] {
        let kernel = |_: &[f32]| panic!("a broken shape");
        let call = || split::<_, ()>(Cpu::detect().with_threads(threads), LARGE, &data[..], kernel);
        let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("it panicked");
        assert_eq!(panic.downcast_ref(), Some(&"a broken shape"), "{threads} threads");
    }
}
