//! A small task that simulated workers really learn, so that what a mesh does to learning can be seen: which letter follows
//! which, in texts of different kinds.
//!
//! Softmax regression: element 32 a + b of the state is the score of letter b after letter a, zero at first; the loss is the
//! cross-entropy in nats per letter, over the last eighth of every text, which nobody trains on. A step is one of plain SGD
//! over [`BATCH`] pairs of letters. From which texts a worker draws them is itself drawn, once for each host, from a symmetric
//! Dirichlet distribution: T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the effects of non-identical data distribution for
//! federated visual classification", 2019. The arithmetic is that of the reference kernels: the same bits everywhere.

use crate::config::ConfigError;
use crate::random::Random;
use plesio_kernels::Soft;
use plesio_kernels::vector::exp;
use std::fmt;

/// What is to be learnt, and by whom.
#[derive(Clone, Eq, PartialEq)]
pub struct Learning {
    texts: Vec<Text>,
    alpha_millis: Option<u32>,
}

/// Letters to train on; and of those held out, how often each follows each.
#[derive(Clone, Eq, PartialEq)]
struct Text {
    letters: Vec<u8>,
    held_out: Vec<u32>,
}

impl fmt::Debug for Learning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Learning({} texts, alpha {:?} / 1000)", self.texts.len(), self.alpha_millis)
    }
}

impl Learning {
    /// From 1 to 64 texts of 64 bytes at least. `alpha_millis`: the concentration of the mixes, thousandths, 10 to 1,000,000:
    /// the smaller, the less alike; none: every worker draws from all texts alike.
    ///
    /// # Errors
    /// What is out of its range.
    pub fn new(texts: &[&[u8]], alpha_millis: Option<u32>) -> Result<Self, ConfigError> {
        let range = |name, value: u64, low, high| {
            let good = (low..=high).contains(&value);
            good.then_some(()).ok_or(ConfigError::Range { name, value, low, high })
        };
        range("number of texts", texts.len() as u64, 1, 64)?;
        for text in texts {
            range("length of a text in bytes", text.len() as u64, TEXT_MIN as u64, u64::MAX)?;
        }
        range("thousandths of alpha", u64::from(alpha_millis.unwrap_or(1_000)), 10, 1_000_000)?;
        Ok(Self { texts: texts.iter().map(|text| Text::new(text)).collect(), alpha_millis })
    }

    /// Nats per letter that a state leaves, the mean over all texts.
    #[must_use]
    pub fn loss(&self, master: &[i64]) -> f64 {
        let state: Vec<f32> = master.iter().map(|word| (*word as f64 * MASTER) as f32).collect();
        self.loss_of(&state)
    }

    fn loss_of(&self, state: &[f32]) -> f64 {
        let mut loss = 0.0;
        for (from, row) in state.chunks_exact(LETTERS).enumerate() {
            let chances = chances(row);
            for text in &self.texts {
                let counts = &text.held_out[from * LETTERS..][..LETTERS];
                let part: f64 = counts
                    .iter()
                    .zip(&chances)
                    .map(|(count, chance)| -f64::from(*count) * f64::from(chance.max(CHANCE_MIN)).ln())
                    .sum();
                loss += part / f64::from(text.held_out.iter().sum::<u32>().max(1));
            }
        }
        loss / self.texts.len() as f64
    }

    /// What one machine alone comes to, which draws from all texts alike and takes a step in so long a time: when, and the
    /// loss then. With a batch of as many workers' pairs it is the best that they could do together: no step of it is stale.
    #[must_use]
    pub fn alone(&self, seed: u64, workers: u8, step_ns: u64, span_ns: u64) -> Vec<(u64, f64)> {
        let mut learner = Learner::of(seed, "alone", vec![PARTS; self.texts.len()]);
        let mut state = vec![0.0_f32; ELEMENTS];
        let mut curve = vec![(0, self.loss_of(&state))];
        let (step_ns, weight) = (step_ns.max(1), 1.0 / f32::from(workers.max(1)));
        for step in 1..=span_ns / step_ns {
            let mut change = vec![0.0; ELEMENTS];
            for _ in 0..workers.max(1) {
                learner.add(self, |element| state[element], &mut change);
            }
            for (value, change) in state.iter_mut().zip(&change) {
                *value += change * weight;
            }
            if step % (span_ns / step_ns / ALONE_POINTS).max(1) == 0 || step == span_ns / step_ns {
                curve.push((step * step_ns, self.loss_of(&state)));
            }
        }
        curve
    }
}

impl Text {
    fn new(text: &[u8]) -> Self {
        let letters: Vec<u8> = text.iter().map(|byte| letter(*byte)).collect();
        let (train, held) = letters.split_at(letters.len() - letters.len() / 8);
        let mut held_out = vec![0; ELEMENTS];
        for pair in held.windows(2) {
            held_out[element(pair[0], pair[1])] += 1;
        }
        Self { letters: train.to_vec(), held_out }
    }
}

/// The worker of one process.
#[derive(Clone, Debug)]
pub(crate) struct Learner {
    random: Random,
    /// How many of [`PARTS`] each text is.
    mix: Vec<u32>,
}

impl Learner {
    /// Of a host, which keeps its data from process to process.
    pub(crate) fn new(learning: &Learning, seed: u64, host: u8, process: u32) -> Self {
        let mut random = Random::new(seed ^ u64::from(host) << 32, "data");
        let texts = learning.texts.len();
        let mix = learning.alpha_millis.map(|alpha| mix(&mut random, texts, f64::from(alpha) / 1e3));
        Self::of(seed ^ u64::from(process) << 32, "batches", mix.unwrap_or_else(|| vec![PARTS; texts]))
    }

    fn of(seed: u64, stream: &str, mix: Vec<u32>) -> Self {
        Self { random: Random::new(seed, stream), mix }
    }

    /// One step from the state that is `master` and what of this worker's own is not in it: what to add, as a slot holds it.
    pub(crate) fn step(&mut self, learning: &Learning, master: &[i64], own: &[i64]) -> Vec<i32> {
        let mut change = vec![0.0; ELEMENTS];
        let at = |element: usize| (master[element] as f64 * MASTER + own[element] as f64 * SLOT) as f32;
        self.add(learning, at, &mut change);
        change.iter().map(|change| (f64::from(*change) / SLOT).round() as i32).collect()
    }

    /// Adds the step of one batch.
    fn add(&mut self, learning: &Learning, at: impl Fn(usize) -> f32, change: &mut [f32]) {
        let whole: u64 = self.mix.iter().map(|part| u64::from(*part)).sum();
        for _ in 0..BATCH {
            let mut drawn = self.random.below(whole);
            let text = self.mix.iter().position(|part| {
                let here = drawn < u64::from(*part);
                drawn = drawn.saturating_sub(u64::from(*part));
                here
            });
            let letters = &learning.texts[text.unwrap_or(0)].letters;
            let place = self.random.below(letters.len() as u64 - 1) as usize;
            let (from, to) = (letters[place], letters[place + 1]);
            let first = element(from, 0);
            let row: [f32; LETTERS] = std::array::from_fn(|letter| at(first + letter));
            for (letter, chance) in chances(&row).iter().enumerate() {
                let wanted = f32::from(u8::from(letter == usize::from(to)));
                change[first + letter] += RATE * (wanted - chance);
            }
        }
    }
}

/// Softmax.
fn chances(row: &[f32]) -> [f32; LETTERS] {
    let most = row.iter().copied().fold(f32::MIN, f32::max);
    let mut chances: [f32; LETTERS] = std::array::from_fn(|letter| exp::<Soft>(row[letter] - most));
    let sum: f32 = chances.iter().sum();
    chances.iter_mut().for_each(|chance| *chance /= sum);
    chances
}

/// The alphabet: letters of either case, digits, and kinds of everything else.
fn letter(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => byte - b'a',
        b'A'..=b'Z' => byte - b'A',
        b' ' | b'\t' => 26,
        b'\n' | b'\r' => 27,
        b'0'..=b'9' => 28,
        b'.' | b',' | b';' | b':' | b'!' | b'?' => 29,
        0..=127 => 30,
        _ => 31,
    }
}

fn element(from: u8, to: u8) -> usize {
    usize::from(from) * LETTERS + usize::from(to)
}

/// What each text is of a whole of [`PARTS`], Dirichlet with this concentration: rounded so far, the last bits of a machine's
/// logarithms do not show.
fn mix(random: &mut Random, texts: usize, alpha: f64) -> Vec<u32> {
    let drawn: Vec<f64> = (0..texts).map(|_| gamma(random, alpha)).collect();
    let sum: f64 = drawn.iter().sum();
    let mut mix: Vec<u32> = drawn.iter().map(|part| (part / sum * f64::from(PARTS)).round() as u32).collect();
    if mix.iter().all(|part| *part == 0) {
        // Nothing is left of numbers that small: one of the texts.
        mix = vec![0; texts];
        mix[random.below(texts as u64) as usize] = PARTS;
    }
    mix
}

/// G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", 2000.
fn gamma(random: &mut Random, shape: f64) -> f64 {
    if shape < 1.0 {
        return gamma(random, shape + 1.0) * uniform(random).powf(1.0 / shape);
    }
    let d = shape - 1.0 / 3.0;
    loop {
        let x = normal(random);
        let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && uniform(random).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// G. Marsaglia, T. A. Bray, "A convenient method for generating normal variables", 1964.
fn normal(random: &mut Random) -> f64 {
    loop {
        let (x, y) = (2.0 * uniform(random) - 1.0, 2.0 * uniform(random) - 1.0);
        let square = x * x + y * y;
        if square > 0.0 && square < 1.0 {
            return x * (-2.0 * square.ln() / square).sqrt();
        }
    }
}

/// Above 0, up to 1.
fn uniform(random: &mut Random) -> f64 {
    ((random.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

const LETTERS: usize = 32;
/// Elements of the state.
pub(crate) const ELEMENTS: usize = LETTERS * LETTERS;
/// Pairs of letters in a step.
const BATCH: usize = 64;
/// Of SGD, for each pair.
const RATE: f32 = 0.1;
/// What each unit of the master state, and of a slot, is worth: fraction bits as all nodes have them.
const MASTER: f64 = 1.0 / (1_u64 << 48) as f64;
const SLOT: f64 = 1.0 / (1_u64 << 24) as f64;
const CHANCE_MIN: f32 = 1e-12;
const TEXT_MIN: usize = 64;
const PARTS: u32 = 1 << 17;
/// Points of a curve.
const ALONE_POINTS: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&[u8]; 2] = [
        b"the quick brown fox jumps over the lazy dog; the lazy dog sleeps on, and the quick brown fox is gone. \
          how quickly daft jumping zebras vex, and how the lazy dog sleeps on over all of the brown foxes there",
        b"sphinx of black quartz, judge my vow: 10 x 20 = 200, 30 x 40 = 1200, 50 x 60 = 3000, and 70 x 80 = 5600. \
          pack my box with five dozen liquor jugs; 11 x 11 = 121, 12 x 12 = 144, 13 x 13 = 169, 14 x 14 = 196.",
    ];

    #[test]
    fn one_machine_learns_what_follows_what() {
        let learning = Learning::new(&TEXTS, None).expect("two texts");
        assert!((learning.loss(&vec![0; ELEMENTS]) - (LETTERS as f64).ln()).abs() < 1e-5);
        let curve = learning.alone(1, 1, 1_000_000, 1_000_000_000);
        assert!(
            curve.len() > 100 && curve.last().expect("points").1 < 0.8 * curve[0].1,
            "{:?}",
            curve.last()
        );
        // A larger batch is no worse, and a slower machine is.
        let end =
            |workers, step_ns| learning.alone(1, workers, step_ns, 1_000_000_000).pop().expect("points").1;
        let (one, eight, slow) = (end(1, 1_000_000), end(8, 1_000_000), end(1, 100_000_000));
        assert!(eight < one + 0.02 && one < slow, "{eight} {one} {slow}");
        assert_eq!(curve, learning.alone(1, 1, 1_000_000, 1_000_000_000));
    }

    #[test]
    fn a_worker_steps_down_from_where_it_is() {
        let learning = Learning::new(&TEXTS, Some(1_000)).expect("two texts");
        let mut learner = Learner::new(&learning, 3, 0, 0);
        let (mut master, mut own) = (vec![0_i64; ELEMENTS], vec![0_i64; ELEMENTS]);
        for round in 0..300 {
            let step = learner.step(&learning, &master, &own);
            own.iter_mut().zip(&step).for_each(|(own, step)| *own += i64::from(*step));
            if round % 10 == 9 {
                // Committed: from there on it is the state's.
                master
                    .iter_mut()
                    .zip(&mut own)
                    .for_each(|(master, own)| *master += std::mem::take(own) << 24);
            }
        }
        assert!(learning.loss(&master) < 0.85 * (LETTERS as f64).ln(), "{}", learning.loss(&master));
    }

    #[test]
    fn small_concentrations_make_hosts_unlike() {
        let largest = |alpha: f64| {
            let mut random = Random::new(5, "mix");
            let share = |mix: Vec<u32>| {
                f64::from(*mix.iter().max().expect("texts")) / f64::from(mix.iter().sum::<u32>())
            };
            (0..200).map(|_| share(mix(&mut random, 8, alpha))).sum::<f64>() / 200.0
        };
        let (unlike, some, alike) = (largest(0.05), largest(1.0), largest(1_000.0));
        // 1/8 for all alike; E max of a flat Dirichlet over 8 is H_8 / 8 = 0.34.
        assert!(unlike > 0.75 && (0.30..0.38).contains(&some) && alike < 0.14, "{unlike} {some} {alike}");
        assert!(Learning::new(&[], None).is_err() && Learning::new(&[b"short"], None).is_err());
        assert!(Learning::new(&TEXTS, Some(9)).is_err());
    }
}
