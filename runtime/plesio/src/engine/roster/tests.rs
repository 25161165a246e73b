//! Strangers' words about addresses, told to one engine.

use super::*;
use crate::engine::{EngineConfig, Entrance, Period, genesis, node_id};
use crate::store::StorePlan;
use plesio_wire::sideband::{Address, Join, Message, Roster};
use plesio_wire::{Bounded, Digest, Instant, LogIndex, NodeId};

pub(in crate::engine) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(in crate::engine) fn entry(id: NodeId, port: u16) -> RosterEntry {
    RosterEntry { id, sideband: Address(address(port)), data: Address(address(port + 1)), weight: 1_000 }
}

pub(in crate::engine) fn ids() -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = (0..3u8).map(|number| node_id(&[number])).collect();
    ids.sort_by_key(NodeId::key);
    ids
}

/// The configuration of member 0 of three at ports 100, 200 and 300.
pub(in crate::engine) fn config(ids: &[NodeId]) -> EngineConfig {
    EngineConfig {
        entry: entry(ids[0], 100),
        incarnation: Incarnation(100),
        mesh: 1,
        model: Digest::default(),
        scale_exponent: 24,
        period_ns: 250_000_000,
        regions: StorePlan::new(64, 4, plesio_kernels::Codec::Full, 4).regions,
        chunk_bytes: 1_408,
        rules: crate::engine::Rules::default(),
        steering: crate::engine::Steering::default(),
        operators: Digest::default(),
        sealed: false,
        receive_buffer_bytes: 2 << 20,
        arena: None,
        seed: 1,
    }
}

pub(in crate::engine) fn engine() -> Engine {
    let config = config(&ids());
    let entries: Vec<_> = ids()
        .into_iter()
        .zip([100, 200, 300])
        .map(|(id, port)| (entry(id, port), Incarnation(u64::from(port))))
        .collect();
    let (roster, view) = genesis(&entries, &Period::of(config.period_ns), &config.common()).unwrap();
    Engine::new(config, Entrance::Genesis(roster, Box::new(view)), Instant(0)).unwrap()
}

fn join(id: NodeId, life: u64, port: u16) -> Join {
    let entry = entry(id, port);
    Join {
        id,
        incarnation: Incarnation(life),
        sideband: entry.sideband,
        data: entry.data,
        model: config(&ids()).common().digest(),
        ..Join::default()
    }
}

fn hear_joins(engine: &mut Engine, join: &Join) {
    for at_ms in 1..10 {
        let message = Message::Join(*join);
        engine.handle_message(Instant(at_ms * 100_000_000), None, join.sideband.0, 0, &message);
    }
}

#[test]
fn a_join_under_a_members_name_moves_it_only_when_a_view_seats_that_life() {
    let (mut engine, id) = (engine(), ids()[1]);
    for life in [200, 201] {
        hear_joins(&mut engine, &join(id, life, 900));
        assert_eq!(engine.address_of(id.key()), Some(&entry(id, 200)), "life {life}");
    }
    assert_eq!(engine.entry_of(id.key(), Incarnation(201)), Some(&entry(id, 900)));
    assert_eq!(engine.entry_of(id.key(), Incarnation(200)), Some(&entry(id, 200)));
    let mut view = *engine.consensus.view();
    view.number = 1;
    view.members[1].incarnation = Incarnation(201);
    view.members[1].admitted = LogIndex(1);
    // Another one whose new life this node never heard: where it was says nothing.
    view.members[2].incarnation = Incarnation(301);
    engine.enter_view(Instant(2_000_000_000), &view);
    assert_eq!(engine.address_of(id.key()), Some(&entry(id, 900)));
    assert_eq!(engine.address_of(ids()[2].key()), None);
    assert!(engine.join_timeout().is_some(), "it is asked for");
}

/// Who joined while a member was dead learnt where that had been. The view put the member out, a later one seated its next
/// life, which this node had not heard asking: it was looked for in the old place for ever, and every version waited for the
/// two that did not know each other.
#[test]
fn who_comes_back_after_a_view_without_it_is_asked_for_anew() {
    let (mut engine, id) = (engine(), ids()[2]);
    let mut view = *engine.consensus.view();
    let seats = view.members;
    (view.number, view.members) = (1, Bounded::from_slice(&seats[..2]));
    engine.enter_view(Instant(1_000_000_000), &view);
    assert_eq!(engine.address_of(id.key()), None);
    (view.number, view.members) = (2, seats);
    view.members[2].incarnation = Incarnation(301);
    engine.enter_view(Instant(2_000_000_000), &view);
    assert_eq!(engine.address_of(id.key()), None);
    assert!(engine.join_timeout().is_some(), "it is asked for");
    let told = Roster { view: 2, entries: Bounded::from_slice(&[entry(id, 700)]) };
    engine.handle_message(
        Instant(2_100_000_000),
        Some(ids()[1].key()),
        address(200),
        2,
        &Message::Roster(told),
    );
    assert_eq!(engine.address_of(id.key()), Some(&entry(id, 700)));
}

fn joins(engine: &mut Engine) -> Vec<(u16, u64)> {
    let mut told: Vec<(u16, u64)> = std::iter::from_fn(|| engine.poll_out())
        .filter_map(|out| match out {
            crate::engine::Out::Send(plesio_sideband::To::Address(to), Message::Join(join)) => {
                Some((to.port(), join.hold))
            }
            _ => None,
        })
        .collect();
    told.sort_unstable();
    told
}

/// Two of three came back in new lives while the third heard nobody, and a view had put both out that it knew: it had
/// forgotten where they were, and nobody could find it either.
#[test]
fn who_is_left_alone_asks_wherever_nodes_were() {
    let (mut engine, id) = (engine(), ids()[2]);
    let mut view = *engine.consensus.view();
    (view.number, view.members) = (1, Bounded::from_slice(&view.members[..2]));
    engine.enter_view(Instant(1_000_000_000), &view);
    assert_eq!(engine.address_of(id.key()), None, "it has no seat");
    engine.note_no_quorum(Instant(1_000_000_000));
    engine.handle_join_timeout(Instant(1_900_000_000));
    assert_eq!(joins(&mut engine), [], "the others may only be late");
    engine.handle_join_timeout(Instant(2_000_000_000));
    assert_eq!(joins(&mut engine), [(200, 0), (300, 0)], "once each, as a stranger");
    // Whoever is there says so, though nobody here knows it.
    assert!(engine.is_asked(None, address(300)) && !engine.is_asked(None, address(999)));
}

/// A view put out a member so long ago that its entries are forgotten, and states go to those that there are sessions with:
/// it went on asking one whom it knew and heard, a quorum of two in the view that it knew, for ever.
#[test]
fn who_hears_of_a_later_view_and_gets_nowhere_asks_as_a_stranger() {
    let (mut engine, ids) = (engine(), ids());
    let poll = Message::Query(plesio_wire::sideband::Query::default());
    let at = |ms: u64| Instant(1_000_000_000 + ms * 1_000_000);
    let from = Some(ids[1].key());
    engine.handle_message(at(0), from, address(200), 0, &poll);
    engine.handle_join_timeout(at(1_000));
    assert_eq!(joins(&mut engine), [], "its view is this node's");
    engine.handle_message(at(1_000), from, address(200), 1, &poll);
    engine.handle_message(at(1_500), from, address(200), 1, &poll);
    engine.handle_join_timeout(at(1_999));
    assert_eq!(joins(&mut engine), [], "what it lacks may only be late");
    assert!(engine.join_timeout().is_some_and(|due| due <= at(2_000)));
    engine.handle_join_timeout(at(2_000));
    assert_eq!(joins(&mut engine), [(200, 0), (300, 0)]);
    engine.note_quorum(at(2_050));
    engine.handle_join_timeout(at(2_100));
    assert_eq!(
        joins(&mut engine),
        [(200, 0), (300, 0)],
        "those whose view is a later one are no quorum of this one"
    );
}

/// A joiner was told of the state of a view, then all members of that view died or began new lives: it went on asking the
/// old ones for ever.
#[test]
fn a_joiner_that_gets_nowhere_asks_its_seeds_again() {
    let ids = ids();
    let newcomer = node_id(b"newcomer");
    let config = EngineConfig { entry: entry(newcomer, 500), ..config(&ids) };
    let seeds = vec![address(100), address(700)];
    let mut engine = Engine::new(config, Entrance::Join(seeds), Instant(0)).unwrap();
    engine.handle_join_timeout(Instant(0));
    assert_eq!(joins(&mut engine), [(100, 0), (700, 0)]);
    let told = Roster { view: 0, entries: Bounded::from_slice(&[entry(ids[0], 100), entry(ids[1], 200)]) };
    let message = Message::Roster(told);
    engine.handle_message(Instant(1_000_000), None, address(100), 0, &message);
    let (_, view) = crate::engine::genesis(
        &[(entry(ids[0], 100), Incarnation(1)), (entry(ids[1], 200), Incarnation(2))],
        &Period::of(250_000_000),
        &engine.config.common(),
    )
    .unwrap();
    let value = plesio_wire::value::Value::View(view);
    let message = Message::Decided { index: LogIndex(0), value };
    engine.handle_message(Instant(1_000_000), None, address(100), 0, &message);
    engine.handle_join_timeout(Instant(1_000_000));
    assert_eq!(joins(&mut engine), [(100, 0), (200, 0)], "the members that it was told of");
    let mut asked = Vec::new();
    for at_ms in 2..1_200 {
        engine.handle_join_timeout(Instant(at_ms * 1_000_000));
        asked.extend(joins(&mut engine));
        assert!(at_ms > 1_000 || asked.iter().all(|(port, _)| *port != 700), "at {at_ms} ms");
    }
    assert!(asked.contains(&(700, 0)), "nobody answers for a second: the other seed is asked, too");
}

#[test]
fn names_without_end_leave_few_connections() {
    let mut engine = engine();
    for number in 0..3_000u64 {
        let now = Instant(number * 10_000_000);
        let ghost = join(node_id(&number.to_le_bytes()), number, 1_000 + number as u16);
        engine.handle_message(now, None, ghost.sideband.0, 0, &Message::Join(ghost));
        assert!(engine.links.peers().len() <= 64 && engine.asking.len() <= 32 && engine.roster.len() <= 128);
    }
    assert!(engine.links.peers().len() > 10, "some were let ask");
}

#[test]
fn a_roster_fills_gaps_and_only_from_somebody_who_was_asked() {
    let (mut engine, ids) = (engine(), ids());
    let other = node_id(b"other");
    let told = Roster { view: 0, entries: Bounded::from_slice(&[entry(ids[1], 900), entry(other, 901)]) };
    let now = Instant(1);
    engine.handle_message(now, None, address(999), 0, &Message::Roster(told));
    assert_eq!(engine.address_of(other.key()), None);
    engine.handle_message(now, Some(ids[2].key()), address(300), 0, &Message::Roster(told));
    assert_eq!(engine.address_of(other.key()), Some(&entry(other, 901)));
    assert_eq!(engine.address_of(ids[1].key()), Some(&entry(ids[1], 200)));
    engine.roster.remove(&ids[1].key());
    engine.handle_message(now, Some(ids[2].key()), address(300), 0, &Message::Roster(told));
    assert_eq!(engine.address_of(ids[1].key()), Some(&entry(ids[1], 900)));
}
