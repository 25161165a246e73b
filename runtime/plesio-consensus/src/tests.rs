//! A whole mesh on one thread: real machines, a small engine around each, a link that loses, repeats, reorders and
//! delays, and a checker that sees everything.

mod checker;
mod cluster;
mod conduct;
mod engine;
mod explore;
mod faults;
mod halt;
mod hostile;
mod rules;
mod votes;

/// Xorshift (Marsaglia, 2003): all the chance there is, from one seed.
#[derive(Clone, Debug)]
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
