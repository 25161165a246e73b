//! Many senders into one receiver over one bottleneck with a small queue.

use crate::shaped::{GIGABIT, Net, Shape};
use plesio_proto::{Config, Congestion, Granter, Grants, Turn};

const MILLISECOND: u64 = 1_000_000;
const SENDERS: usize = 31;
const BUDGET_BYTES: u64 = 192 << 10;
const GRANT_BYTES: u64 = 16 << 10;

fn config(congestion: Congestion) -> Config {
    Config { congestion, grants: Grants::Shared, ..Config::default() }
}

/// Payload of every flow in `span_ns`, after the first 100 ms, and what the bottleneck dropped then.
fn goodput(
    name: &str,
    config: &Config,
    turn: Turn,
    queue_bytes: u64,
    flows: usize,
    span_ns: u64,
) -> (Vec<u64>, u64) {
    let mut net = Net::new(config, Shape { queue_bytes, ..GIGABIT }, flows);
    net.granter =
        (config.grants == Grants::Shared).then(|| Granter::new(BUDGET_BYTES, GRANT_BYTES, turn, flows));
    net.run_for(100 * MILLISECOND);
    let (before, dropped) = (net.received(), net.dropped);
    net.run_for(span_ns);
    let received: Vec<u64> =
        net.received().iter().zip(before).map(|(after, before)| after - before).collect();
    let sum: u64 = received.iter().sum();
    let of_mean = |bytes: Option<&u64>| (bytes.unwrap() * flows as u64) as f64 / sum as f64;
    let (least, most) = (of_mean(received.iter().min()), of_mean(received.iter().max()));
    println!(
        "{name}, queue of {} KiB: {flows} senders, {} Mbit/s in sum, each {least:.2} to {most:.2} of the mean, {} dropped",
        queue_bytes >> 10,
        sum * 8_000 / span_ns,
        net.dropped - dropped,
    );
    (received, net.dropped - dropped)
}

#[test]
fn thirty_one_senders_do_not_collapse_and_share_alike() {
    for congestion in [Congestion::Credit, Congestion::RateDelay] {
        for queue_bytes in [64 << 10, 256 << 10] {
            let name = format!("{congestion:?}");
            let config = config(congestion);
            let one: u64 =
                goodput(&name, &config, Turn::RoundRobin, queue_bytes, 1, 300 * MILLISECOND).0.iter().sum();
            let (all, _) = goodput(&name, &config, Turn::RoundRobin, queue_bytes, SENDERS, 300 * MILLISECOND);
            let sum: u64 = all.iter().sum();
            assert!(sum * 10 >= one * 9, "{name}: {sum} of {one}");
            let mean = sum / SENDERS as u64;
            for (sender, received) in all.iter().enumerate() {
                assert!(
                    (mean / 2..=mean * 2).contains(received),
                    "{name}: {sender} got {received} of {mean}"
                );
            }
        }
    }
}

/// What the shared budget is worth, and that the shortest first leaves no capacity unused.
#[test]
fn without_shared_grants_the_queue_overflows_all_the_time() {
    let shared = config(Congestion::Credit);
    let own = Config { grants: Grants::Own, ..shared };
    let (_, alone) =
        goodput("Credit, own grants", &own, Turn::RoundRobin, 256 << 10, SENDERS, 30 * MILLISECOND);
    let (shortest, together) =
        goodput("Credit", &shared, Turn::ShortestFirst, 256 << 10, SENDERS, 30 * MILLISECOND);
    assert!(alone > 20 * together, "{alone} and {together} dropped");
    assert!(shortest.iter().sum::<u64>() * 8 / 30_000 > 850);
}
