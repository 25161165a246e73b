//! One peer, one session: both directions of the reliable datagram machine, and what a caller sees of it.
//!
//! Sending lives in `connection/send.rs`, acknowledgements of what was sent in `connection/acks.rs`,
//! receiving in `connection/receive.rs`, congestion in `connection/control.rs`, chunk
//! sizes in `connection/cut.rs`. Fairness among peers is the caller's, who polls them in turn.

mod acks;
mod control;
mod cut;
mod receive;
mod send;

use crate::answers::Answers;
use crate::arrivals::Arrivals;
use crate::config::Config;
use crate::congestion::CongestionController;
use crate::error::{ConfigError, Failure, PostError, Refused, SendError};
use crate::flight::Flight;
use crate::outbox::Outbox;
use crate::rtt::Rtt;
use crate::search::Search;
use crate::stats::Stats;
use crate::windows::Windows;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use control::Path;
use plesio_wire::data::{Bye, CONTROL_PACKET_FIRST, COUNT_MAX, Flags, Header, Kind, MessageId, packet_first};
use plesio_wire::{Instant, Span};

/// What a caller learns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A message is complete in its window; the window is no longer posted.
    Received {
        /// Which.
        message: MessageId,
        /// Where it lies, exact length.
        span: Span,
    },
    /// The peer acknowledged every chunk; the span may be reused.
    Delivered {
        /// Which.
        message: MessageId,
    },
    /// The message was given up before every chunk was acknowledged; the span may be reused.
    Aborted {
        /// Which.
        message: MessageId,
        /// Why.
        failure: Failure,
    },
    /// The window was taken back before its message was complete; its memory may be reused.
    Withdrawn {
        /// Which.
        handle: u16,
        /// Why.
        failure: Failure,
    },
    /// Three probe timeouts passed and nothing of the peer's was heard: it may be gone, which the sideband decides. The
    /// connection goes on asking, ever more rarely.
    Silent {
        /// When it was heard last.
        heard: Instant,
    },
    /// The peer that was silent is heard again.
    Heard,
    /// The peer said goodbye.
    Gone {
        /// As in BYE: 0 leaving, 1 restarting, 2 refused, 3 its packet numbers are used up.
        reason: u16,
    },
    /// This side's packet numbers are used up and the connection has ended; open one under new keys or on
    /// another channel.
    Exhausted,
}

/// The machine for one peer and one session.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    open: bool,
    /// The peer is reported silent.
    silent: bool,
    /// A goodbye to be said.
    bye: Option<u16>,
    events: VecDeque<Event>,
    stats: Stats,
    /// Count of the next control datagram.
    control_next: u64,

    outbox: Outbox,
    flight: Flight,
    rtt: Rtt,
    train: u32,
    path: Path,
    search: Search,
    /// What the peer allows in total, whole chunks counted.
    credit_limit_bytes: u64,
    /// Payload sent since an acknowledgement was last asked for or came.
    unasked_bytes: u64,
    /// The newest train did not ask, though nothing followed it.
    spared: bool,
    /// When a packet in flight counts as lost by age.
    loss_at: Option<Instant>,
    /// When to ask, because credit or packet numbers ran out.
    ping_at: Option<Instant>,
    pings: u32,
    ping_due: bool,
    /// Number of the next question about a message.
    question_next: u32,
    floor_sent: Instant,
    /// Highest floor that the peer may know.
    floor_told: u64,

    windows: Windows,
    arrivals: Arrivals,
    granted_bytes: u64,
    /// What the peer cuts its messages by now.
    peer_chunk_bytes: u32,
    ack_due: bool,
    ack_at: Option<Instant>,
    /// When the last acknowledgement went.
    acked: Instant,
    unacked_bytes: u64,
    /// When to ask for the holes of a message whose end is here, and how often that was done.
    holes_at: Option<Instant>,
    holes_asked: u32,
    asks_holes: bool,
    /// Questions of the peer's to be answered.
    answers: Answers,
    credit_due: bool,
    /// The peer was granted more and does not know.
    grant_due: bool,
    /// A chunk found no window since credit was last sent.
    missed: bool,
}

impl Connection {
    /// A fresh session.
    ///
    /// # Errors
    /// A parameter is out of range.
    pub fn new(config: &Config, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        Self::with_controller(config, now, config.congestion.controller(config.rtt_initial_ns))
    }

    /// The same with a congestion controller of the caller's own; `config.congestion` says nothing then.
    ///
    /// # Errors
    /// A parameter is out of range.
    pub fn with_controller(
        config: &Config,
        now: Instant,
        controller: Box<dyn CongestionController>,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        let search = Search::new(config.search, config.chunk_bytes, config.tag_bytes, now);
        Ok(Self {
            config: *config,
            open: true,
            silent: false,
            bye: None,
            events: VecDeque::with_capacity(2 * config.messages_max + 2 * config.windows_max + 4),
            stats: Stats { heard: now, ..Stats::default() },
            control_next: 0,
            outbox: Outbox::new(config.messages_max),
            flight: Flight::new(config.packets_max(search.chunk_bytes())),
            search,
            rtt: Rtt::new(config.rtt_initial_ns, now),
            train: 0,
            path: Path::new(config, controller, now),
            credit_limit_bytes: 0,
            unasked_bytes: 0,
            spared: false,
            loss_at: None,
            ping_at: None,
            pings: 0,
            ping_due: false,
            question_next: 1,
            floor_sent: now,
            floor_told: 0,
            windows: Windows::new(config.chunk_bytes, config.windows_max),
            arrivals: Arrivals::new(),
            granted_bytes: 0,
            peer_chunk_bytes: config.chunk_bytes,
            ack_due: false,
            ack_at: None,
            acked: now,
            unacked_bytes: 0,
            holes_at: None,
            holes_asked: 0,
            asks_holes: false,
            answers: Answers::default(),
            credit_due: false,
            grant_due: false,
            missed: false,
        })
    }

    /// Queues a whole message; its span must not change until `Delivered`, `Aborted` or an abort. Messages
    /// of one handle go one after the other, those of different handles side by side.
    ///
    /// # Errors
    /// The peer is gone, the queue is full, the message is empty or queued already.
    pub fn handle_send(&mut self, now: Instant, message: MessageId, span: Span) -> Result<(), SendError> {
        self.send(now, message, span, self.config.deadline_ns.map(|deadline_ns| now.after(deadline_ns)))
    }

    /// The same, to be delivered by `deadline` or given up.
    ///
    /// # Errors
    /// As [`handle_send`](Self::handle_send); the deadline has passed.
    pub fn handle_send_by(
        &mut self,
        now: Instant,
        message: MessageId,
        span: Span,
        deadline: Instant,
    ) -> Result<(), SendError> {
        self.send(now, message, span, Some(deadline))
    }

    fn send(
        &mut self,
        now: Instant,
        message: MessageId,
        span: Span,
        deadline: Option<Instant>,
    ) -> Result<(), SendError> {
        if !self.open {
            return Err(SendError::Departed);
        }
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(SendError::DeadlineExceeded);
        }
        if self.outbox.is_full() && self.outbox.find(message).is_none() {
            return Err(SendError::WindowFull {
                messages_max: self.config.messages_max,
                in_flight_bytes: self.flight.in_flight_bytes(),
                window_bytes: self.path.window_bytes(),
            });
        }
        let waits = self.outbox.push(now, message, span, self.search.chunk_bytes(), deadline)?;
        // What it waits for may be spared a question that is worth asking now.
        self.ping_due |= waits && core::mem::take(&mut self.spared);
        Ok(())
    }

    /// Forgets a queued message: its span may be reused, no later train refers to it.
    pub fn handle_abort(&mut self, message: MessageId) {
        if let Some(slot) = self.outbox.find(message) {
            self.drop_message(slot);
        }
    }

    /// Posts a window: `span` takes the message of that sequence, or without one the next message newer than
    /// the last that was completed or refused on this handle. A window posted there before is withdrawn;
    /// posting the same again changes nothing.
    ///
    /// A message that was refused begun, by a withdrawal, is taken up where it was if the next window of its handle
    /// has its sequence and its `span`: then who posts answers for it that those bytes are as they were, or that what
    /// is completed is checked by a digest.
    ///
    /// # Errors
    /// The peer is gone, the window is empty, the table is full, or that sequence is over.
    pub fn handle_post(&mut self, handle: u16, sequence: Option<u16>, span: Span) -> Result<(), PostError> {
        if !self.open {
            return Err(PostError::Departed);
        }
        let idle = self.windows.posted() == 0;
        self.windows.post(handle, sequence, span)?;
        // The peer may be waiting for this window, or for any grant at all.
        self.credit_due |= self.missed || (idle && self.limit_bytes() > self.granted_bytes);
        Ok(())
    }

    /// The same until `deadline`: then the window is withdrawn, and that is an event.
    ///
    /// # Errors
    /// As [`handle_post`](Self::handle_post); the deadline has passed.
    pub fn handle_post_by(
        &mut self,
        now: Instant,
        handle: u16,
        sequence: Option<u16>,
        span: Span,
        deadline: Instant,
    ) -> Result<(), PostError> {
        if deadline <= now {
            return Err(PostError::DeadlineExceeded);
        }
        self.handle_post(handle, sequence, span)?;
        self.windows.limit(handle, deadline);
        Ok(())
    }

    /// Takes a posted window back; a message begun in it is refused, unless the same window is posted again.
    pub fn handle_withdraw(&mut self, handle: u16) {
        self.windows.withdraw(handle);
    }

    /// Messages before `sequence` came another way and are over: numbers go round, and one that is far ahead of the last
    /// that came here would be taken for an old one.
    pub fn handle_passed(&mut self, handle: u16, sequence: u16) {
        self.windows.pass(handle, sequence);
    }

    /// Takes a checked datagram. DATA only after `place` named its span and the payload lies there; nothing
    /// may be posted or withdrawn in between. `body` is a control datagram's payload.
    ///
    /// # Errors
    /// The datagram meant nothing new; it is counted, and a repeated chunk will be acknowledged again.
    /// [`Refused::Unposted`] for a PING: the peer waits to send that message, and no window is posted for it.
    pub fn handle_datagram(&mut self, now: Instant, header: &Header, body: &[u8]) -> Result<(), Refused> {
        self.admit(header)?;
        self.note_heard(now);
        if header.kind == Kind::Data {
            return self.handle_data(now, header);
        }
        let taken = match header.kind {
            Kind::Ack => self.handle_ack(now, header, body),
            Kind::Credit => self.handle_credit(now, body),
            Kind::Ping => self.handle_ping(header, body),
            Kind::Probe => self.handle_probe(header),
            Kind::Bye => self.handle_bye(body),
            kind => Err(Refused::Kind(kind)),
        };
        self.stats.dropped_control += u64::from(taken.is_err_and(|refused| refused != Refused::Unposted));
        taken
    }

    /// Takes a checked DATA datagram for which `place` had no span, so that it is counted, and acknowledged
    /// where it is a repetition.
    pub fn handle_unplaced(&mut self, now: Instant, header: &Header) -> Refused {
        if let Err(refused) = self.admit(header) {
            return refused;
        }
        if header.kind != Kind::Data {
            return Refused::Kind(header.kind);
        }
        self.note_heard(now);
        self.refuse_data(now, header)
    }

    /// Moves time: losses, probes, overdue acknowledgements.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.open {
            return;
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_due = true;
        }
        if self.ping_at.is_some_and(|at| at <= now) {
            self.ping_at = None;
            self.note_silence(now, self.pings);
            self.pings = self.pings.saturating_add(1);
            self.ping_due = true;
        }
        self.ask_for_holes(now);
        self.give_up_late(now);
        if self.loss_at.is_some_and(|at| at <= now) {
            self.detect_losses(now);
            self.report(now);
        }
        self.path.handle_timeout(now);
        self.ask_silent(now);
    }

    /// When to call `handle_timeout` at the latest, if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.open {
            return None;
        }
        let messages = self.outbox.iter().filter_map(|m| m.timeout(self.stats.heard, &self.rtt));
        messages
            .chain(self.windows.deadline())
            .chain(self.probe_timeout())
            .chain(self.ack_at)
            .chain(self.holes_at)
            .chain(self.ping_at)
            .chain(self.loss_at)
            .chain(self.path.timeout())
            .min()
    }

    /// Whether no message waits to be sent or acknowledged: what is sent then answers the peer or a timer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outbox.len() == 0
    }

    /// What happened, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends the session: queued messages are aborted, windows withdrawn, and a BYE is said once.
    pub fn handle_close(&mut self, reason: u16) {
        if self.open {
            self.bye = Some(reason);
            self.end(Failure::Aborted);
        }
    }

    /// Whether the session goes on.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            srtt_ns: self.rtt.sample(),
            in_flight_bytes: self.flight.in_flight_bytes(),
            window_bytes: self.path.window_bytes(),
            pace: self.path.rate(),
            chunk_bytes: self.search.chunk_bytes(),
            messages: self.outbox.len(),
            ..self.stats
        }
    }

    /// Checks what every datagram must fulfil.
    fn admit(&mut self, header: &Header) -> Result<(), Refused> {
        if header.receiver != self.config.local {
            self.stats.dropped_receiver += 1;
            return Err(Refused::Receiver);
        }
        if !self.open {
            return Err(Refused::Departed);
        }
        if !self.numbers(header) {
            self.stats.dropped_control += 1;
            return Err(Refused::Packet);
        }
        Ok(())
    }

    /// Whether the packet number is of this channel, and of the lane of its kind.
    const fn numbers(&self, header: &Header) -> bool {
        let lane = if matches!(header.kind, Kind::Data) { 0 } else { CONTROL_PACKET_FIRST };
        header.packet & !COUNT_MAX == lane | packet_first(self.config.channel)
    }

    fn note_heard(&mut self, now: Instant) {
        self.stats.heard = self.stats.heard.max(now);
        if self.silent {
            self.silent = false;
            self.events.push_back(Event::Heard);
        }
    }

    /// A question was not answered in time, after `unanswered` others in a row.
    fn note_silence(&mut self, now: Instant, unanswered: u32) {
        let heard = self.stats.heard;
        let long = now.since(heard) >= u64::from(PROBES_SILENT) * self.rtt.probe_ns();
        if unanswered >= PROBES_SILENT && long && !self.silent {
            self.silent = true;
            self.events.push_back(Event::Silent { heard });
        }
    }

    /// Gives up messages and windows whose deadline has passed.
    fn give_up_late(&mut self, now: Instant) {
        let failure = Failure::DeadlineExceeded;
        while let Some(slot) = self.outbox.first_late(now) {
            let message = self.drop_message(slot);
            self.events.push_back(Event::Aborted { message, failure });
        }
        while let Some(handle) = self.windows.first_late(now) {
            self.windows.withdraw(handle);
            self.events.push_back(Event::Withdrawn { handle, failure });
        }
    }

    /// Ends the connection when its packet numbers are used up; the last one is left for a goodbye.
    fn end_exhausted(&mut self) {
        if self.open && self.control_next.max(self.flight.next()) >= COUNT_MAX {
            self.bye = Some(BYE_EXHAUSTED);
            self.end(Failure::Exhausted);
            self.events.push_back(Event::Exhausted);
        }
    }

    fn handle_bye(&mut self, body: &[u8]) -> Result<(), Refused> {
        let bye: Bye = receive::body(body)?;
        self.end(Failure::from_reason(bye.reason));
        self.events.push_back(Event::Gone { reason: bye.reason });
        Ok(())
    }

    fn end(&mut self, failure: Failure) {
        self.open = false;
        self.windows.withdraw_all();
        while let Some((slot, _)) = self.outbox.nth(0) {
            let message = self.drop_message(slot);
            self.events.push_back(Event::Aborted { message, failure });
        }
    }

    /// Frees a message's slot; its packets in flight count no more.
    fn drop_message(&mut self, slot: u8) -> MessageId {
        self.forget_flying(slot);
        self.outbox.remove(slot)
    }

    fn forget_flying(&mut self, slot: u8) {
        let outgoing = self.outbox.at(slot);
        if outgoing.is_flying() {
            let generation = outgoing.generation;
            let mut from = 0;
            while let Some(packet) = self.flight.first_of(slot, generation, from) {
                self.flight.forget(packet);
                from = packet + 1;
            }
        }
    }

    /// Header of the next control datagram.
    fn control_header(&mut self, now: Instant, kind: Kind) -> Header {
        let packet = CONTROL_PACKET_FIRST | packet_first(self.config.channel) | self.control_next;
        self.control_next += 1;
        Header { packet, ..self.header(now, kind) }
    }

    const fn header(&self, now: Instant, kind: Kind) -> Header {
        Header {
            kind,
            flags: Flags::NONE,
            payload_bytes: 0,
            receiver: self.config.remote,
            packet: 0,
            message: MessageId { handle: 0, sequence: 0 },
            chunk: 0,
            clock_us: (now.0 / 1_000) as u32,
            crc32: 0,
        }
    }
}

/// Whether a chunk is a whole message that need not be acknowledged at once.
fn is_small(header: &Header) -> bool {
    header.chunk == 0 && header.flags.has(Flags::LAST_OF_MSG) && header.payload_bytes <= SMALL_BYTES_MAX
}

/// Probe timeouts after which a peer counts as silent.
const PROBES_SILENT: u32 = 3;
const SMALL_BYTES_MAX: u16 = 8 << 10;
/// What a goodbye says when packet numbers are used up.
const BYE_EXHAUSTED: u16 = 3;

#[cfg(test)]
mod tests;
