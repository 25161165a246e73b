//! Damage: bytes flipped, overwritten, cut, repeated and mixed with other inputs, all from a seed.

/// SplitMix64 (Steele, Lea, Flood, 2014).
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where nothing is below it.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }
}

/// Numbers at which fields change their meaning.
const EDGES: [u64; 12] =
    [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, u64::MAX >> 1, u64::MAX];

/// Most single damages of one input.
const DAMAGES_MAX: usize = 6;

/// Makes an input of some of `corpus` in `input`, whose memory is used again.
pub fn fill(input: &mut Vec<u8>, corpus: &[Vec<u8>], bytes_max: usize, random: &mut Seeded) {
    input.clear();
    input.extend_from_slice(&corpus[random.below(corpus.len())]);
    for _ in 0..random.below(DAMAGES_MAX + 1) {
        damage(input, corpus, random);
    }
    input.truncate(bytes_max);
}

fn damage(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Seeded) {
    let at = random.below(input.len());
    match random.below(9) {
        0 | 1 if !input.is_empty() => input[at] ^= 1 << random.below(8),
        2 if !input.is_empty() => input[at] = random.draw() as u8,
        3 => {
            let edge = EDGES[random.below(EDGES.len())].wrapping_add(random.below(3) as u64).to_le_bytes();
            let width = (1_usize << random.below(4)).min(input.len() - at);
            input[at..at + width].copy_from_slice(&edge[..width]);
        }
        4 => input.truncate(at),
        5 => {
            let count = 1 + random.below(16);
            input.extend((0..count).map(|_| random.draw() as u8));
        }
        6 => {
            // A stretch of another input, put over this one.
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len());
            let count = random.below(64).min(other.len() - from).min(input.len() - at);
            input[at..at + count].copy_from_slice(&other[from..from + count]);
        }
        7 => {
            // One behind the other.
            let other = &corpus[random.below(corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[random.below(other.len())..]);
        }
        _ => {
            let count = random.below(32).min(input.len() - at);
            if random.below(2) == 0 {
                input.drain(at..at + count);
            } else {
                input.extend_from_within(at..at + count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_repeat_with_the_seed_and_stay_short() {
        let corpus = [vec![], vec![1; 40], vec![2; 90]];
        let inputs = |seed| {
            let (mut random, mut input) = (Seeded(seed), Vec::new());
            let next = |_| {
                fill(&mut input, &corpus, 64, &mut random);
                input.clone()
            };
            (0..5_000).map(next).collect::<Vec<_>>()
        };
        let first = inputs(1);
        assert_eq!(first, inputs(1));
        assert_ne!(first, inputs(2));
        assert!(first.iter().all(|input| input.len() <= 64));
        let mut unlike = first.clone();
        unlike.sort();
        unlike.dedup();
        assert!(unlike.len() > 2_000, "{}", unlike.len());
    }
}
