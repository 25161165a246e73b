//! What a stranger has to show before private-key work: mac1, and under load the cookie in mac2.
//!
//! mac1 proves knowledge of the responder's public key, mac2 that the source address is real. A cookie is a
//! keyed hash of the address; its key changes every two minutes, and the one before is still honoured, so a
//! responder keeps nothing for a source. The cookie travels sealed, bound to the mac1 that it answers.

use core::net::{IpAddr, SocketAddr};

use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::AeadInPlace;
use plesio_wire::Instant;
use plesio_wire::handshake::MAC_BYTES;

use crate::{Entropy, Secret};

/// How long a cookie's key is the newest one, and how long a cookie is worth using.
pub(crate) const COOKIE_NS: u64 = 120_000_000_000;

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";
const TAG_BYTES: usize = 16;

/// A keyed BLAKE2s of 16 bytes.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; MAC_BYTES] {
    let mut hash = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("keys are at most 32 bytes");
    for part in parts {
        Mac::update(&mut hash, part);
    }
    hash.finalize().into_bytes().into()
}

/// Whether `expected` is the mac; takes the same time wherever they differ.
fn mac_is(key: &[u8], parts: &[&[u8]], expected: &[u8; MAC_BYTES]) -> bool {
    let found = mac(key, parts);
    found.iter().zip(expected).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn labelled(label: &[u8], public: &[u8; 32]) -> [u8; 32] {
    Blake2s256::new().chain_update(label).chain_update(public).finalize().into()
}

/// The two keys that follow from a receiver's public key.
#[derive(Clone, Debug)]
pub(crate) struct MacKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl MacKeys {
    pub(crate) fn new(public: &[u8; 32]) -> Self {
        Self { mac1: labelled(LABEL_MAC1, public), cookie: labelled(LABEL_COOKIE, public) }
    }

    /// Writes mac1, and mac2 where there is a cookie, into the last 32 bytes.
    pub(crate) fn sign(&self, datagram: &mut [u8], cookie: Option<&[u8; MAC_BYTES]>) -> [u8; MAC_BYTES] {
        let at = datagram.len() - 2 * MAC_BYTES;
        let (body, macs) = datagram.split_at_mut(at);
        let mac1 = mac(&self.mac1, &[body]);
        macs[..MAC_BYTES].copy_from_slice(&mac1);
        if let Some(cookie) = cookie {
            let mac2 = mac(cookie, &[body, &mac1]);
            macs[MAC_BYTES..].copy_from_slice(&mac2);
        }
        mac1
    }

    pub(crate) fn mac1_is_valid(&self, datagram: &[u8], mac1: &[u8; MAC_BYTES]) -> bool {
        mac_is(&self.mac1, &[&datagram[..datagram.len() - 2 * MAC_BYTES]], mac1)
    }

    /// Seals a cookie for who sent `mac1`.
    pub(crate) fn seal_cookie(
        &self,
        cookie: [u8; MAC_BYTES],
        nonce: &[u8; 24],
        mac1: &[u8; MAC_BYTES],
    ) -> [u8; MAC_BYTES + TAG_BYTES] {
        let mut sealed = [0; MAC_BYTES + TAG_BYTES];
        sealed[..MAC_BYTES].copy_from_slice(&cookie);
        let (body, tag_at) = sealed.split_at_mut(MAC_BYTES);
        let cipher = XChaCha20Poly1305::new(&self.cookie.into());
        let tag = cipher
            .encrypt_in_place_detached(nonce.into(), mac1, body)
            .expect("sixteen bytes are below the cipher's limit");
        tag_at.copy_from_slice(&tag);
        sealed
    }

    /// Opens a cookie that answers the INIT whose mac1 this is; `self` are the keys of who sent the cookie.
    pub(crate) fn open_cookie(
        &self,
        sealed: &[u8; MAC_BYTES + TAG_BYTES],
        nonce: &[u8; 24],
        mac1: &[u8; MAC_BYTES],
    ) -> Option<[u8; MAC_BYTES]> {
        let mut cookie = [0; MAC_BYTES];
        cookie.copy_from_slice(&sealed[..MAC_BYTES]);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&sealed[MAC_BYTES..]);
        let cipher = XChaCha20Poly1305::new(&self.cookie.into());
        cipher.decrypt_in_place_detached(nonce.into(), mac1, &mut cookie, &tag.into()).ok()?;
        Some(cookie)
    }
}

/// The responder's side of cookies: two keys, and nothing for any source.
#[derive(Debug)]
pub(crate) struct CookieJar {
    newest: Secret<32>,
    before: Secret<32>,
    made: Instant,
}

impl CookieJar {
    pub(crate) fn new(now: Instant, entropy: &mut Entropy) -> Self {
        Self { newest: entropy.draw(), before: entropy.draw(), made: now }
    }

    /// Changes the key when its time has come; after a long rest both.
    pub(crate) fn rotate(&mut self, now: Instant, entropy: &mut Entropy) {
        let age_ns = now.since(self.made);
        if age_ns < COOKIE_NS {
            return;
        }
        let fresh = entropy.draw();
        let newest = core::mem::replace(&mut self.newest, fresh);
        self.before = if age_ns < 2 * COOKIE_NS { newest } else { entropy.draw() };
        self.made = now;
    }

    pub(crate) fn cookie(&self, source: SocketAddr) -> [u8; MAC_BYTES] {
        cookie(&self.newest, source)
    }

    /// Whether mac2 was made with a cookie that this jar gave to `source`.
    pub(crate) fn mac2_is_valid(&self, source: SocketAddr, datagram: &[u8], mac2: &[u8; MAC_BYTES]) -> bool {
        let body = &datagram[..datagram.len() - MAC_BYTES];
        [&self.newest, &self.before].iter().any(|key| mac_is(&cookie(key, source), &[body], mac2))
    }
}

fn cookie(key: &Secret<32>, source: SocketAddr) -> [u8; MAC_BYTES] {
    let port = source.port().to_le_bytes();
    match source.ip() {
        IpAddr::V4(address) => mac(key.expose(), &[&address.octets(), &port]),
        IpAddr::V6(address) => mac(key.expose(), &[&address.octets(), &port]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_opens_for_whom_it_answers_and_for_nobody_else() {
        let keys = MacKeys::new(&[7; 32]);
        let sealed = keys.seal_cookie([3; 16], &[4; 24], &[5; 16]);
        assert_eq!(keys.open_cookie(&sealed, &[4; 24], &[5; 16]), Some([3; 16]));
        assert_eq!(keys.open_cookie(&sealed, &[4; 24], &[6; 16]), None, "another INIT");
        assert_eq!(MacKeys::new(&[8; 32]).open_cookie(&sealed, &[4; 24], &[5; 16]), None, "another node");
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(keys.open_cookie(&bad, &[4; 24], &[5; 16]), None, "bit {bit}");
        }
    }

    #[test]
    fn a_cookie_is_honoured_for_two_rotations_and_for_its_source_only() {
        let mut entropy = Entropy::new(&Secret::new([1; 32]));
        let mut jar = CookieJar::new(Instant(0), &mut entropy);
        let source: SocketAddr = "10.0.0.1:9".parse().unwrap();
        let mut datagram = [9; 264];
        MacKeys::new(&[7; 32]).sign(&mut datagram, Some(&jar.cookie(source)));
        let mut mac2 = [0; 16];
        mac2.copy_from_slice(&datagram[248..]);
        assert!(jar.mac2_is_valid(source, &datagram, &mac2));
        assert!(!jar.mac2_is_valid("10.0.0.1:8".parse().unwrap(), &datagram, &mac2));
        assert!(!jar.mac2_is_valid(source, &datagram, &[0; 16]));
        jar.rotate(Instant(COOKIE_NS), &mut entropy);
        assert!(jar.mac2_is_valid(source, &datagram, &mac2), "the key before is still honoured");
        jar.rotate(Instant(2 * COOKIE_NS), &mut entropy);
        assert!(!jar.mac2_is_valid(source, &datagram, &mac2));
    }

    #[test]
    fn after_a_long_rest_no_old_cookie_counts() {
        let mut entropy = Entropy::new(&Secret::new([1; 32]));
        let mut jar = CookieJar::new(Instant(0), &mut entropy);
        let source: SocketAddr = "[2001:db8::1]:9".parse().unwrap();
        let mut datagram = [9; 264];
        MacKeys::new(&[7; 32]).sign(&mut datagram, Some(&jar.cookie(source)));
        let mut mac2 = [0; 16];
        mac2.copy_from_slice(&datagram[248..]);
        jar.rotate(Instant(5 * COOKIE_NS), &mut entropy);
        assert!(!jar.mac2_is_valid(source, &datagram, &mac2));
    }
}
