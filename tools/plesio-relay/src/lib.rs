//! Shell. A bad path between real sockets: datagrams go through here and are lost, late, doubled or damaged as the
//! simulator's links do it, from a seed, without the kernel's help.
//!
//! Every end of the path has a socket here. What arrives at the socket of x from the address of y leaves through the
//! socket of y to the address of x, so each end sees the others where they are told to be, and never each other.
//!
//! ```text
//!   node y ──▶ [socket of x]  link y→x  [socket of y] ──▶ node x
//!   node y ◀── [socket of x]  link x→y  [socket of y] ◀── node x
//! ```
//!
//! One thread, one wait with the precision of the system's timers. No protocol is known here.
#![forbid(unsafe_code)]

mod carrier;
mod drops;

pub use plesio_sim::impair::{Burst, ImpairError, Impairment, Rate, Tally};

use carrier::{Carrier, Order};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// How a relay begins; every field has a default.
#[derive(Clone, Copy, Debug)]
pub struct RelayConfig {
    /// What is wrong with every direction. Default nothing.
    pub impairment: Impairment,
    /// What goes to an end that came unasked is impaired too. Default true.
    pub back: bool,
    /// Draws all that happens by chance. Default 1.
    pub seed: u64,
    /// Memory of all that is under way. Default 256 MiB.
    pub held_bytes_max: u64,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { impairment: Impairment::default(), back: true, seed: 1, held_bytes_max: 256 << 20 }
    }
}

/// Why there is no relay, or no further end of it.
#[derive(Debug)]
#[non_exhaustive]
pub enum RelayError {
    /// No path is like that.
    Impairment(ImpairError),
    /// A socket cannot be had there.
    Bind {
        /// Where.
        at: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
    /// The system refuses something else that a relay needs.
    System {
        /// What.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// It has as many ends as it may have.
    Full,
    /// Its thread has ended.
    Gone,
}

impl fmt::Display for RelayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Impairment(error) => write!(f, "{error}"),
            Self::Bind { at, cause } => {
                write!(
                    f,
                    "the relay cannot listen at {at}: {cause}; take an address of this host and a free port"
                )
            }
            Self::System { what, cause } => write!(f, "the relay needs {what}: {cause}"),
            Self::Full => write!(f, "the relay has {ENDS_MAX} ends and takes no more; start another one"),
            Self::Gone => f.write_str("the relay's thread has ended; start another one"),
        }
    }
}

impl std::error::Error for RelayError {}

/// One end of the path.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct EndId(usize);

/// What became of everything so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// Over all directions.
    pub tally: Tally,
    /// Datagrams from nobody known.
    pub strangers: u64,
    /// Datagrams that an end's socket did not take.
    pub unsent: u64,
    /// Datagrams that the kernel dropped before the relay read them: it was too slow.
    pub overflowed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tally)?;
        for (count, what) in [
            (self.strangers, "from nobody known"),
            (self.unsent, "not taken by a socket"),
            (self.overflowed, "dropped by the kernel because the relay was too slow"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// A relay at work; it ends when this is dropped.
pub struct Relay {
    orders: Sender<Order>,
    wake: UnixDatagram,
    thread: Option<JoinHandle<()>>,
    opened: Mutex<BTreeMap<SocketAddr, EndId>>,
}

impl Relay {
    /// Starts one without ends.
    ///
    /// # Errors
    /// A path that cannot be, or no thread.
    pub fn start(config: RelayConfig) -> Result<Self, RelayError> {
        config.impairment.check().map_err(RelayError::Impairment)?;
        let system = |what| move |cause| RelayError::System { what, cause };
        let (wake, woken) = UnixDatagram::pair().map_err(system("a pair of sockets"))?;
        wake.set_nonblocking(true).map_err(system("a socket that does not wait"))?;
        woken.set_nonblocking(true).map_err(system("a socket that does not wait"))?;
        let (orders, inbox) = channel();
        let carrier = Carrier::new(config, inbox, woken);
        let thread = std::thread::Builder::new().name("relay".into());
        let thread = thread.spawn(move || carrier.run()).map_err(system("a thread"))?;
        Ok(Self { orders, wake, thread: Some(thread), opened: Mutex::default() })
    }

    /// Opens the socket of an end at `at`, whose port may be 0. Until [`Self::stands_for`] says where the end is,
    /// nothing is sent on to it.
    ///
    /// # Errors
    /// No socket there, or too many ends.
    pub fn open(&self, at: SocketAddr) -> Result<(EndId, SocketAddr), RelayError> {
        let (socket, bound) = carrier::bind(at)?;
        let (answer, answered) = channel();
        self.order(Order::Open { socket, answer });
        let end = answered.recv().map_err(|_| RelayError::Gone)??;
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).insert(bound, end);
        Ok((end, bound))
    }

    /// The end that [`Self::open`] opened at an address.
    #[must_use]
    pub fn end_at(&self, bound: SocketAddr) -> Option<EndId> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&bound).copied()
    }

    /// Where an end really is.
    pub fn stands_for(&self, end: EndId, real: SocketAddr) {
        self.settle(Order::Real { end, real });
    }

    /// From here on whoever sends to `end` without being known gets an end of its own, a free port here.
    pub fn admit_at(&self, end: EndId) {
        self.settle(Order::Admit { end });
    }

    /// From here on this is wrong with every direction.
    ///
    /// # Errors
    /// A path that cannot be.
    pub fn impair(&self, impairment: Impairment) -> Result<(), RelayError> {
        impairment.check().map_err(RelayError::Impairment)?;
        self.settle(Order::Impair { way: None, impairment });
        Ok(())
    }

    /// From here on this is wrong with one direction.
    ///
    /// # Errors
    /// A path that cannot be.
    pub fn impair_way(&self, from: EndId, to: EndId, impairment: Impairment) -> Result<(), RelayError> {
        impairment.check().map_err(RelayError::Impairment)?;
        self.settle(Order::Impair { way: Some((from, to)), impairment });
        Ok(())
    }

    /// What became of everything so far.
    ///
    /// # Errors
    /// The relay's thread has ended.
    pub fn report(&self) -> Result<Report, RelayError> {
        let (answer, answered) = channel();
        self.order(Order::Report { answer });
        answered.recv().map_err(|_| RelayError::Gone)
    }

    /// Orders, and waits until it holds: what is sent after this finds it done.
    fn settle(&self, order: Order) {
        let (answer, answered) = channel();
        self.order(order);
        self.order(Order::Settle { answer });
        // A thread that has ended will not do it any more.
        let _gone = answered.recv();
    }

    fn order(&self, order: Order) {
        // A thread that has ended takes no order, and a full wake-up socket has woken it already.
        let _gone = self.orders.send(order);
        let _full = self.wake.send(&[0]);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by its own hook.
            let _reported = thread.join();
        }
    }
}

/// The same kind of address, any port, from which every address of `like`'s kind can be reached.
fn any(like: SocketAddr) -> SocketAddr {
    match like {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// What a relay hears on.
type Socket = UdpSocket;

/// Ends of one relay, those that came unasked included.
pub const ENDS_MAX: usize = 256;

#[cfg(test)]
mod tests;
