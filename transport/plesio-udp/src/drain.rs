//! Reading sockets one after the other into messages of our own, for the engines whose kernel keeps no buffers for them.

use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;

use crate::control;
use crate::engine::{Arrival, BATCH_MAX, Lane, TRAIN_BYTES_MAX, Taken};
use crate::message::Message;

/// Errors taken from one socket before its turn ends.
const ERRORS_MAX: u32 = 8;

pub(crate) struct Drain {
    messages: Vec<Message>,
    /// Where the search for a lane with work goes on: every lane gets its turn.
    lane_next: usize,
}

impl Drain {
    pub(crate) fn new() -> Self {
        let message = |_| {
            let mut message = Message::new(None, 0, TRAIN_BYTES_MAX);
            message.push_aside(0..TRAIN_BYTES_MAX);
            message
        };
        Self { messages: (0..BATCH_MAX).map(message).collect(), lane_next: 0 }
    }

    /// As `Engine::collect`; `read` fills the first of the messages it is given and says how many and how long.
    pub(crate) fn collect(
        &mut self,
        lanes: &mut [Option<Lane>],
        trains_max: usize,
        mut read: impl FnMut(RawFd, &mut [Message], &mut [usize]) -> Result<usize, Errno>,
        take: &mut dyn FnMut(usize, &mut Lane, Taken<'_>),
    ) -> bool {
        let mut lens = [0; BATCH_MAX];
        let mut trains_left = trains_max.max(1);
        let mut idle = 0;
        let mut errors = 0;
        while idle < lanes.len() {
            if trains_left == 0 {
                return true;
            }
            let index = self.lane_next % lanes.len();
            let Some(lane) = lanes[index].as_mut().filter(|lane| lane.readable) else {
                self.lane_next = index + 1;
                idle += 1;
                continue;
            };
            idle = 0;
            let batch = trains_left.min(BATCH_MAX);
            let read = read(lane.socket.as_raw_fd(), &mut self.messages[..batch], &mut lens);
            match read {
                Ok(count) => {
                    errors = 0;
                    trains_left -= count;
                    for (message, len_bytes) in self.messages.iter_mut().zip(lens).take(count) {
                        let arrival = Arrival {
                            from: message.from(),
                            segment_bytes: control::segment_bytes(message.control()),
                            overflow: control::overflow_count(message.control()),
                            bytes: &mut message.aside_mut()[..len_bytes],
                        };
                        take(index, lane, Ok(arrival));
                    }
                    self.lane_next = index + 1;
                    lane.readable = count == batch;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => lane.readable = false,
                Err(error) => {
                    // Reported once by the socket and taken by this call; the datagrams behind it are still there.
                    take(index, lane, Err(error));
                    errors += 1;
                    lane.readable = errors < ERRORS_MAX;
                }
            }
        }
        false
    }
}
