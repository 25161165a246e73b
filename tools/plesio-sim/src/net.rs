//! The network: every directed pair of hosts is a link with a delay and with what is wrong with it just now.
//!
//! Without a fault a link keeps the order and loses nothing. Datagrams are real bytes: a damaged one differs from
//! what was sent, and remembers that it does, so that the receiver's checks can be judged.

use crate::queue::{Due, Queue};
use crate::random::Random;

/// Which socket of a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Plane {
    Data,
    Sideband,
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

/// What a link does to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Impairment {
    pub(crate) loss: u32,
    /// Per datagram: the chance that a silence begins, and its longest length.
    pub(crate) burst: u32,
    pub(crate) silence_ns: u64,
    pub(crate) delay_ns: u64,
    pub(crate) jitter_ns: u64,
    pub(crate) reorder: u32,
    pub(crate) duplicate: u32,
    pub(crate) corrupt: u32,
    pub(crate) cut: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    base_ns: u64,
    now: Impairment,
    silent_until: u64,
    last_arrival: u64,
    /// What it carries, bytes per second; 0: whatever comes. And until when it is busy.
    rate: u64,
    busy_until: u64,
}

/// Datagrams by what became of them; `sent` + copies = all others + in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) copied: u64,
    pub(crate) damaged: u64,
}

/// All links and everything on them.
#[derive(Debug)]
pub(crate) struct Net {
    hosts: usize,
    links: Vec<Link>,
    packets: Vec<Packet>,
    free: Vec<u32>,
    random: Random,
    tally: Tally,
}

impl Net {
    /// `path_ns`: shortest and longest way between two hosts.
    pub(crate) fn new(seed: u64, hosts: usize, path_ns: (u64, u64)) -> Self {
        let mut random = Random::new(seed, "net");
        let (low, high) = path_ns;
        let mut links = vec![Link::default(); hosts * hosts];
        for a in 0..hosts {
            for b in 0..a {
                let base_ns = random.between(low, high);
                links[a * hosts + b].base_ns = base_ns;
                // The way back is up to a fifth longer: no clock can see that.
                links[b * hosts + a].base_ns = base_ns + random.below(base_ns / 5 + 1);
            }
        }
        Self { hosts, links, packets: Vec::new(), free: Vec::new(), random, tally: Tally::default() }
    }

    /// Sets what is wrong with every link.
    pub(crate) fn impair(&mut self, of: impl Fn(u8, u8) -> Impairment) {
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                let link = &mut self.links[from * self.hosts + to];
                link.now = of(from as u8, to as u8);
                if link.now.burst == 0 {
                    link.silent_until = 0;
                }
            }
        }
    }

    /// From here on every link to `host` carries only so many bytes per second, one datagram after the other.
    #[cfg(test)]
    pub(crate) fn throttle(&mut self, host: u8, rate: u64) {
        for from in 0..self.hosts {
            self.links[from * self.hosts + usize::from(host)].rate = rate;
        }
    }

    /// Puts a datagram made of `parts` on its way.
    pub(crate) fn send(&mut self, queue: &mut Queue, now_ns: u64, way: (u8, u8, Plane), parts: [&[u8]; 2]) {
        let (from, to, plane) = way;
        let at = usize::from(from) * self.hosts + usize::from(to);
        let link = self.links[at].now;
        self.tally.sent += 1;
        let now_ns = self.pass(at, now_ns, parts[0].len() + parts[1].len());
        if self.random.chance(link.burst) {
            self.links[at].silent_until = now_ns + self.random.between(link.silence_ns / 8, link.silence_ns);
        }
        if link.cut || now_ns < self.links[at].silent_until || self.random.chance(link.loss) {
            self.tally.lost += 1;
            return;
        }
        let packet = self.take(from, to, plane);
        let bytes = &mut self.packets[packet as usize].bytes;
        bytes.extend_from_slice(parts[0]);
        bytes.extend_from_slice(parts[1]);
        if self.random.chance(link.duplicate) {
            let copy = self.take(from, to, plane);
            let original = std::mem::take(&mut self.packets[packet as usize].bytes);
            self.packets[copy as usize].bytes.extend_from_slice(&original);
            self.packets[packet as usize].bytes = original;
            self.tally.copied += 1;
            let longest_ns = self.random.pick(&[1_000_000, 20_000_000, 300_000_000]);
            let late_ns = self.random.below(longest_ns);
            let arrival = self.arrival(at, now_ns, late_ns);
            queue.push(arrival, Due::Deliver { packet: copy });
        }
        if self.random.chance(link.corrupt) {
            self.damage(packet);
        }
        let late_ns = if self.random.chance(link.reorder) { self.random.below(30_000_000) } else { 0 };
        let arrival = self.arrival(at, now_ns, late_ns);
        queue.push(arrival, Due::Deliver { packet });
    }

    /// A datagram has arrived; give it back with [`Self::put`].
    pub(crate) fn get(&mut self, packet: u32) -> Packet {
        let arrived = &mut self.packets[packet as usize];
        let (from, to, plane, damaged) = (arrived.from, arrived.to, arrived.plane, arrived.damaged);
        Packet { from, to, plane, damaged, bytes: std::mem::take(&mut arrived.bytes) }
    }

    /// The place and the bytes of a datagram are free again.
    pub(crate) fn put(&mut self, packet: u32, bytes: Vec<u8>) {
        self.packets[packet as usize].bytes = bytes;
        self.free.push(packet);
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    fn take(&mut self, from: u8, to: u8, plane: Plane) -> u32 {
        if let Some(packet) = self.free.pop() {
            let place = &mut self.packets[packet as usize];
            (place.from, place.to, place.plane, place.damaged) = (from, to, plane, false);
            place.bytes.clear();
            return packet;
        }
        self.packets.push(Packet { from, to, plane, damaged: false, bytes: Vec::with_capacity(256) });
        (self.packets.len() - 1) as u32
    }

    /// When the last byte of a datagram has left for the link, behind all those before it.
    fn pass(&mut self, at: usize, now_ns: u64, len_bytes: usize) -> u64 {
        let link = &mut self.links[at];
        let takes_ns = (len_bytes as u64 * 1_000_000_000).checked_div(link.rate);
        takes_ns.map_or(now_ns, |takes_ns| {
            link.busy_until = link.busy_until.max(now_ns) + takes_ns;
            link.busy_until
        })
    }

    /// Late datagrams leave the order of their link; all others keep it.
    fn arrival(&mut self, at: usize, now_ns: u64, late_ns: u64) -> u64 {
        let jitter_ns = self.random.below(self.links[at].now.jitter_ns + 1);
        let link = &mut self.links[at];
        let arrival = now_ns + link.base_ns + link.now.delay_ns + jitter_ns;
        if late_ns > 0 {
            return arrival + late_ns;
        }
        link.last_arrival = link.last_arrival.max(arrival);
        link.last_arrival
    }

    fn damage(&mut self, packet: u32) {
        let bytes = &mut self.packets[packet as usize].bytes;
        let before = bytes.clone();
        let len = bytes.len() as u64;
        match self.random.below(8) {
            0 => bytes.truncate(self.random.below(len) as usize),
            1 => {
                for _ in 0..self.random.between(1, 40) {
                    bytes.push(self.random.next() as u8);
                }
            }
            _ => {
                for _ in 0..self.random.between(1, 4) {
                    let bit = self.random.below(len * 8);
                    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
                }
            }
        }
        let damaged = *bytes != before;
        self.packets[packet as usize].damaged = damaged;
        self.tally.damaged += u64::from(damaged);
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
            net.put(packet, arrived.bytes);
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
    fn every_impairment_shows() {
        let none = Impairment::default();
        let (seen, tally) = arrivals(Impairment { loss: 200_000, ..none }, 10_000);
        assert!((7_700..8_300).contains(&seen.len()) && tally.lost as usize + seen.len() == 10_000);
        let (seen, _) = arrivals(Impairment { burst: 1_000, silence_ns: 1_000_000, ..none }, 10_000);
        assert!(seen.len() < 9_500 && seen.len() > 1_000, "{}", seen.len());
        let (seen, _) = arrivals(Impairment { reorder: 100_000, ..none }, 1_000);
        assert!(seen.len() == 1_000 && !numbers(&seen).is_sorted());
        let (seen, tally) = arrivals(Impairment { duplicate: 500_000, ..none }, 1_000);
        assert!(seen.len() > 1_400 && tally.copied as usize + 1_000 == seen.len());
        let (seen, tally) = arrivals(Impairment { corrupt: 1_000_000, ..none }, 1_000);
        let damaged = seen.iter().filter(|(_, _, damaged)| *damaged).count();
        assert!(damaged > 950 && damaged as u64 == tally.damaged);
        let (seen, _) = arrivals(Impairment { cut: true, ..none }, 100);
        assert!(seen.is_empty());
    }
}
