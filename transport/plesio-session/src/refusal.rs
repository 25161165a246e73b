//! Why a datagram was dropped, and how often: every cause has its name and its counter.

use core::fmt;

macro_rules! refusals {
    ($($(#[$meta:meta])* $name:ident => $text:literal),* $(,)?) => {
        /// Why a datagram was dropped; what it left is what there was before.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        pub enum Refusal { $($(#[$meta])* $name,)* }

        impl Refusal {
            /// All of them, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text,)* })
            }
        }
    };
}
refusals! {
    /// Length, version, kind, flags.
    Malformed => "not a datagram of ours: length, version, kind or flags",
    /// Another layout version.
    Version => "of another version of the protocol; give both nodes the same version of plesio",
    /// Another pool's tag.
    Pool => "of another pool; give both nodes the same pool key",
    /// Its sender does not know our public key, or it was altered.
    Mac1 => "mac1 does not fit; the sender has another public key for this node",
    /// Its cookie is not one that its source got from us lately.
    Mac2 => "mac2 does not fit: the cookie is too old, or of another address",
    /// Too many from its source.
    RateLimit => "too many handshakes from this prefix; it may come back in a second",
    /// Answered with a COOKIE: come back with it.
    CookieDue => "under load: answered with a cookie",
    /// The Noise message does not open.
    Handshake => "the handshake does not open; compare pool key and node keys",
    /// What opened has a field out of range.
    Payload => "a sealed field is out of range; the peer speaks another version",
    /// No operator signed the ticket for this node.
    TicketSignature => "the ticket is not signed by an operator of this mesh for this key",
    /// The ticket's last view is over.
    TicketExpire => "the ticket has ended; ask the operator for a new one",
    /// Our own key came back.
    OwnKey => "it carries this node's own key; two nodes use one key file, or it was reflected",
    /// An INIT or packet that was accepted before, or older than the window.
    Replay => "seen before, or too old to tell",
    /// Both asked at once, and ours goes first.
    Simultaneous => "both nodes asked at once; the lower key's handshake goes on",
    /// No room for another peer.
    Full => "no room for another peer",
    /// No session or attempt has this receiver index.
    UnknownReceiver => "of no session that is alive",
    /// The suite is not what both capabilities come to.
    Suite => "the suite is not what both nodes agreed to",
    /// A cookie that does not open.
    Cookie => "the cookie does not answer our handshake",
    /// The tag does not fit.
    Authentication => "the tag does not fit; the datagram was altered or has another key",
    /// The session has carried what its keys may carry.
    Exhausted => "the session's keys are used up",
}

impl core::error::Error for Refusal {}

/// How often each [`Refusal`] happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counters([u64; Refusal::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Refusal::ALL.len()])
    }
}

impl Counters {
    /// How often `refusal` happened.
    #[must_use]
    pub const fn of(&self, refusal: Refusal) -> u64 {
        self.0[refusal as usize]
    }

    /// All together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Counts one: openers work where no machine is, and their owner keeps counters of its own.
    pub const fn count(&mut self, refusal: Refusal) {
        self.0[refusal as usize] += 1;
    }
}
