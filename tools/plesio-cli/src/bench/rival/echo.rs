//! A rival's message there and back.

use super::super::link::{Half, Run, STALL_LIMIT};
use super::super::memory::Memory;
use super::super::ours::stalled;
use super::super::round::RoundTrips;
use super::super::worker::Steps;
use super::{Wire, again, broken};
use crate::failure::Failure;
use nix::poll::PollFlags;
use std::time::{Duration, Instant};

/// A datagram or its echo that is not back by then was lost, and goes again.
const LOST_AFTER: Duration = Duration::from_millis(100);

/// How a transfer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Whole,
    /// The other end closed, or the run is over.
    Closed,
    /// Nothing came for too long.
    Late,
}

impl Wire {
    /// Sends all of it.
    fn put(&mut self, run: &Run, bytes: &[u8], steps: &Steps) -> Result<End, Failure> {
        let begin = Instant::now();
        let mut at = 0;
        while at < bytes.len() {
            match self.write(&bytes[at..]) {
                Ok(taken) => at += taken,
                Err(cause) if again(&cause) => {
                    if steps.stop() {
                        return Ok(End::Closed);
                    }
                    if begin.elapsed() > STALL_LIMIT {
                        return Err(stalled(run));
                    }
                    if !self.blocks {
                        self.wait(PollFlags::POLLOUT)?;
                    }
                }
                Err(cause) => return Err(broken(cause)),
            }
        }
        Ok(End::Whole)
    }

    /// Receives exactly so many bytes.
    fn get(&mut self, bytes: &mut [u8], limit: Option<Duration>, steps: &Steps) -> Result<End, Failure> {
        let begin = Instant::now();
        let mut at = 0;
        while at < bytes.len() {
            match self.read(&mut bytes[at..]) {
                Ok(0) if self.is_tcp() => return Ok(End::Closed),
                Ok(taken) => at += taken,
                Err(cause) if again(&cause) => {
                    if steps.stop() {
                        return Ok(End::Closed);
                    }
                    if limit.is_some_and(|limit| begin.elapsed() > limit) {
                        return Ok(End::Late);
                    }
                    if !self.blocks {
                        self.wait(PollFlags::POLLIN)?;
                    }
                }
                Err(cause) => return Err(broken(cause)),
            }
        }
        Ok(End::Whole)
    }

    pub(super) fn ask(
        &mut self,
        run: &Run,
        [out, into]: [&Memory; 2],
        steps: &Steps,
        half: &mut Half,
    ) -> Result<(), Failure> {
        let (start, length) = (Instant::now(), Duration::from_secs_f64(run.seconds));
        let (out_lease, mut into_lease) = (out.lease()?, into.lease()?);
        let mut trips = RoundTrips::new()?;
        let lost_after = LOST_AFTER + run.round_trip();
        let limit = if self.is_tcp() { STALL_LIMIT } else { lost_after };
        let mut next = 0;
        let mut lost_in_a_row = 0_u32;
        while start.elapsed() < length && !steps.over() && !steps.stop() {
            let at = out.offset(next);
            let asked = &out_lease.as_bytes()[at..at + out.bytes()];
            let echo = &mut into_lease.as_bytes_mut()[at..at + out.bytes()];
            let begin = Instant::now();
            if self.put(run, asked, steps)? == End::Closed {
                break;
            }
            let came = loop {
                let came = self.get(echo, Some(limit), steps)?;
                // The echo of a datagram that was given up comes late: it is not the one asked for.
                if came != End::Whole || self.is_tcp() || echo == asked {
                    break came;
                }
            };
            half.sent_bytes += asked.len() as u64;
            match came {
                End::Whole => {
                    trips.add(begin.elapsed());
                    half.messages += 1;
                    half.received_bytes += asked.len() as u64;
                    half.wrong_bytes +=
                        asked.iter().zip(&*echo).filter(|(one, two)| one != two).count() as u64;
                    next += 1;
                    lost_in_a_row = 0;
                }
                End::Closed => break,
                End::Late if self.is_tcp() || lost_after * lost_in_a_row > run.silence_limit() => {
                    return Err(stalled(run));
                }
                End::Late => {
                    half.retransmitted_bytes += asked.len() as u64;
                    lost_in_a_row += 1;
                }
            }
        }
        half.round_trips = trips.to_hex()?;
        self.finish();
        steps.sent();
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        run: &Run,
        into: &Memory,
        steps: &Steps,
        half: &mut Half,
    ) -> Result<(), Failure> {
        let mut lease = into.lease()?;
        let mut next = 0;
        while !steps.stop() {
            let at = into.offset(next);
            let bytes = &mut lease.as_bytes_mut()[at..at + into.bytes()];
            if self.get(bytes, None, steps)? != End::Whole || self.put(run, bytes, steps)? != End::Whole {
                break;
            }
            half.messages += 1;
            half.received_bytes += bytes.len() as u64;
            next += 1;
        }
        Ok(())
    }
}
