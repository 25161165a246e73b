//! `--listen`: the answering end for another machine.
//!
//! ```text
//!  another machine ── orders over TCP ──▶ checked here ── pipe ──▶ plesio bench-end
//! ```
//!
//! One bench at a time; whoever comes meanwhile is greeted, waits a little for its turn, and is told. What a line asks
//! for is held to the bounds of the flags, and to this side's own address and trust; whatever else comes ends its
//! connection and nothing more.

use super::connect::{allow, is_here};
use super::control::{Broken, ORDER_BYTES_MAX, Reader, Secret, Side, Writer, greet};
use super::ends::spawn;
use super::link::{Address, FLOWS_MAX, Link, Mode, Order, Role, Run, Said, Trouble};
use crate::args::{BenchArgs, TrustArg};
use crate::failure::{Exit, Failure};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// Serves until interrupted.
pub(crate) fn serve(
    args: &BenchArgs,
    command: &str,
    at: SocketAddr,
    interrupted: &AtomicBool,
) -> Result<Exit, Failure> {
    allow(args, at.ip(), true)?;
    let secret = Secret::read(args.key_file.as_deref())?;
    let failure = |cause: io::Error| {
        let fix = if cause.kind() == io::ErrorKind::AddrInUse {
            "end what holds the port, or give another; port 0 lets the kernel choose"
        } else {
            "give an address of this machine, for example --listen 0.0.0.0:7470"
        };
        Failure::usage("bench", format!("cannot listen at {at}"), cause).fix(fix)
    };
    let listener = TcpListener::bind(at).map_err(failure)?;
    listener.set_nonblocking(true).map_err(failure)?;
    let at = listener.local_addr().map_err(failure)?;
    let line = invitation(args, command, at);
    say(args, &format!("listening at {at}; on the other machine: {line}"));
    let desk = Desk { args, secret, interrupted, turn: Mutex::new(()), open: Mutex::default() };
    thread::scope(|scope| {
        let mut number = 0_u64;
        let ended = loop {
            if interrupted.load(Ordering::Acquire) {
                break Ok(Exit::Interrupted);
            }
            match listener.accept() {
                Ok((stream, from)) => {
                    number += 1;
                    let desk = &desk;
                    // Who is one too many, or finds no thread, is let go.
                    if desk.admit(number, &stream) {
                        let talk = move || desk.talk(number, stream, from);
                        let thread = thread::Builder::new().name("connection".into());
                        if thread.spawn_scoped(scope, talk).is_err() {
                            desk.leave(number);
                        }
                    }
                }
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => thread::sleep(ACCEPT_PERIOD),
                // One connection that broke while it waited.
                Err(cause) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(cause) => break Err(failure(cause)),
            }
        };
        for stream in desk.connections().values() {
            // One that is closed already needs no end.
            let _closed = stream.shutdown(Shutdown::Both);
        }
        ended
    })
}

/// What to type on the other machine.
fn invitation(args: &BenchArgs, command: &str, at: SocketAddr) -> String {
    let ip = if at.ip().is_unspecified() { own_address(at.ip()) } else { Some(at.ip()) };
    let host = match ip {
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        Some(IpAddr::V4(ip)) => ip.to_string(),
        None => "ADDRESS-OF-THIS-MACHINE".into(),
    };
    let key = match &args.key_file {
        Some(path) => format!(" --key-file {}", quoted(path)),
        None => " --protection plaintext".into(),
    };
    let trust = args.trust.map_or("", |_| " --trust captive");
    format!("plesio bench {command} --connect {host}:{}{key}{trust}", at.port())
}

/// As a shell takes it for one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@%:,=".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The address that this machine has for the world at large. Nothing is sent: connecting a UDP socket asks for a route.
fn own_address(any: IpAddr) -> Option<IpAddr> {
    let towards = |world: &str| {
        let world: SocketAddr = world.parse().ok()?;
        let socket = UdpSocket::bind(if world.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
        socket.connect(world).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    // Addresses of documents and examples: nobody has them.
    let by_six = || if any.is_ipv6() { towards("[2001:db8::1]:9") } else { None };
    towards("192.0.2.1:9").or_else(by_six)
}

fn say(args: &BenchArgs, text: &str) {
    if !args.output.common.quiet {
        let _gone = writeln!(io::stderr(), "plesio: {text}");
    }
}

/// What all connections share.
struct Desk<'a> {
    args: &'a BenchArgs,
    secret: Secret,
    interrupted: &'a AtomicBool,
    /// Whose bench runs.
    turn: Mutex<()>,
    /// To be shut when this side ends.
    open: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Desk<'_> {
    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one more fits.
    fn admit(&self, number: u64, stream: &TcpStream) -> bool {
        let mut open = self.connections();
        let Ok(stream) = stream.try_clone() else { return false };
        let fits = open.len() < CONNECTIONS_MAX;
        if fits {
            open.insert(number, stream);
        }
        fits
    }

    fn leave(&self, number: u64) {
        self.connections().remove(&number);
    }

    /// One connection, from greeting to end.
    fn talk(&self, number: u64, stream: TcpStream, from: SocketAddr) {
        let ended = self.session(stream, from);
        self.leave(number);
        let how = match ended {
            _ if self.interrupted.load(Ordering::Acquire) => "interrupted here".into(),
            Ok(end) => end.to_owned(),
            Err(broken) => broken.to_string(),
        };
        say(self.args, &format!("{from}: {how}"));
    }

    /// The right to measure; none where others hold it for too long.
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        let limit = Instant::now() + TURN_LIMIT;
        loop {
            match self.turn.try_lock() {
                Ok(turn) => return Some(turn),
                Err(TryLockError::Poisoned(turn)) => return Some(turn.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() > limit => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(ACCEPT_PERIOD),
            }
        }
    }

    fn session(&self, stream: TcpStream, from: SocketAddr) -> Result<&'static str, Broken> {
        stream.set_nonblocking(false)?;
        let own = stream.local_addr()?.ip();
        let last = stream.try_clone()?;
        let (mut writer, reader) = greet(stream, Side::Listen, &self.secret, ORDER_BYTES_MAX)?;
        let Some(_turn) = self.turn() else {
            writer.write(&refusal(&Broken::Refused(
                "it measures with another machine now",
                "run again when that is done",
            )))?;
            return Ok("sent away: another bench runs");
        };
        let (mut child, mut orders, out) =
            spawn(self.args.pin.first().copied()).map_err(|failure| Broken::Line(failure.to_string()))?;
        let captive = self.args.trust == Some(TrustArg::Captive);
        let plaintext = captive || is_here(from.ip());
        let guard = Guard { own, from: from.ip(), plaintext, pool: self.secret.pool() };
        let writer = Mutex::new(writer);
        let (running, left) = (AtomicBool::new(false), AtomicBool::new(false));
        let (answered, relayed) = thread::scope(|scope| {
            let relay = thread::Builder::new().name("orders".into()).spawn_scoped(scope, || {
                let ended = guard.relay(reader, &mut orders, &running);
                left.store(true, Ordering::Release);
                if let Err(broken @ Broken::Refused(..)) = &ended {
                    let _gone = locked(&writer).write(&refusal(broken));
                }
                // Ends the process behind it, and with that the answers.
                drop(orders);
                ended
            });
            let relay = match relay {
                Ok(relay) => relay,
                Err(cause) => return (Ok(false), Err(Broken::Io(cause))),
            };
            let answered = answers(&writer, out, &running);
            let died = !left.load(Ordering::Acquire);
            // Wakes whoever waits for orders.
            let _gone = last.shutdown(Shutdown::Both);
            let relayed = relay.join().unwrap_or(Err(Broken::Closed));
            (answered.map(|()| died), relayed)
        });
        let _ended = child.kill();
        let _reaped = child.wait();
        match (relayed, answered) {
            (_, Ok(true)) => Ok("the end of the bench here died"),
            (Err(Broken::Closed | Broken::Io(_)), _) if running.load(Ordering::Acquire) => {
                Ok("it left in the middle of a run")
            }
            (Err(Broken::Closed), _) => Ok("done"),
            (Err(broken), _) => Err(broken),
            (Ok(()), answered) => answered.map(|_| "done"),
        }
    }
}

fn locked(writer: &Mutex<Writer>) -> MutexGuard<'_, Writer> {
    writer.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How a refusal is told to whoever asked.
fn refusal(broken: &Broken) -> Said {
    let (cause, fix) = match broken {
        Broken::Refused(cause, fix) => (*cause, *fix),
        _ => ("it does not follow this order", "install the same version on both machines"),
    };
    let failure = Failure::usage("bench-peer", "the other end refuses this run", cause).fix(fix);
    Said::Failed(Trouble::from(failure))
}

fn answers(writer: &Mutex<Writer>, out: ChildStdout, running: &AtomicBool) -> Result<(), Broken> {
    for line in BufReader::new(out).lines() {
        let said: Said = serde_json::from_str(&line?).map_err(|cause| Broken::Line(cause.to_string()))?;
        if matches!(said, Said::Done(_) | Said::Failed(_)) {
            running.store(false, Ordering::Release);
        }
        locked(writer).write(&said)?;
    }
    Ok(())
}

/// What an order from another machine may ask for.
struct Guard {
    own: IpAddr,
    from: IpAddr,
    plaintext: bool,
    pool: String,
}

impl Guard {
    /// Passes orders on until the connection ends.
    fn relay(&self, mut reader: Reader, orders: &mut ChildStdin, running: &AtomicBool) -> Result<(), Broken> {
        let mut limit = IDLE_LIMIT;
        loop {
            let order = self.check(reader.read(limit)?)?;
            if let Order::Open(run, ..) = &order {
                limit = IDLE_LIMIT + run.longest();
                running.store(true, Ordering::Release);
            }
            let line = serde_json::to_string(&order).map_err(|cause| Broken::Line(cause.to_string()))?;
            writeln!(orders, "{line}")?;
        }
    }

    fn check(&self, order: Order) -> Result<Order, Broken> {
        match order {
            Order::Open(run, Role::Answer, _) => {
                run.check().map_err(|unfit| Broken::Refused(unfit.0, unfit.1))?;
                if run.link == Link::Plesio && run.protection == Mode::Plaintext && !self.plaintext {
                    return Err(Broken::Refused(
                        "plaintext comes from another machine, and the listening side was not told to trust the network",
                        "say --trust captive there too if nobody else is on that network",
                    ));
                }
                if run.link == Link::Plesio && run.protection == Mode::Sealed && self.pool.is_empty() {
                    return Err(Broken::Refused(
                        "the listening side has no key to seal with",
                        "give both machines the same --key-file",
                    ));
                }
                Ok(Order::Open(Run { bind: self.own, ..run }, Role::Answer, self.pool.clone()))
            }
            Order::Open(..) => Err(Broken::Line("this side answers only".into())),
            Order::Meet(address) if address.ports.len().max(address.words.len()) > usize::from(FLOWS_MAX) => {
                Err(Broken::Line("more ports than flows".into()))
            }
            // Payload goes where the control connection comes from, and nowhere else.
            Order::Meet(address) => Ok(Order::Meet(Address { ip: self.from, ..address })),
            Order::Over | Order::Stop => Ok(order),
            Order::Between(..) | Order::Apart => Err(Broken::Line("this side answers only".into())),
        }
    }
}

const ACCEPT_PERIOD: Duration = Duration::from_millis(20);
/// How long somebody waits for the one before to leave.
const TURN_LIMIT: Duration = Duration::from_secs(3);
/// Connections at the same time, strangers included.
const CONNECTIONS_MAX: usize = 64;
/// A connection that orders nothing for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for (path, word) in
            [("pool.key", "pool.key"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
