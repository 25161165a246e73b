//! AES-128-GCM by `graviola`: assembler through the Rust compiler alone.

use graviola::aead::AesGcm;
use plesio_wire::data::TAG_BYTES;

pub(crate) struct Aes(AesGcm);

impl Aes {
    pub(crate) fn is_available() -> bool {
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

    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(AesGcm::new(key))
    }

    pub(crate) fn seal(&self, nonce: [u8; 12], header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        self.0.encrypt(&nonce, header, body, &mut tag);
        tag
    }

    pub(crate) fn open(
        &self,
        nonce: [u8; 12],
        header: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        self.0.decrypt(&nonce, header, body, tag).is_ok()
    }
}
