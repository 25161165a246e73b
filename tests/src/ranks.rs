//! Ranks of groups by datagrams, each in a thread of this process, and the tensors that they bring.

use crate::mesh::identity;
use plesio::{Identity, NetworkGroup, NetworkPlan, Protection, Trust};
use plesio_udp::{Requested, WaitMode};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What a rank of a group by datagrams is told.
#[must_use]
pub fn network(rank: u8, ranks: u8, bytes: u32, protection: Protection) -> NetworkPlan {
    NetworkPlan {
        session: 77,
        rank,
        ranks,
        tensor_bytes: bytes,
        bind: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        chunk_bytes: 65_408,
        backend: Requested::Auto,
        wait: WaitMode::Block,
        protection,
        trust: Trust::Open,
        ids: (0..u64::from(ranks)).map(|rank| identity(rank).node.public().id()).collect(),
        deadline: Duration::from_secs(30),
    }
}

/// What protects a rank that shows this.
#[must_use]
pub fn sealed(identity: Identity) -> Protection {
    Protection::Sealed(Box::new(identity))
}

/// Every rank in a thread of its own, as `plan` tells it; others find it where `through` says.
pub fn by_plan<T: Send>(
    ranks: u8,
    plan: impl Fn(u8) -> NetworkPlan + Sync,
    through: impl Fn(SocketAddr) -> SocketAddr,
    act: impl Fn(u8, &mut NetworkGroup) -> T + Sync,
) -> Vec<T> {
    let (tell, told) = std::sync::mpsc::channel();
    let met = std::sync::Barrier::new(usize::from(ranks) + 1);
    let addresses = std::sync::RwLock::new(Vec::new());
    std::thread::scope(|scope| {
        let (plan, act, met, addresses) = (&plan, &act, &met, &addresses);
        let rank = |rank: u8| {
            let tell = tell.clone();
            move || {
                let mut group = NetworkGroup::open(&plan(rank)).expect("loopback is there");
                tell.send((rank, group.local_address())).expect("the test waits");
                met.wait();
                // Some have met, and call, before others look for them.
                let until = Instant::now() + Duration::from_millis(20) * u32::from(rank);
                while Instant::now() < until {
                    group.turn(Duration::from_millis(2)).expect("the port works");
                }
                group.meet(&addresses.read().expect("nobody panics")).expect("one address each");
                act(rank, &mut group)
            }
        };
        let threads: Vec<_> = (0..ranks).map(|number| scope.spawn(rank(number))).collect();
        let mut found: Vec<_> = (0..ranks).map(|_| told.recv().expect("every rank opens")).collect();
        found.sort_unstable();
        *addresses.write().expect("nobody panics") =
            found.into_iter().map(|(_, address)| through(address)).collect();
        met.wait();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
    })
}

/// The same in plaintext, and with nobody between them.
pub fn by_datagrams<T: Send>(
    ranks: u8,
    bytes: u32,
    act: impl Fn(u8, &mut NetworkGroup) -> T + Sync,
) -> Vec<T> {
    let plan = |rank| network(rank, ranks, bytes, Protection::Plaintext);
    by_plan(ranks, plan, |address| address, act)
}

/// The same sealed.
pub fn by_sealed<T: Send>(ranks: u8, bytes: u32, act: impl Fn(u8, &mut NetworkGroup) -> T + Sync) -> Vec<T> {
    let plan = |rank: u8| network(rank, ranks, bytes, sealed(identity(rank.into())));
    by_plan(ranks, plan, |address| address, act)
}

/// An element of a rank's tensor: whole, so that sums are exact.
#[must_use]
pub fn value(rank: u64, at: u64) -> f32 {
    (1 + (at * 7 + rank * 3) % 61) as f32
}

/// Binary32 elements as they lie in a tensor.
#[must_use]
pub fn bytes(values: impl Iterator<Item = f32>) -> Vec<u8> {
    values.flat_map(f32::to_le_bytes).collect()
}

/// Values around zero, most of them small.
#[must_use]
pub fn real(rank: u8, at: u64) -> f32 {
    let mixed = (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ u64::from(rank) << 40);
    let uniform = |shift: u32| (mixed >> shift & 0xffff) as f32 / 65_536.0;
    (uniform(0) + uniform(16) + uniform(32) + uniform(48) - 2.0) * 0.02
}
