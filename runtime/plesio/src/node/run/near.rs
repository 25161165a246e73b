//! Memory of peers on this host: what is mapped of it, and work on bytes that lie there.

use super::{NodeError, Runner, Seat};
use crate::engine::{Note, Work};
use crate::event::What;
use crate::node::DataPath;
use crate::node::doors::{Doors, News};
use crate::store::StoreError;
use crate::store::near::Near;
use plesio_collective::{Alias, ArenaId, Sum};
use plesio_udp::Waker;
use plesio_wire::near::{NEAR_BYTES, Notice, near_bytes};

/// The door to this node's memory, if it is to have one and can; and how peers on this host are reached.
pub(super) fn open_doors(seat: &Seat, waker: &Waker) -> (Option<Doors>, String) {
    let config = &seat.config;
    let refused = match config.path {
        DataPath::Udp => "asked for",
        // What is advertised stands between the nodes, and memory would go around it.
        DataPath::Auto if config.advertise_data.is_some() => "another address than its own is advertised",
        DataPath::Auto => "",
    };
    if !refused.is_empty() {
        return (None, format!("udp: {refused}"));
    }
    let folder = config.doors.clone().unwrap_or_else(plesio_memory::doors_of_user);
    match Doors::open(&folder, seat.store.arena(), config.id.key(), waker.clone()) {
        Ok(doors) => {
            (Some(doors), format!("memory, where a peer's door is in {}; else udp", folder.display()))
        }
        Err(cause) => (None, format!("udp: {cause}")),
    }
}

impl Runner {
    /// What became of the peers' doors.
    pub(super) fn take_mapped(&mut self) {
        while let Some(news) = self.doors.as_mut().and_then(|doors| doors.poll_news()) {
            match news {
                News::Mapped(arena, foreign) => {
                    self.mapped.insert(arena, foreign);
                    self.engine.handle_mapped(self.clock.now(), arena);
                }
                News::Refused((peer, _), cause) if self.unmapped < UNMAPPED_NOTES_MAX => {
                    self.unmapped += 1;
                    self.say(What::Note(format!(
                        "node {:016x} is on this host, and what it sends goes by UDP all the same: {cause}",
                        peer.0
                    )));
                }
                News::Refused(..) => {}
                News::Shut(cause) => self.say(What::Note(format!(
                    "this node's door is gone, and who comes now reaches it by UDP: {cause}"
                ))),
            }
        }
    }

    /// The part of the engine's work that has to do with memory of others.
    pub(super) fn work_near(&mut self, work: Work) -> Result<(), NodeError> {
        match work {
            Work::Tell { to, message, cell, note } => {
                let written = self.write(cell, note).is_some();
                self.engine.handle_written(self.clock.now(), to, message, cell, note, written);
            }
            Work::Read { peer, message, cell } => {
                let mut bytes = [0; NEAR_BYTES];
                // A shorter message is none; the machine says so.
                let len = (cell.len_bytes as usize).min(NEAR_BYTES);
                self.store.arena().read(cell, &mut bytes[..len]).map_err(StoreError::from)?;
                self.engine.handle_read(self.clock.now(), peer, message, &bytes[..len]);
            }
            Work::Map(arena) => {
                if let Some(doors) = &mut self.doors {
                    doors.map(arena);
                }
            }
            Work::Unmap(arena) => {
                if let Some((foreign, doors)) = self.mapped.remove(&arena).zip(self.doors.as_mut()) {
                    doors.unmap(foreign);
                }
            }
            Work::Take { message, from, into } => {
                let taken = self.near(from).map_or(Err(StoreError::Torn), |near| self.store.take(near, into));
                let whole = match taken {
                    Err(StoreError::Torn) => false,
                    other => other.map(|()| true)?,
                };
                self.engine.handle_taken(self.clock.now(), from.arena.0, message, into, whole);
            }
            Work::SquareNear { contributor, seq, alias, elements } => {
                let near = self.near(alias);
                match near.map_or(Err(StoreError::Torn), |near| self.store.square_near(near, elements)) {
                    Ok(sumsq) => self.engine.handle_squared(self.clock.now(), contributor, seq, sumsq),
                    Err(StoreError::Torn) => self.engine.handle_gone(self.clock.now(), alias),
                    Err(error) => return Err(error.into()),
                }
            }
            Work::SumNear { sum, aliases } => self.sum_near(&sum, &aliases)?,
            other => unreachable!("{other:?} has nothing to do with memory of others"),
        }
        Ok(())
    }

    fn sum_near(&mut self, sum: &Sum, aliases: &[Option<Alias>]) -> Result<(), NodeError> {
        let began = self.clock.now();
        let gone: Vec<ArenaId> = aliases
            .iter()
            .flatten()
            .filter(|alias| self.near(**alias).is_none())
            .map(|alias| alias.arena)
            .collect();
        let torn = if gone.is_empty() {
            let near: Vec<_> = aliases.iter().map(|alias| alias.and_then(|alias| self.near(alias))).collect();
            self.store.sum_near(sum, &near)?.iter().map(|alias| alias.arena).collect()
        } else {
            gone
        };
        let now = self.clock.now();
        if torn.is_empty() {
            self.engine.handle_summed(now, sum.context, now.since(began));
        } else {
            self.engine.handle_torn(now, &torn);
        }
        Ok(())
    }

    fn near(&self, alias: Alias) -> Option<Near<'_>> {
        self.mapped.get(&alias.arena).map(|foreign| Near { foreign, alias })
    }

    /// Writes a note into its cell; `None` where there is nothing to be told, or no place to do it.
    fn write(&self, cell: plesio_wire::Span, note: Note) -> Option<()> {
        let bytes = match note {
            Note::Word(word) => near_bytes(&word),
            Note::Notice(span) => {
                let generation = self.store.arena().generation(span.region).ok()?.word();
                near_bytes(&Notice { generation, arena: self.doors.as_ref()?.arena, span })
            }
        };
        self.store.note(cell, &bytes).ok()
    }
}

const UNMAPPED_NOTES_MAX: u8 = 8;
