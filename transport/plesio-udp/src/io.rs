//! The interface to bulk datagrams: what a node's loop calls, and what it is asked and told.

use std::net::SocketAddr;
use std::time::Duration;

use plesio_session::{DataOpener, DataSealer, Refusal};
use plesio_wire::Span;
use plesio_wire::data::Header;

use crate::engine::Lane;
use crate::{IoError, OpenError, SendError, Tier, Waker};

/// Most bytes of a stranger's datagram that are handed up.
pub const STRANGER_BYTES_MAX: usize = 2048;

/// What keeps datagrams from being read or altered on their way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Protection {
    /// Every datagram is sealed with its lane's keys; what is not is dropped.
    #[default]
    Sealed,
    /// A checksum against accidents, nothing against anybody; addresses off this host are refused.
    Plaintext,
    /// The same with any address: for a network that nobody else can reach.
    Captive,
}

impl Protection {
    /// Whether datagrams go as they are.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        matches!(self, Self::Plaintext | Self::Captive)
    }
}

/// Where received payload is put.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Placement {
    /// By the kernel straight into its window, after a look at the first header of each train.
    #[default]
    Scatter,
    /// By the kernel into a buffer that stays in the cache, and from there by us into the window.
    Bounce,
}

impl Placement {
    /// What measured better for chunks of this size: a look costs a call for each train, a bounce a move of every byte,
    /// unless it is opened on the way (`opens_apart`: [`plesio_session::Suites::opens_apart`], of a sealed port).
    #[must_use]
    pub const fn for_chunk(chunk_bytes: u32, opens_apart: bool) -> Self {
        if chunk_bytes >= SCATTER_BYTES_MIN && !opens_apart { Self::Scatter } else { Self::Bounce }
    }
}

const SCATTER_BYTES_MIN: u32 = 16 << 10;

/// Openers of one lane: the keys in use, those before, and those of a handshake under way.
pub const OPENERS_MAX: usize = 3;

/// How the data port is opened.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// Our address; port 0 lets the kernel choose.
    pub bind: SocketAddr,
    /// Receive buffer of each socket.
    pub receive_buffer_bytes: usize,
    /// Send buffer of each socket.
    pub send_buffer_bytes: usize,
    /// Most peers at a time.
    pub peers_max: u16,
    /// Whether to use segmentation offload where the kernel has it.
    pub offload: bool,
    /// Where received payload is put.
    pub placement: Placement,
    /// Whether datagrams are sealed.
    pub protection: Protection,
}

impl SocketConfig {
    /// 4 MiB buffers, 64 peers, offload on, payload scattered, sealed.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 4 << 20,
            peers_max: 64,
            offload: true,
            placement: Placement::Scatter,
            protection: Protection::Sealed,
        }
    }
}

/// Index of a peer at this socket. Reused after the peer is removed.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Peer(pub u16);

/// How much of a train was taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sent {
    /// Chunks, counted from the first.
    pub chunks: usize,
    /// Their payload.
    pub payload_bytes: u64,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ready {
    /// Something can be received.
    pub readable: bool,
    /// A socket that was full takes data again.
    pub writable: bool,
    /// Somebody called [`Waker::wake`].
    pub woken: bool,
    /// The kernel reports what became of datagrams (the time-stamped socket only).
    pub reports: bool,
    /// Nothing of the above within the time.
    pub timed_out: bool,
}

/// What has happened since the socket was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Datagrams handed to the kernel.
    pub datagrams_sent: u64,
    /// Payload of DATA among them.
    pub payload_bytes_sent: u64,
    /// Calls that sent.
    pub send_calls: u64,
    /// Datagrams taken from the kernel.
    pub datagrams_received: u64,
    /// Trains (one or more datagrams from one call) taken from the kernel.
    pub trains_received: u64,
    /// Payload of DATA that was checked and placed.
    pub payload_bytes_received: u64,
    /// Payload of DATA written by this program on the way to the kernel: none in plaintext; sealed, by the cipher,
    /// and once more into the packet where that does not do both.
    pub copied_bytes_sent: u64,
    /// Payload of DATA written by this program after the kernel had delivered it: moves, and passes of the cipher.
    pub copied_bytes_received: u64,
    /// Not a datagram of ours: header, kind, flags or length.
    pub dropped_malformed: u64,
    /// The checksum does not fit.
    pub dropped_checksum: u64,
    /// DATA for no window, or that was there already.
    pub dropped_unplaced: u64,
    /// DATA whose window somebody held.
    pub dropped_busy: u64,
    /// From an address that is no peer.
    pub dropped_stranger: u64,
    /// Sealed datagrams that somebody has altered or made up.
    pub dropped_forged: u64,
    /// Sealed datagrams that came twice, or too late to tell.
    pub dropped_replayed: u64,
    /// Sealed datagrams of no session of their lane, or of one whose keys are used up.
    pub dropped_session: u64,
    /// Plaintext datagrams on a protected port.
    pub dropped_plaintext: u64,
    /// Sealed datagrams that the kernel would not take; lost, because their numbers are used.
    pub dropped_unsent: u64,
    /// Dropped by the kernel because the receive buffer was full.
    pub dropped_kernel: u64,
    /// Times a peer's host said that nobody listens.
    pub refused: u64,
    /// Other errors the kernel reported while receiving.
    pub receive_errors: u64,
    /// Paths on which the kernel refused segmentation, and which go on without.
    pub offload_refused: u64,
}

impl Counters {
    /// Counts a datagram that could not be opened.
    pub(crate) fn note_refusal(&mut self, refusal: Refusal, datagram: &[u8]) {
        *(match refusal {
            Refusal::Authentication => &mut self.dropped_forged,
            Refusal::Replay => &mut self.dropped_replayed,
            Refusal::UnknownReceiver | Refusal::Exhausted => &mut self.dropped_session,
            _ if Header::parse(datagram).is_ok() => &mut self.dropped_plaintext,
            _ => &mut self.dropped_malformed,
        }) += 1;
    }

    /// Takes over a socket's count of what the kernel has dropped.
    pub(crate) fn note_overflow(&mut self, lane: &mut Lane, count: u32) {
        self.dropped_kernel += u64::from(count.wrapping_sub(lane.overflow_seen));
        lane.overflow_seen = count;
    }

    /// Datagrams that were not delivered, all causes.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped_malformed
            + self.dropped_checksum
            + self.dropped_unplaced
            + self.dropped_busy
            + self.dropped_stranger
            + self.dropped_forged
            + self.dropped_replayed
            + self.dropped_session
            + self.dropped_plaintext
            + self.dropped_kernel
    }
}

/// A data port with its peers.
pub trait DatagramIo {
    /// Our address, with the port the kernel chose.
    fn local_address(&self) -> SocketAddr;

    /// Receive buffer that the kernel granted each peer's socket; half of it is what a peer may have in flight.
    fn receive_buffer_bytes(&self) -> usize;

    /// Which backend this is.
    fn tier(&self) -> Tier;

    /// Ends a [`Self::wait`] from another thread.
    fn waker(&self) -> Waker;

    /// Opens a lane to a peer: a socket of its own on the same port.
    ///
    /// # Errors
    /// An address off this host or of another family, too many peers, or a kernel that refuses.
    fn add_peer(&mut self, address: SocketAddr) -> Result<Peer, OpenError>;

    /// Closes a lane; unknown peers are ignored.
    fn remove_peer(&mut self, peer: Peer);

    /// From now on what goes out on this lane is sealed with this; unknown peers are ignored.
    fn set_sealer(&mut self, peer: Peer, sealer: DataSealer);

    /// Nothing can be sent on this lane any more until it gets another sealer.
    fn remove_sealer(&mut self, peer: Peer);

    /// What arrives on this lane may be sealed for this one too, and is handed up with `receiver` in its header: the
    /// keys tell whose it is. The oldest goes when there are more than [`OPENERS_MAX`].
    fn add_opener(&mut self, peer: Peer, opener: DataOpener, receiver: u32);

    /// What arrives under this index is not opened any more.
    fn remove_opener(&mut self, peer: Peer, local: u32);

    /// Sends a whole datagram to any address, as it is: how sessions are made.
    ///
    /// # Errors
    /// It was not sent.
    fn send_stranger(&mut self, to: SocketAddr, datagram: &[u8]) -> Result<(), SendError>;

    /// Sends chunks from where they lie. Payload length and checksum of each header are filled in here.
    ///
    /// Chunks that follow each other in one message travel as one train. Fewer may be taken than were given: the rest is
    /// to be given again when a wait says writable. What was sealed and then refused by the kernel counts as taken, and is
    /// lost: its packet numbers are used.
    ///
    /// # Errors
    /// When not one chunk was taken.
    fn send_train(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> Result<Sent, SendError>;

    /// Sends one datagram whose payload may lie anywhere, and is copied.
    ///
    /// # Errors
    /// It was not sent.
    fn send_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) -> Result<(), SendError>;

    /// Waits for all lanes and the waker at once. `None` waits for ever.
    ///
    /// # Errors
    /// The backend is broken.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Ready, IoError>;

    /// Takes what has arrived, at most about `trains_max` trains. True: there may be more.
    ///
    /// # Errors
    /// The backend is broken.
    fn receive(&mut self, sink: &mut dyn DatagramSink, trains_max: usize) -> Result<bool, IoError>;

    /// What has happened so far.
    fn counters(&self) -> Counters;

    /// A remark to be said once, such as an offload that a path has refused.
    fn poll_note(&mut self) -> Option<String>;
}

/// Who knows where payload belongs and takes what has arrived.
pub trait DatagramSink {
    /// Where the payload of this DATA datagram belongs; its length is `header.payload_bytes`. `None`: no window has it,
    /// or it is there already.
    ///
    /// The header may be a prediction, and is not checked yet: this is a question and must change nothing. The span
    /// may be written even if the datagram then proves bad, so it must be a hole that nobody reads.
    fn place(&mut self, peer: Peer, header: &Header) -> Option<Span>;

    /// A checked chunk lies at `span`. Its region may be held until [`DatagramIo::receive`] returns: read it then.
    fn handle_chunk(&mut self, peer: Peer, header: &Header, span: Span);

    /// A checked DATA datagram that [`Self::place`] has refused: a duplicate can be acknowledged again.
    fn handle_unplaced(&mut self, _peer: Peer, _header: &Header) {}

    /// A checked datagram of another kind.
    fn handle_control(&mut self, peer: Peer, header: &Header, payload: &[u8]);

    /// The first datagram was opened with the opener of this index: the peer has its keys.
    fn handle_confirmed(&mut self, _peer: Peer, _local: u32) {}

    /// A datagram of the session's own was opened with the opener of this index.
    fn handle_own(&mut self, _peer: Peer, _local: u32) {}

    /// A datagram from an address that is no peer, or one that makes a session: raw, unchecked, at most
    /// [`STRANGER_BYTES_MAX`].
    fn handle_stranger(&mut self, _from: SocketAddr, _datagram: &[u8]) {}
}
