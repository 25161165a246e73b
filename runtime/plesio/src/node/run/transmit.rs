//! Trains and control datagrams of the connections, to the sockets; and what the program is told of the ways they go.

use super::Runner;
use crate::event::{Way, What};
use plesio_proto::{Congestion, Next};
use plesio_udp::SendError;
use plesio_wire::NodeKey;

impl Runner {
    /// Sends what is due; whether there was more than one turn takes.
    pub(super) fn transmit(&mut self) -> bool {
        for _ in 0..TRAINS_PER_TURN {
            let now = self.clock.now();
            let Some((peer, next)) = self.engine.poll_transmit_into(now, &mut self.train) else {
                return false;
            };
            let Some(index) = self.peers.by_key.get(&peer) else { continue };
            let sent = match &next {
                Next::Train => self.io.send_train(*index, &self.train).map(|_| ()),
                Next::Control(control) => self.io.send_control(*index, &control.header, control.body()),
            };
            match (sent, next) {
                (Err(SendError::WouldBlock), _) => return false,
                // A probe that is too long has its answer in that none comes.
                (Err(SendError::TooLarge { .. }), Next::Train) => {
                    let payload_bytes = self.train.first().map_or(0, |(_, span)| span.len_bytes);
                    self.engine.handle_path_limit(now, peer, payload_bytes);
                }
                // An address that the kernel refuses is another's word as well.
                (Err(error @ SendError::System { .. }), _) => self.note_unreachable(peer, &error.to_string()),
                // What is dropped is lost, as on the wire, and recovered the same way: nobody there, a session that is
                // being made, or keys that changed for a connection begun anew.
                (Ok(()) | Err(_), _) => {}
            }
        }
        true
    }

    /// Says how datagrams go to the peers, when that has changed.
    pub(super) fn note_ways(&mut self) {
        let way = |(peer, chunk_bytes, congestion)| Way {
            peer,
            chunk_bytes,
            congestion: match congestion {
                Congestion::Credit => "credit",
                Congestion::RateDelay => "rate-delay",
                _ => "other",
            },
            path: if self.engine.near().is_near(peer) { "memory" } else { "udp" },
        };
        let ways: Vec<Way> = self.engine.ways().map(way).collect();
        if ways != self.ways {
            self.ways.clone_from(&ways);
            self.say(What::Ways(ways));
        }
    }

    /// Said a few times and no more: whoever may ask to join may name addresses without end.
    pub(super) fn note_unreachable(&mut self, peer: NodeKey, cause: &str) {
        if self.unreachable < UNREACHABLE_NOTES_MAX {
            self.unreachable += 1;
            self.say(What::Note(format!("no data link to node {:016x}: {cause}", peer.0)));
        }
    }
}

pub(super) const TRAINS_PER_TURN: usize = 64;
const UNREACHABLE_NOTES_MAX: u8 = 8;
