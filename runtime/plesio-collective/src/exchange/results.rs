//! Summed ranges of the open version: whose window is open for which, what arrives, what is sent.

use super::{Action, Exchange, HANDLE_RESULT, Open};
use plesio_wire::data::MessageId;
use plesio_wire::{LogIndex, MemberIndex, MemberSet, NodeKey, Span};

impl Exchange {
    /// A checked datagram of `from` had no place: if it serves another owner's result (R17), its window is opened and
    /// the one before closed, once per server. Two writers of one window could spoil what the other has placed.
    pub fn handle_offered(&mut self, from: NodeKey, message: MessageId) {
        let Some(owner) = message.handle.checked_sub(HANDLE_RESULT) else { return };
        let Some(open) = &self.open else { return };
        let wanted = usize::from(owner) < self.members.len()
            && message.sequence == open.context.0 as u16
            && !open.shards.contains(owner)
            && self.my_index() != Some(usize::from(owner));
        let known =
            self.members.get(usize::from(owner)) == Some(&from) || open.writers.contains(&(owner, from));
        if !wanted || known || !self.members.contains(&from) {
            return;
        }
        self.withdraw_result(owner);
        let mut open = self.open.take().expect("is open");
        open.writers.push((owner, from));
        self.post_result(open.context, usize::from(owner), from);
        self.open = Some(open);
    }

    /// `peer` is silent: what it was let write in another owner's place (R17) is whoever's turn it was before, who waits for
    /// that since. It may offer again.
    pub fn handle_silent(&mut self, peer: NodeKey) {
        for owner in 0..self.members.len() as MemberIndex {
            if self.newest_writer(owner) != Some(peer) {
                continue;
            }
            self.withdraw_result(owner);
            let Some(open) = &mut self.open else { return };
            open.writers.retain(|writer| *writer != (owner, peer));
            let context = open.context;
            let before = self.newest_writer(owner).unwrap_or(self.members[usize::from(owner)]);
            self.post_result(context, usize::from(owner), before);
        }
    }

    /// Who was let in last to write an owner's result, if anybody but the owner, and if it is still wanted.
    fn newest_writer(&self, owner: MemberIndex) -> Option<NodeKey> {
        let open = self.open.as_ref().filter(|open| !open.shards.contains(owner))?;
        open.writers.iter().rev().find(|(of, _)| *of == owner).map(|(_, writer)| *writer)
    }

    /// Sends shards of the open context to one that lacks them (R17).
    pub fn handle_serve(&mut self, to: NodeKey, shards: MemberSet) {
        let Some(open) = self.open.clone() else { return };
        for owner in shards.and(open.shards).iter() {
            self.send_result(to, &open, owner);
        }
    }

    /// Closes the window of an owner's result, whoever was to write it, unless it is complete.
    pub(super) fn withdraw_result(&mut self, owner: MemberIndex) {
        if self.open.as_ref().is_none_or(|open| open.shards.contains(owner)) {
            return;
        }
        let writer = self.newest_writer(owner).or_else(|| self.members.get(usize::from(owner)).copied());
        if let Some(from) = writer.filter(|writer| *writer != self.me) {
            self.actions.push_back(Action::Withdraw { from, handle: HANDLE_RESULT + owner });
        }
    }

    pub(super) fn handle_result(&mut self, from: NodeKey, message: MessageId, len_bytes: u32) {
        let owner = message.handle - HANDLE_RESULT;
        let span = self.regions.result(&self.parts, usize::from(owner));
        let Some(open) = &self.open else {
            let at = self.members.get(usize::from(owner));
            if let Some((index, early)) = &mut self.expected
                && message.sequence == index.0 as u16
                && at == Some(&from)
                && len_bytes == span.len_bytes
            {
                early.insert(owner);
            }
            return;
        };
        if usize::from(owner) >= self.members.len()
            || message.sequence != open.context.0 as u16
            || open.shards.contains(owner)
        {
            return;
        }
        let writer = self.newest_writer(owner).unwrap_or(self.members[usize::from(owner)]);
        if from == writer && len_bytes == self.result_span(open, usize::from(owner)).len_bytes {
            self.shard(owner);
        }
    }

    pub(super) fn shard(&mut self, owner: MemberIndex) {
        let Some(open) = &mut self.open else { return };
        if open.shards.contains(owner) {
            return;
        }
        open.shards.insert(owner);
        self.actions.push_back(Action::Shard { context: open.context, owner });
    }

    pub(super) fn result_span(&self, open: &Open, owner: usize) -> Span {
        if self.my_index() == Some(owner) {
            self.regions.sum(&self.parts, owner, open.turn)
        } else {
            self.regions.result(&self.parts, owner)
        }
    }

    pub(super) fn post_result(&mut self, context: LogIndex, owner: usize, from: NodeKey) {
        let span = self.regions.result(&self.parts, owner);
        if from != self.me && span.len_bytes > 0 {
            let (handle, sequence) = (HANDLE_RESULT + owner as u16, Some(context.0 as u16));
            self.actions.push_back(Action::Post { from, handle, sequence, span });
        }
    }

    pub(super) fn send_result(&mut self, to: NodeKey, open: &Open, owner: MemberIndex) {
        let span = self.result_span(open, usize::from(owner));
        if to == self.me || span.len_bytes == 0 {
            return;
        }
        let message = MessageId { handle: HANDLE_RESULT + owner, sequence: open.context.0 as u16 };
        self.sent.push((to, message));
        self.actions.push_back(Action::Send { to, message, span });
    }
}
