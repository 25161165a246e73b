//! One key of one suite: seals and opens bytes where they lie.
//!
//! AES-128-GCM is `graviola`'s, which needs nothing but the Rust compiler to build and is what measured best
//! among those; it panics on a CPU without its instructions, so [`aes_available`] is asked first. Elsewhere
//! ChaCha20-Poly1305 runs on anything.

use alloc::boxed::Box;
use core::fmt;

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use graviola::aead::AesGcm;
use plesio_wire::data::TAG_BYTES;
use plesio_wire::handshake::Suite;

use crate::Secret;

/// Whether this CPU has the instructions that the AES suite is built on.
#[must_use]
pub fn aes_available() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("aes")
            && std::is_x86_feature_detected!("pclmulqdq")
            && std::is_x86_feature_detected!("ssse3")
            && std::is_x86_feature_detected!("avx")
            && std::is_x86_feature_detected!("avx2")
            && std::is_x86_feature_detected!("adx")
            && std::is_x86_feature_detected!("bmi1")
            && std::is_x86_feature_detected!("bmi2")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("neon")
            && std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
            && std::arch::is_aarch64_feature_detected!("sha2")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

pub(crate) enum Key {
    Aes(Box<AesGcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Key {
    /// # Panics
    /// For the AES suite where [`aes_available`] says no: a machine never agrees to it there.
    pub(crate) fn new(suite: Suite, secret: &Secret<32>) -> Self {
        match suite {
            Suite::Aes128Gcm => {
                assert!(aes_available(), "the suite was agreed with AES instructions");
                Self::Aes(Box::new(AesGcm::new(&secret.expose()[..16])))
            }
            Suite::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(secret.expose().into()))),
        }
    }

    pub(crate) fn seal(&self, number: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = nonce(number);
        match self {
            Self::Aes(key) => {
                let mut tag = [0; TAG_BYTES];
                key.encrypt(&nonce, header, body, &mut tag);
                tag
            }
            Self::ChaCha(key) => key
                .encrypt_in_place_detached(&nonce.into(), header, body)
                .expect("a datagram is below the cipher's limit")
                .into(),
        }
    }

    /// Whether the tag fits; when it does not, `body` holds nothing that means anything.
    #[must_use]
    pub(crate) fn open(&self, number: u64, header: &[u8], body: &mut [u8], tag: &[u8; TAG_BYTES]) -> bool {
        let nonce = nonce(number);
        match self {
            Self::Aes(key) => key.decrypt(&nonce, header, body, tag).is_ok(),
            Self::ChaCha(key) => {
                key.decrypt_in_place_detached(&nonce.into(), header, body, tag.into()).is_ok()
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes(_) => "Aes128Gcm(..)",
            Self::ChaCha(_) => "ChaCha20Poly1305(..)",
        })
    }
}

const fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    let bytes = number.to_le_bytes();
    let mut at = 0;
    while at < bytes.len() {
        nonce[4 + at] = bytes[at];
        at += 1;
    }
    nonce
}
