//! `--listen`: the answering end for another machine. And `--connect`: the way there.
//!
//! ```text
//!  another machine ── orders over TCP ──▶ checked here ── pipe ──▶ plesio bench-end
//! ```
//!
//! One bench at a time. What a line asks for is held to the bounds of the flags, and to this side's own address and
//! trust; whatever else comes ends its connection and nothing more.

use super::control::{ANSWER_BYTES_MAX, Broken, ORDER_BYTES_MAX, Reader, Secret, Side, Writer, greet};
use super::ends::{Ends, spawn};
use super::link::{Address, FLOWS_MAX, Link, Mode, Order, Role, Run, Said};
use crate::args::{BenchArgs, TrustArg};
use crate::failure::{Exit, Failure};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::process::{ChildStdin, ChildStdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn is_here(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What goes between machines is sealed with a key that both hold, or their owner says that nobody else is there.
fn allow(args: &BenchArgs, ip: IpAddr, listens: bool) -> Result<(), Failure> {
    let captive = args.trust == Some(TrustArg::Captive);
    let modes = args.protection.modes();
    if modes.contains(&Mode::Plaintext) && !captive && !is_here(ip) {
        let cause = format!("{ip} is not this machine, and plaintext can be read and altered on the way");
        return Err(Failure::usage("plaintext", "cannot measure plaintext off this machine", cause)
            .fix("say --trust captive if nobody else is on that network"));
    }
    // Who listens serves what comes; a sealed run without a key is refused there.
    let wants_key = if listens { !captive && !is_here(ip) } else { modes.contains(&Mode::Sealed) };
    if wants_key && args.key_file.is_none() {
        let cause = "both machines have to hold one key";
        return Err(Failure::usage("key-file", "cannot seal what goes to another machine", cause)
            .fix("make one with `plesio key gen pool` and give both --key-file"));
    }
    Ok(())
}

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
        Failure::run("bench", format!("cannot listen at {at}"), cause).fix(fix)
    };
    let listener = TcpListener::bind(at).map_err(failure)?;
    listener.set_nonblocking(true).map_err(failure)?;
    let at = listener.local_addr().map_err(failure)?;
    let key = args.key_file.as_ref().map_or("", |_| " --key-file FILE");
    let trust = args.trust.map_or("", |_| " --trust captive");
    let host = if at.ip().is_unspecified() { "ADDRESS-OF-THIS-MACHINE".into() } else { at.ip().to_string() };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    say(
        args,
        &format!(
            "listening at {at}; on the other machine: plesio bench {command} --connect {host}:{}{key}{trust}",
            at.port()
        ),
    );
    while !interrupted.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, from)) => {
                let ended = session(args, stream, from, &secret, interrupted);
                say(
                    args,
                    &format!(
                        "{from}: {}",
                        ended.map_or_else(|broken| broken.to_string(), |()| "done".into())
                    ),
                );
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(ACCEPT_PERIOD),
            // One connection that broke while it waited.
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(cause) => return Err(failure(cause)),
        }
    }
    Ok(Exit::Interrupted)
}

fn say(args: &BenchArgs, text: &str) {
    if !args.output.common.quiet {
        let _gone = writeln!(io::stderr(), "plesio: {text}");
    }
}

/// One connection, from greeting to end.
fn session(
    args: &BenchArgs,
    stream: TcpStream,
    from: SocketAddr,
    secret: &Secret,
    interrupted: &AtomicBool,
) -> Result<(), Broken> {
    stream.set_nonblocking(false)?;
    let own = stream.local_addr()?.ip();
    let last = stream.try_clone()?;
    let (writer, reader) = greet(stream, Side::Listen, secret, ORDER_BYTES_MAX)?;
    let (mut child, orders, out) =
        spawn(args.pin.first().copied()).map_err(|failure| Broken::Line(failure.to_string()))?;
    let captive = args.trust == Some(TrustArg::Captive);
    let plaintext = captive || is_here(from.ip());
    let guard = Guard { own, from: from.ip(), plaintext, pool: secret.pool() };
    let ended = std::thread::scope(|scope| {
        let relay = scope.spawn(|| {
            let ended = guard.relay(reader, orders, interrupted);
            // Wakes whoever waits for the end's answers.
            let _gone = last.shutdown(std::net::Shutdown::Both);
            ended
        });
        let answered = answers(writer, out);
        let _gone = last.shutdown(std::net::Shutdown::Both);
        let relayed = relay.join().unwrap_or(Err(Broken::Closed));
        match relayed {
            Err(Broken::Closed) => Ok(()),
            Err(broken) => Err(broken),
            Ok(()) => answered,
        }
    });
    let _ended = child.kill();
    let _reaped = child.wait();
    ended
}

fn answers(mut writer: Writer, out: ChildStdout) -> Result<(), Broken> {
    for line in BufReader::new(out).lines() {
        let said: Said = serde_json::from_str(&line?).map_err(|cause| Broken::Line(cause.to_string()))?;
        writer.write(&said)?;
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
    /// Passes orders on until the connection ends. Closing the pipe ends the process behind it.
    fn relay(
        &self,
        mut reader: Reader,
        mut orders: ChildStdin,
        interrupted: &AtomicBool,
    ) -> Result<(), Broken> {
        let mut limit = IDLE_LIMIT;
        while !interrupted.load(Ordering::Acquire) {
            let order = self.check(reader.read(limit)?)?;
            if let Order::Open(run, ..) = &order {
                limit = IDLE_LIMIT + Duration::from_secs_f64(run.seconds);
            }
            let line = serde_json::to_string(&order).map_err(|cause| Broken::Line(cause.to_string()))?;
            writeln!(orders, "{line}")?;
        }
        Ok(())
    }

    fn check(&self, order: Order) -> Result<Order, Broken> {
        match order {
            Order::Open(run, Role::Answer, _) => {
                run.check().map_err(|cause| Broken::Line(cause.into()))?;
                if run.link == Link::Plesio && run.protection == Mode::Plaintext && !self.plaintext {
                    return Err(Broken::Line("plaintext between machines wants --trust captive here".into()));
                }
                if run.link == Link::Plesio && run.protection == Mode::Sealed && self.pool.is_empty() {
                    return Err(Broken::Line("a sealed run wants --key-file here".into()));
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

/// A bench with another machine.
pub(crate) struct Way {
    pub(crate) ends: Ends,
    /// Our own address of the way there.
    pub(crate) own: IpAddr,
    /// The text of the key that both hold; empty without one.
    pub(crate) pool: String,
}

/// The ends of a bench with another machine.
pub(crate) fn connect(args: &BenchArgs, to: &str, interrupted: Arc<AtomicBool>) -> Result<Way, Failure> {
    let what = format!("cannot reach {to}");
    let mut found = to.to_socket_addrs().map_err(|cause| {
        Failure::usage("bench-peer", &what, cause)
            .fix("write it as HOST:PORT, as the listening side shows it")
    })?;
    let secret = Secret::read(args.key_file.as_deref())?;
    let address =
        found.next().ok_or_else(|| Failure::usage("bench-peer", &what, "the name has no address"))?;
    allow(args, address.ip(), false)?;
    let unreachable = |cause: io::Error| Broken::Io(cause).failure(&what);
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT).map_err(unreachable)?;
    let own = stream.local_addr().map_err(unreachable)?.ip();
    let (writer, mut reader) =
        greet(stream, Side::Connect, &secret, ANSWER_BYTES_MAX).map_err(|broken| broken.failure(&what))?;
    // The driver has its own deadlines; this one ends the thread.
    let read = move || reader.read(SESSION_LIMIT).ok();
    let ends = Ends::across(interrupted, &args.pin, writer, address.ip(), read)?;
    Ok(Way { ends, own, pool: secret.pool() })
}

const ACCEPT_PERIOD: Duration = Duration::from_millis(50);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A connection that orders nothing for so long is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const SESSION_LIMIT: Duration = Duration::from_secs(1_000);
