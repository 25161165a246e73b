//! Batches from a text: random windows, and a held-out split.

use crate::error::ModelError;
use crate::random::Random;
use alloc::vec::Vec;

/// Draws random windows of a text from a seed.
#[derive(Clone, Debug)]
pub struct Sampler {
    random: Random,
}

impl Sampler {
    /// A stream of windows; equal seeds draw equal windows.
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    /// Fills rows of `context + 1` bytes with windows of the text.
    pub fn fill(&mut self, text: &[u8], context: usize, tokens: &mut [u8]) -> Result<(), ModelError> {
        let width = context + 1;
        if text.len() < width {
            return Err(ModelError::Length { what: "text", expected: width, found: text.len() });
        }
        if !tokens.len().is_multiple_of(width) {
            let expected = tokens.len().next_multiple_of(width);
            return Err(ModelError::Length { what: "batch", expected, found: tokens.len() });
        }
        for row in tokens.chunks_exact_mut(width) {
            let start = self.random.below(text.len() - width + 1);
            row.copy_from_slice(&text[start..start + width]);
        }
        Ok(())
    }
}

/// Cuts a text into blocks of `block` bytes and holds out the last of every `every`: (rest, held out).
/// With a `block` or `every` of zero nothing is held out.
pub fn split_held_out(text: &[u8], block: usize, every: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut rest, mut held) = (Vec::new(), Vec::new());
    if block == 0 || every == 0 {
        return (text.into(), held);
    }
    for (index, bytes) in text.chunks(block).enumerate() {
        if index % every == every - 1 { held.extend_from_slice(bytes) } else { rest.extend_from_slice(bytes) }
    }
    (rest, held)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_draw_equal_windows_of_the_text() {
        let text: Vec<u8> = (0..=255).collect();
        let (mut first, mut second) = (vec![0; 5 * 9], vec![0; 5 * 9]);
        Sampler::new(3).fill(&text, 8, &mut first).unwrap();
        Sampler::new(3).fill(&text, 8, &mut second).unwrap();
        assert_eq!(first, second);
        for row in first.chunks(9) {
            assert!(row.windows(2).all(|pair| pair[1] == pair[0] + 1));
        }
        assert!(Sampler::new(3).fill(&text[..8], 8, &mut first).is_err());
        assert!(Sampler::new(3).fill(&text, 8, &mut first[..10]).is_err());
    }

    #[test]
    fn a_split_keeps_every_byte_once() {
        let text: Vec<u8> = (0..=255).collect();
        let (rest, held) = split_held_out(&text, 10, 5);
        assert_eq!(held.len(), 50);
        let mut all = [rest, held].concat();
        all.sort_unstable();
        assert_eq!(all, text);
        assert!(split_held_out(&text, 0, 5).1.is_empty());
    }
}
