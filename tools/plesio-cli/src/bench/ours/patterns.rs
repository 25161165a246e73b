//! The two patterns that are measured over our link: messages in a stream, and one message there and back.

use super::{End, broken, gone, stalled};
use crate::bench::figures::Stretches;
use crate::bench::link::{FlowHalf, Half, Run, What};
use crate::bench::memory::Memory;
use crate::bench::round::RoundTrips;
use crate::bench::worker::Steps;
use crate::failure::Failure;
use plesio_proto::{Event, SendError as QueueError};
use plesio_wire::Instant as Moment;
use plesio_wire::data::MessageId;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Windows over a working set: message `i` comes on handle `i` modulo their count, into slot `i`.
struct Inbox {
    /// The next message of each handle.
    next: Vec<u64>,
}

impl Inbox {
    fn post_all(end: &mut End, flow: usize, memory: &Memory) -> Result<Self, Failure> {
        let next: Vec<u64> = (0..memory.handles()).collect();
        for &index in &next {
            end.post(flow, index as u16, memory.span(index))?;
        }
        Ok(Self { next })
    }

    /// A message was taken out of this handle's window: the next one may come.
    fn post_next(&mut self, end: &mut End, flow: usize, memory: &Memory, handle: u16) -> Result<(), Failure> {
        let handles = self.next.len();
        let index = &mut self.next[usize::from(handle) % handles];
        *index += handles as u64;
        end.post(flow, handle, memory.span(*index))
    }
}

fn message_id(index: u64, handles: u64) -> MessageId {
    // The sequence wraps, as the protocol has it.
    MessageId { handle: (index % handles) as u16, sequence: (index / handles + 1) as u16 }
}

/// Both ends of both patterns, from meeting to the end; for each flow what goes out and where what comes in belongs.
pub(crate) fn run(
    end: &mut End,
    run: &Run,
    memory: &[[Option<&Memory>; 2]],
    others: &[(SocketAddr, String)],
    steps: &Steps,
) -> Result<(Half, Stretches), Failure> {
    end.meet(others, steps.begins())?;
    let mut lanes = Vec::new();
    for (flow, [out, into]) in memory.iter().enumerate() {
        let inbox = into.map(|memory| Inbox::post_all(end, flow, memory)).transpose()?;
        let flow = FlowHalf::default();
        lanes.push(Lane { out: *out, into: into.zip(inbox), next: 0, flow });
    }
    steps.ready();
    if steps.begins() {
        end.establish(run)?;
    }
    let (tier, notes, suite) = (end.tier.clone(), end.notes.clone(), end.suite());
    let mut half = Half { tier, notes, suite, ..Half::default() };
    let mut stretches = Stretches::new(steps.begin());
    match (run.what, &mut lanes[..]) {
        (What::Pingpong, [Lane { out: Some(out), into: Some((into, inbox)), .. }]) if steps.begins() => {
            ask(end, run, [out, into], inbox, steps, &mut half)?;
        }
        (What::Pingpong, [Lane { into: Some((into, inbox)), .. }]) => {
            answer(end, into, inbox, steps, &mut half)?;
        }
        (_, lanes) => stream(end, run, lanes, steps, &mut half, &mut stretches)?,
    }
    for flow in 0..lanes.len() {
        let stats = end.stats(flow);
        half.sent_bytes += stats.sent_bytes;
        half.retransmitted_bytes += stats.retransmitted_bytes;
        half.chunk_bytes = half.chunk_bytes.max(if run.sends(steps.role()) { stats.chunk_bytes } else { 0 });
    }
    half.flows = lanes.into_iter().map(|lane| lane.flow).collect();
    Ok((half, stretches))
}

/// What one flow of a stream has to move, and how far it is.
struct Lane<'a> {
    out: Option<&'a Memory>,
    into: Option<(&'a Memory, Inbox)>,
    /// The next message to be sent.
    next: u64,
    flow: FlowHalf,
}

/// Messages one after the other, out, in, or both, on every flow.
fn stream(
    end: &mut End,
    run: &Run,
    lanes: &mut [Lane<'_>],
    steps: &Steps,
    half: &mut Half,
    stretches: &mut Stretches,
) -> Result<(), Failure> {
    let length = Duration::from_secs_f64(run.seconds);
    let takes = lanes.iter().any(|lane| lane.into.is_some());
    let mut told = lanes.iter().all(|lane| lane.out.is_none());
    let mut silence = Silence::new(run);
    // The clock runs from when something can be sent.
    let (mut start, mut ended): (Option<Instant>, Option<Instant>) = (None, None);
    while !steps.stop() {
        if start.is_none() && end.is_established() {
            start = Some(Instant::now());
        }
        let over = start.is_some_and(|start| start.elapsed() >= length) || steps.over();
        for (flow, lane) in lanes.iter_mut().enumerate() {
            let Some(memory) = lane.out else { continue };
            let handles = memory.handles();
            while !over && lane.flow.open < 2 * handles {
                let now = end.now();
                let message = message_id(lane.next, handles);
                let sent = end.flows[flow].connection.handle_send(now, message, memory.span(lane.next));
                sent.map_err(|error| broken(&error))?;
                lane.next += 1;
                lane.flow.open += 1;
            }
        }
        if over && !told {
            let waited = ended.get_or_insert_with(Instant::now).elapsed();
            if waited > run.drain_limit() || lanes.iter().all(|lane| lane.flow.open == 0) {
                told = true;
                steps.sent();
            }
        }
        if told && !takes {
            break;
        }
        end.turn()?;
        for (flow, lane) in lanes.iter_mut().enumerate() {
            while let Some(event) = end.flows[flow].connection.poll_event() {
                match event {
                    Event::Delivered { .. } => lane.flow.open = lane.flow.open.saturating_sub(1),
                    Event::Received { message, span } => {
                        let Some((memory, inbox)) = &mut lane.into else { continue };
                        half.wrong_bytes += memory.wrong_at_ends(span)?;
                        half.messages += 1;
                        half.received_bytes += u64::from(span.len_bytes);
                        lane.flow.messages += 1;
                        lane.flow.received_bytes += u64::from(span.len_bytes);
                        inbox.post_next(end, flow, memory, message.handle)?;
                    }
                    Event::Gone { .. } | Event::Aborted { .. } => return Err(gone()),
                    Event::Exhausted => return Err(broken(&"its packet numbers are used up")),
                    _ => {}
                }
            }
            let placed_bytes = end.stats(flow).received_bytes;
            if placed_bytes > lane.flow.placed_bytes {
                stretches.add(placed_bytes - lane.flow.placed_bytes);
                lane.flow.placed_bytes = placed_bytes;
            }
        }
        silence.look(end, lanes.iter().map(|lane| lane.flow.open).sum())?;
    }
    stretches.stop();
    Ok(())
}

/// One message, its echo, the next message.
fn ask(
    end: &mut End,
    run: &Run,
    [out, into]: [&Memory; 2],
    inbox: &mut Inbox,
    steps: &Steps,
    half: &mut Half,
) -> Result<(), Failure> {
    let (start, length) = (Instant::now(), Duration::from_secs_f64(run.seconds));
    let mut trips = RoundTrips::new()?;
    let mut next = 0_u64;
    let mut silence = Silence::new(run);
    while start.elapsed() < length && !steps.over() && !steps.stop() {
        let begin = Instant::now();
        loop {
            let now = end.now();
            match end.flows[0].connection.handle_send(now, message_id(next, out.handles()), out.span(next)) {
                Ok(()) => break,
                // Earlier messages have come back, but their acknowledgements have not.
                Err(QueueError::WindowFull { .. }) => {
                    end.turn()?;
                    silence.look(end, 1)?;
                }
                Err(error) => return Err(broken(&error)),
            }
        }
        let mut came = None;
        // One that takes longer than that is none that was done in this run.
        while came.is_none() && !steps.stop() && start.elapsed() < length + run.drain_limit() {
            end.turn()?;
            while let Some(event) = end.flows[0].connection.poll_event() {
                match event {
                    Event::Received { message, span } => came = Some((message, span)),
                    Event::Gone { .. } | Event::Aborted { .. } => return Err(gone()),
                    _ => {}
                }
            }
            silence.look(end, 1)?;
        }
        let Some((message, span)) = came else { break };
        trips.add(begin.elapsed());
        half.messages += 1;
        half.received_bytes += u64::from(span.len_bytes);
        half.wrong_bytes += into.wrong(span)?;
        inbox.post_next(end, 0, into, message.handle)?;
        next += 1;
    }
    half.round_trips = trips.to_hex()?;
    steps.sent();
    Ok(())
}

/// Sends back what came, from where it lies.
fn answer(
    end: &mut End,
    into: &Memory,
    inbox: &mut Inbox,
    steps: &Steps,
    half: &mut Half,
) -> Result<(), Failure> {
    while !steps.stop() {
        end.turn()?;
        while let Some(event) = end.flows[0].connection.poll_event() {
            match event {
                Event::Received { message, span } => {
                    let now = end.now();
                    end.flows[0]
                        .connection
                        .handle_send(now, message, span)
                        .map_err(|error| broken(&error))?;
                    half.messages += 1;
                    half.received_bytes += u64::from(span.len_bytes);
                    inbox.post_next(end, 0, into, message.handle)?;
                }
                Event::Gone { .. } | Event::Aborted { .. } => return Err(gone()),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Notices a peer from which nothing comes although something is owed.
struct Silence<'a> {
    run: &'a Run,
    heard: Moment,
    since: Instant,
    turns: u32,
}

impl<'a> Silence<'a> {
    fn new(run: &'a Run) -> Self {
        Self { run, heard: Moment(0), since: Instant::now(), turns: 0 }
    }

    fn look(&mut self, end: &End, owed: u64) -> Result<(), Failure> {
        self.turns = self.turns.wrapping_add(1);
        if !self.turns.is_multiple_of(64) && self.since.elapsed() < self.run.silence_limit() {
            return Ok(());
        }
        let heard = (0..end.flows.len()).map(|flow| end.stats(flow).heard).max().unwrap_or(Moment(0));
        if owed == 0 || heard != self.heard {
            (self.heard, self.since) = (heard, Instant::now());
        } else if self.since.elapsed() > self.run.silence_limit() {
            return Err(stalled(self.run));
        }
        Ok(())
    }
}
