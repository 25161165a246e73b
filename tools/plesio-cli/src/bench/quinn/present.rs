//! quinn as a rival: one connection per flow, driven by a runtime of the flow's own thread, with our buffers, our datagram
//! size and windows that never hold it back.

use crate::bench::figures::Stretches;
use crate::bench::link::{Half, Run, What};
use crate::bench::memory::Memory;
use crate::bench::ours::{WAIT_MAX, stalled};
use crate::bench::round::RoundTrips;
use crate::bench::worker::Steps;
use crate::failure::Failure;
use crate::hex::hex;
use nix::sys::socket::{setsockopt, sockopt};
use quinn::congestion::CubicConfig;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, MtuDiscoveryConfig, ReadError,
    RecvStream, SendStream, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use std::fmt::Display;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn broken(cause: impl Display) -> Failure {
    Failure::run("bench", "quinn's link broke", cause)
}

pub(crate) fn run(
    run: &Run,
    memory: [Option<&Memory>; 2],
    steps: &Steps,
) -> Result<(Half, Stretches), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
    runtime.block_on(drive(run, memory, steps))
}

async fn drive(
    run: &Run,
    [out, into]: [Option<&Memory>; 2],
    steps: &Steps,
) -> Result<(Half, Stretches), Failure> {
    let (server, word) = if steps.begins() {
        (None, String::new())
    } else {
        let (server, certificate) = identity(run)?;
        (Some(server), hex(&certificate))
    };
    let endpoint = open(run, server)?;
    let port = endpoint.local_addr().map_err(broken)?.port();
    let (address, word) = steps.meet(port, word)?;
    steps.ready();
    let connection = in_time(run, meet(run, &endpoint, address, &word, steps.begins())).await??;
    let mut half = Half { tier: "quinn".into(), ..Half::default() };
    let mut stretches = Stretches::new(steps.begin());
    match (run.what, out, into) {
        (What::Pingpong, Some(out), Some(into)) if steps.begins() => {
            ask(run, &connection, [out, into], steps, &mut half).await?;
        }
        (What::Pingpong, _, Some(into)) => answer(run, &connection, into, &mut half).await?,
        (_, out, into) => {
            let mut sent_bytes = 0;
            let (sent, taken) = tokio::join!(
                send(run, &connection, out, steps, &mut sent_bytes),
                take(run, &connection, into, steps, &mut half, &mut stretches),
            );
            sent?;
            taken?;
            half.sent_bytes = sent_bytes;
            half.messages = half.received_bytes / u64::from(run.bytes);
        }
    }
    if steps.begins() {
        connection.close(VarInt::from_u32(0), b"");
    } else {
        // Whoever began closes; what it does not say is not waited for.
        let _silent = tokio::time::timeout(CLOSE_LIMIT, connection.closed()).await;
    }
    let _unsaid = tokio::time::timeout(CLOSE_LIMIT, endpoint.wait_idle()).await;
    Ok((half, stretches))
}

/// Nothing of quinn's may wait longer than anything of ours.
async fn in_time<T>(run: &Run, what: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(run.silence_limit(), what).await.map_err(|_| stalled(run))
}

fn open(run: &Run, server: Option<ServerConfig>) -> Result<Endpoint, Failure> {
    let socket = UdpSocket::bind(SocketAddr::new(run.bind, 0)).map_err(broken)?;
    setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES).map_err(broken)?;
    setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES).map_err(broken)?;
    let mut config = EndpointConfig::default();
    config.max_udp_payload_size(DATAGRAM_BYTES_MAX).map_err(broken)?;
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).map_err(broken)
}

/// Datagrams as large as ours, and windows larger than what is in flight on any path measured here.
fn transport(run: &Run) -> Result<Arc<TransportConfig>, Failure> {
    let mut transport = TransportConfig::default();
    let datagram_bytes = (run.chunk_bytes + OVERHEAD_BYTES).clamp(1200, u32::from(DATAGRAM_BYTES_MAX)) as u16;
    if run.search {
        let mut search = MtuDiscoveryConfig::default();
        search.upper_bound(datagram_bytes);
        transport.mtu_discovery_config(Some(search));
    } else {
        transport.initial_mtu(datagram_bytes).mtu_discovery_config(None);
    }
    if !run.search {
        // Its own first window is 14,720 bytes, and a datagram that is larger would wait for it for ever.
        let mut cubic = CubicConfig::default();
        cubic.initial_window(10 * u64::from(datagram_bytes));
        transport.congestion_controller_factory(Arc::new(cubic));
    }
    // A batch that is longer than a datagram can be is refused by the kernel, and quinn takes that for a lost probe.
    transport
        .enable_segmentation_offload(u32::from(datagram_bytes) * BATCH_MAX <= u32::from(DATAGRAM_BYTES_MAX));
    let window = VarInt::from_u32(WINDOW_BYTES);
    transport.stream_receive_window(window).receive_window(window).send_window(u64::from(WINDOW_BYTES));
    transport.max_idle_timeout(Some(run.silence_limit().try_into().map_err(broken)?));
    Ok(Arc::new(transport))
}

/// A server's configuration and the certificate that the other end is to trust.
fn identity(run: &Run) -> Result<(ServerConfig, Vec<u8>), Failure> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.into()]).map_err(broken)?;
    let certificate = made.cert.der().to_vec();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let chain = vec![CertificateDer::from(certificate.clone())];
    let mut config = ServerConfig::with_single_cert(chain, key).map_err(broken)?;
    config.transport_config(transport(run)?);
    Ok((config, certificate))
}

async fn meet(
    run: &Run,
    endpoint: &Endpoint,
    address: SocketAddr,
    word: &str,
    begins: bool,
) -> Result<Connection, Failure> {
    if !begins {
        let incoming = endpoint.accept().await.ok_or_else(|| broken("its endpoint is closed"))?;
        return incoming.await.map_err(broken);
    }
    let pairs = word.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let certificate: Option<Vec<u8>> = pairs.map(byte).collect();
    let certificate = certificate.ok_or_else(|| broken("the certificate is not one"))?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate)).map_err(broken)?;
    let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).map_err(broken)?;
    config.transport_config(transport(run)?);
    endpoint.connect_with(config, address, NAME).map_err(broken)?.await.map_err(broken)
}

/// Walks the working set until the time is over, one message per call.
async fn send(
    run: &Run,
    connection: &Connection,
    out: Option<&Memory>,
    steps: &Steps,
    sent_bytes: &mut u64,
) -> Result<(), Failure> {
    let Some(memory) = out else { return Ok(()) };
    let lease = memory.lease()?;
    let bytes = lease.as_bytes();
    let mut stream = connection.open_uni().await.map_err(broken)?;
    let (start, length) = (Instant::now(), Duration::from_secs_f64(run.seconds));
    let call_bytes = CALL_BYTES_MAX.min(run.bytes as usize);
    let mut at = 0;
    while start.elapsed() < length && !steps.over() && !steps.stop() {
        let end = bytes.len().min(at + call_bytes);
        // What does not fit any more when the time is over is not sent.
        let left = length.saturating_sub(start.elapsed());
        let written = in_time(run, stream.write(&bytes[at..end]));
        let Ok(taken) = tokio::time::timeout(left, written).await else { break };
        let taken = taken?.map_err(broken)?;
        *sent_bytes += taken as u64;
        at = (at + taken) % bytes.len();
    }
    stream.finish().map_err(broken)?;
    // On a slow path the rest is not waited for; closing tells the other end.
    if let Ok(stopped) = tokio::time::timeout(run.drain_limit(), stream.stopped()).await {
        stopped.map_err(broken)?;
    }
    steps.sent();
    Ok(())
}

async fn take(
    run: &Run,
    connection: &Connection,
    into: Option<&Memory>,
    steps: &Steps,
    half: &mut Half,
    stretches: &mut Stretches,
) -> Result<(), Failure> {
    let Some(memory) = into else { return Ok(()) };
    let mut lease = memory.lease()?;
    let bytes = lease.as_bytes_mut();
    let mut stream = in_time(run, connection.accept_uni()).await?.map_err(broken)?;
    stretches.open();
    let mut stopped: Option<Instant> = None;
    let mut at = 0;
    loop {
        if steps.stop() && stopped.get_or_insert_with(Instant::now).elapsed() > run.drain_limit() {
            return Ok(());
        }
        let end = bytes.len().min(at + CALL_BYTES_MAX);
        // Whoever is silent is lost after the idle limit; a slow one is waited for.
        let Ok(read) = tokio::time::timeout(WAIT_MAX, stream.read(&mut bytes[at..end])).await else {
            continue;
        };
        let taken = match read {
            Ok(Some(taken)) => taken,
            // It began and closed: what has not come is not waited for.
            Ok(None) | Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(_))) => return Ok(()),
            Err(ReadError::ConnectionLost(ConnectionError::TimedOut)) => return Err(stalled(run)),
            Err(cause) => return Err(broken(cause)),
        };
        half.received_bytes += taken as u64;
        stretches.add(taken as u64);
        at = (at + taken) % bytes.len();
    }
}

async fn ask(
    run: &Run,
    connection: &Connection,
    [out, into]: [&Memory; 2],
    steps: &Steps,
    half: &mut Half,
) -> Result<(), Failure> {
    let (out_lease, mut into_lease) = (out.lease()?, into.lease()?);
    let (mut send, mut receive): (SendStream, RecvStream) = connection.open_bi().await.map_err(broken)?;
    let (start, length) = (Instant::now(), Duration::from_secs_f64(run.seconds));
    let mut trips = RoundTrips::new()?;
    let mut next = 0;
    while start.elapsed() < length && !steps.over() && !steps.stop() {
        let at = out.offset(next);
        let asked = &out_lease.as_bytes()[at..at + out.bytes()];
        let echo = &mut into_lease.as_bytes_mut()[at..at + out.bytes()];
        let begin = Instant::now();
        in_time(run, send.write_all(asked)).await?.map_err(broken)?;
        in_time(run, receive.read_exact(echo)).await?.map_err(broken)?;
        trips.add(begin.elapsed());
        half.messages += 1;
        half.sent_bytes += asked.len() as u64;
        half.received_bytes += asked.len() as u64;
        half.wrong_bytes += asked.iter().zip(&*echo).filter(|(one, two)| one != two).count() as u64;
        next += 1;
    }
    half.round_trips = trips.to_hex()?;
    // The other end reads until here.
    let _closed = send.finish();
    steps.sent();
    Ok(())
}

async fn answer(run: &Run, connection: &Connection, into: &Memory, half: &mut Half) -> Result<(), Failure> {
    let mut lease = into.lease()?;
    let (mut send, mut receive) = in_time(run, connection.accept_bi()).await?.map_err(broken)?;
    let mut next = 0;
    loop {
        let at = into.offset(next);
        let bytes = &mut lease.as_bytes_mut()[at..at + into.bytes()];
        // Whoever asks closes in the end.
        if in_time(run, receive.read_exact(bytes)).await?.is_err() || send.write_all(bytes).await.is_err() {
            return Ok(());
        }
        half.messages += 1;
        half.received_bytes += bytes.len() as u64;
        next += 1;
    }
}

const NAME: &str = "plesio-bench";
const CALL_BYTES_MAX: usize = 1 << 20;
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
const WINDOW_BYTES: u32 = 16 << 20;
const DATAGRAM_BYTES_MAX: u16 = 65_507;
/// QUIC's header, its tag and a stream frame's head.
const OVERHEAD_BYTES: u32 = 64;
/// Datagrams that quinn gives the kernel at once, at most.
const BATCH_MAX: u32 = 10;
const CLOSE_LIMIT: Duration = Duration::from_millis(200);
