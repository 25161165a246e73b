//! The control connection between two machines: lines of JSON, each with a keyed hash.
//!
//! ```text
//!  both:   plesio-bench 3 NONCE                         version, 32 bytes of randomness
//!  both:   HASH "key"                                   key: pool key (or none), both nonces, direction; line count
//!  then:   HASH {"open":[...]}
//! ```
//!
//! Keeps: a line that the other holder of the key did not write, or not in this place, is never parsed; no line is longer
//! than its reader allows; every read and every line has a deadline.

use crate::failure::{Exit, Failure};
use crate::hex::hex;
use crate::{keyfile, random};
use plesio_session::PoolKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Proves one end to the other; without a key file it proves nothing.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32], Option<PoolKey>);

impl Secret {
    /// From the pool's key, if a file is given.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self(blake3::derive_key(CONTEXT_SECRET, b""), None)) };
        let key = keyfile::read(path, keyfile::Kind::Secret, PoolKey::from_text)?;
        let secret = blake3::derive_key(CONTEXT_SECRET, key.to_text().expose().as_bytes());
        Ok(Self(secret, Some(key)))
    }

    /// The text of the pool's key, for the process of an end.
    pub(crate) fn pool(&self) -> String {
        self.1.as_ref().map_or_else(String::new, |key| key.to_text().expose().to_owned())
    }
}

/// Which side of the connection one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Listen,
    Connect,
}

/// Why a control connection is given up.
#[derive(Debug)]
pub(crate) enum Broken {
    Io(io::Error),
    /// The other end closed it.
    Closed,
    /// The line did not come in time.
    Late,
    TooLong,
    /// The other end is no bench, as this side sees it.
    Stranger(Side),
    Version(String),
    /// Another key, or none, or altered on the way.
    Key,
    Line(String),
    /// An order that this side does not follow, and what makes it follow.
    Refused(&'static str, &'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "{cause}"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Late => f.write_str("a line did not come in time"),
            Self::TooLong => f.write_str("a line is too long"),
            Self::Stranger(Side::Connect) => f.write_str("what is there is no `plesio bench --listen`"),
            Self::Stranger(Side::Listen) => f.write_str("what connected is no `plesio bench --connect`"),
            Self::Version(version) => {
                write!(f, "it speaks version {version} of this protocol, this build speaks {VERSION}")
            }
            Self::Key => f.write_str("it does not hold the same key, or a line was altered"),
            Self::Line(cause) => write!(f, "a line is not understood: {cause}"),
            Self::Refused(cause, _) => write!(f, "refused: {cause}"),
        }
    }
}

impl Broken {
    pub(crate) fn failure(&self, what: impl Into<String>) -> Failure {
        let fix = match self {
            Self::Key => "give both machines the same --key-file, or neither one",
            Self::Version(_) => "install the same version on both machines",
            Self::Closed => "see what the listening side says of it",
            _ => "see whether `plesio bench udp --listen` runs there and a firewall lets it through",
        };
        Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", what, self) }.fix(fix)
    }
}

impl From<io::Error> for Broken {
    fn from(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Late,
            _ => Self::Io(cause),
        }
    }
}

/// Hashes the lines of one direction.
struct Lines {
    key: [u8; 32],
    count: u64,
}

impl Lines {
    fn hash(&mut self, line: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&self.count.to_le_bytes()).update(line);
        self.count += 1;
        hasher.finalize()
    }
}

pub(crate) struct Writer {
    stream: TcpStream,
    lines: Lines,
}

impl Writer {
    pub(crate) fn write(&mut self, line: &impl Serialize) -> Result<(), Broken> {
        let text = serde_json::to_string(line).map_err(|cause| Broken::Line(cause.to_string()))?;
        let hash = self.lines.hash(text.as_bytes());
        self.stream.write_all(format!("{} {text}\n", hash.to_hex()).as_bytes())?;
        Ok(())
    }
}

pub(crate) struct Reader {
    stream: TcpStream,
    lines: Lines,
    line_bytes_max: usize,
    /// What came behind the last line.
    rest: Vec<u8>,
}

impl Reader {
    /// The next line, within the limit.
    pub(crate) fn read<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T, Broken> {
        let line = read_line(&mut self.stream, &mut self.rest, self.line_bytes_max, limit)?;
        let (hash, text) = line.split_at_checked(HASH_DIGITS + 1).ok_or(Broken::Key)?;
        let told = str::from_utf8(&hash[..HASH_DIGITS]).ok().and_then(|hex| blake3::Hash::from_hex(hex).ok());
        // Comparing hashes takes the same time wherever they differ.
        if told != Some(self.lines.hash(text)) {
            return Err(Broken::Key);
        }
        serde_json::from_slice(text).map_err(|cause| Broken::Line(cause.to_string()))
    }
}

/// Up to a newline, which is taken off.
fn read_line(
    stream: &mut TcpStream,
    rest: &mut Vec<u8>,
    bytes_max: usize,
    limit: Duration,
) -> Result<Vec<u8>, Broken> {
    let deadline = Instant::now() + limit;
    let mut looked = 0;
    loop {
        if let Some(at) = rest[looked..].iter().position(|byte| *byte == b'\n') {
            let mut line: Vec<u8> = rest.drain(..=looked + at).collect();
            line.pop();
            return Ok(line);
        }
        looked = rest.len();
        if looked > bytes_max {
            return Err(Broken::TooLong);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Broken::Late);
        }
        stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => return Err(Broken::Closed),
            Ok(taken) => rest.extend_from_slice(&bytes[..taken]),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause.into()),
        }
    }
}

/// Greets the other end and agrees on the keys of both directions.
pub(crate) fn greet(
    mut stream: TcpStream,
    side: Side,
    secret: &Secret,
    line_bytes_max: usize,
) -> Result<(Writer, Reader), Broken> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(HELLO_LIMIT))?;
    let own = nonce()?;
    let digits = hex(&own);
    stream.write_all(format!("{NAME} {VERSION} {digits}\n").as_bytes())?;
    let mut rest = Vec::new();
    let line = read_line(&mut stream, &mut rest, HELLO_BYTES_MAX, HELLO_LIMIT)?;
    let line = str::from_utf8(&line).map_err(|_| Broken::Stranger(side))?;
    let mut words = line.split(' ');
    if words.next() != Some(NAME) {
        return Err(Broken::Stranger(side));
    }
    let version = words.next().unwrap_or_default();
    if version != VERSION {
        let shown = version.chars().filter(char::is_ascii_graphic).take(20).collect();
        return Err(Broken::Version(shown));
    }
    let other =
        words.next().and_then(|hex| blake3::Hash::from_hex(hex).ok()).ok_or(Broken::Stranger(side))?;
    // A greeting that comes back as it was sent would make both directions one.
    if words.next().is_some() || *other.as_bytes() == own {
        return Err(Broken::Stranger(side));
    }
    let (listen, connect) = match side {
        Side::Listen => (own, *other.as_bytes()),
        Side::Connect => (*other.as_bytes(), own),
    };
    let root = [secret.0, listen, connect].concat();
    let to_listen = blake3::derive_key("plesio bench control 1 to the listening side", &root);
    let to_connect = blake3::derive_key("plesio bench control 1 to the connecting side", &root);
    let (send, receive) = match side {
        Side::Listen => (to_connect, to_listen),
        Side::Connect => (to_listen, to_connect),
    };
    let mut writer = Writer { stream: stream.try_clone()?, lines: Lines { key: send, count: 0 } };
    let mut reader = Reader { stream, lines: Lines { key: receive, count: 0 }, line_bytes_max, rest };
    // Each side proves its key before anything is ordered, so that both learn it when they hold different ones.
    writer.write(&PROOF)?;
    match reader.read::<String>(HELLO_LIMIT)?.as_str() {
        PROOF => Ok((writer, reader)),
        _ => Err(Broken::Stranger(side)),
    }
}

fn nonce() -> Result<[u8; 32], Broken> {
    let entropy = random::entropy().map_err(|failure| io::Error::other(failure.cause));
    Ok(*entropy?.draw().expose())
}

/// Longest order: a certificate goes with each flow.
pub(crate) const ORDER_BYTES_MAX: usize = 64 << 10;
/// Longest answer: the bytes of every stretch of the longest run.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 << 10;

const NAME: &str = "plesio-bench";
const VERSION: &str = "3";
const PROOF: &str = "key";
const CONTEXT_SECRET: &str = "plesio bench control 1 secret";
const HELLO_BYTES_MAX: usize = 256;
const HELLO_LIMIT: Duration = Duration::from_secs(5);
const HASH_DIGITS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair(secrets: [Secret; 2]) -> [Result<(Writer, Reader), Broken>; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its number");
        let [one, two] = secrets;
        let other = std::thread::spawn(move || {
            let stream = TcpStream::connect(address).expect("it listens");
            greet(stream, Side::Connect, &two, 1000)
        });
        let (stream, _) = listener.accept().expect("it connects");
        let listened = greet(stream, Side::Listen, &one, 1000);
        [listened, other.join().expect("no panic")]
    }

    fn secret(byte: u8) -> Secret {
        Secret([byte; 32], None)
    }

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn lines_pass_between_holders_of_one_key_and_no_others() {
        let [Ok((mut say, mut hear)), Ok((mut ask, mut told))] = pair([secret(1), secret(1)]) else {
            panic!("both greet");
        };
        for number in 0..3_u32 {
            ask.write(&number).expect("it hears");
            assert_eq!(hear.read::<u32>(SOON).expect("the line"), number);
            say.write(&"yes").expect("it hears");
            assert_eq!(told.read::<String>(SOON).expect("the line"), "yes");
        }
        let [Err(Broken::Key), Err(Broken::Key)] = pair([secret(1), secret(2)]) else {
            panic!("both learn that their keys differ");
        };
    }

    #[test]
    fn an_altered_or_repeated_line_is_refused() {
        let [Ok((_, mut hear)), Ok((mut ask, _))] = pair([secret(1), secret(1)]) else {
            panic!("both greet")
        };
        let hash = ask.lines.hash(b"7").to_hex();
        ask.stream.write_all(format!("{hash} 7\n{hash} 7\n").as_bytes()).expect("sent");
        assert_eq!(hear.read::<u32>(SOON).expect("the first"), 7);
        assert!(matches!(hear.read::<u32>(SOON), Err(Broken::Key)), "the same line again");
        let hash = ask.lines.hash(b"8").to_hex();
        ask.stream.write_all(format!("{hash} 9\n").as_bytes()).expect("sent");
        assert!(matches!(hear.read::<u32>(SOON), Err(Broken::Key)));
    }

    #[test]
    fn long_lines_late_lines_and_strangers_end_it() {
        let [Ok((_, mut hear)), Ok((mut ask, _))] = pair([secret(1), secret(1)]) else {
            panic!("both greet")
        };
        assert!(matches!(hear.read::<u32>(Duration::from_millis(20)), Err(Broken::Late)));
        ask.stream.write_all(&[b'x'; 8000]).expect("sent");
        assert!(matches!(hear.read::<u32>(SOON), Err(Broken::TooLong)));
        for (bytes, version) in
            [(&b"GET / HTTP/1.1\r\n\r\n"[..], false), (b"\xff\xfe\n", false), (b"plesio-bench 9 00\n", true)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let mut stream =
                TcpStream::connect(listener.local_addr().expect("a number")).expect("it listens");
            stream.write_all(bytes).expect("sent");
            let (accepted, _) = listener.accept().expect("it connected");
            match greet(accepted, Side::Listen, &secret(1), 1000) {
                Err(Broken::Version(found)) => assert!(version && found == "9"),
                Err(Broken::Stranger(Side::Listen)) => assert!(!version),
                _ => panic!("{bytes:?} is no greeting"),
            }
        }
    }
}
