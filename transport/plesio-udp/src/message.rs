//! One message as the kernel sees it: name, pieces of memory, control data; and the calls that take it.
//!
//! A message is described by [`Piece`]s, which can only name its own two buffers or arena memory whose region it
//! holds: leased to receive into, shared to send from. The kernel's own form is written from them right before a call.
//!
//! Invariant: whatever a prepared message points at belongs to the message, and stays where it is until the message is
//! cleared or dropped. So a call is sound if it ends before the message is touched again.
#![expect(unsafe_code, reason = "recvmsg, sendmsg and sendmmsg take pointers")]

use core::mem;
use core::ops::Range;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use nix::errno::Errno;
use nix::libc;
use plesio_memory::{AccessError, Arena, Filling, Lease, Shared};
use plesio_wire::Span;
use plesio_wire::data::HEADER_BYTES;

use crate::address::{self, NAME_WORDS};
use crate::control::{self, CONTROL_WORDS};

/// A part of a message.
#[derive(Clone, Debug)]
enum Piece {
    Header(usize),
    Aside(Range<usize>),
    Arena(Span),
}

pub(crate) struct Message {
    arena: Option<Arena>,
    /// The kernel's form; only meaningful during a call.
    head: libc::msghdr,
    iovecs: Vec<libc::iovec>,
    pieces: Vec<Piece>,
    name: [u64; NAME_WORDS],
    name_bytes: usize,
    control: [u64; CONTROL_WORDS],
    control_bytes: usize,
    headers: Vec<[u8; HEADER_BYTES]>,
    aside: Vec<u8>,
    leases: Vec<Lease<Filling>>,
    shares: Vec<Shared>,
}

// SAFETY: the raw pointers in `head` and `iovecs` are only used during a call that a `&mut` is held for; everything they
// point at is owned by the message and has no thread affinity.
unsafe impl Send for Message {}

impl Message {
    /// Room for `headers` headers and `aside_bytes` bytes beside the arena. All memory a message ever needs is
    /// allocated here.
    pub(crate) fn new(arena: Option<Arena>, headers: usize, aside_bytes: usize) -> Self {
        let pieces_max = 2 * headers + 1;
        Self {
            arena,
            // SAFETY: a `msghdr` of zeros is valid: null pointers and lengths of zero.
            head: unsafe { mem::zeroed() },
            iovecs: Vec::with_capacity(pieces_max),
            pieces: Vec::with_capacity(pieces_max),
            name: [0; NAME_WORDS],
            name_bytes: 0,
            control: [0; CONTROL_WORDS],
            control_bytes: 0,
            headers: vec![[0; HEADER_BYTES]; headers],
            aside: vec![0; aside_bytes],
            leases: Vec::with_capacity(headers),
            shares: Vec::with_capacity(headers),
        }
    }

    /// Forgets the pieces and gives every region back.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.leases.clear();
        self.shares.clear();
        self.name_bytes = 0;
        self.control_bytes = 0;
    }

    pub(crate) fn push_header(&mut self, index: usize) {
        assert!(index < self.headers.len(), "a message has {} headers", self.headers.len());
        self.pieces.push(Piece::Header(index));
    }

    pub(crate) fn push_aside(&mut self, range: Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.aside.len(),
            "a piece lies inside the side buffer"
        );
        self.pieces.push(Piece::Aside(range));
    }

    /// Receives into the span. Leases its region until the message is cleared.
    pub(crate) fn push_window(&mut self, span: Span) -> Result<(), AccessError> {
        let arena = self.arena.as_ref().ok_or(AccessError::Range)?;
        arena.pointer(span)?;
        if !self.leases.iter().any(|lease| lease.span().region == span.region) {
            self.leases.push(arena.lease(span.region)?);
        }
        self.pieces.push(Piece::Arena(span));
        Ok(())
    }

    /// Sends from the span. Shares its region until the message is cleared.
    pub(crate) fn push_payload(&mut self, span: Span) -> Result<&[u8], AccessError> {
        let arena = self.arena.as_ref().ok_or(AccessError::Range)?;
        arena.pointer(span)?;
        let held = self.shares.iter().position(|share| share.span().region == span.region);
        let held = match held {
            Some(held) => held,
            None => {
                let whole = arena.whole(span.region).ok_or(AccessError::Range)?;
                self.shares.push(arena.share(whole)?);
                self.shares.len() - 1
            }
        };
        self.pieces.push(Piece::Arena(span));
        Ok(&self.shares[held].as_bytes()[range_of(span)])
    }

    /// Fills the side buffer from `at` on with what `fill` makes of the span's bytes; says how many that were. Its region
    /// is shared until the message is cleared.
    pub(crate) fn fill_aside<E: From<AccessError>>(
        &mut self,
        span: Span,
        at: usize,
        fill: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        self.push_payload(span)?;
        // Sent from the side buffer, not from where it lies.
        self.pieces.pop();
        let held = self.shares.iter().find(|share| share.span().region == span.region);
        let payload = held.map_or(&[][..], |share| &share.as_bytes()[range_of(span)]);
        let room = self.aside.get_mut(at..).unwrap_or_default();
        fill(payload, room)
    }

    /// Has the memory of a payload that comes next fetched while this thread works on another. Only where its region is
    /// shared already: which is so for the chunks of one message.
    pub(crate) fn expect_payload(&self, span: Span) {
        let held = self.shares.iter().find(|share| share.span().region == span.region);
        let bytes = held.and_then(|share| share.as_bytes().get(range_of(span))).unwrap_or(&[]);
        bytes[..bytes.len().min(EXPECTED_BYTES_MAX)].chunks(LINE_BYTES).for_each(prefetch);
    }

    /// What was received into the span; empty unless its region is leased by this message.
    pub(crate) fn window(&self, span: Span) -> &[u8] {
        let lease = self.leases.iter().find(|lease| lease.span().region == span.region);
        lease.and_then(|lease| lease.as_bytes().get(range_of(span))).unwrap_or(&[])
    }

    /// The same, to be opened where it lies.
    pub(crate) fn window_mut(&mut self, span: Span) -> &mut [u8] {
        let lease = self.leases.iter_mut().find(|lease| lease.span().region == span.region);
        lease.and_then(|lease| lease.as_bytes_mut().get_mut(range_of(span))).unwrap_or_default()
    }

    /// Copies what was received into the span to the side buffer.
    pub(crate) fn set_aside(&mut self, span: Span, at: usize) {
        let lease = self.leases.iter().find(|lease| lease.span().region == span.region);
        let bytes = lease.and_then(|lease| lease.as_bytes().get(range_of(span))).unwrap_or(&[]);
        self.aside[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Gives the windows back, and keeps what lies beside.
    pub(crate) fn release_windows(&mut self) {
        self.pieces.clear();
        self.leases.clear();
    }

    pub(crate) fn header(&self, index: usize) -> &[u8; HEADER_BYTES] {
        &self.headers[index]
    }

    pub(crate) fn set_header(&mut self, index: usize, bytes: [u8; HEADER_BYTES]) {
        self.headers[index] = bytes;
    }

    pub(crate) fn aside(&self) -> &[u8] {
        &self.aside
    }

    pub(crate) fn aside_mut(&mut self) -> &mut [u8] {
        &mut self.aside
    }

    /// Whom the message came from.
    pub(crate) fn from(&self) -> Option<SocketAddr> {
        address::parse(&words(&self.name)[..self.name_bytes])
    }

    /// Whom to send to; without it the socket's peer.
    pub(crate) fn set_to(&mut self, to: SocketAddr) {
        self.name_bytes = address::write(to, words_mut(&mut self.name));
    }

    pub(crate) fn control(&self) -> &[u8] {
        &words(&self.control)[..self.control_bytes]
    }

    /// Sends as segments of this size.
    pub(crate) fn set_segment(&mut self, segment_bytes: u16) {
        self.control_bytes = control::write_segment(segment_bytes, words_mut(&mut self.control));
    }

    /// Writes the kernel's form of a message to be filled.
    pub(crate) fn prepare_receive(&mut self) -> *mut libc::msghdr {
        self.name_bytes = size_of_val(&self.name);
        self.control_bytes = size_of_val(&self.control);
        self.prepare()
    }

    /// Writes the kernel's form of a message to be sent.
    pub(crate) fn prepare_send(&mut self) -> *mut libc::msghdr {
        self.prepare()
    }

    /// Takes over what the kernel has written beside the payload.
    pub(crate) fn finish_receive(&mut self) {
        let head = self.head;
        self.finish(&head);
    }

    fn finish(&mut self, head: &libc::msghdr) {
        self.name_bytes = (head.msg_namelen as usize).min(size_of_val(&self.name));
        // `as _`: the field's type differs between C libraries.
        let control_bytes: usize = head.msg_controllen as _;
        self.control_bytes = control_bytes.min(size_of_val(&self.control));
    }

    fn prepare(&mut self) -> *mut libc::msghdr {
        let headers = self.headers.as_mut_ptr();
        let aside = self.aside.as_mut_ptr();
        self.iovecs.clear();
        for piece in &self.pieces {
            let (base, len_bytes) = match piece {
                // `wrapping_add` stays inside the buffers: both pushes have checked it.
                Piece::Header(index) => (headers.wrapping_add(*index).cast::<u8>(), HEADER_BYTES),
                Piece::Aside(range) => (aside.wrapping_add(range.start), range.len()),
                Piece::Arena(span) => {
                    let arena = self.arena.as_ref().expect("arena pieces are only pushed with an arena");
                    let pointer = arena.pointer(*span).expect("the push has checked the span");
                    (pointer.as_ptr(), span.len_bytes as usize)
                }
            };
            self.iovecs.push(libc::iovec { iov_base: base.cast(), iov_len: len_bytes });
        }
        let named = self.name_bytes > 0;
        self.head.msg_name = if named { self.name.as_mut_ptr().cast() } else { core::ptr::null_mut() };
        self.head.msg_namelen = self.name_bytes as libc::socklen_t;
        self.head.msg_iov = self.iovecs.as_mut_ptr();
        self.head.msg_iovlen = self.iovecs.len() as _;
        let controlled = self.control_bytes > 0;
        self.head.msg_control =
            if controlled { self.control.as_mut_ptr().cast() } else { core::ptr::null_mut() };
        self.head.msg_controllen = self.control_bytes as _;
        self.head.msg_flags = 0;
        &raw mut self.head
    }

    /// `recvmsg`, without waiting.
    pub(crate) fn receive(&mut self, socket: RawFd, flags: i32) -> Result<usize, Errno> {
        let head = self.prepare_receive();
        // SAFETY: `head` is freshly prepared, and everything it names is owned by `self`, which is borrowed until the
        // call has ended. A descriptor that is not open is an error, not undefined.
        let result = unsafe { libc::recvmsg(socket, head, flags | libc::MSG_DONTWAIT) };
        let len_bytes = Errno::result(result)? as usize;
        self.finish_receive();
        Ok(len_bytes)
    }

    /// `sendmsg`, without waiting.
    pub(crate) fn send(&mut self, socket: RawFd) -> Result<usize, Errno> {
        let head = self.prepare_send();
        // SAFETY: as in `receive`; the kernel only reads.
        let result = unsafe { libc::sendmsg(socket, head, SEND_FLAGS) };
        Errno::result(result).map(|len_bytes| len_bytes as usize)
    }
}

pub(crate) const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
pub(crate) const PEEK_FLAGS: i32 = libc::MSG_PEEK | libc::MSG_TRUNC;

/// Many messages for one `sendmmsg` or `recvmmsg`, in the kernel's form.
#[derive(Default)]
pub(crate) struct Batch {
    heads: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in `heads` are only used inside `send` and `receive`.
unsafe impl Send for Batch {}

impl Batch {
    /// Sends the messages in order; says how many were taken.
    pub(crate) fn send<'a>(
        &mut self,
        socket: RawFd,
        messages: impl Iterator<Item = &'a mut Message>,
    ) -> Result<usize, Errno> {
        self.heads.clear();
        let mut held: usize = 0;
        for message in messages {
            let head = message.prepare_send();
            // SAFETY: `prepare_send` has just returned the address of a header inside `message`.
            let head = unsafe { head.read() };
            self.heads.push(libc::mmsghdr { msg_hdr: head, msg_len: 0 });
            held += 1;
        }
        // SAFETY: every header was prepared above from a message that the iterator's lifetime keeps borrowed until this
        // call has ended; the kernel reads the payload and writes only `msg_len`.
        let result = unsafe { libc::sendmmsg(socket, self.heads.as_mut_ptr(), held as u32, SEND_FLAGS as _) };
        Errno::result(result).map(|count| count as usize)
    }
}

impl Batch {
    /// Fills the messages in order with what has come; says how many were filled and how long each is.
    pub(crate) fn receive(
        &mut self,
        socket: RawFd,
        messages: &mut [Message],
        lens: &mut [usize],
    ) -> Result<usize, Errno> {
        self.heads.clear();
        for message in messages.iter_mut() {
            let head = message.prepare_receive();
            // SAFETY: `prepare_receive` has just returned the address of a header inside `message`.
            let head = unsafe { head.read() };
            self.heads.push(libc::mmsghdr { msg_hdr: head, msg_len: 0 });
        }
        let count = self.heads.len() as u32;
        // SAFETY: every header was prepared above from a message that stays borrowed until this call has ended, and
        // names only memory that the message owns.
        let result = unsafe {
            libc::recvmmsg(
                socket,
                self.heads.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                core::ptr::null_mut(),
            )
        };
        let filled = Errno::result(result)? as usize;
        for ((message, head), len_bytes) in messages.iter_mut().zip(&self.heads).zip(lens).take(filled) {
            message.finish(&head.msg_hdr);
            *len_bytes = head.msg_len as usize;
        }
        Ok(filled)
    }
}

/// Asks for a line of memory, and does not wait for it.
fn prefetch(line: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of every x86-64 CPU, and a hint about memory that is borrowed here reads nothing.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _unused = line;
}

const LINE_BYTES: usize = 64;
/// More than so much ahead would only push out what is worked on.
const EXPECTED_BYTES_MAX: usize = 4 << 10;

fn range_of(span: Span) -> Range<usize> {
    let start = span.offset_bytes as usize;
    start..start + span.len_bytes as usize
}

fn words(words: &[u64]) -> &[u8] {
    bytemuck::cast_slice(words)
}

fn words_mut(words: &mut [u64]) -> &mut [u8] {
    bytemuck::cast_slice_mut(words)
}
