//! RELAY: a whole datagram of one member for another, carried by a third where one direction between the two is dead.
//!
//! ```text
//!  0 leg (0: pass it on, 1: passed on) | 1 zero | 2 whose u16: receiver on the first leg, sender on the second
//!  4 a datagram of the sender for the receiver, in its sealed form where everything is sealed
//! ```
//!
//! What is carried is sealed by its sender for its receiver, and each leg by its own two ends: whoever carries it can
//! lose it and nothing else.

use super::{DATAGRAM_BYTES_MAX, HEADER_BYTES};
use crate::codec::{DecodeError, Reader, Wire, Writer};
use crate::data::TAG_BYTES;
use crate::{Bounded, MemberIndex};

/// Longest datagram that can be carried; the carrier's own header and tag come on top.
pub const CARRIED_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - TAG_BYTES - HEADER_BYTES - 4;

/// On which of its two ways a carried datagram is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[repr(u8)]
pub enum Leg {
    /// From its sender to who carries it.
    #[default]
    First = 0,
    /// From who carries it to its receiver.
    Second = 1,
}

/// See the module.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Relay {
    /// Which way it is on.
    pub leg: Leg,
    /// Index, in the view of the header, of the end that the outer header does not name.
    pub whose: MemberIndex,
    /// The datagram; at least a header.
    pub datagram: Bounded<u8, CARRIED_BYTES_MAX>,
}

impl Wire for Relay {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.put(&[self.leg as u8, 0]);
        writer.write(&self.whose);
        writer.put(&self.datagram);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let leg = match reader.read::<u8>()? {
            0 => Leg::First,
            1 => Leg::Second,
            _ => return Err(DecodeError::Field("leg")),
        };
        if reader.read::<u8>()? != 0 {
            return Err(DecodeError::Field("pad"));
        }
        let whose = reader.read()?;
        let count = reader.remaining();
        if !(HEADER_BYTES..=CARRIED_BYTES_MAX).contains(&count) {
            return Err(DecodeError::Field("datagram"));
        }
        Ok(Self { leg, whose, datagram: Bounded::from_slice(reader.take(count)?) })
    }
}
