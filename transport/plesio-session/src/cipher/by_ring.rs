//! AES-128-GCM by `ring`: C and assembler, the fastest measured.

use plesio_wire::data::TAG_BYTES;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};

pub(crate) struct Aes(LessSafeKey);

impl Aes {
    pub(crate) fn is_available() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            std::is_x86_feature_detected!("aes")
                && std::is_x86_feature_detected!("pclmulqdq")
                && std::is_x86_feature_detected!("ssse3")
        }
        #[cfg(target_arch = "aarch64")]
        {
            std::arch::is_aarch64_feature_detected!("neon")
                && std::arch::is_aarch64_feature_detected!("aes")
                && std::arch::is_aarch64_feature_detected!("pmull")
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            false
        }
    }

    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("AES-128 keys have 16 bytes")))
    }

    pub(crate) fn seal(&self, nonce: [u8; 12], header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag =
            self.0.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), body);
        let mut bytes = [0; TAG_BYTES];
        bytes.copy_from_slice(tag.expect("a datagram is below the cipher's limit").as_ref());
        bytes
    }

    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        header: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place_separate_tag(nonce, Aad::from(header), Tag::from(*tag), body, 0..).is_ok()
    }
}
