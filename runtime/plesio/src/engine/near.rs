//! Messages to and from neighbours, whichever way they go: payload through the connection, or a notice of where it lies.
//!
//! Knows which of a peer's sessions a handle belongs to and which payload a notice stands for. What may be told or taken
//! is [`Neighbours`]' to say; memory is the shell's. To the exchange and the snapshots both ways look alike.

use super::{Engine, Work};
use plesio_collective::{
    Alias, ArenaId, Claim, HANDLE_CUT, HANDLE_NEAR, HANDLE_NOTICE, HANDLE_SNAPSHOT, Neighbours, Told, Wish,
};
use plesio_proto::{Connection, PostError};
use plesio_wire::data::MessageId;
use plesio_wire::near::{NearSays, NearWord, Notice};
use plesio_wire::{Instant, NodeKey, Reader, Span};

/// What the shell writes into a cell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Note {
    /// Where a payload lies, with what its region holds now.
    Notice(Span),
    /// As it stands.
    Word(NearWord),
}

impl Engine {
    /// Sends payload to a peer; false when the connection takes no more.
    pub(super) fn send(&mut self, now: Instant, to: NodeKey, message: MessageId, span: Span) -> bool {
        if let Some(cell) = self.near.handle_send(to, message, span) {
            self.work.push_back(Work::Tell { to, message, cell, note: Note::Notice(span) });
            return true;
        }
        self.send_payload(now, to, message, span)
    }

    fn send_payload(&mut self, now: Instant, to: NodeKey, message: MessageId, span: Span) -> bool {
        let sent =
            self.session(to, message.handle).is_some_and(|link| link.handle_send(now, message, span).is_ok());
        if sent {
            self.transfers.handle_sent(message);
        }
        sent
    }

    /// Answer to [`Work::Tell`]: the cell says it, or cannot.
    pub fn handle_written(
        &mut self,
        now: Instant,
        to: NodeKey,
        message: MessageId,
        cell: Span,
        note: Note,
        whole: bool,
    ) {
        match note {
            Note::Word(_) => {
                if whole && let Some(link) = self.session(to, HANDLE_NEAR) {
                    // Without it payload goes on being sent.
                    let _ = link.handle_send(now, message, cell);
                }
            }
            Note::Notice(span) => {
                if !self.near.handle_written(to, message, span, whole) {
                    return;
                }
                let notice = MessageId { handle: message.handle | HANDLE_NOTICE, ..message };
                let link = self.session(to, message.handle).filter(|_| whole);
                if link.is_some_and(|link| link.handle_send(now, notice, cell).is_ok()) {
                    self.transfers.handle_sent(message);
                } else {
                    self.send_payload(now, to, message, span);
                }
            }
        }
    }

    /// Stops sending: the span is about to change.
    pub(super) fn abort(&mut self, to: NodeKey, message: MessageId) {
        self.near.handle_abort(to, message);
        let notice = MessageId { handle: message.handle | HANDLE_NOTICE, ..message };
        for link in self.links.sessions_mut(to) {
            link.handle_abort(message);
            link.handle_abort(notice);
        }
    }

    /// Accepts a message, or a notice of it.
    pub(super) fn post(&mut self, from: NodeKey, handle: u16, sequence: Option<u16>, window: Span) {
        let cell = self.near.handle_post(from, handle, sequence, window);
        let Some(link) = self.session(from, handle) else { return };
        let done = cell.is_some_and(|cell| {
            link.handle_post(handle | HANDLE_NOTICE, sequence, cell) == Err(PostError::Done)
        });
        if done {
            // Its notice came before: what it stood for is held, and must not lie in an open window (P4).
            self.near.handle_withdraw(from, handle);
        } else {
            // Refused only for a sequence that was completed before: nothing more is expected then.
            let _ = link.handle_post(handle, sequence, window);
        }
    }

    /// Accepts as payload what its notice was no use for.
    fn reopen(&mut self, from: NodeKey, claim: Claim) {
        let Claim { message, sequence, window } = claim;
        self.near.handle_post(from, message.handle, sequence, window);
        if let Some(link) = self.session(from, message.handle) {
            let _ = link.handle_post(message.handle, sequence, window);
        }
    }

    /// Accepts nothing more on a handle.
    pub(super) fn withdraw(&mut self, from: NodeKey, handle: u16) {
        self.near.handle_withdraw(from, handle);
        for link in self.links.sessions_mut(from) {
            link.handle_withdraw(handle);
            link.handle_withdraw(handle | HANDLE_NOTICE);
        }
    }

    /// A connection to `peer` began: it may say where its memory is, and is told of this node's.
    pub(super) fn greet(&mut self, peer: NodeKey) {
        let (window, word) = self.near.handle_open(peer);
        if let (Some(window), Some(link)) = (window, self.session(peer, HANDLE_NEAR)) {
            let _ = link.handle_post(HANDLE_NEAR, None, window);
        }
        if let Some(word) = word {
            self.say_near(peer, word);
        }
    }

    /// It is gone, and its memory with it, unless a sum may still need that.
    pub(super) fn part(&mut self, peer: NodeKey) {
        if let Some(arena) = self.near.handle_close(peer) {
            self.work.push_back(Work::Unmap(arena));
        }
    }

    /// A view is in force: what was told in an earlier one is void.
    pub(super) fn forget_told(&mut self) {
        for arena in self.near.handle_view() {
            self.work.push_back(Work::Unmap(arena));
        }
    }

    /// Answer to [`Work::Map`], as late as may be, where it could be done.
    pub fn handle_mapped(&mut self, now: Instant, arena: ArenaId) {
        let peer = arena.0;
        match self.near.handle_mapped(arena) {
            Some(cells) => {
                for (handle, sequence, cell) in cells {
                    if let Some(link) = self.session(peer, handle) {
                        let _ = link.handle_post(handle | HANDLE_NOTICE, sequence, cell);
                    }
                }
                self.say_near(peer, NearWord { says: NearSays::Mapped, arena: arena.1 });
            }
            None => self.work.push_back(Work::Unmap(arena)),
        }
        self.turn(now);
    }

    /// A notice or a word has arrived in its cell: it is read before anything else arrives.
    pub(super) fn handle_near_received(&mut self, peer: NodeKey, message: MessageId, cell: Span) {
        if message.handle == HANDLE_NEAR {
            if let Some(link) = self.session(peer, HANDLE_NEAR) {
                let window = Span { len_bytes: plesio_wire::near::NEAR_BYTES as u32, ..cell };
                let _ = link.handle_post(HANDLE_NEAR, None, window);
            }
        } else {
            let told = MessageId { handle: message.handle & !HANDLE_NOTICE, ..message };
            if !self.near.handle_notice(peer, told) {
                return;
            }
            if let Some(link) = self.session(peer, told.handle) {
                link.handle_withdraw(told.handle);
                link.handle_passed(told.handle, told.sequence);
            }
        }
        self.work.push_back(Work::Read { peer, message, cell });
    }

    /// Answer to [`Work::Read`].
    pub fn handle_read(&mut self, now: Instant, peer: NodeKey, message: MessageId, bytes: &[u8]) {
        if message.handle == HANDLE_NEAR {
            if let Ok(word) = Reader::new(bytes).read::<NearWord>() {
                self.handle_near_word(now, peer, &word);
            }
        } else {
            let told = MessageId { handle: message.handle & !HANDLE_NOTICE, ..message };
            let notice = Reader::new(bytes).read::<Notice>().ok();
            self.handle_notice(peer, told, notice.as_ref());
        }
        self.turn(now);
    }

    fn handle_near_word(&mut self, now: Instant, peer: NodeKey, word: &NearWord) {
        match self.near.handle_word(peer, word) {
            Some(Wish::Map(arena)) => self.work.push_back(Work::Map(arena)),
            Some(Wish::Payload(notices)) => {
                for notice in notices {
                    for link in self.links.sessions_mut(peer) {
                        link.handle_abort(notice);
                    }
                }
                self.stop_serving(now, peer);
                self.exchange.handle_peer(peer);
            }
            _ => {}
        }
    }

    fn handle_notice(&mut self, peer: NodeKey, message: MessageId, notice: Option<&Notice>) {
        match self.near.take_in(peer, message, notice) {
            Ok((claim, Told::Alias(alias))) => {
                self.read_in_place_bytes += u64::from(alias.span.len_bytes);
                self.exchange.handle_received(peer, message, claim.window.len_bytes);
            }
            Ok((claim, Told::Take(from))) => {
                let into = Span { len_bytes: from.span.len_bytes, ..claim.window };
                self.work.push_back(Work::Take { message, from, into });
            }
            Ok(_) => {}
            Err((_, claim)) => {
                if let Some(claim) = claim {
                    self.reopen(peer, claim);
                    self.ask_for_payload(peer);
                }
            }
        }
    }

    /// Answer to [`Work::Take`]: it is all there, or was not any more.
    pub fn handle_taken(&mut self, now: Instant, peer: NodeKey, message: MessageId, into: Span, whole: bool) {
        let Some(claim) = self.near.handle_taken(peer, message, whole) else { return };
        if !whole {
            // The owner went on meanwhile: whoever comes so late fetches the state.
            self.reopen(peer, claim);
        } else {
            self.taken_bytes += u64::from(into.len_bytes);
            self.deliver(now, peer, message, into);
        }
        self.turn(now);
    }

    /// A message lies where it was expected.
    pub(super) fn deliver(&mut self, now: Instant, peer: NodeKey, message: MessageId, span: Span) {
        match message.handle {
            HANDLE_CUT => self.handle_cut_received(peer, message.sequence, span),
            HANDLE_SNAPSHOT => self.handle_snapshot_received(now, peer, message.sequence),
            _ => self.exchange.handle_received(peer, message, span.len_bytes),
        }
    }

    /// A contribution was not there any more when it was first read: its owner has taken it back, and it is not held.
    pub fn handle_gone(&mut self, now: Instant, alias: Alias) {
        let (windows, often) = self.near.handle_gone(alias);
        self.exchange.handle_torn(alias.arena.0, &windows);
        if often {
            return self.handle_torn(now, &[alias.arena]);
        }
        self.turn(now);
    }

    /// What was read in place of these arenas was not what had been told: nothing of it counts.
    pub fn handle_torn(&mut self, now: Instant, arenas: &[ArenaId]) {
        for arena in arenas {
            let (windows, was_near) = self.near.handle_torn(*arena);
            self.exchange.handle_torn(arena.0, &windows);
            if was_near {
                self.say_near(arena.0, NearWord { says: NearSays::Unmapped, arena: arena.1 });
            }
            self.work.push_back(Work::Unmap(*arena));
        }
        self.turn(now);
    }

    /// A peer's notices cannot be used.
    fn ask_for_payload(&mut self, peer: NodeKey) {
        let Some((arena, unneeded)) = self.near.handle_unusable(peer) else { return };
        self.say_near(peer, NearWord { says: NearSays::Unmapped, arena });
        self.work.extend(unneeded.map(Work::Unmap));
    }

    /// A contribution is held, or to be summed: where it lies, if not in the window itself.
    pub(super) fn aliases(&self, windows: &[Span]) -> Vec<Option<plesio_collective::Alias>> {
        windows.iter().map(|window| self.near.alias(*window)).collect()
    }

    /// What is told, read and refused among neighbours.
    #[must_use]
    pub fn near(&self) -> &Neighbours {
        &self.near
    }

    /// Bytes of contributions that were read where they lie, and of sums and states that were copied from there.
    #[must_use]
    pub fn near_bytes(&self) -> (u64, u64) {
        (self.read_in_place_bytes, self.taken_bytes)
    }

    fn say_near(&mut self, to: NodeKey, word: NearWord) {
        let Some(cell) = self.near.word_cell(to, word.says) else { return };
        self.near_words = self.near_words.wrapping_add(1);
        let message = MessageId { handle: HANDLE_NEAR, sequence: self.near_words };
        self.work.push_back(Work::Tell { to, message, cell, note: Note::Word(word) });
    }

    /// The session that messages of a handle go through.
    fn session(&mut self, peer: NodeKey, handle: u16) -> Option<&mut Connection> {
        match handle {
            HANDLE_CUT | HANDLE_SNAPSHOT => self.links.bulk_mut(peer),
            HANDLE_NEAR => self.links.standing_mut(peer),
            _ => self.links.exchange_mut(peer),
        }
    }
}

#[cfg(test)]
mod tests;
