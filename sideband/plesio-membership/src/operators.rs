//! The operators of a mesh: whose signatures count, and how many of them it takes.

use alloc::vec::Vec;
use core::fmt;
use plesio_wire::Digest;
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::{Order, OrderKind, OrderSignature, SIGNERS_MAX};

/// Whether a signature is the one of a key under a message.
pub type Verify = fn(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool;

/// Ed25519 public keys in ascending order, so that every node numbers them alike, and the threshold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Operators {
    keys: Vec<[u8; 32]>,
    threshold: u8,
}

/// Keys and threshold that make no operators.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OperatorsError {
    /// None, or too many.
    Count(usize),
    /// One key stands there twice: one operator would count for two.
    Repeat,
    /// No number of signatures that they can give.
    Threshold {
        /// What was asked for.
        threshold: u8,
        /// How many there are.
        operators: usize,
    },
}

impl fmt::Display for OperatorsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "there are {count} operators; a mesh has 1 to {SIGNERS_MAX}"),
            Self::Repeat => f.write_str("one operator is named twice; name each once"),
            Self::Threshold { threshold, operators } => {
                write!(f, "the threshold is {threshold}; with {operators} operators it is 1 to {operators}")
            }
        }
    }
}

impl core::error::Error for OperatorsError {}

impl Operators {
    /// Any `threshold` of `keys` together.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(keys: &[[u8; 32]], threshold: u8) -> Result<Self, OperatorsError> {
        if !(1..=SIGNERS_MAX).contains(&keys.len()) {
            return Err(OperatorsError::Count(keys.len()));
        }
        if !(1..=keys.len()).contains(&usize::from(threshold)) {
            return Err(OperatorsError::Threshold { threshold, operators: keys.len() });
        }
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(OperatorsError::Repeat);
        }
        Ok(Self { keys, threshold })
    }

    /// More than half of `operators`: what a mesh asks for that says nothing else.
    #[must_use]
    pub const fn majority(operators: usize) -> u8 {
        (operators / 2 + 1) as u8
    }

    /// The key with this number.
    #[must_use]
    pub fn key(&self, signer: u8) -> Option<&[u8; 32]> {
        self.keys.get(usize::from(signer))
    }

    /// The number of a key.
    #[must_use]
    pub fn index_of(&self, key: &[u8; 32]) -> Option<u8> {
        self.keys.binary_search(key).ok().map(|at| at as u8)
    }

    /// How many there are; never none.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "they are never none")]
    pub const fn len(&self) -> usize {
        self.keys.len()
    }

    /// How many have to sign.
    #[must_use]
    pub const fn threshold(&self) -> usize {
        self.threshold as usize
    }

    /// The first of an order's signatures that are enough, if their signers are listed and none stands there twice;
    /// whether they are genuine says [`have_signed`](Self::have_signed).
    #[must_use]
    pub fn enough<'a>(&self, order: &'a Order) -> Option<&'a [OrderSignature]> {
        let signers = &order.signatures;
        let rises = signers.windows(2).all(|pair| pair[0].signer < pair[1].signer);
        let listed = signers.last().is_none_or(|last| self.key(last.signer).is_some());
        signers.get(..self.threshold()).filter(|_| rises && listed)
    }

    /// Whether enough of them signed an order of `mesh`. The first signature that does not fit is the last that is
    /// looked at.
    #[must_use]
    pub fn have_signed(&self, verify: Verify, mesh: u64, kind: OrderKind, order: &Order) -> bool {
        let message = order.signed_bytes(mesh, kind);
        let fits = |one: &OrderSignature| {
            self.key(one.signer).is_some_and(|key| verify(key, &message, &one.signature))
        };
        self.enough(order).is_some_and(|enough| enough.iter().all(fits))
    }

    /// What nodes compare.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(b"plesio operators 1");
        hasher.update(&[self.threshold]);
        self.keys.iter().for_each(|key| hasher.update(key));
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn operators_are_numbered_alike_in_whatever_order_they_are_named() {
        let one = Operators::new(&[[3; 32], [1; 32], [2; 32]], 2).unwrap();
        let other = Operators::new(&[[1; 32], [2; 32], [3; 32]], 2).unwrap();
        assert_eq!((&one, one.digest()), (&other, other.digest()));
        assert_eq!((one.index_of(&[3; 32]), one.key(2)), (Some(2), Some(&[3; 32])));
        assert_eq!((one.index_of(&[4; 32]), one.key(3)), (None, None));
        assert_ne!(one.digest(), Operators::new(&[[1; 32], [2; 32], [3; 32]], 3).unwrap().digest());
        assert_ne!(one.digest(), Operators::new(&[[1; 32], [2; 32]], 2).unwrap().digest());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Operators::new(&[], 1), Err(OperatorsError::Count(0)));
        let many: vec::Vec<[u8; 32]> = (0..17).map(|key| [key; 32]).collect();
        assert_eq!(Operators::new(&many, 1), Err(OperatorsError::Count(17)));
        assert!(Operators::new(&many[..16], 16).is_ok());
        assert_eq!(Operators::new(&[[1; 32], [1; 32]], 1), Err(OperatorsError::Repeat));
        let outside = |threshold| OperatorsError::Threshold { threshold, operators: 2 };
        for threshold in [0, 3] {
            assert_eq!(Operators::new(&[[1; 32], [2; 32]], threshold), Err(outside(threshold)));
        }
        assert_eq!([1, 2, 3, 4, 5].map(Operators::majority), [1, 2, 2, 3, 3]);
    }
}
