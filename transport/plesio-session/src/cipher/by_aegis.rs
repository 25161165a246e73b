//! AEGIS-128L (draft-irtf-cfrg-aegis-aead) by `libaegis`: C with AES instructions.

use aegis::aegis128l::Aegis128L;
use plesio_wire::data::TAG_BYTES;
use zeroize::Zeroizing;

pub(crate) struct Aegis(Zeroizing<[u8; 16]>);

impl Aegis {
    pub(crate) fn is_available() -> bool {
        #[cfg(target_arch = "x86_64")]
        {
            std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("avx")
        }
        #[cfg(target_arch = "aarch64")]
        {
            std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("aes")
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        {
            false
        }
    }

    pub(crate) fn new(key: &[u8; 16]) -> Self {
        Self(Zeroizing::new(*key))
    }

    fn with(&self, nonce: [u8; 16]) -> Aegis128L<TAG_BYTES> {
        Aegis128L::new(&self.0, &nonce)
    }

    pub(crate) fn seal(&self, nonce: [u8; 16], header: &[u8], body: &mut [u8]) -> [u8; TAG_BYTES] {
        self.with(nonce).encrypt_in_place(body, header)
    }

    /// In one pass from `plain` to `body`; both have one length.
    pub(crate) fn seal_apart(
        &self,
        nonce: [u8; 16],
        header: &[u8],
        plain: &[u8],
        body: &mut [u8],
    ) -> [u8; TAG_BYTES] {
        let mut encryptor = self.with(nonce).encryptor(header);
        encryptor.update(plain, body);
        encryptor.finalize()
    }

    pub(crate) fn open(
        &self,
        nonce: [u8; 16],
        header: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        self.with(nonce).decrypt_in_place(body, tag, header).is_ok()
    }

    /// In one pass from `sealed` to `body`; both have one length. `body` is wiped where the tag does not fit.
    pub(crate) fn open_apart(
        &self,
        nonce: [u8; 16],
        header: &[u8],
        sealed: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> bool {
        let cipher = self.with(nonce);
        let mut decryptor = cipher.decryptor(header, body);
        decryptor.update(sealed).is_ok() && decryptor.finalize(tag).is_ok()
    }
}
