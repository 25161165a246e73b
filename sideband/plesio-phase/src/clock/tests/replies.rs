//! Replies that cannot be: each reason by its name, and what three in a row come to.

use super::*;

/// A member that probes the reference, and its next probe.
fn asked() -> (World, Instant, Probe) {
    let mut world = World::new(&[(0, 0), (0, 10)], |_, _| QUIET, 8);
    world.run(2 * SECOND);
    for _ in 0..1_000 {
        world.now += MS;
        let now = world.hosts[1].local(world.now);
        if let Some(ClockTransmit { message: Message::Probe(probe), .. }) =
            world.hosts[1].clock.poll_transmit(now)
        {
            return (world, now, probe);
        }
    }
    panic!("it asks nobody");
}

/// An answer to `probe` that arrived `t2` after it was sent and left `t3` after that.
fn answer(probe: &Probe, t2: i64, t3: i64) -> ProbeReply {
    let Probe { pair, pos, t1, .. } = *probe;
    ProbeReply { pair, pos, t1_echo: t1, t2, t3, ..ProbeReply::default() }
}

#[test]
fn c9_08_a_reply_that_no_clock_could_give_is_refused_by_its_reason() {
    let ms = MS as i64;
    let day = 86_400_000 * ms;
    type Forge = fn(&Probe, i64, i64) -> ProbeReply;
    let cases: [(Forge, u64, BadExchange); 6] = [
        // It claims to have kept the probe for longer than the exchange took: a delay below zero.
        (|probe, ms, _| answer(probe, probe.t1, probe.t1 + 500 * ms), 1, BadExchange::Delay),
        // More than ten seconds under way.
        (|probe, ms, _| answer(probe, probe.t1 + ms, probe.t1 + ms), 10_002, BadExchange::Delay),
        // Left before it arrived.
        (|probe, ms, _| answer(probe, probe.t1 + 90 * ms, probe.t1), 100, BadExchange::Stamp),
        (|probe, _, _| answer(probe, i64::MAX, i64::MAX), 1, BadExchange::Stamp),
        (|probe, _, _| answer(probe, i64::MIN, i64::MIN), 1, BadExchange::Stamp),
        // A day from where the peer's clock was.
        (|probe, _, day| answer(probe, probe.t1 + day, probe.t1 + day), 1, BadExchange::Jump),
    ];
    for (at, (forge, after_ms, reason)) in cases.into_iter().enumerate() {
        let (mut world, now, probe) = asked();
        let bad = forge(&probe, ms, day);
        let clock = &mut world.hosts[1].clock;
        let line = clock.estimate();
        let later = now.after(after_ms * MS);
        assert_eq!(clock.handle_reply(later, NodeKey(0), &bad, None), Err(reason), "case {at}");
        // The probe is used up: the same once more answers nothing, and the estimate stands.
        assert_eq!(clock.handle_reply(later, NodeKey(0), &bad, None), Err(BadExchange::Outstanding));
        assert_eq!(clock.estimate(), line, "case {at}");
    }
}
