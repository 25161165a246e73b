//! Capabilities of the network, found by trying them on loopback.

use super::{Finding, Status, bytes_text};
use crate::host;
use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// Segment and train of the trial: three whole segments and a short one.
const SEGMENT_BYTES: usize = 1000;
const TRAIN_BYTES: usize = 3500;
/// Loopback answers at once or not at all.
const TRIAL_LIMIT: Duration = Duration::from_millis(500);
/// Receive buffer that a gigabit link's bursts fit in.
const BUFFER_BYTES_WANTED: u64 = 4 << 20;

/// Sends one train with segmentation offload and looks how it arrives.
pub(super) fn segmentation() -> Finding {
    const NAME: &str = "offloads";
    match try_train() {
        Ok((true, true)) => Finding::new(NAME, Status::Good, "UDP segmentation when sending and receiving"),
        Ok((true, false)) => Finding::new(NAME, Status::Limited, "UDP segmentation when sending only"),
        Ok((false, _)) => Finding::new(NAME, Status::Limited, "none: the kernel refuses UDP_SEGMENT")
            .advise("one system call per datagram; Linux 4.18 and later offer it"),
        Err(error) => Finding::new(NAME, Status::Limited, format!("not known: the trial failed, {error}")),
    }
}

/// Whether trains work (when sending, when receiving).
fn try_train() -> io::Result<(bool, bool)> {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    receiver.set_read_timeout(Some(TRIAL_LIMIT))?;
    sender.connect(receiver.local_addr()?)?;
    let asked = setsockopt(&receiver, sockopt::UdpGroSegment, &true).is_ok();
    if setsockopt(&sender, sockopt::UdpGsoSegment, &(SEGMENT_BYTES as i32)).is_err() {
        return Ok((false, asked));
    }
    if sender.send(&[7; TRAIN_BYTES]).is_err() {
        return Ok((false, asked));
    }
    let mut bytes = [0; 2 * TRAIN_BYTES];
    let len_bytes = receiver.recv(&mut bytes)?;
    Ok((true, asked && len_bytes == TRAIN_BYTES))
}

/// Opens the sideband's own socket and asks what stamps it got.
pub(super) fn timestamping() -> Finding {
    const NAME: &str = "timestamping";
    match plesio_udp::TimestampedSocket::bind((Ipv4Addr::LOCALHOST, 0).into()) {
        Ok((socket, notes)) => {
            let stamps = format!("{:?}", socket.stamps()).to_lowercase();
            let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
            let found = format!("{stamps} stamps on UDP sockets{notes}");
            match socket.stamps() {
                plesio_udp::StampKind::User => Finding::new(NAME, Status::Limited, found)
                    .advise("clocks are compared in user space: 50 µs are added to every bound"),
                _ => Finding::new(NAME, Status::Good, found).advise(
                    "half of what a path takes longer one way than the other is an error of the mesh clock that no stamps show; it \
                     stays inside the bound that is published",
                ),
            }
        }
        Err(error) => {
            Finding::new(NAME, Status::Limited, format!("the sideband's socket does not open: {error}"))
        }
    }
}

/// How large a socket's buffers may be made.
pub(super) fn socket_buffers() -> Finding {
    const NAME: &str = "socket buffers";
    let limit = |name: &str| host::line(format!("/proc/sys/net/core/{name}"))?.parse::<u64>().ok();
    let (Some(receive), Some(send)) = (limit("rmem_max"), limit("wmem_max")) else {
        return Finding::new(NAME, Status::Limited, "the kernel does not say");
    };
    let found = format!("{} to receive, {} to send", bytes_text(receive), bytes_text(send));
    if receive >= BUFFER_BYTES_WANTED {
        Finding::new(NAME, Status::Good, found)
    } else {
        Finding::new(NAME, Status::Limited, found)
            .advise("bursts may be dropped on fast links; sysctl -w net.core.rmem_max=4194304")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_ends_with_an_answer() {
        let finding = segmentation();
        assert!(!finding.found.contains("not known"), "{}", finding.found);
    }
}
