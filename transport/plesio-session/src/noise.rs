//! Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, as far as two messages need it.
//!
//! Knows `snow` and nobody else does. The prologue binds what the INIT says in clear; what the RESPONSE says
//! in clear goes into the keys, so a changed index gives keys that open nothing.

use alloc::boxed::Box;

use plesio_wire::handshake::{
    INIT_NOISE_BYTES, INIT_PAYLOAD_BYTES, RESPONSE_NOISE_BYTES, RESPONSE_PAYLOAD_BYTES, Suite,
};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroize;

use crate::{Entropy, Secret};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8; 16] = b"plesio session 1";
/// Bytes of an INIT in clear before the Noise message.
pub(crate) const CLEAR_BYTES: usize = 8;

/// The default primitives with randomness of ours.
struct Seeded(Secret<32>);
struct SeededRandom(Entropy);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(Entropy::new(&self.0))))
    }
    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }
    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }
    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// What both sides must give: who they are and the pool's key.
pub(crate) struct Local<'a> {
    pub(crate) private: &'a Secret<32>,
    pub(crate) psk: &'a Secret<32>,
    pub(crate) mesh: u64,
}

impl Local<'_> {
    fn build(
        &self,
        clear: &[u8; CLEAR_BYTES],
        remote: Option<&[u8; 32]>,
        seed: Secret<32>,
    ) -> Result<HandshakeState, snow::Error> {
        let mut prologue = [0; 32];
        prologue[..16].copy_from_slice(PROLOGUE);
        prologue[16..24].copy_from_slice(&self.mesh.to_le_bytes());
        prologue[24..].copy_from_slice(clear);
        let params: NoiseParams = PATTERN.parse().expect("the pattern is well-formed");
        let builder = Builder::with_resolver(params, Box::new(Seeded(seed)))
            .local_private_key(self.private.expose())?
            .psk(2, self.psk.expose())?
            .prologue(&prologue)?;
        match remote {
            Some(public) => builder.remote_public_key(public)?.build_initiator(),
            None => builder.build_responder(),
        }
    }
}

/// The initiator's half between INIT and RESPONSE.
pub(crate) struct Initiator(Box<HandshakeState>);

impl Initiator {
    /// The first message; fails only for a public key that no key exchange accepts.
    pub(crate) fn start(
        local: &Local<'_>,
        remote: &[u8; 32],
        clear: &[u8; CLEAR_BYTES],
        payload: &[u8; INIT_PAYLOAD_BYTES],
        seed: Secret<32>,
    ) -> Option<(Self, [u8; INIT_NOISE_BYTES])> {
        let mut state = local.build(clear, Some(remote), seed).ok()?;
        let mut message = [0; INIT_NOISE_BYTES];
        let len_bytes = state.write_message(payload, &mut message).ok()?;
        assert_eq!(len_bytes, INIT_NOISE_BYTES, "the layout and the pattern agree");
        Some((Self(Box::new(state)), message))
    }

    /// Reads the RESPONSE; a message that does not fit changes nothing.
    pub(crate) fn finish(
        &mut self,
        message: &[u8; RESPONSE_NOISE_BYTES],
    ) -> Option<([u8; RESPONSE_PAYLOAD_BYTES], Secrets)> {
        let mut payload = [0; RESPONSE_PAYLOAD_BYTES];
        // A mended message must still find the state that the INIT left, so a broken one sees a copy of it
        // only through `snow`, which restores what it had after a failed read.
        let len_bytes = self.0.read_message(message, &mut payload).ok()?;
        (len_bytes == RESPONSE_PAYLOAD_BYTES).then(|| (payload, Secrets::split(&mut self.0)))
    }
}

/// The responder's half after a valid INIT.
pub(crate) struct Responder {
    state: Box<HandshakeState>,
    /// Who asks.
    pub(crate) remote: [u8; 32],
    /// What it asks with.
    pub(crate) payload: [u8; INIT_PAYLOAD_BYTES],
}

impl Responder {
    pub(crate) fn read(
        local: &Local<'_>,
        clear: &[u8; CLEAR_BYTES],
        message: &[u8; INIT_NOISE_BYTES],
        seed: Secret<32>,
    ) -> Option<Self> {
        let mut state = local.build(clear, None, seed).ok()?;
        let mut payload = [0; INIT_PAYLOAD_BYTES];
        let len_bytes = state.read_message(message, &mut payload).ok()?;
        let remote = state.get_remote_static()?.try_into().ok()?;
        (len_bytes == INIT_PAYLOAD_BYTES).then(|| Self { state: Box::new(state), remote, payload })
    }

    pub(crate) fn answer(
        mut self,
        payload: &[u8; RESPONSE_PAYLOAD_BYTES],
    ) -> Option<([u8; RESPONSE_NOISE_BYTES], Secrets)> {
        let mut message = [0; RESPONSE_NOISE_BYTES];
        let len_bytes = self.state.write_message(payload, &mut message).ok()?;
        assert_eq!(len_bytes, RESPONSE_NOISE_BYTES, "the layout and the pattern agree");
        let secrets = Secrets::split(&mut self.state);
        Some((message, secrets))
    }
}

/// What a handshake leaves: a secret for each direction, and the transcript's hash.
pub(crate) struct Secrets {
    from_initiator: Secret<32>,
    from_responder: Secret<32>,
    transcript: [u8; 32],
}

/// The keys of one end: for what it sends and for what it receives.
pub(crate) struct Keys {
    pub(crate) data_send: Secret<32>,
    pub(crate) data_receive: Secret<32>,
    pub(crate) sideband_send: Secret<32>,
    pub(crate) sideband_receive: Secret<32>,
}

impl Secrets {
    fn split(state: &mut HandshakeState) -> Self {
        let mut transcript = [0; 32];
        transcript.copy_from_slice(state.get_handshake_hash());
        let (mut first, mut second) = state.dangerously_get_raw_split();
        let secrets =
            Self { from_initiator: Secret::new(first), from_responder: Secret::new(second), transcript };
        first.zeroize();
        second.zeroize();
        secrets
    }

    /// Keys that depend on everything both sides said, in clear and sealed.
    pub(crate) fn keys(&self, initiator: bool, indices: (u32, u32), suite: Suite) -> Keys {
        let derive = |context: &str, secret: &Secret<32>| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(secret.expose()).update(&self.transcript);
            hasher.update(&indices.0.to_le_bytes()).update(&indices.1.to_le_bytes()).update(&[suite as u8]);
            Secret::new(*hasher.finalize().as_bytes())
        };
        let (send, receive) = if initiator {
            (&self.from_initiator, &self.from_responder)
        } else {
            (&self.from_responder, &self.from_initiator)
        };
        Keys {
            data_send: derive("plesio data plane v1", send),
            data_receive: derive("plesio data plane v1", receive),
            sideband_send: derive("plesio sideband v1", send),
            sideband_receive: derive("plesio sideband v1", receive),
        }
    }
}
