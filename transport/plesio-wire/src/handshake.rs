//! The handshake's datagrams: INIT, RESPONSE, COOKIE, and what the first two carry sealed.
//!
//! ```text
//! INIT     kind | flags | pool u16 | sender u32 | noise 224 (e 32, s 48, payload 128 + 16) | mac1 16 | mac2 16
//! RESPONSE kind | flags | pool u16 | sender u32 | receiver u32 | noise 80 (e 32, payload 32 + 16) | mac1 | mac2
//! COOKIE   kind | flags | pool u16 | receiver u32 | nonce 24 | sealed cookie 16 + 16
//! ```
//!
//! Knows layouts and ranges only: what is sealed stays bytes here. Lengths are exact, flags are zero, and
//! `encode(decode(bytes)) == bytes`.

use crate::codec::{DecodeError, Pad, Reader, Wire, Writer};
use crate::{Incarnation, data};
use core::fmt;

/// Bytes of an INIT.
pub const INIT_BYTES: usize = 264;
/// Bytes of a RESPONSE.
pub const RESPONSE_BYTES: usize = 124;
/// Bytes of a COOKIE.
pub const COOKIE_BYTES: usize = 64;
/// Noise message inside an INIT.
pub const INIT_NOISE_BYTES: usize = 224;
/// Noise message inside a RESPONSE.
pub const RESPONSE_NOISE_BYTES: usize = 80;
/// Bytes of either mac, at the end of INIT and RESPONSE.
pub const MAC_BYTES: usize = 16;
/// What an INIT carries sealed.
pub const INIT_PAYLOAD_BYTES: usize = 128;
/// What a RESPONSE carries sealed.
pub const RESPONSE_PAYLOAD_BYTES: usize = 32;

/// Capability bit: this end has AES instructions, and what [`Suite::Aes128Gcm`] needs.
pub const CAPABILITY_AES: u64 = 1;
/// Capability bit: this end has AES instructions, and what [`Suite::Aegis128L`] needs.
pub const CAPABILITY_AEGIS: u64 = 2;

const KIND_INIT: u8 = 1;
const KIND_RESPONSE: u8 = 2;
const KIND_COOKIE: u8 = 3;

/// Which handshake message a datagram claims to be; `None`: none of them.
#[must_use]
pub fn kind_of(datagram: &[u8]) -> Option<Kind> {
    let first = *datagram.first()?;
    match (first >> 4 == data::VERSION, first & 15) {
        (true, KIND_INIT) => Some(Kind::Init),
        (true, KIND_RESPONSE) => Some(Kind::Response),
        (true, KIND_COOKIE) => Some(Kind::Cookie),
        _ => None,
    }
}

/// The three messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// [`Init`].
    Init,
    /// [`Response`].
    Response,
    /// [`Cookie`].
    Cookie,
}

/// Asks for a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Init {
    /// Which pool's key the sender means: sixteen bits that save strangers' work.
    pub pool_tag: u16,
    /// Receiver index that the initiator chose for what comes back.
    pub sender: u32,
    /// The first Noise message.
    pub noise: [u8; INIT_NOISE_BYTES],
    /// Proves knowledge of the responder's public key.
    pub mac1: [u8; MAC_BYTES],
    /// Proves, with a cookie, that the source address is real; else zero.
    pub mac2: [u8; MAC_BYTES],
}

/// Answers an [`Init`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Response {
    /// As in [`Init`].
    pub pool_tag: u16,
    /// Receiver index that the responder chose.
    pub sender: u32,
    /// The INIT's `sender`.
    pub receiver: u32,
    /// The second Noise message.
    pub noise: [u8; RESPONSE_NOISE_BYTES],
    /// As in [`Init`].
    pub mac1: [u8; MAC_BYTES],
    /// As in [`Init`].
    pub mac2: [u8; MAC_BYTES],
}

/// Answers an [`Init`] that came under load: come back with this.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cookie {
    /// As in [`Init`].
    pub pool_tag: u16,
    /// The INIT's `sender`.
    pub receiver: u32,
    /// Nonce of the sealed cookie.
    pub nonce: [u8; 24],
    /// The cookie, sealed for who sent the INIT.
    pub sealed: [u8; 32],
}

macro_rules! datagram {
    ($name:ident, $code:expr, $len:expr, { $($field:ident),* }) => {
        impl Wire for $name {
            fn encode(&self, writer: &mut Writer<'_>) {
                writer.write(&(data::VERSION << 4 | $code));
                writer.write(&0u8);
                $(writer.write(&self.$field);)*
            }
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let first: u8 = reader.read()?;
                if first >> 4 != data::VERSION {
                    return Err(DecodeError::Version(first >> 4));
                }
                if first & 15 != $code {
                    return Err(DecodeError::Kind(first & 15));
                }
                if reader.read::<u8>()? != 0 {
                    return Err(DecodeError::Field("flags"));
                }
                Ok(Self { $($field: reader.read()?,)* })
            }
        }

        impl $name {
            /// The datagram.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; $len] {
                let mut bytes = [0; $len];
                Writer::new(&mut bytes).write(self);
                bytes
            }

            /// Reads a whole datagram.
            ///
            /// # Errors
            /// Another length, version or kind, or a flag.
            pub fn parse(datagram: &[u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(datagram);
                let value = reader.read()?;
                reader.finish()?;
                Ok(value)
            }
        }
    };
}
datagram!(Init, KIND_INIT, INIT_BYTES, { pool_tag, sender, noise, mac1, mac2 });
datagram!(Response, KIND_RESPONSE, RESPONSE_BYTES, { pool_tag, sender, receiver, noise, mac1, mac2 });
datagram!(Cookie, KIND_COOKIE, COOKIE_BYTES, { pool_tag, receiver, nonce, sealed });

/// A closed set of names that travels as one byte.
macro_rules! byte_enum {
    ($(#[$meta:meta])* $name:ident($field:literal) { $($(#[$vmeta:meta])* $variant:ident = $code:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$vmeta])* $variant = $code,)* }

        impl Wire for $name {
            fn encode(&self, writer: &mut Writer<'_>) {
                writer.write(&(*self as u8));
            }
            fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                match reader.read::<u8>()? {
                    $($code => Ok(Self::$variant),)*
                    _ => Err(DecodeError::Field($field)),
                }
            }
        }
    };
}

byte_enum! {
    /// What a ticket admits its holder as.
    Role("role") {
        /// Contributes, votes, owns shards.
        Member = 1,
        /// Follows the log and contributes nothing.
        Observer = 2,
    }
}

byte_enum! {
    /// How the packets of a session are sealed.
    Suite("suite") {
        /// Where both ends have AES instructions, but not both the one below.
        Aes128Gcm = 1,
        /// Everywhere else.
        ChaCha20Poly1305 = 2,
        /// Where both ends have AES instructions and were built with it (draft-irtf-cfrg-aegis-aead), as it is two to three
        /// times as fast.
        Aegis128L = 3,
    }
}

impl fmt::Display for Suite {
    /// As IANA's registry of AEADs has it, in small letters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aegis128L => "aegis-128l",
            Self::Aes128Gcm => "aes-128-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        })
    }
}

/// What an INIT carries sealed: who asks, and the ticket that admits it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InitPayload {
    /// The initiator's life.
    pub incarnation: Incarnation,
    /// [`CAPABILITY_AES`], [`CAPABILITY_AEGIS`]; unknown bits are ignored, and bound by the transcript.
    pub capabilities: u64,
    /// Largest datagram the initiator receives.
    pub mtu: u16,
    /// Signed by the ticket.
    pub role: Role,
    /// Signed by the ticket.
    pub not_after_view: u32,
    /// Signed by the ticket.
    pub ed25519: [u8; 32],
    /// The operator's signature: the ticket itself.
    pub ticket: [u8; 64],
    /// Rises with every INIT of this incarnation, so that a replay is told from a retry.
    pub attempt: u64,
}

impl Wire for InitPayload {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.incarnation);
        writer.write(&self.capabilities);
        writer.write(&self.mtu);
        writer.write(&self.role);
        writer.write(&Pad::<1>);
        writer.write(&self.not_after_view);
        writer.write(&self.ed25519);
        writer.write(&self.ticket);
        writer.write(&self.attempt);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (incarnation, capabilities, mtu, role) =
            (reader.read()?, reader.read()?, reader.read()?, reader.read()?);
        reader.read::<Pad<1>>()?;
        Ok(Self {
            incarnation,
            capabilities,
            mtu,
            role,
            not_after_view: reader.read()?,
            ed25519: reader.read()?,
            ticket: reader.read()?,
            attempt: reader.read()?,
        })
    }
}

/// What a RESPONSE carries sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResponsePayload {
    /// The responder's life.
    pub incarnation: Incarnation,
    /// As in [`InitPayload`].
    pub capabilities: u64,
    /// Largest datagram the responder receives.
    pub mtu: u16,
    /// What both capabilities come to.
    pub suite: Suite,
    /// The responder's view.
    pub view: u32,
}

impl Wire for ResponsePayload {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.incarnation);
        writer.write(&self.capabilities);
        writer.write(&self.mtu);
        writer.write(&self.suite);
        writer.write(&Pad::<1>);
        writer.write(&self.view);
        writer.write(&Pad::<8>);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (incarnation, capabilities, mtu, suite) =
            (reader.read()?, reader.read()?, reader.read()?, reader.read()?);
        reader.read::<Pad<1>>()?;
        let view = reader.read()?;
        reader.read::<Pad<8>>()?;
        Ok(Self { incarnation, capabilities, mtu, suite, view })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterned<const N: usize>(start: u8) -> [u8; N] {
        core::array::from_fn(|at| start.wrapping_add(at as u8))
    }

    #[test]
    fn the_datagrams_have_their_lengths_and_survive_the_wire() {
        let init = Init { pool_tag: 7, sender: 9, noise: patterned(1), mac1: patterned(2), mac2: [0; 16] };
        assert_eq!(Init::parse(&init.to_bytes()), Ok(init));
        let response = Response {
            pool_tag: 7,
            sender: 8,
            receiver: 9,
            noise: patterned(3),
            mac1: patterned(4),
            mac2: [0; 16],
        };
        assert_eq!(Response::parse(&response.to_bytes()), Ok(response));
        let cookie = Cookie { pool_tag: 7, receiver: 9, nonce: patterned(5), sealed: patterned(6) };
        assert_eq!(Cookie::parse(&cookie.to_bytes()), Ok(cookie));
        assert_eq!(kind_of(&init.to_bytes()), Some(Kind::Init));
        assert_eq!(kind_of(&response.to_bytes()), Some(Kind::Response));
        assert_eq!(kind_of(&cookie.to_bytes()), Some(Kind::Cookie));
        assert_eq!(kind_of(&[]), None);
        assert_eq!(kind_of(&[0x14]), None, "DATA is no handshake");
    }

    #[test]
    fn every_other_length_version_kind_and_flag_is_refused() {
        let cookie = Cookie { pool_tag: 7, receiver: 9, nonce: patterned(5), sealed: patterned(6) };
        let bytes = cookie.to_bytes();
        for len_bytes in 0..COOKIE_BYTES {
            assert_eq!(Cookie::parse(&bytes[..len_bytes]), Err(DecodeError::Short));
        }
        let mut long = [0; COOKIE_BYTES + 1];
        long[..COOKIE_BYTES].copy_from_slice(&bytes);
        assert_eq!(Cookie::parse(&long), Err(DecodeError::Trailing));
        for bit in 0..16 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Cookie::parse(&bad).is_err(), "bit {bit}");
        }
        assert_eq!(Init::parse(&bytes), Err(DecodeError::Kind(3)));
    }

    #[test]
    fn the_payloads_have_their_lengths_and_refuse_what_has_no_name() {
        let asked = InitPayload {
            incarnation: Incarnation(1),
            capabilities: CAPABILITY_AES,
            mtu: 1500,
            role: Role::Member,
            not_after_view: 40,
            ed25519: patterned(1),
            ticket: patterned(2),
            attempt: 3,
        };
        let mut bytes = [0; INIT_PAYLOAD_BYTES];
        Writer::new(&mut bytes).write(&asked);
        assert_eq!(Reader::new(&bytes).read(), Ok(asked));
        bytes[18] = 9;
        assert_eq!(Reader::new(&bytes).read::<InitPayload>(), Err(DecodeError::Field("role")));
        let answer = ResponsePayload {
            incarnation: Incarnation(2),
            capabilities: 0,
            mtu: 1500,
            suite: Suite::ChaCha20Poly1305,
            view: 4,
        };
        let mut bytes = [0; RESPONSE_PAYLOAD_BYTES];
        Writer::new(&mut bytes).write(&answer);
        assert_eq!(Reader::new(&bytes).read(), Ok(answer));
        bytes[31] = 1;
        assert_eq!(Reader::new(&bytes).read::<ResponsePayload>(), Err(DecodeError::Field("pad")));
    }
}
