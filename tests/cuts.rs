//! Meshes whose network falls apart: nodes with real sockets on hosts of their own, and packets that a host does not let in.
//!
//! Each test skips aloud where the kernel grants no namespaces or no packet filter. Times are bounds for a busy machine; what
//! a cut cost is printed.

use plesio::{DataPath, Hello, Node, NodeConfig, NodeError, What};
use plesio_netns::Hosts;
use plesio_tests::mesh::{Member, config, employ, settle_and_end, wait};
use plesio_tests::say_skipped;
use plesio_udp::Requested;
use plesio_wire::NodeKey;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Ends the test where this machine cannot run it.
macro_rules! or_skip {
    ($asked:expr) => {
        match $asked {
            Ok(got) => got,
            Err(why) => return say_skipped(&why),
        }
    };
}

/// Nodes of one test at a time: the end of a mesh is that no thread of any node is left in this process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sealed node on each host, the lowest key on host 0 and so on upward, at work.
fn mesh(hosts: &Hosts, count: u8) -> Result<Vec<Member>, String> {
    let mut configs: Vec<NodeConfig> =
        (0..count.into()).map(|index| config(index, Requested::Auto)).collect();
    configs.sort_by_key(|config| config.id.key());
    let bind = |(host, mut config): (u8, NodeConfig)| {
        let address = SocketAddr::from((hosts.address(host), 0));
        (config.data, config.sideband) = (address, address);
        // One machine all the same: memory knows no cut.
        config.path = DataPath::Udp;
        config.period_ns = 250_000_000;
        let node: Result<Node, NodeError> = hosts.run(host, || Node::bind(config))?;
        node.map_err(|error| format!("{address}: {error}"))
    };
    let nodes: Result<Vec<Node>, String> = (0..count).zip(configs).map(bind).collect();
    let nodes = nodes?;
    let roster: Vec<Hello> = nodes.iter().map(Node::hello).collect();
    let enter = |node: Node| {
        let hello = node.hello();
        let running = node.start(&roster).map_err(|error| error.to_string())?;
        Ok(employ(running, hello, 1e-4))
    };
    let members: Result<Vec<Member>, String> = nodes.into_iter().map(enter).collect();
    let members = members?;
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    Ok(members)
}

fn key(member: &Member) -> NodeKey {
    member.hello.id.key()
}

/// So many versions more at all of them.
fn go_on(members: &[Member], versions: u64) {
    let before = members.iter().map(Member::version).max().unwrap_or(0);
    wait("versions", || members.iter().all(|member| member.version() >= before + versions));
}

/// Whether every one of `members` has the view of exactly these.
fn is_view(members: &[Member], view: &[Member]) -> bool {
    let keys: Vec<NodeKey> = view.iter().map(key).collect();
    members.iter().all(|member| member.view() == keys)
}

/// The first moment at which all are members again and hold a version that was not there before, since `begun`.
fn reunion(members: &[Member], begun: Instant) -> Duration {
    let before = members.iter().map(Member::version).max().unwrap_or(0);
    wait("everybody to be a member again", || {
        is_view(members, members) && members.iter().all(|member| member.version() > before)
    });
    begun.elapsed()
}

/// None of them commits anything for a while.
fn stands_still(members: &[Member], while_s: u64) {
    let before: Vec<u64> = members.iter().map(Member::version).collect();
    std::thread::sleep(Duration::from_secs(while_s));
    let after: Vec<u64> = members.iter().map(Member::version).collect();
    assert_eq!(after, before, "a side without a quorum commits nothing");
}

/// F4: the larger side goes on, the smaller one says why it does not and trains on; together again within seconds, with the
/// same bits for every version.
#[test]
fn f4_of_a_mesh_cut_in_two_the_larger_side_goes_on_and_both_meet_again() {
    let _alone = alone();
    let hosts = or_skip!(Hosts::open(5));
    let members = or_skip!(mesh(&hosts, 5));
    let (minor, major) = members.split_at(2);
    hosts.cut(&[0, 1], &[2, 3, 4]).expect("it could before");
    wait("the view of the larger side", || is_view(major, major));
    go_on(major, 4);
    wait("the smaller side to notice", || {
        minor.iter().all(|member| member.has(|what| matches!(what, What::NoQuorum { live: 2, members: 5 })))
    });
    stands_still(minor, 1);
    hosts.heal().expect("it could before");
    println!("together again after {:?}", reunion(&members, Instant::now()));
    settle_and_end(members);
}

/// F5: of four cut in the middle the side of the lowest id goes on.
#[test]
fn of_an_even_split_the_side_of_the_lowest_goes_on() {
    let _alone = alone();
    let hosts = or_skip!(Hosts::open(4));
    let members = or_skip!(mesh(&hosts, 4));
    let (low, high) = members.split_at(2);
    hosts.cut(&[0, 1], &[2, 3]).expect("it could before");
    wait("the view of the lowest", || is_view(low, low));
    go_on(low, 4);
    wait("the others to notice", || {
        high.iter().all(|member| member.has(|what| matches!(what, What::NoQuorum { live: 2, members: 4 })))
    });
    stands_still(high, 1);
    hosts.heal().expect("it could before");
    println!("together again after {:?}", reunion(&members, Instant::now()));
    settle_and_end(members);
}

/// F6: a host that is heard and hears nobody takes itself for the sick one, and the others do without it.
#[test]
fn who_hears_nobody_accuses_nobody_and_is_left_out() {
    let _alone = alone();
    let hosts = or_skip!(Hosts::open(4));
    let members = or_skip!(mesh(&hosts, 4));
    let (others, deaf) = members.split_at(3);
    hosts.deafen(3, &[0, 1, 2]).expect("it could before");
    wait("versions without it, or its way back", || others.iter().all(|member| member.view().len() == 3));
    go_on(others, 4);
    assert!(
        !deaf[0].has(|what| matches!(what, What::Dead(_))),
        "who hears nobody calls nobody dead: {:?}",
        deaf[0]
            .events()
            .iter()
            .map(|event| &event.what)
            .filter(|what| matches!(what, What::Dead(_)))
            .collect::<Vec<_>>()
    );
    for member in others {
        let lost = |what: &What| matches!(what, What::View { removed, .. } if others.iter().any(|o| removed.contains(&key(o))));
        assert!(!member.has(lost), "no sound member was put out");
    }
    hosts.heal().expect("it could before");
    println!("together again after {:?}", reunion(&members, Instant::now()));
    settle_and_end(members);
}

/// F6: one dead direction between two is no majority. Nobody is put out for it: what the deaf one misses of control comes
/// through others, and versions follow each other; what is committed is the same everywhere once it is whole.
#[test]
fn f6_one_dead_direction_puts_nobody_out_and_its_control_goes_through_a_third() {
    let _alone = alone();
    let hosts = or_skip!(Hosts::open(4));
    let members = or_skip!(mesh(&hosts, 4));
    let relays = |member: &Member| {
        let counted = |what: &What| match what {
            What::Progress(progress) => Some(progress.counters.relays),
            _ => None,
        };
        member.newest(counted).unwrap_or_default()
    };
    hosts.deafen(1, &[2]).expect("it could before");
    let before = members[0].version();
    std::thread::sleep(Duration::from_secs(8));
    let (versions, views) = (members[0].version() - before, members[0].view().len());
    let told: Vec<_> = members.iter().map(relays).collect();
    println!("in 8 s with one dead direction: {versions} versions, {views} members in the end, {told:?}");
    assert!(versions >= 8, "{versions} versions in 8 s");
    assert!(members.iter().all(|member| member.view().len() == 4), "nobody is put out");
    assert!(!members.iter().any(|member| member.has(|what| matches!(what, What::Dead(_)))));
    // The first of two that do not hear each other hands over, the other two carry, the second receives.
    assert!(
        told[2].handed > 20 && told[0].carried + told[3].carried > 20 && told[1].received > 20,
        "{told:?}"
    );
    hosts.heal().expect("it could before");
    println!("together again after {:?}", reunion(&members, Instant::now()));
    settle_and_end(members);
}
