//! The network: every directed pair of hosts is a link with a delay and with what is wrong with it just now.
//!
//! Without a fault a link keeps the order and loses nothing. Datagrams are real bytes: a damaged one differs from
//! what was sent, and remembers that it does, so that the receiver's checks can be judged.

use crate::config::Line;
#[cfg(test)]
use crate::impair::Rate;
use crate::impair::{Fate, Impairment, Path, Tally};
use crate::queue::{Due, Queue};
use crate::random::Random;

/// Which socket of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plane {
    Data,
    Sideband,
    /// Not a socket: the sender's host says that nobody listens at the sideband's port.
    Refusal,
}

/// A datagram on its way.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) plane: Plane,
    pub(crate) damaged: bool,
    pub(crate) bytes: Vec<u8>,
}

/// All links and everything on them.
#[derive(Debug)]
pub(crate) struct Net {
    hosts: usize,
    links: Vec<Path>,
    packets: Vec<Packet>,
    free: Vec<u32>,
    /// Buffers of datagrams that have been read.
    spare: Vec<Vec<u8>>,
    random: Random,
    copy: Vec<u8>,
    /// Where a host's line begins and ends, if it has its limits; and what it carries when nothing narrows it.
    gates: Vec<Option<(Gate, Gate)>>,
    lines: Vec<Option<Line>>,
    /// Bytes of datagrams that were sent: data, sideband.
    sent_bytes: [u64; 2],
    #[cfg(test)]
    throttled: Vec<Option<u64>>,
}

/// One end of a line with a rate, and the queue before it.
#[derive(Clone, Copy, Debug)]
struct Gate {
    bytes_per_s: u64,
    busy_until_ns: u64,
}

impl Gate {
    fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1), busy_until_ns: 0 }
    }

    /// When a datagram is through; `None`: the queue has no place for it.
    fn pass(&mut self, now_ns: u64, len_bytes: usize) -> Option<u64> {
        let begin_ns = self.busy_until_ns.max(now_ns);
        if begin_ns - now_ns > GATE_QUEUE_NS {
            return None;
        }
        let takes_ns = u128::from(len_bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_s);
        self.busy_until_ns = begin_ns.saturating_add(u64::try_from(takes_ns).unwrap_or(u64::MAX));
        Some(self.busy_until_ns)
    }
}

/// What waits longer before a line is dropped there.
const GATE_QUEUE_NS: u64 = 50_000_000;
const SPARE_MAX: usize = 1_024;

impl Net {
    /// `path_ns`: shortest and longest way between two hosts.
    pub(crate) fn new(seed: u64, hosts: usize, path_ns: (u64, u64)) -> Self {
        let mut random = Random::new(seed, "net");
        let (low, high) = path_ns;
        let mut links = vec![Path::default(); hosts * hosts];
        for a in 0..hosts {
            for b in 0..a {
                let base_ns = random.between(low, high);
                links[a * hosts + b] = Path::new(base_ns);
                // The way back is up to a fifth longer: no clock can see that.
                links[b * hosts + a] = Path::new(base_ns + random.below(base_ns / 5 + 1));
            }
        }
        Self {
            hosts,
            links,
            packets: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
            random,
            copy: Vec::new(),
            gates: vec![None; hosts],
            lines: vec![None; hosts],
            sent_bytes: [0; 2],
            #[cfg(test)]
            throttled: vec![None; hosts],
        }
    }

    /// From here on the hosts' own lines carry so much, in turn.
    pub(crate) fn limit(&mut self, lines: &[Line]) {
        for ((gate, own), line) in self.gates.iter_mut().zip(&mut self.lines).zip(lines.iter().cycle()) {
            *gate = Some((Gate::new(line.up_bytes_per_s), Gate::new(line.down_bytes_per_s)));
            *own = Some(*line);
        }
    }

    /// From here on a host's uplink carries so much at most; none: what it would.
    pub(crate) fn narrow(&mut self, host: u8, bytes_per_s: Option<u64>) {
        let gate = &mut self.gates[usize::from(host)];
        let own = self.lines[usize::from(host)];
        let (up, down) =
            own.map_or((u64::MAX, u64::MAX), |line| (line.up_bytes_per_s, line.down_bytes_per_s));
        match (gate.as_mut(), bytes_per_s) {
            (Some((gate, _)), _) => gate.bytes_per_s = bytes_per_s.unwrap_or(u64::MAX).min(up),
            (None, Some(bytes_per_s)) => *gate = Some((Gate::new(bytes_per_s.min(up)), Gate::new(down))),
            (None, None) => {}
        }
    }

    /// Sets what is wrong with every link.
    pub(crate) fn impair(&mut self, of: impl Fn(u8, u8) -> Impairment) {
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                let impairment = of(from as u8, to as u8);
                #[cfg(test)]
                let impairment = Impairment { rate: self.throttle_of(to).or(impairment.rate), ..impairment };
                self.links[from * self.hosts + to].impair(impairment);
            }
        }
    }

    /// From here on every link to `host` carries only so many bytes per second, and is sound for now.
    #[cfg(test)]
    pub(crate) fn throttle(&mut self, host: u8, bytes_per_s: u64) {
        self.throttled[usize::from(host)] = Some(bytes_per_s);
        self.impair(|_, _| Impairment::default());
    }

    #[cfg(test)]
    fn throttle_of(&self, host: usize) -> Option<Rate> {
        self.throttled[host].map(|bytes_per_s| Rate { bytes_per_s, bucket_bytes: 0, queue_bytes: u64::MAX })
    }

    /// What the kernel of `from` lets through to `to`, where it knows of a narrow path: every other one does.
    pub(crate) fn refuses(&self, from: u8, to: u8, len_bytes: usize) -> bool {
        let link = &self.links[usize::from(from) * self.hosts + usize::from(to)];
        (from + to).is_multiple_of(2) && link.mtu_bytes().is_some_and(|most| len_bytes > most as usize)
    }

    /// Whether a link loses a fifth at most of what is sent over it, and is never silent.
    pub(crate) fn carries(&self, from: u8, to: u8) -> bool {
        self.links[usize::from(from) * self.hosts + usize::from(to)].carries()
    }

    /// Puts a datagram made of `parts` on its way.
    pub(crate) fn send(&mut self, queue: &mut Queue, now_ns: u64, way: (u8, u8, Plane), parts: [&[u8]; 2]) {
        let (from, to, plane) = way;
        let packet = self.take(from, to, plane);
        let mut bytes = std::mem::take(&mut self.packets[packet as usize].bytes);
        bytes.extend_from_slice(parts[0]);
        bytes.extend_from_slice(parts[1]);
        self.sent_bytes[usize::from(plane != Plane::Data)] += bytes.len() as u64;
        // What keeps clocks and agreement together goes ahead of payload.
        let is_limited = plane == Plane::Data;
        let gate = self.gates[usize::from(from)].as_mut().filter(|_| is_limited);
        let Some(now_ns) = gate.map_or(Some(now_ns), |(up, _)| up.pass(now_ns, bytes.len())) else {
            return self.put(packet, bytes);
        };
        let link = &mut self.links[usize::from(from) * self.hosts + usize::from(to)];
        match link.pass(&mut self.random, now_ns, &mut bytes, &mut self.copy) {
            Fate::Lose => self.put(packet, bytes),
            Fate::Arrive { at_ns, damaged, copy_at_ns } => {
                let gate = self.gates[usize::from(to)].as_mut().filter(|_| is_limited);
                let Some(at_ns) = gate.map_or(Some(at_ns), |(_, down)| down.pass(at_ns, bytes.len())) else {
                    return self.put(packet, bytes);
                };
                let place = &mut self.packets[packet as usize];
                (place.damaged, place.bytes) = (damaged, bytes);
                if let Some(copy_at_ns) = copy_at_ns {
                    let copy = self.take(from, to, plane);
                    std::mem::swap(&mut self.copy, &mut self.packets[copy as usize].bytes);
                    queue.push(copy_at_ns, Due::Deliver { packet: copy });
                }
                queue.push(at_ns, Due::Deliver { packet });
            }
        }
    }

    /// A datagram has arrived; give its bytes back with [`Self::reuse`].
    pub(crate) fn get(&mut self, packet: u32) -> Packet {
        let arrived = &mut self.packets[packet as usize];
        let (from, to, plane, damaged) = (arrived.from, arrived.to, arrived.plane, arrived.damaged);
        let bytes = std::mem::take(&mut arrived.bytes);
        self.free.push(packet);
        Packet { from, to, plane, damaged, bytes }
    }

    /// The bytes of a datagram that has been read.
    pub(crate) fn reuse(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(bytes);
        }
    }

    /// A datagram is lost.
    fn put(&mut self, packet: u32, bytes: Vec<u8>) {
        self.packets[packet as usize].bytes = bytes;
        self.free.push(packet);
    }

    /// What became of everything sent so far.
    pub(crate) fn tally(&self) -> Tally {
        self.links.iter().fold(Tally::default(), |sum, link| sum.and(link.tally))
    }

    /// Bytes of all datagrams that were sent: data, sideband.
    pub(crate) const fn sent_bytes(&self) -> [u64; 2] {
        self.sent_bytes
    }

    fn take(&mut self, from: u8, to: u8, plane: Plane) -> u32 {
        if let Some(packet) = self.free.pop() {
            let place = &mut self.packets[packet as usize];
            (place.from, place.to, place.plane, place.damaged) = (from, to, plane, false);
            if place.bytes.capacity() == 0 {
                place.bytes = self.spare.pop().unwrap_or_default();
            }
            place.bytes.clear();
            return packet;
        }
        self.packets.push(Packet { from, to, plane, damaged: false, bytes: Vec::with_capacity(256) });
        (self.packets.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(impairment: Impairment, count: u32) -> (Vec<(u64, Vec<u8>, bool)>, Tally) {
        let (mut net, mut queue) = (Net::new(3, 2, (20_000, 60_000)), Queue::default());
        net.impair(|_, _| impairment);
        for number in 0..count {
            let bytes = number.to_le_bytes();
            net.send(&mut queue, u64::from(number) * 1_000, (0, 1, Plane::Data), [&bytes, &[7; 60]]);
        }
        let mut seen = Vec::new();
        while let Some((at, Due::Deliver { packet })) = queue.pop() {
            let arrived = net.get(packet);
            seen.push((at, arrived.bytes.clone(), arrived.damaged));
            net.reuse(arrived.bytes);
        }
        (seen, net.tally())
    }

    fn numbers(seen: &[(u64, Vec<u8>, bool)]) -> Vec<u32> {
        seen.iter().map(|(_, bytes, _)| u32::from_le_bytes(bytes[..4].try_into().unwrap())).collect()
    }

    #[test]
    fn a_sound_link_keeps_everything_in_order() {
        let (seen, _) = arrivals(Impairment { jitter_ns: 50_000_000, ..Impairment::default() }, 1_000);
        assert_eq!(numbers(&seen), (0..1_000).collect::<Vec<u32>>());
        assert!(seen.iter().all(|(_, bytes, damaged)| bytes.len() == 64 && !damaged));
    }

    #[test]
    fn a_line_is_shared_by_all_who_send_over_it_and_drops_what_waits_too_long() {
        let (mut net, mut queue) = (Net::new(3, 3, (20_000, 60_000)), Queue::default());
        let fast = Line { up_bytes_per_s: 1_000_000, down_bytes_per_s: 1_000_000 };
        net.limit(&[fast, fast, Line { down_bytes_per_s: 100_000, ..fast }]);
        for number in 0..200u64 {
            net.send(
                &mut queue,
                number * 1_000_000,
                ((number % 2) as u8, 2, Plane::Data),
                [&[1; 1_000], &[]],
            );
        }
        net.send(&mut queue, 200_000_000, (0, 2, Plane::Sideband), [&[2; 100], &[]]);
        let mut arrivals = Vec::new();
        while let Some((at, Due::Deliver { packet })) = queue.pop() {
            let arrived = net.get(packet);
            arrivals.push((at, arrived.plane));
            net.reuse(arrived.bytes);
        }
        // A tenth passes, and what was in the queue.
        assert!((20..=27).contains(&(arrivals.len() - 1)), "{}", arrivals.len());
        assert!(arrivals.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        let sideband = arrivals.iter().find(|(_, plane)| *plane == Plane::Sideband).unwrap();
        assert!(sideband.0 < 200_200_000, "{sideband:?} goes ahead");
    }

    #[test]
    fn every_impairment_shows() {
        let none = Impairment::default();
        let (seen, tally) = arrivals(Impairment { loss_ppm: 200_000, ..none }, 10_000);
        assert!((7_700..8_300).contains(&seen.len()) && tally.lost as usize + seen.len() == 10_000);
        let (seen, _) = arrivals(Impairment { silence_ppm: 1_000, silence_ns: 1_000_000, ..none }, 10_000);
        assert!(seen.len() < 9_500 && seen.len() > 1_000, "{}", seen.len());
        let (seen, _) = arrivals(Impairment { reorder_ppm: 100_000, reorder_ns: 30_000_000, ..none }, 1_000);
        assert!(seen.len() == 1_000 && !numbers(&seen).is_sorted());
        let (seen, tally) = arrivals(Impairment { duplicate_ppm: 500_000, ..none }, 1_000);
        assert!(seen.len() > 1_400 && tally.copied as usize + 1_000 == seen.len());
        let (seen, tally) = arrivals(Impairment { corrupt_ppm: 1_000_000, ..none }, 1_000);
        let damaged = seen.iter().filter(|(_, _, damaged)| *damaged).count();
        assert!(damaged > 950 && damaged as u64 == tally.damaged);
        let (seen, _) = arrivals(Impairment { cut: true, ..none }, 100);
        assert!(seen.is_empty());
    }
}
