//! One key of one suite: seals and opens bytes where they lie.
//!
//! AES-128-GCM comes from `ring` where the target's linker is GNU's, for then there is a C compiler to build it, and
//! from `graviola`, which needs the Rust compiler alone, everywhere else; both panic or crawl on a CPU without
//! instructions for it, so [`aes_available`] is asked first. There ChaCha20-Poly1305 runs on anything.

use alloc::boxed::Box;
use core::fmt;

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use plesio_wire::data::TAG_BYTES;
use plesio_wire::handshake::Suite;

use crate::Secret;

#[cfg(any(not(target_env = "gnu"), test))]
mod by_graviola;
#[cfg(target_env = "gnu")]
mod by_ring;

#[cfg(not(target_env = "gnu"))]
use by_graviola::Aes;
#[cfg(target_env = "gnu")]
use by_ring::Aes;

/// Whether this CPU has the instructions that the AES suite is built on.
#[must_use]
pub fn aes_available() -> bool {
    Aes::is_available()
}

pub(crate) enum Key {
    Aes(Box<Aes>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Key {
    /// # Panics
    /// For the AES suite where [`aes_available`] says no: a machine never agrees to it there.
    pub(crate) fn new(suite: Suite, secret: &Secret<32>) -> Self {
        match suite {
            Suite::Aes128Gcm => {
                assert!(aes_available(), "the suite was agreed with AES instructions");
                let mut key = [0; 16];
                key.copy_from_slice(&secret.expose()[..16]);
                let aes = Self::Aes(Box::new(Aes::new(&key)));
                zeroize::Zeroize::zeroize(&mut key);
                aes
            }
            Suite::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(secret.expose().into()))),
        }
    }

    pub(crate) fn seal(&self, number: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = nonce(number);
        match self {
            Self::Aes(key) => key.seal(nonce, header, body),
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
            Self::Aes(key) => key.open(nonce, header, body, tag),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        let mut bytes = [0; N];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
        }
        bytes
    }

    /// Test case 4 of the specification of GCM (McGrew, Viega): 60 bytes, 20 of associated data.
    #[test]
    fn aes_gives_the_published_bytes() {
        let key = bytes::<16>("feffe9928665731c6d6a8f9467308308");
        let nonce = bytes::<12>("cafebabefacedbaddecaf888");
        let header = bytes::<20>("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let plain = bytes::<60>(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let sealed = bytes::<60>(
            "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
             21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
        );
        let mut body = plain;
        let tag = Aes::new(&key).seal(nonce, &header, &mut body);
        assert_eq!((body, tag), (sealed, bytes("5bc94fbc3221a5db94fae95ae7121a47")));
        assert!(Aes::new(&key).open(nonce, &header, &mut body, &tag));
        assert_eq!(body, plain);
    }

    /// The vector of RFC 8439, section 2.8.2, through the cipher that is used here.
    #[test]
    fn chacha_gives_the_published_bytes() {
        let mut secret = [0; 32];
        secret.iter_mut().zip(0x80..).for_each(|(byte, value)| *byte = value);
        let nonce = bytes::<12>("070000004041424344454647");
        let header = bytes::<12>("50515253c0c1c2c3c4c5c6c7");
        let mut body =
            *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the \
                          future, sunscreen would be it.";
        let cipher = ChaCha20Poly1305::new(&secret.into());
        let tag = cipher.encrypt_in_place_detached(&nonce.into(), &header, &mut body).unwrap();
        assert_eq!(body[..16], bytes::<16>("d31a8d34648e60db7b86afbc53ef7ec2"));
        assert_eq!(tag[..], bytes::<16>("1ae10b594f09e26a7e902ecbd0600691"));
    }

    /// Two implementations that know nothing of each other: on every size around a block, and large ones.
    #[test]
    #[cfg(target_env = "gnu")]
    fn both_implementations_of_aes_give_the_same_bytes() {
        if !(by_graviola::Aes::is_available() && Aes::is_available()) {
            std::println!("skipped: this CPU lacks instructions for AES-GCM");
            return;
        }
        let sizes = (0..300).chain([1_023, 1_152, 1_407, 1_408, 8_896, 65_343, 65_408, 65_459]);
        for (round, len_bytes) in sizes.enumerate() {
            let key = *blake3::hash(&round.to_le_bytes()).as_bytes();
            let key: [u8; 16] = key[..16].try_into().unwrap();
            let plain: Vec<u8> = (0..len_bytes).map(|at| (at * 7 + round) as u8).collect();
            let header = vec![round as u8; [0, 16, 20, 32][round % 4]];
            let number = nonce(round as u64 * 0x0101_0101_0101);
            let (one, other) = (Aes::new(&key), by_graviola::Aes::new(&key));
            let (mut left, mut right) = (plain.clone(), plain.clone());
            let tags = (one.seal(number, &header, &mut left), other.seal(number, &header, &mut right));
            assert_eq!(tags.0, tags.1, "{len_bytes} bytes");
            assert_eq!(left, right, "{len_bytes} bytes");
            // Each opens what the other sealed, and refuses another tag.
            assert!(one.open(number, &header, &mut right, &tags.1));
            assert!(other.open(number, &header, &mut left, &tags.0));
            assert_eq!((&left, &right), (&plain, &plain));
            let mut forged = tags.0;
            forged[round % 16] ^= 1;
            assert!(!one.open(number, &header, &mut left, &forged));
            assert!(!other.open(number, &header, &mut right, &forged));
        }
    }
}
