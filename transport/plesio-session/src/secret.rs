//! Bytes that must not be seen, and the randomness that makes more of them.
//!
//! Knows nothing of what they are for. Keeps: a secret is wiped when it goes, is never copied implicitly, and
//! its `Debug` says nothing.

use alloc::string::String;
use core::fmt;

use zeroize::Zeroize;

/// `N` secret bytes.
#[derive(Clone)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over; the caller wipes what it still holds.
    #[must_use]
    pub const fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the one who uses them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }

    pub(crate) const fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl Secret<32> {
    /// Another secret, for each `salt` and each purpose its own, from which this one cannot be computed.
    pub(crate) fn derive(&self, context: &str, salt: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0).update(&salt.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// As a seed that was never used before, also where this one was, as long as `salt` was not.
    #[must_use]
    pub fn salted(&self, salt: u64) -> Self {
        self.derive("plesio salted seed v1", salt)
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A key file's text: wiped when it goes.
pub struct SecretText(String);

impl SecretText {
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the file it goes to.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// Random bytes from a seed given at construction: the machine reads no clock and no device.
///
/// Every draw replaces the state, so that what was drawn before cannot be computed from what is left. Two
/// machines must never get the same seed.
#[derive(Debug)]
pub struct Entropy {
    state: Secret<32>,
}

impl Entropy {
    /// Starts from 32 bytes of the system's randomness.
    #[must_use]
    pub fn new(seed: &Secret<32>) -> Self {
        Self { state: seed.clone() }
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_derive_key("plesio session entropy v1");
        hasher.update(self.state.expose());
        let mut stream = hasher.finalize_xof();
        stream.fill(self.state.expose_mut());
        stream.fill(out);
    }

    /// `N` random bytes.
    #[must_use]
    pub fn draw<const N: usize>(&mut self) -> Secret<N> {
        let mut secret = Secret([0; N]);
        self.fill(secret.expose_mut());
        secret
    }

    pub(crate) fn draw_u32(&mut self) -> u32 {
        u32::from_le_bytes(*self.draw::<4>().expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn what_is_secret_is_not_printed() {
        let secret = Secret::new([0x5A; 32]);
        let shown = format!("{secret:?} {:?} {:?}", Entropy::new(&secret), SecretText::new("5a5a".into()));
        assert!(!shown.contains("90") && !shown.to_lowercase().contains("5a"), "{shown}");
    }

    #[test]
    fn a_salt_makes_another_secret() {
        let seed = Secret::new([1; 32]);
        let salted = *seed.salted(1).expose();
        assert_eq!(salted, *seed.salted(1).expose());
        let others =
            [seed.salted(2), seed.derive("another purpose", 1), Secret::new([2; 32]).salted(1), seed];
        assert!(others.iter().all(|other| *other.expose() != salted));
    }

    #[test]
    fn draws_differ_and_repeat_with_the_seed() {
        let mut one = Entropy::new(&Secret::new([1; 32]));
        let mut again = Entropy::new(&Secret::new([1; 32]));
        let first = *one.draw::<32>().expose();
        assert_eq!(first, *again.draw::<32>().expose());
        assert_ne!(first, *one.draw::<32>().expose());
        assert_ne!(first, *Entropy::new(&Secret::new([2; 32])).draw::<32>().expose());
    }
}
