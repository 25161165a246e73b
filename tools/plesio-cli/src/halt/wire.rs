//! An order's way to nodes and back: said again and again until each has answered or the time is over.

use super::{Desk, token};
use crate::failure::{Exit, Failure};
use plesio_wire::NodeId;
use plesio_wire::sideband::{
    DATAGRAM_BYTES_MAX, Header, INDEX_NONE, Message, Order, OrderKind, decode, encode,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Between two of the same to one that has not answered.
const REPEAT: Duration = Duration::from_millis(100);
/// How long nodes may take to show which order they know.
const QUESTION: Duration = Duration::from_millis(1_500);
const POLL: Duration = Duration::from_millis(5);

/// A node that the order was sent to.
pub(crate) struct Asked {
    pub(crate) address: SocketAddr,
    /// Who acknowledged there.
    pub(crate) node: Option<NodeId>,
    /// How long that took.
    pub(crate) wait: Duration,
}

/// Sockets and addresses.
pub(crate) struct Line {
    sockets: Vec<UdpSocket>,
    to: Vec<SocketAddr>,
    mesh: u64,
    token: u32,
}

impl Line {
    pub(crate) fn open(to: &[SocketAddr], mesh: u64) -> Result<Self, Failure> {
        let failed = |cause: io::Error| Failure::run("order", "cannot open a socket", cause);
        let mut sockets = Vec::new();
        for (wanted, any) in [
            (to.iter().any(SocketAddr::is_ipv4), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (to.iter().any(SocketAddr::is_ipv6), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ] {
            if wanted {
                let socket = UdpSocket::bind(SocketAddr::new(any, 0)).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                sockets.push(socket);
            }
        }
        Ok(Self { sockets, to: to.to_vec(), mesh, token: token()? })
    }

    /// The highest sequence of an order that a node shows; 0 where those who answer know none.
    pub(crate) fn highest(&mut self, desk: &Desk, question: &Order) -> Result<u64, Failure> {
        let mut known: Vec<Option<u64>> = vec![None; self.to.len()];
        self.ask(OrderKind::Halt, question, QUESTION, |at, message| {
            let sequence = match message {
                Message::OrderAck(ack) if ack.sequence == 0 => 0,
                Message::Halt(order) if desk.is_genuine(OrderKind::Halt, order) => order.sequence,
                Message::Resume(order) if desk.is_genuine(OrderKind::Resume, order) => order.sequence,
                _ => return false,
            };
            known[at] = known[at].max(Some(sequence));
            true
        });
        known.into_iter().flatten().max().ok_or_else(|| {
            let to: Vec<String> = self.to.iter().map(ToString::to_string).collect();
            let cause = format!(
                "no node answered at {}: none is there, or mesh, operators or threshold differ",
                to.join(", ")
            );
            let failure = Failure::run("order", "cannot learn which sequence comes next", cause)
                .fix("compare with plesio status there, or give --sequence");
            Failure { exit: Exit::Unreachable, ..failure }
        })
    }

    /// Sends the order until all have acknowledged it or the time is over.
    pub(crate) fn send(
        &mut self,
        desk: &Desk,
        kind: OrderKind,
        order: &Order,
        limit: Duration,
    ) -> Result<Vec<Asked>, Failure> {
        let mut asked: Vec<Asked> = (self.to.iter())
            .map(|address| Asked { address: *address, node: None, wait: Duration::ZERO })
            .collect();
        // An answer to the question is none to the order.
        self.token = token()?;
        let (begun, mut newer) = (Instant::now(), 0);
        self.ask(kind, order, limit, |at, message| {
            match message {
                Message::OrderAck(ack) if (ack.sequence, ack.kind) == (order.sequence, kind) => {
                    (asked[at].node, asked[at].wait) = (Some(ack.id), begun.elapsed());
                }
                Message::Halt(other) if desk.is_genuine(OrderKind::Halt, other) => {
                    newer = newer.max(other.sequence);
                }
                Message::Resume(other) if desk.is_genuine(OrderKind::Resume, other) => {
                    newer = newer.max(other.sequence);
                }
                _ => return false,
            }
            true
        });
        if newer >= order.sequence {
            return Err(Failure::usage(
                "sequence",
                format!("cannot give an order with the sequence {}", order.sequence),
                format!("the order in force has the sequence {newer}, and only a higher one counts"),
            )
            .fix(format!("give --sequence {}, or leave it out", newer + 1)));
        }
        Ok(asked)
    }

    /// Says an order to all who have not answered, and hears what comes; `hear` says whether it was an answer.
    fn ask(
        &mut self,
        kind: OrderKind,
        order: &Order,
        limit: Duration,
        mut hear: impl FnMut(usize, &Message) -> bool,
    ) {
        let header =
            Header { mesh: self.mesh, src: INDEX_NONE, dst: INDEX_NONE, sequence: self.token, view: 0 };
        let message = match kind {
            OrderKind::Halt => Message::Halt(*order),
            OrderKind::Resume => Message::Resume(*order),
        };
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let datagram = encode(&header, &message, &mut buffer);
        let mut answered = vec![false; self.to.len()];
        let (begun, mut due) = (Instant::now(), Instant::now());
        while begun.elapsed() < limit && answered.contains(&false) {
            if Instant::now() >= due {
                due = Instant::now() + REPEAT;
                for (to, _) in self.to.iter().zip(&answered).filter(|(_, answered)| !**answered) {
                    let fits = |socket: &&UdpSocket| {
                        socket.local_addr().is_ok_and(|own| own.is_ipv4() == to.is_ipv4())
                    };
                    if let Some(socket) = self.sockets.iter().find(fits) {
                        // Lost, as on the way: it is said again.
                        let _lost = socket.send_to(datagram, to);
                    }
                }
            }
            let mut bytes = [0; DATAGRAM_BYTES_MAX];
            for socket in &self.sockets {
                while let Ok((count, from)) = socket.recv_from(&mut bytes) {
                    let Some(at) = self.to.iter().position(|to| *to == from) else { continue };
                    let Ok((header, message)) = decode(&bytes[..count]) else { continue };
                    let strange = matches!(message, Message::OrderAck(ack) if ack.token != self.token);
                    if header.mesh == self.mesh && !strange && hear(at, &message) {
                        answered[at] = true;
                    }
                }
            }
            std::thread::sleep(POLL);
        }
    }
}
