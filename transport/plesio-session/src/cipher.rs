//! One key of one suite: seals and opens bytes where they lie.
//!
//! Where the target's linker is GNU's there is a C compiler, so AEGIS-128L is built, and AES-128-GCM comes from `ring`;
//! everywhere else it comes from `graviola`, which needs the Rust compiler alone. All of them panic or crawl on a CPU
//! without instructions for them, so [`is_available`] is asked first. There ChaCha20-Poly1305 runs on anything.

use alloc::boxed::Box;
use core::fmt;

use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use plesio_wire::data::TAG_BYTES;
use plesio_wire::handshake::Suite;
use zeroize::Zeroizing;

use crate::Secret;

#[cfg(target_env = "gnu")]
mod by_aegis;
#[cfg(any(not(target_env = "gnu"), test))]
mod by_graviola;
#[cfg(target_env = "gnu")]
mod by_ring;

#[cfg(not(target_env = "gnu"))]
use by_graviola::Aes;
#[cfg(target_env = "gnu")]
use by_ring::Aes;

/// Whether this build holds the suite, and this CPU has the instructions that it is built on.
#[must_use]
pub(crate) fn is_available(suite: Suite) -> bool {
    match suite {
        #[cfg(target_env = "gnu")]
        Suite::Aegis128L => by_aegis::Aegis::is_available(),
        #[cfg(not(target_env = "gnu"))]
        Suite::Aegis128L => false,
        Suite::Aes128Gcm => Aes::is_available(),
        Suite::ChaCha20Poly1305 => true,
    }
}

pub(crate) enum Key {
    #[cfg(target_env = "gnu")]
    Aegis(by_aegis::Aegis),
    Aes(Box<Aes>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Key {
    /// # Panics
    /// Where [`is_available`] says no: a machine never agrees to such a suite.
    pub(crate) fn new(suite: Suite, secret: &Secret<32>) -> Self {
        assert!(is_available(suite), "a suite is agreed to where it is available");
        let mut key = Zeroizing::new([0; 16]);
        key.copy_from_slice(&secret.expose()[..16]);
        match suite {
            #[cfg(target_env = "gnu")]
            Suite::Aegis128L => Self::Aegis(by_aegis::Aegis::new(&key)),
            #[cfg(not(target_env = "gnu"))]
            Suite::Aegis128L => unreachable!("it is not available"),
            Suite::Aes128Gcm => Self::Aes(Box::new(Aes::new(&key))),
            Suite::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(secret.expose().into()))),
        }
    }

    pub(crate) fn seal(&self, number: u64, header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            #[cfg(target_env = "gnu")]
            Self::Aegis(key) => key.seal(nonce(number), header, body),
            Self::Aes(key) => key.seal(nonce(number), header, body),
            Self::ChaCha(key) => key
                .encrypt_in_place_detached(&nonce(number).into(), header, body)
                .expect("a datagram is below the cipher's limit")
                .into(),
        }
    }

    /// Whether so many bytes are sealed and opened from one place to another in one pass, rather than moved first.
    pub(crate) const fn goes_apart(&self, len_bytes: usize) -> bool {
        match self {
            #[cfg(target_env = "gnu")]
            Self::Aegis(_) => len_bytes >= APART_BYTES_MIN,
            Self::Aes(_) | Self::ChaCha(_) => false,
        }
    }

    /// As [`seal`](Self::seal), from `plain` into `body`, which have one length: in one pass where the cipher can and it
    /// is worth it.
    pub(crate) fn seal_apart(
        &self,
        number: u64,
        header: &[u8],
        plain: &[u8],
        body: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        match self {
            #[cfg(target_env = "gnu")]
            Self::Aegis(key) if self.goes_apart(plain.len()) => {
                key.seal_apart(nonce(number), header, plain, body)
            }
            _ => {
                body.copy_from_slice(plain);
                self.seal(number, header, body)
            }
        }
    }

    /// Whether the tag fits; when it does not, `body` holds nothing that means anything.
    #[must_use]
    pub(crate) fn open(&self, number: u64, header: &[u8], body: &mut [u8], tag: &[u8; TAG_BYTES]) -> bool {
        match self {
            #[cfg(target_env = "gnu")]
            Self::Aegis(key) => key.open(nonce(number), header, body, tag),
            Self::Aes(key) => key.open(nonce(number), header, body, tag),
            Self::ChaCha(key) => {
                key.decrypt_in_place_detached(&nonce(number).into(), header, body, tag.into()).is_ok()
            }
        }
    }

    /// As [`open`](Self::open), from `sealed` into `body`, which have one length: in one pass where the cipher can and it
    /// is worth it.
    #[must_use]
    pub(crate) fn open_apart(
        &self,
        number: u64,
        header: &[u8],
        sealed: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        match self {
            #[cfg(target_env = "gnu")]
            Self::Aegis(key) if self.goes_apart(sealed.len()) => {
                key.open_apart(nonce(number), header, sealed, body, tag)
            }
            _ => {
                body.copy_from_slice(sealed);
                self.open(number, header, body, tag)
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            #[cfg(target_env = "gnu")]
            Self::Aegis(_) => "Aegis128L(..)",
            Self::Aes(_) => "Aes128Gcm(..)",
            Self::ChaCha(_) => "ChaCha20Poly1305(..)",
        })
    }
}

/// Zeros, then the number: 12 bytes or, for AEGIS, 16.
const fn nonce<const N: usize>(number: u64) -> [u8; N] {
    let mut nonce = [0; N];
    let bytes = number.to_le_bytes();
    let mut at = 0;
    while at < bytes.len() {
        nonce[N - bytes.len() + at] = bytes[at];
        at += 1;
    }
    nonce
}

/// Below this the pass that it spares costs less than what one pass takes to set up and wipe (165 ns, measured).
#[cfg(target_env = "gnu")]
const APART_BYTES_MIN: usize = 4 << 10;

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

    /// Test vector 5 of draft-irtf-cfrg-aegis-aead, A.2: a partial block, and 42 bytes of associated data.
    #[test]
    #[cfg(target_env = "gnu")]
    fn aegis_gives_the_published_bytes() {
        use by_aegis::Aegis;
        if !Aegis::is_available() {
            std::println!("skipped: this CPU lacks instructions for AEGIS");
            return;
        }
        let key = Aegis::new(&bytes("10010000000000000000000000000000"));
        let nonce = bytes("10000200000000000000000000000000");
        let header = bytes::<42>(
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223242526272829",
        );
        let plain =
            bytes::<40>("101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637");
        let sealed =
            bytes::<40>("b31052ad1cca4e291abcf2df3502e6bdb1bfd6db36798be3607b1f94d34478aa7ede7f7a990fec10");
        let expected = bytes("7542a745733014f9474417b337399507");
        let (mut body, mut apart) = (plain, [0; 40]);
        assert_eq!((key.seal(nonce, &header, &mut body), body), (expected, sealed));
        assert_eq!((key.seal_apart(nonce, &header, &plain, &mut apart), apart), (expected, sealed));
        assert!(key.open(nonce, &header, &mut body, &expected));
        assert_eq!(body, plain);
    }

    /// However a payload is sealed, the bytes are the same, they open, and with a wrong tag they do not.
    #[test]
    fn every_suite_seals_in_place_as_it_does_apart() {
        for suite in [Suite::Aegis128L, Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
            if !is_available(suite) {
                std::println!("skipped: {suite:?} is not available here");
                continue;
            }
            let key = Key::new(suite, &Secret::new(*blake3::hash(b"suites").as_bytes()));
            let sizes = (0..130).chain([1_408, 4_095, 4_096, 4_097, 4_111, 8_896, 65_343, 65_408]);
            for (number, len_bytes) in (0..).zip(sizes) {
                let plain: Vec<u8> = (0..len_bytes).map(|at| (at * 7 + len_bytes) as u8).collect();
                let header = [number as u8; 32];
                let (mut here, mut apart) = (plain.clone(), vec![0xEE; len_bytes]);
                let tag = key.seal(number, &header, &mut here);
                assert_eq!(key.seal_apart(number, &header, &plain, &mut apart), tag, "{len_bytes} bytes");
                assert_eq!(here, apart, "{suite:?}, {len_bytes} bytes");
                assert!(len_bytes < 16 || here != plain);
                let mut moved = vec![0xEE; len_bytes];
                assert!(key.open_apart(number, &header, &here, &mut moved, &tag));
                assert!(key.open(number, &header, &mut here, &tag));
                assert_eq!((&here, &moved), (&plain, &plain), "{suite:?}, {len_bytes} bytes");
                assert!(!key.open_apart(number + 1, &header, &apart, &mut moved, &tag));
                assert!(len_bytes < 16 || moved != plain, "nothing is told of what does not fit");
                assert!(!key.open(number + 1, &header, &mut apart.clone(), &tag));
                assert!(!key.open(number, &[!0; 32], &mut apart.clone(), &tag));
                let mut forged = tag;
                forged[len_bytes % 16] ^= 1;
                assert!(!key.open(number, &header, &mut apart, &forged));
            }
        }
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
