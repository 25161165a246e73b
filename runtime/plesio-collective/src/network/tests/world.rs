//! Ranks of one group in one thread, with real bytes: messages go chunk by chunk in an order drawn by a seed, some pairs
//! are slow, sums take their time, and ranks die between any two events, of which each other rank hears when it will.

use crate::call::Element;
use crate::network::*;
use crate::range;
use plesio_kernels::codec;
use std::collections::BTreeMap;
use std::vec::Vec;

/// xorshift64*.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 8) % limit.max(1)
    }
}

/// The shares of so many elements and ranks.
pub(super) type Shares = fn(u64, usize) -> Vec<Range<u64>>;

pub(super) const CHUNK_BYTES: u32 = 2048;
pub(super) const WORK: u16 = 0;
pub(super) const INPUT: u16 = 1;
pub(super) const OUTPUT: u16 = 2;

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) id: MessageId,
    pub(super) span: Span,
    pub(super) sent: u32,
    pub(super) acked: bool,
}

/// What a rank had after a call.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Result<Ranks, CallError>,
    pub(super) made_of: Vec<(Range<u64>, Ranks)>,
    pub(super) bytes: Vec<u8>,
    pub(super) redone: u64,
}

pub(super) struct Rank {
    pub(super) network: Network,
    pub(super) memory: [Vec<u8>; 3],
    pub(super) windows: BTreeMap<(usize, u16), (u16, Span)>,
    pub(super) jobs: Vec<NetworkAction>,
    pub(super) calls: Vec<Call>,
    pub(super) busy: bool,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) alive: bool,
}

pub(super) struct World {
    pub(super) draw: Draw,
    pub(super) ranks: Vec<Rank>,
    pub(super) messages: Vec<Message>,
    /// (who is to hear, who died)
    pub(super) notices: Vec<(usize, usize)>,
    pub(super) slow: Vec<bool>,
    pub(super) in_place: bool,
    pub(super) shares: Option<Shares>,
    pub(super) codec: Codec,
    pub(super) mail_bytes_max: u64,
    pub(super) late: Vec<usize>,
    pub(super) events: u64,
}

pub(super) struct Story<'a> {
    pub(super) ranks: usize,
    pub(super) calls: &'a [Call],
    pub(super) kills: &'a [u64],
    pub(super) in_place: bool,
    pub(super) shares: Option<Shares>,
    pub(super) codec: Codec,
    pub(super) slots: u32,
    pub(super) mail_bytes_max: u64,
}

impl<'a> Story<'a> {
    pub(super) fn new(ranks: usize, calls: &'a [Call]) -> Self {
        Self {
            ranks,
            calls,
            kills: &[],
            in_place: false,
            shares: None,
            codec: Codec::Full,
            slots: 4096,
            mail_bytes_max: Network::mail_bytes_max(ranks),
        }
    }

    /// Runs it; the world as it is when all who live have made all calls.
    pub(super) fn run(&self, seed: u64) -> World {
        let mut world = self.world(seed);
        let mut kills = self.kills.to_vec();
        kills.sort_unstable();
        kills.reverse();
        loop {
            if kills.last().is_some_and(|at| *at <= world.events) {
                kills.pop();
                let live: Vec<usize> = (0..self.ranks).filter(|rank| world.ranks[*rank].alive).collect();
                if live.len() > 1 {
                    let victim = live[world.draw.below(live.len() as u64) as usize];
                    world.kill(victim);
                }
            }
            if !world.step() {
                break;
            }
        }
        let stuck: Vec<usize> = (0..self.ranks).filter(|rank| !world.ranks[*rank].is_done()).collect();
        if let Some(rank) = stuck.first() {
            panic!("seed {seed}: rank {rank} of {stuck:?} hangs: {:?}", world.ranks[*rank].network);
        }
        world
    }

    pub(super) fn world(&self, seed: u64) -> World {
        let mut draw = Draw(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let tensor_bytes = self.calls.iter().filter_map(Call::bytes).max().unwrap_or(0) as usize;
        let ranks = (0..self.ranks).map(|me| {
            let mut network = Network::new(me, self.ranks, WORK);
            network.links.layout = network.links.layout.with_slots(self.slots);
            network.set_mail_bytes_max(self.mail_bytes_max);
            let work = vec![0xEE; network.links.layout.region_bytes() as usize];
            Rank {
                network,
                memory: [work, vec![0; tensor_bytes], vec![0; tensor_bytes]],
                windows: BTreeMap::new(),
                jobs: Vec::new(),
                calls: self.calls.iter().rev().copied().collect(),
                busy: false,
                outcomes: Vec::new(),
                alive: true,
            }
        });
        let ranks: Vec<Rank> = ranks.collect();
        let slow = (0..self.ranks * self.ranks).map(|_| draw.below(8) == 0).collect();
        let mut world = World {
            draw,
            ranks,
            messages: Vec::new(),
            notices: Vec::new(),
            slow,
            in_place: self.in_place,
            shares: self.shares,
            codec: self.codec,
            mail_bytes_max: self.mail_bytes_max,
            late: Vec::new(),
            events: 0,
        };
        (0..self.ranks).for_each(|rank| world.act(rank));
        world
    }
}

impl Rank {
    pub(super) fn is_done(&self) -> bool {
        !self.alive || (self.calls.is_empty() && !self.busy)
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.memory[usize::from(span.region)][span.offset_bytes as usize..][..span.len_bytes as usize]
    }

    pub(super) fn bytes_mut(&mut self, span: Span) -> &mut [u8] {
        &mut self.memory[usize::from(span.region)][span.offset_bytes as usize..][..span.len_bytes as usize]
    }
}

impl World {
    /// Something happens; false when nothing can any more.
    pub(super) fn step(&mut self) -> bool {
        self.events += 1;
        for attempt in 0..64 {
            let kind = self.draw.below(16);
            let rank = self.draw.below(self.ranks.len() as u64) as usize;
            let happened = match kind {
                0 => self.begin(rank),
                1..=2 => self.work(rank),
                3 => self.hear(usize::MAX),
                _ if self.messages.is_empty() => false,
                _ => {
                    let at = self.draw.below(self.messages.len() as u64) as usize;
                    let Message { from, to, .. } = self.messages[at];
                    let waits = self.slow[from * self.ranks.len() + to] && self.draw.below(20) > 0;
                    !(waits && attempt < 32) && self.carry(at)
                }
            };
            if happened {
                return true;
            }
        }
        (0..self.ranks.len()).any(|rank| self.begin(rank))
            || (0..self.ranks.len()).any(|rank| self.work(rank))
            || (0..self.messages.len()).any(|at| self.carry(at))
            || self.hear(0)
    }

    /// A rank that is free makes its next call.
    pub(super) fn begin(&mut self, rank: usize) -> bool {
        let number = self.ranks[rank].outcomes.len() as u64;
        let ranks = self.ranks.len();
        let codec = self.codec;
        let it = &mut self.ranks[rank];
        if !it.alive || it.busy || self.late.contains(&rank) {
            return false;
        }
        let Some(call) = it.calls.pop() else { return false };
        it.busy = true;
        let fill = |bytes: &mut [u8]| {
            for (at, element) in bytes.chunks_exact_mut(call.element.bytes() as usize).enumerate() {
                put(element, coarse(codec, call.element, brought(call.element, rank, number, at as u64)));
            }
        };
        fill(&mut it.memory[usize::from(INPUT)]);
        it.memory[usize::from(OUTPUT)].fill(0xAA);
        let whole =
            |region: u16| Span { region, offset_bytes: 0, len_bytes: call.bytes().unwrap_or(0) as u32 };
        let output = whole(if self.in_place { INPUT } else { OUTPUT });
        let shares = match self.shares {
            Some(shares) => shares(call.count, ranks),
            None => (0..ranks).map(|rank| range(call.count, ranks, rank)).collect(),
        };
        let spans = TensorSpans { input: whole(INPUT), output };
        it.network.begin(call, spans, &shares, codec).expect("was not late");
        self.act(rank);
        true
    }

    /// A sum that was begun is made.
    pub(super) fn work(&mut self, rank: usize) -> bool {
        let it = &mut self.ranks[rank];
        if !it.alive || it.jobs.is_empty() {
            return false;
        }
        let job = it.jobs.remove(self.draw.below(it.jobs.len() as u64) as usize);
        let NetworkAction::Reduce { token, inputs, output, elements, codes } = job else { unreachable!() };
        let element = it.network.current.as_ref().expect("is under way").call.element;
        let width = element.bytes() as usize;
        assert_eq!(u64::from(output.len_bytes), elements * width as u64);
        let whole = |(span, codec): &(Span, Codec)| match codec {
            Codec::Full => it.bytes(*span).to_vec(),
            codec => decoded(*codec, it.bytes(*span), elements as usize),
        };
        let inputs: Vec<Vec<u8>> = inputs.iter().map(whole).collect();
        assert!(inputs.iter().all(|input| input.len() == output.len_bytes as usize));
        let mut sums = vec![0; elements as usize * width];
        for (at, out) in sums.chunks_exact_mut(width).enumerate() {
            put(out, sum(element, inputs.iter().map(|input| get(&input[at * width..][..width]))));
        }
        if let Some((span, coding)) = codes {
            it.bytes_mut(span).copy_from_slice(&encoded(coding, &sums));
            sums = decoded(coding.codec, it.bytes(span), elements as usize);
        }
        it.bytes_mut(output).copy_from_slice(&sums);
        it.network.handle_reduced(token);
        self.act(rank);
        true
    }

    /// A rank hears of a death.
    pub(super) fn hear(&mut self, floor: usize) -> bool {
        if self.notices.is_empty() || (floor > 0 && self.draw.below(10) > 0) {
            return false;
        }
        let at = self.draw.below(self.notices.len() as u64) as usize;
        let (rank, dead) = self.notices.remove(at);
        self.messages.retain(|message| {
            (message.from, message.to) != (rank, dead) && (message.from, message.to) != (dead, rank)
        });
        let it = &mut self.ranks[rank];
        it.windows.retain(|(from, _), _| *from != dead);
        if it.alive {
            it.network.handle_dead(dead as u8);
            self.act(rank);
        }
        true
    }

    /// Some of a message arrives, or word of its arrival.
    pub(super) fn carry(&mut self, at: usize) -> bool {
        let Message { from, to, id, span, sent, acked } = self.messages[at].clone();
        if acked {
            self.messages.remove(at);
            if self.ranks[from].alive {
                self.ranks[from].network.handle_sent(to as u8, id);
                self.act(from);
            }
            return true;
        }
        // One handle's messages go one after the other.
        let older = self.messages[..at]
            .iter()
            .any(|other| (other.from, other.to, other.id.handle) == (from, to, id.handle) && !other.acked);
        let Some((sequence, window)) = self.ranks[to].windows.get(&(from, id.handle)).copied() else {
            return false;
        };
        if older || sequence != id.sequence || !self.ranks[to].alive {
            return false;
        }
        let end = span.len_bytes.min(sent + CHUNK_BYTES);
        assert!(span.len_bytes <= window.len_bytes, "{id:?} is longer than its window");
        let (chunk, place) = (span.part(sent, end - sent), window.part(sent, end - sent));
        let bytes = self.ranks[from].bytes(chunk.expect("inside")).to_vec();
        self.ranks[to].bytes_mut(place.expect("inside")).copy_from_slice(&bytes);
        self.messages[at].sent = end;
        if end == span.len_bytes {
            self.messages[at].acked = true;
            let it = &mut self.ranks[to];
            it.windows.remove(&(from, id.handle));
            let head = it.bytes(Span { len_bytes: span.len_bytes, ..window });
            let head = head[..Network::head_bytes(id.handle).min(head.len())].to_vec();
            it.network.handle_received(from as u8, id, span.len_bytes, &head);
            self.act(to);
        }
        true
    }

    pub(super) fn kill(&mut self, victim: usize) {
        self.ranks[victim].alive = false;
        let draw = &mut self.draw;
        self.messages
            .retain(|message| message.to != victim && (message.from != victim || draw.below(2) == 0));
        for rank in (0..self.ranks.len()).filter(|rank| *rank != victim) {
            self.notices.push((rank, victim));
        }
    }

    /// Does what a rank says.
    pub(super) fn act(&mut self, rank: usize) {
        while let Some(action) = self.ranks[rank].network.poll_action() {
            let it = &mut self.ranks[rank];
            match action {
                NetworkAction::Post { from, handle, sequence, span } => {
                    it.windows.insert((from.into(), handle), (sequence, span));
                }
                NetworkAction::Withdraw { from, handle } => _ = it.windows.remove(&(from.into(), handle)),
                NetworkAction::Send { to, message, span } => {
                    if !self.notices.contains(&(rank, to.into())) {
                        self.messages.push(Message {
                            from: rank,
                            to: to.into(),
                            id: message,
                            span,
                            sent: 0,
                            acked: false,
                        });
                    }
                }
                NetworkAction::Abort { to, message } => self
                    .messages
                    .retain(|other| (other.from, other.to, other.id) != (rank, to.into(), message)),
                NetworkAction::Write { span, bytes } => it.bytes_mut(span).copy_from_slice(&bytes),
                NetworkAction::Copy { from, to } => {
                    let bytes = it.bytes(from).to_vec();
                    it.bytes_mut(to).copy_from_slice(&bytes);
                }
                NetworkAction::Encode { from, to, coding } => {
                    let codes = encoded(coding, it.bytes(from));
                    it.bytes_mut(to).copy_from_slice(&codes);
                }
                NetworkAction::Decode { from, to, codec } => {
                    let floats = decoded(codec, it.bytes(from), to.len_bytes as usize / 4);
                    it.bytes_mut(to).copy_from_slice(&floats);
                }
                job @ NetworkAction::Reduce { .. } => it.jobs.push(job),
                NetworkAction::Over(verdict) => {
                    it.busy = false;
                    let output = if self.in_place { INPUT } else { OUTPUT };
                    it.outcomes.push(Outcome {
                        verdict,
                        made_of: it.network.made_of().collect(),
                        bytes: it.memory[usize::from(output)].clone(),
                        redone: it.network.redone_elements(),
                    });
                    // The tensors are the caller's: what it writes must not be seen by anybody.
                    it.memory[usize::from(INPUT)].fill(0x55);
                    it.memory[usize::from(OUTPUT)].fill(0x55);
                }
            }
        }
    }

    pub(super) fn survivors(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.ranks.len()).filter(|rank| self.ranks[*rank].alive)
    }

    /// All who live have the same of call `number`, and what it must be; elements that were summed by heirs.
    pub(super) fn check(&self, seed: u64, number: usize, call: &Call) -> u64 {
        let survivors: Vec<usize> = self.survivors().collect();
        let outcomes: Vec<&Outcome> =
            survivors.iter().map(|rank| &self.ranks[*rank].outcomes[number]).collect();
        let told = &outcomes[0];
        let scatters = call.operation == Operation::ReduceScatter;
        for (outcome, rank) in outcomes.iter().zip(&survivors) {
            let context = format!("seed {seed}, call {number} ({call}), rank {rank}");
            if !scatters {
                assert_eq!(outcome.verdict, told.verdict, "{context}");
                assert_eq!(outcome.made_of, told.made_of, "{context}");
            }
            let Ok(present) = outcome.verdict else { continue };
            assert!(survivors.iter().all(|rank| present.contains(*rank)), "{context}: {present:?}");
            let width = call.element.bytes() as usize;
            let whole = [(0..call.count, present)];
            let made_of = if call.operation == Operation::AllReduce
                && call.bytes().is_some_and(|bytes| bytes <= self.mail_bytes_max)
            {
                &whole[..]
            } else {
                &outcome.made_of[..]
            };
            let mut covered = 0;
            for (elements, of) in made_of {
                covered += elements.end - elements.start;
                for at in elements.clone() {
                    let value = |rank: usize| {
                        coarse(self.codec, call.element, brought(call.element, rank, number as u64, at))
                    };
                    let wanted = match call.operation {
                        Operation::AllReduce | Operation::ReduceScatter => {
                            sum(call.element, of.iter().map(value))
                        }
                        Operation::AllGather if of.is_empty() => continue,
                        Operation::AllGather => value(owner(call.count, self.ranks.len(), at)),
                        Operation::Broadcast { root } => value(root.into()),
                    };
                    let found = get(&outcome.bytes[at as usize * width..][..width]);
                    assert_eq!(found, wanted, "{context}, element {at}, of {of:?}");
                }
            }
            let own = range(call.count, self.ranks.len(), *rank);
            let all = if scatters { own.end - own.start } else { call.count };
            assert_eq!(covered, all, "{context}");
        }
        outcomes.iter().map(|outcome| outcome.redone).sum()
    }
}

pub(super) fn owner(count: u64, ranks: usize, at: u64) -> usize {
    (0..ranks).find(|rank| range(count, ranks, *rank).contains(&at)).expect("every element is owned")
}

/// What a rank brings: values of which sums in another order have other bits.
pub(super) fn brought(element: Element, rank: usize, number: u64, at: u64) -> u32 {
    let mixed = (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15 ^ (rank as u64) << 32 ^ number).rotate_left(29);
    let real = (mixed as u16 as f32 - 30_000.0) * if mixed & 1 << 20 == 0 { 1e-3 } else { 37.0 };
    match element {
        Element::I32 => mixed as u32,
        Element::F32 => real.to_bits(),
        Element::Bf16 => real.to_bits() >> 16,
    }
}

/// The same so coarse, where a codec is used, that nothing is lost by it.
fn coarse(codec: Codec, element: Element, value: u32) -> u32 {
    match (codec, element) {
        (Codec::Full, _) | (_, Element::I32) => value,
        (_, Element::F32) => ((value >> 7 & 15) as f32).to_bits(),
        (_, Element::Bf16) => ((value >> 7 & 15) as f32).to_bits() >> 16,
    }
}

fn encoded(coding: Coding, floats: &[u8]) -> Vec<u8> {
    let floats: Vec<f32> = floats.chunks_exact(4).map(|four| f32::from_bits(get(four))).collect();
    let mut codes = vec![0; coding.codec.encoded_bytes(floats.len())];
    codec::encode(coding, &floats, None, &mut codes).expect("lengths fit");
    codes
}

fn decoded(codec: Codec, codes: &[u8], elements: usize) -> Vec<u8> {
    let mut floats = vec![0.0; elements];
    codec::decode(codec, codes, &mut floats).expect("lengths fit");
    floats.iter().flat_map(|float: &f32| float.to_le_bytes()).collect()
}

pub(super) fn sum(element: Element, parts: impl Iterator<Item = u32>) -> u32 {
    match element {
        Element::I32 => parts.fold(0, u32::wrapping_add),
        Element::F32 => parts.map(f32::from_bits).reduce(|sum, value| sum + value).unwrap_or(0.0).to_bits(),
        Element::Bf16 => {
            let values = parts.map(|part| f32::from_bits(part << 16));
            let bits = values.reduce(|sum, value| sum + value).unwrap_or(0.0).to_bits();
            (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        }
    }
}

pub(super) fn get(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b] => u32::from_le_bytes([a, b, 0, 0]),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => unreachable!("elements have two bytes or four"),
    }
}

pub(super) fn put(bytes: &mut [u8], value: u32) {
    let width = bytes.len();
    bytes.copy_from_slice(&value.to_le_bytes()[..width]);
}
