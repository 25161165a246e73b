//! The bad path of a bench: a relay in a process of its own, with an end for each end of each flow.
//!
//! ```text
//!  begin ──▶ [stands for answer]  link  [stands for begin] ──▶ answer      all sockets at the driver's own address
//! ```
//!
//! The ends hear the relay's ports in place of each other's, so they run as they always do. What carries no datagrams
//! cannot go through here. Like the ends it has a group of the scheduler's: a relay that waits for its turn would be
//! the path's rate.

use super::group;
use super::link::{Address, Order, Said};
use super::relay::RelayFigures;
use super::worker::{hear_orders, say};
use crate::args::ImpairArgs;
use crate::failure::{Exit, Failure};
use plesio_relay::{Relay, RelayConfig, RelayError};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};

/// Stands between the ends of one run after the other until stdin closes.
pub(crate) fn run_between(seed: u64, flags: &ImpairArgs) -> Result<Exit, Failure> {
    let heard = hear_orders()?;
    // What was refused, the ends note.
    let _noted = group::enter(None);
    let config = RelayConfig { impairment: flags.impairment(), seed, ..RelayConfig::default() };
    let mut relay = None;
    while let Ok(order) = heard.recv() {
        match order {
            Order::Between(own, mut begin, mut answer) => match between(config, own, &mut begin, &mut answer)
            {
                Ok(stands) => {
                    relay = Some(stands);
                    say(&Said::Between(begin, answer));
                }
                Err(error) => say(&Said::Failed(failed(error).into())),
            },
            Order::Apart => match relay.take().as_ref().map(Relay::report) {
                Some(Ok(report)) => say(&Said::Apart(RelayFigures::from(&report))),
                Some(Err(error)) => say(&Said::Failed(failed(error).into())),
                None => {}
            },
            _ => {}
        }
    }
    Ok(Exit::Ok)
}

/// Stands between two ends, each of which hears the relay's address in place of the other's: the real ones go in, the
/// relay's come out.
fn between(
    config: RelayConfig,
    own: IpAddr,
    begin: &mut Address,
    answer: &mut Address,
) -> Result<Relay, RelayError> {
    let relay = Relay::start(config)?;
    for address in [begin, answer] {
        let real = std::mem::replace(&mut address.ip, own);
        // Several flows may end at one port.
        let mut stands = BTreeMap::new();
        for port in &mut address.ports {
            if let Entry::Vacant(entry) = stands.entry(*port) {
                let (end, bound) = relay.open(SocketAddr::new(own, 0))?;
                relay.stands_for(end, SocketAddr::new(real, *port));
                entry.insert(bound.port());
            }
            *port = stands[port];
        }
    }
    Ok(relay)
}

fn failed(error: RelayError) -> Failure {
    Failure::run("relay", "cannot make the path between the ends bad", error)
        .fix("leave out --loss, --delay and the other flags of a bad path")
}
