//! Nodes that were started differently, and what each of them hears about it.

use super::*;
use crate::engine::roster::tests::{address, config, engine, entry, ids};
use crate::engine::{Engine, EngineConfig, Entrance, Out, Rules};
use crate::store::StorePlan;
use plesio_consensus::{Event, Lambda, WeightMode};
use plesio_kernels::{Codec, Nesterov, Outer};
use plesio_sideband::To;
use plesio_wire::Instant;
use plesio_wire::sideband::Message;

/// Lets a node with `config` ask a member, which must refuse it; what the node says then.
fn refused(config: EngineConfig) -> Vec<&'static str> {
    let mut member = engine();
    let joiner =
        EngineConfig { entry: entry(node_id(b"joiner"), 900), incarnation: Incarnation(900), ..config };
    let mut joiner = Engine::new(joiner, Entrance::Join(vec![address(100)]), Instant(0)).unwrap();
    let mut told = Vec::new();
    for at_ms in 1..5 {
        let now = Instant(at_ms * 100_000_000);
        joiner.handle_timeout(now);
        while let Some(out) = joiner.poll_out() {
            if let Out::Send(_, message @ Message::Join(_)) = out {
                member.handle_message(now, None, address(900), 0, &message);
            }
        }
        while let Some(out) = member.poll_out() {
            if let Out::Send(To::Address(to), message) = out {
                assert_eq!(to, address(900));
                joiner.handle_message(now, None, address(100), 0, &message);
            }
        }
        while let Some(event) = joiner.poll_event() {
            if let Event::Differs { what, .. } = event {
                told.push(what);
            }
        }
    }
    let let_in = member.consensus().observers().count() > 0;
    assert_eq!(let_in, told.is_empty(), "refused and told, or neither");
    told
}

#[test]
fn a_joiner_with_other_parameters_is_refused_and_told_which_once() {
    let same = config(&ids());
    assert_eq!(refused(same.clone()), [""; 0]);
    assert_eq!(refused(EngineConfig { chunk_bytes: 256, ..same.clone() }), ["chunk_bytes"]);
    assert_eq!(refused(EngineConfig { scale_exponent: 20, ..same.clone() }), ["the scale exponent"]);
    let regions = StorePlan::new(64, 8, Codec::Full, 4).regions;
    assert_eq!(refused(EngineConfig { regions, ..same.clone() }), ["ring_depth"]);
    let regions = StorePlan::new(64, 4, Codec::Int8, 4).regions;
    assert_eq!(refused(EngineConfig { regions, ..same.clone() }), ["the codec"]);
    let regions = StorePlan::new(64, 4, Codec::Full, 1).regions;
    assert_eq!(refused(EngineConfig { regions, ..same.clone() }), ["how much a member may own"]);
    let rules = Rules { weights: WeightMode::Work, ..same.rules };
    assert_eq!(refused(EngineConfig { rules, ..same.clone() }), ["how contributions weigh"]);
    let rules = Rules { lambda: Lambda::new(15_099_494).unwrap(), ..same.rules };
    assert_eq!(refused(EngineConfig { rules, ..same.clone() }), ["what staleness leaves of a weight"]);
    let rules = Rules { outer: Outer::Nesterov(Nesterov::TUNED), ..same.rules };
    assert_eq!(refused(EngineConfig { rules, ..same.clone() }), ["the outer step"]);
    let rules = Rules { tau: 8, ..same.rules };
    assert_eq!(refused(EngineConfig { rules, ..same.clone() }), ["tau"]);
    for other in [
        EngineConfig { rules: Rules { kappa: 9, ..same.rules }, ..same.clone() },
        EngineConfig { rules: Rules { t_dead_ns: 2_000_000_000, ..same.rules }, ..same.clone() },
        EngineConfig { model: Digest([7; 16]), ..same.clone() },
        EngineConfig { operators: Digest([7; 16]), ..same.clone() },
        EngineConfig { regions: StorePlan::new(65, 4, Codec::Full, 4).regions, ..same.clone() },
    ] {
        assert!(
            refused(other)[0].starts_with("the model"),
            "the digest covers what the refusal has no room for"
        );
    }
}

#[test]
fn a_strangers_refusal_is_not_believed() {
    let config = EngineConfig { entry: entry(node_id(b"joiner"), 900), ..config(&ids()) };
    let mut joiner = Engine::new(config, Entrance::Join(vec![address(100)]), Instant(0)).unwrap();
    let nack = plesio_wire::sideband::Nack { code: plesio_wire::sideband::nack::MODEL, ..Default::default() };
    joiner.handle_message(Instant(1), None, address(999), 0, &Message::Nack(nack));
    assert_eq!(joiner.poll_event(), None);
}

#[test]
fn first_views_of_other_parameters_differ() {
    let entries: Vec<_> =
        ids().into_iter().zip(1..).map(|(id, life)| (entry(id, 100), Incarnation(life))).collect();
    let common = config(&ids()).common();
    let digest = |common: &Common| genesis(&entries, &Period::of(250_000_000), common).unwrap().1.digest();
    let others = [
        Common { chunk_bytes: 256, ..common },
        Common { ring_depth: 8, ..common },
        Common { scale_exponent: 20, ..common },
        Common { elements: 65, ..common },
        Common { codec: Codec::Int4By64, ..common },
        Common { share_factor: 1, ..common },
        Common { model: Digest([7; 16]), ..common },
        Common { rules: Rules { weights: WeightMode::Equal, ..common.rules }, ..common },
        Common { rules: Rules { lambda: Lambda::MIN, ..common.rules }, ..common },
        Common { operators: Digest([7; 16]), ..common },
    ];
    for other in &others {
        assert_ne!(digest(&common), digest(other), "{other:?}");
    }
    assert_eq!(digest(&common), digest(&common.clone()));
}
