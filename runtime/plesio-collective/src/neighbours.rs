//! Which payload lies in a neighbour's memory, instead of being sent: what may be told of in place of its bytes, what
//! such a notice may stand for, and which windows of this node are only names for places over there.
//!
//! Knows: which neighbours map this node's arena and whose arenas are mapped here, by the numbers that arenas are told
//! apart by; the windows that are open for them. Does not know: memory, sockets, slots. Invariant: a window is an alias
//! from the notice that stood for its payload until something else lies there, and an alias names only memory that is
//! mapped here, regions that hold such payload, and the window's own length.
//!
//! ```text
//!  send a slot   handle_send -> cell: tell (region, generation) there, send the cell
//!  its notice    handle_notice -> claim -> take_in -> Alias (a slot, summed where it lies) | Take (copied into its window)
//!  taken back    handle_gone: before it was first read; it will not be counted, and nobody asks for it
//!  refused       handle_unusable: the neighbour is asked for payload from then on; what was taken before stays held
//!  torn          handle_torn: the same, and nothing of it counts
//! ```

use crate::exchange::{HANDLE_CUT, HANDLE_RESULT, HANDLE_SNAPSHOT};
use crate::regions::Regions;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use plesio_wire::data::MessageId;
use plesio_wire::near::{NEAR_BYTES, NearSays, NearWord, Notice};
use plesio_wire::{NodeKey, Span};

/// What the handle of a notice has besides that of the payload it stands for.
pub const HANDLE_NOTICE: u16 = 0x400;
/// Handle of what neighbours say about memory.
pub const HANDLE_NEAR: u16 = 0x300;

/// A neighbour's arena: whose, and the number drawn for it.
pub type ArenaId = (NodeKey, u64);

/// A place in a neighbour's memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Alias {
    /// Which memory.
    pub arena: ArenaId,
    /// Where, by its owner's regions.
    pub span: Span,
    /// What the region held when it was told of.
    pub generation: u32,
}

/// A window whose payload a notice stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// The message that the notice stands for.
    pub message: MessageId,
    /// The sequence that the window was open for.
    pub sequence: Option<u16>,
    /// The window.
    pub window: Span,
}

/// What to do with a notice that fits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Told {
    /// Nothing: the window is a name for that place now.
    Alias(Alias),
    /// Copy it, for it will not stay there: as many bytes as are told of, to the window's beginning.
    Take(Alias),
}

/// What a word of a neighbour asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Wish {
    /// Map its memory.
    Map(ArenaId),
    /// Send as payload what it lacks: these notices stand for nothing any more.
    Payload(Vec<MessageId>),
}

/// Why a notice is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NoticeError {
    /// It is about memory that is not mapped here.
    Arena,
    /// That region never holds such a message.
    Region,
    /// Its length is not the window's.
    Length,
    /// Nothing was open for its message, or not any more.
    Unposted,
}

impl fmt::Display for NoticeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("notice: ")?;
        f.write_str(match self {
            Self::Arena => "it is about memory that is not mapped here; payload is asked for",
            Self::Region => "that region holds no such payload; run the same version on both sides",
            Self::Length => "it is not as long as what was expected; run the same version on both sides",
            Self::Unposted => "nothing is expected under its number; it came too late",
        })
    }
}

impl core::error::Error for NoticeError {}

#[derive(Debug, Default)]
struct Neighbour {
    /// Which cells are its.
    desk: Option<u16>,
    /// The number of its arena, once that is mapped here.
    theirs: Option<u64>,
    /// The number of the arena that it said can be asked for.
    offered: Option<u64>,
    /// It maps this node's arena.
    reads_ours: bool,
    /// It could not use what it was told, and does not say otherwise any more.
    wants_payload: bool,
    /// Windows that are open for it, by the handle of the payload.
    posted: BTreeMap<u16, (Option<u16>, Span)>,
    /// Windows whose notice is here.
    claims: BTreeMap<u16, Claim>,
    /// By the handle of the payload, the newest message that a notice went for.
    told: BTreeMap<u16, u16>,
    /// Slots of its that were not there any more when they were first read, one after the other.
    gone: u8,
    /// Notices about to be written.
    pending: BTreeMap<(u16, u16), Span>,
}

/// The machine; see the module.
#[derive(Debug)]
pub struct Neighbours {
    regions: Regions,
    /// The number of this node's arena, if others may map it.
    own: Option<u64>,
    neighbours: BTreeMap<NodeKey, Neighbour>,
    aliases: BTreeMap<(u16, u32), Alias>,
    /// Arenas that nothing but aliases needs any more.
    retired: Vec<ArenaId>,
    refused: u64,
}

impl Neighbours {
    /// Nobody is near. `own` is the number of this node's arena, if others may map it.
    #[must_use]
    pub fn new(regions: Regions, own: Option<u64>) -> Self {
        Self {
            regions,
            own,
            neighbours: BTreeMap::new(),
            aliases: BTreeMap::new(),
            retired: Vec::new(),
            refused: 0,
        }
    }

    /// A connection to `peer` began: the window for what it says about memory, and what to tell it.
    pub fn handle_open(&mut self, peer: NodeKey) -> (Option<Span>, Option<NearWord>) {
        let taken: Vec<u16> = self.neighbours.values().filter_map(|neighbour| neighbour.desk).collect();
        let desk = (0..Regions::DESKS).find(|desk| !taken.contains(desk));
        self.neighbours.insert(peer, Neighbour { desk, ..Neighbour::default() });
        let word = self.own.filter(|_| desk.is_some()).map(|arena| NearWord { says: NearSays::Open, arena });
        (self.cell(peer, HANDLE_NEAR, true), word)
    }

    /// The connection is gone. Its arena, if nothing here needs it any more; else it is said later.
    pub fn handle_close(&mut self, peer: NodeKey) -> Option<ArenaId> {
        let arena = (peer, self.neighbours.remove(&peer)?.theirs?);
        self.retire(arena)
    }

    /// A view is in force: no window, notice or alias of an earlier one means anything, but for states. Arenas that
    /// nothing needs any more.
    pub fn handle_view(&mut self) -> Vec<ArenaId> {
        self.aliases.clear();
        for neighbour in self.neighbours.values_mut() {
            // States go through a session that outlives views.
            neighbour.posted.retain(|handle, _| is_state(*handle));
            neighbour.claims.retain(|handle, _| is_state(*handle));
            neighbour.told.retain(|handle, _| is_state(*handle));
            neighbour.pending.retain(|(handle, _), _| is_state(*handle));
        }
        core::mem::take(&mut self.retired)
    }

    /// A window was opened: where a notice may come in its place.
    pub fn handle_post(
        &mut self,
        peer: NodeKey,
        handle: u16,
        sequence: Option<u16>,
        window: Span,
    ) -> Option<Span> {
        let neighbour = self.neighbours.get_mut(&peer)?;
        neighbour.posted.insert(handle, (sequence, window));
        neighbour.theirs?;
        self.cell(peer, handle, true)
    }

    /// It was closed.
    pub fn handle_withdraw(&mut self, peer: NodeKey, handle: u16) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.posted.remove(&handle);
            neighbour.claims.remove(&handle);
        }
    }

    /// Payload itself lies in a window: it is no other place's name.
    pub fn handle_payload(&mut self, peer: NodeKey, handle: u16, window: Span) {
        self.aliases.remove(&place(window));
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.posted.remove(&handle);
        }
    }

    /// A notice is complete, though not looked at: nothing else may come into that window. False when nothing was open.
    pub fn handle_notice(&mut self, peer: NodeKey, message: MessageId) -> bool {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return false };
        let Some((sequence, window)) = neighbour.posted.remove(&message.handle) else {
            self.refused += 1;
            return false;
        };
        neighbour.claims.insert(message.handle, Claim { message, sequence, window });
        true
    }

    /// What a notice says. Where it cannot be used, the window is given back, to be opened again.
    ///
    /// # Errors
    /// Why it is not taken, which is counted, and the window unless that was closed meanwhile.
    pub fn take_in(
        &mut self,
        peer: NodeKey,
        message: MessageId,
        notice: Option<&Notice>,
    ) -> Result<(Claim, Told), (NoticeError, Option<Claim>)> {
        let claim = self.claim(peer, message).ok_or((NoticeError::Unposted, None));
        let claim = claim.inspect_err(|_| self.refused += 1)?;
        let refuse = |own: &mut Self, cause| {
            own.refused += 1;
            own.neighbours.get_mut(&peer).map(|neighbour| neighbour.claims.remove(&message.handle));
            Err((cause, Some(claim)))
        };
        let theirs = self.neighbours.get(&peer).and_then(|neighbour| neighbour.theirs);
        let Some(notice) = notice.filter(|notice| theirs == Some(notice.arena)) else {
            return refuse(self, NoticeError::Arena);
        };
        if !self.holds(message.handle, notice.span.region) {
            return refuse(self, NoticeError::Region);
        }
        let (told_bytes, window_bytes) = (notice.span.len_bytes, claim.window.len_bytes);
        // A state says its length only now, a cut may have any up to the window's.
        let fits =
            if is_state(message.handle) { told_bytes <= window_bytes } else { told_bytes == window_bytes };
        if !fits {
            return refuse(self, NoticeError::Length);
        }
        let alias = Alias { arena: (peer, notice.arena), span: notice.span, generation: notice.generation };
        if message.handle >= HANDLE_RESULT {
            return Ok((claim, Told::Take(alias)));
        }
        self.settle(peer, message);
        self.aliases.insert(place(claim.window), alias);
        Ok((claim, Told::Alias(alias)))
    }

    /// What a notice told of was copied into its window, or could not be: then the window is given back, to be opened
    /// again. `None` when it was closed meanwhile.
    pub fn handle_taken(&mut self, peer: NodeKey, message: MessageId, whole: bool) -> Option<Claim> {
        let claim = self.claim(peer, message)?;
        self.settle(peer, message);
        self.refused += u64::from(!whole);
        Some(claim)
    }

    /// What a window is the name of.
    #[must_use]
    pub fn alias(&self, window: Span) -> Option<Alias> {
        self.aliases.get(&place(window)).copied()
    }

    /// A slot was not there any more when it was first read: its owner took it back meanwhile, as it may until it is
    /// listed, and says so to nobody. The windows that were names for it; and whether that was so too often to be chance.
    pub fn handle_gone(&mut self, alias: Alias) -> (Vec<Span>, bool) {
        let windows = self.forget_aliases(|found| *found == alias);
        self.refused += u64::from(!windows.is_empty());
        let neighbour = self.neighbours.get_mut(&alias.arena.0);
        let often = neighbour.is_some_and(|neighbour| {
            neighbour.gone = neighbour.gone.saturating_add(1);
            neighbour.gone >= GONE_MAX
        });
        (windows, often)
    }

    /// A slot of its was read whole.
    pub fn handle_whole(&mut self, peer: NodeKey) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.gone = 0;
        }
    }

    /// A notice of `peer`'s cannot be used, and no more of them are taken: the number of its arena, to be said, and the
    /// arena if nothing needs it any more. Aliases stand: what they name was told of rightly, and this node has said
    /// that it holds it (R12). The payload takes their place when it comes.
    pub fn handle_unusable(&mut self, peer: NodeKey) -> Option<(u64, Option<ArenaId>)> {
        let number = self.neighbours.get_mut(&peer)?.theirs.take()?;
        Some((number, self.retire((peer, number))))
    }

    /// What was told of is not there any more, or was never right: the windows that were names for it. Nothing of that
    /// arena is used from here on; empty, and `false`, when nothing was any more.
    pub fn handle_torn(&mut self, arena: ArenaId) -> (Vec<Span>, bool) {
        let windows = self.forget_aliases(|alias| alias.arena == arena);
        self.refused += u64::from(!windows.is_empty());
        self.retired.retain(|retired| *retired != arena);
        let neighbour = self.neighbours.get_mut(&arena.0).filter(|near| near.theirs == Some(arena.1));
        let was_near = neighbour.map(|neighbour| neighbour.theirs = None).is_some();
        (windows, was_near)
    }

    /// A neighbour's memory is mapped here: where notices may come, for every window that is open: handle, sequence, cell.
    /// `None` when the connection that offered it is gone.
    pub fn handle_mapped(&mut self, (peer, arena): ArenaId) -> Option<Vec<(u16, Option<u16>, Span)>> {
        let neighbour = self.neighbours.get_mut(&peer).filter(|near| near.offered == Some(arena))?;
        neighbour.theirs = Some(arena);
        self.retired.retain(|retired| *retired != (peer, arena));
        let posted: Vec<_> =
            neighbour.posted.iter().map(|(handle, (sequence, _))| (*handle, *sequence)).collect();
        let cells = posted
            .into_iter()
            .filter_map(|(handle, sequence)| Some((handle, sequence, self.cell(peer, handle, true)?)));
        Some(cells.collect())
    }

    /// A word of a neighbour.
    pub fn handle_word(&mut self, peer: NodeKey, word: &NearWord) -> Option<Wish> {
        let own = self.own;
        let neighbour = self.neighbours.get_mut(&peer)?;
        match word.says {
            // One for each connection.
            NearSays::Open if neighbour.offered.is_some() => None,
            NearSays::Open => {
                neighbour.offered = Some(word.arena);
                Some(Wish::Map((peer, word.arena)))
            }
            NearSays::Mapped => {
                neighbour.reads_ours = own == Some(word.arena) && !neighbour.wants_payload;
                None
            }
            _ => {
                neighbour.wants_payload = true;
                if !core::mem::take(&mut neighbour.reads_ours) {
                    return None;
                }
                neighbour.pending.clear();
                let told = core::mem::take(&mut neighbour.told).into_iter();
                Some(Wish::Payload(
                    told.map(|(handle, sequence)| MessageId { handle: handle | HANDLE_NOTICE, sequence })
                        .collect(),
                ))
            }
        }
    }

    /// Something is to be sent: the cell for a notice, if that suffices. Then [`Self::handle_written`] follows.
    pub fn handle_send(&mut self, to: NodeKey, message: MessageId, span: Span) -> Option<Span> {
        self.own?;
        let fits = self.holds(message.handle, span.region) && span.len_bytes > NEAR_BYTES as u32;
        let neighbour = self.neighbours.get_mut(&to).filter(|neighbour| fits && neighbour.reads_ours)?;
        // Who asks again for what it was told of could not use it.
        if neighbour.told.get(&message.handle) == Some(&message.sequence) {
            return None;
        }
        neighbour.pending.insert((message.handle, message.sequence), span);
        let cell = self.cell(to, message.handle, false);
        if cell.is_none()
            && let Some(neighbour) = self.neighbours.get_mut(&to)
        {
            neighbour.pending.remove(&(message.handle, message.sequence));
        }
        cell
    }

    /// The notice stands in its cell, or could not be written (`whole` is false). True when it, or else the payload, is
    /// to be sent still.
    pub fn handle_written(&mut self, to: NodeKey, message: MessageId, span: Span, whole: bool) -> bool {
        let Some(neighbour) = self.neighbours.get_mut(&to) else { return false };
        let key = (message.handle, message.sequence);
        if neighbour.pending.get(&key) != Some(&span) {
            return false;
        }
        neighbour.pending.remove(&key);
        if whole {
            neighbour.told.insert(message.handle, message.sequence);
        }
        true
    }

    /// The span is about to change: no notice of it may go.
    pub fn handle_abort(&mut self, to: NodeKey, message: MessageId) {
        if let Some(neighbour) = self.neighbours.get_mut(&to) {
            neighbour.pending.remove(&(message.handle, message.sequence));
        }
    }

    /// Where a word to a neighbour is written.
    #[must_use]
    pub fn word_cell(&self, to: NodeKey, says: NearSays) -> Option<Span> {
        let handle = match says {
            NearSays::Open => HANDLE_NEAR,
            NearSays::Mapped => HANDLE_NEAR + 1,
            _ => HANDLE_NEAR + 2,
        };
        self.cell(to, handle, false)
    }

    /// Whether nothing but notices goes between this node and a peer, either way.
    #[must_use]
    pub fn is_near(&self, peer: NodeKey) -> bool {
        self.neighbours.get(&peer).is_some_and(|neighbour| neighbour.reads_ours && neighbour.theirs.is_some())
    }

    /// Notices that were not taken, or told of what was not there any more.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn forget_aliases(&mut self, which: impl Fn(&Alias) -> bool) -> Vec<Span> {
        let mut windows = Vec::new();
        self.aliases.retain(|(region, offset_bytes), alias| {
            let stays = !which(alias);
            if !stays {
                let len_bytes = alias.span.len_bytes;
                windows.push(Span { region: *region, offset_bytes: *offset_bytes, len_bytes });
            }
            stays
        });
        windows
    }

    fn claim(&self, peer: NodeKey, message: MessageId) -> Option<Claim> {
        let claim = *self.neighbours.get(&peer)?.claims.get(&message.handle)?;
        (claim.message == message).then_some(claim)
    }

    fn settle(&mut self, peer: NodeKey, message: MessageId) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.claims.remove(&message.handle);
        }
    }

    /// Whether that region is where messages of a handle come from.
    fn holds(&self, handle: u16, region: u16) -> bool {
        let regions = &self.regions;
        match handle {
            HANDLE_CUT | HANDLE_SNAPSHOT => region == regions.snapshot_out,
            // Not what was received of another owner: others write there.
            HANDLE_RESULT.. => region == regions.sums || region == regions.sums + 1,
            slot => slot < u16::from(regions.depth) && region == regions.codes + slot,
        }
    }

    fn cell(&self, peer: NodeKey, handle: u16, inward: bool) -> Option<Span> {
        let desk = self.neighbours.get(&peer)?.desk?;
        let cell = match handle {
            HANDLE_CUT => STATE_CELL,
            HANDLE_SNAPSHOT => STATE_CELL + 1,
            HANDLE_NEAR.. => WORD_CELL + (handle - HANDLE_NEAR),
            HANDLE_RESULT.. => RESULT_CELL + (handle - HANDLE_RESULT),
            slot => slot,
        };
        self.regions.cell(inward, desk, cell)
    }

    fn retire(&mut self, arena: ArenaId) -> Option<ArenaId> {
        if self.aliases.values().any(|alias| alias.arena == arena) {
            self.retired.push(arena);
            return None;
        }
        Some(arena)
    }
}

/// Slots that a sound neighbour does not take back one after the other, each in the moment that it takes to read of it.
const GONE_MAX: u8 = 8;
/// Cells of a desk: one for each ring slot, then for each owner's result, for the two parts of a state, for words.
const RESULT_CELL: u16 = 16;
const STATE_CELL: u16 = RESULT_CELL + plesio_wire::MEMBERS_MAX as u16;
const WORD_CELL: u16 = STATE_CELL + 2;

/// Whether messages of this handle are parts of a snapshot.
fn is_state(handle: u16) -> bool {
    matches!(handle, HANDLE_CUT | HANDLE_SNAPSHOT)
}

fn place(window: Span) -> (u16, u32) {
    (window.region, window.offset_bytes)
}

#[cfg(test)]
mod tests;
