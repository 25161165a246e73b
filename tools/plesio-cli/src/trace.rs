//! `--trace FILE`: what happens to a node, one JSON object a line, for programs and for `plesio sim --replay`.
//!
//! Every line has `schema` ("plesio.trace/1"), `node` (the first 16 digits of its key), `mono_ns` (CLOCK_MONOTONIC_RAW of
//! that machine; virtual time in a simulation), `mesh_ns` (the node's mesh time; null without a usable clock), `kind`, and the
//! fields of the kind, which [`line`] lists. Names stay; kinds and fields may be added. Nodes are hexadecimal digits, and all
//! other text is this program's own.
//!
//! Nobody waits for the disk: lines stand in a queue of [`QUEUE_LINES`], which a thread writes. What finds the queue full, or
//! the disk, is lost and counted; the next line that can be written says how many were (`kind` "dropped").

mod line;
pub(crate) mod read;

pub(crate) use line::{Line, said, why_stopped};

use crate::failure::Failure;
use plesio_sim::SeedReport;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) const SCHEMA: &str = "plesio.trace/1";

/// What becomes of a file that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Before {
    /// It stays, and lines are added: a node that is started again goes on with its trace.
    Stays,
    /// It goes: one file is one run.
    Goes,
}

/// A trace that is being written, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    lines: SyncSender<Vec<u8>>,
    state: Arc<State>,
}

/// What became of the lines.
#[derive(Debug, Default)]
struct State {
    path: String,
    written: AtomicU64,
    lost: AtomicU64,
    degraded: Mutex<Option<String>>,
    /// Somebody was told of the newest change of that.
    told: AtomicBool,
}

/// The same, as a status has it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Traced {
    pub(crate) file: String,
    pub(crate) lines: u64,
    /// Found no place: the disk was full or too slow.
    pub(crate) dropped: u64,
    /// Why nothing can be written just now.
    pub(crate) degraded: Option<String>,
}

/// Ends the writing; see [`Writer::close`].
#[derive(Debug)]
pub(crate) struct Writer {
    lines: SyncSender<Vec<u8>>,
    ended: Receiver<()>,
}

impl Trace {
    /// Opens the file, and a thread that writes.
    ///
    /// # Errors
    /// A file that cannot be written: usage.
    pub(crate) fn open(path: &Path, before: Before) -> Result<(Self, Writer), Failure> {
        let cannot = |cause| cannot(path, cause);
        let file = open(path, before).map_err(cannot)?;
        let (lines, queue) = mpsc::sync_channel(QUEUE_LINES);
        let (ended, end) = mpsc::channel();
        let state = Arc::new(State { path: path.display().to_string(), ..State::default() });
        let shared = Arc::clone(&state);
        let write = move || {
            Disk { file, whole_bytes: None, state: shared, told_lost: 0 }.run(&queue);
            drop(ended);
        };
        std::thread::Builder::new().name("trace".into()).spawn(write).map_err(cannot)?;
        Ok((Self { lines: lines.clone(), state }, Writer { lines, ended: end }))
    }

    /// A line, if there is room for it; returns at once.
    pub(crate) fn say(&self, line: &Value) {
        let mut bytes = line.to_string().into_bytes();
        bytes.push(b'\n');
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(bytes) {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How the writing goes.
    pub(crate) fn state(&self) -> Traced {
        Traced {
            file: self.state.path.clone(),
            lines: self.state.written.load(Ordering::Relaxed),
            dropped: self.state.lost.load(Ordering::Relaxed),
            degraded: self.state.degraded().clone(),
        }
    }

    /// In words, when it has begun to fail or works again.
    pub(crate) fn news(&self) -> Option<String> {
        if self.state.told.swap(true, Ordering::Relaxed) {
            return None;
        }
        let Traced { file, dropped, degraded, .. } = self.state();
        match degraded {
            Some(cause) => Some(format!(
                "Degraded: the trace {file} cannot be written: {cause}; the work goes on without it"
            )),
            None if dropped > 0 => {
                Some(format!("the trace {file} is written again; {dropped} lines are lost"))
            }
            None => None,
        }
    }
}

impl Writer {
    /// Waits until what is in the queue is written, as long as a disk may reasonably take; later lines are lost.
    pub(crate) fn close(self) {
        let begin = Instant::now();
        // An empty line is the end.
        while let Err(TrySendError::Full(_)) = self.lines.try_send(Vec::new()) {
            if begin.elapsed() > CLOSE_LIMIT {
                return;
            }
            std::thread::sleep(CLOSE_LIMIT / 100);
        }
        let _ended = self.ended.recv_timeout(CLOSE_LIMIT.saturating_sub(begin.elapsed()));
    }
}

impl State {
    fn degraded(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.degraded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The trace of a simulation, which waits for the disk: nothing real does.
///
/// # Errors
/// A file that cannot be written: usage.
pub(crate) fn create(path: &Path, scenario: &impl Serialize) -> Result<BufWriter<File>, Failure> {
    let start =
        Line::new("start", json!({ "program": env!("CARGO_PKG_VERSION"), "scenario": json!(scenario) }));
    let file = open(path, Before::Goes).map(BufWriter::new).and_then(|mut file| {
        writeln!(file, "{}", start.of(None, 0, None))?;
        Ok(file)
    });
    file.map_err(|cause| cannot(path, cause))
}

/// What happened in one seed.
///
/// # Errors
/// The disk's.
pub(crate) fn append(file: &mut BufWriter<File>, seed: &SeedReport) -> io::Result<()> {
    for happening in &seed.happened {
        writeln!(file, "{}", line::happened(seed.seed, happening))?;
    }
    file.flush()
}

fn cannot(path: &Path, cause: io::Error) -> Failure {
    Failure::usage("trace", format!("cannot write the trace {}", path.display()), cause)
        .fix("give --trace the path of a file in a folder that exists and is yours")
}

/// A trace that is there, a new file, or a device; a pipe or a socket would wait for its reader, and another file is not ours
/// to write into.
fn open(path: &Path, before: Before) -> io::Result<File> {
    use std::os::unix::fs::FileTypeExt;
    let is_file = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => true,
        Ok(found) if found.file_type().is_char_device() => false,
        Ok(_) => return Err(io::Error::other("it is neither a file nor a device")),
        Err(_) => true,
    };
    if !is_file {
        return OpenOptions::new().write(true).open(path);
    }
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let whole_bytes = whole(&mut file)?;
    // Half a line is what a crash left; the next one must not stand behind it.
    file.set_len(if before == Before::Goes { 0 } else { whole_bytes })?;
    Ok(file)
}

/// Where the last whole line of a trace ends.
fn whole(file: &mut File) -> io::Result<u64> {
    const BEGIN: &[u8] = b"{\"schema\":\"plesio.trace/";
    let begins = |bytes: &[u8]| bytes.iter().zip(BEGIN).all(|(byte, begin)| byte == begin);
    let mut piece = Vec::new();
    (&*file).take(BEGIN.len() as u64).read_to_end(&mut piece)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(read::LINE_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    (&*file).take(read::LINE_BYTES_MAX).read_to_end(&mut tail)?;
    let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if !begins(&piece) || !begins(&tail[end..]) {
        return Err(io::Error::other("it is there and is no trace: nothing is written into it"));
    }
    Ok(from + end as u64)
}

/// The thread's side.
struct Disk {
    file: File,
    /// Where the last whole line ends, once something failed.
    whole_bytes: Option<u64>,
    state: Arc<State>,
    /// Lost lines that a line in the file tells of.
    told_lost: u64,
}

impl Disk {
    fn run(mut self, queue: &Receiver<Vec<u8>>) {
        let mut goes_on = true;
        while goes_on && let Ok(first) = queue.recv() {
            goes_on = !first.is_empty();
            let mut lines = u64::from(goes_on);
            let mut batch = first;
            while goes_on
                && batch.len() < BATCH_BYTES
                && let Ok(line) = queue.try_recv()
            {
                goes_on = !line.is_empty();
                lines += u64::from(goes_on);
                batch.extend_from_slice(&line);
            }
            self.write(&batch, lines);
        }
        // Nothing came after the last loss that could have told of it.
        self.write(&[], 0);
    }

    fn write(&mut self, batch: &[u8], lines: u64) {
        let lost = self.state.lost.load(Ordering::Relaxed);
        let mut bytes = Vec::new();
        if lost > self.told_lost {
            let line = Line::new("dropped", json!({ "lines": lost - self.told_lost }));
            bytes = format!("{}\n", line.of(None, 0, None)).into_bytes();
        }
        bytes.extend_from_slice(batch);
        if bytes.is_empty() {
            return;
        }
        match self.file.metadata().map(|found| found.len()).and_then(|length| self.put(&bytes, length)) {
            Ok(()) => {
                self.told_lost = lost;
                self.state.written.fetch_add(lines, Ordering::Relaxed);
                if self.state.degraded().take().is_some() {
                    self.state.told.store(false, Ordering::Relaxed);
                }
            }
            Err(cause) => {
                self.state.lost.fetch_add(lines, Ordering::Relaxed);
                if self.state.degraded().replace(cause.to_string()).is_none() {
                    self.state.told.store(false, Ordering::Relaxed);
                }
            }
        }
    }

    /// All of it, or nothing: half a line would spoil the next.
    fn put(&mut self, bytes: &[u8], length: u64) -> io::Result<()> {
        let length = self.whole_bytes.unwrap_or(length);
        if self.whole_bytes.is_some() {
            self.cut(length)?;
            self.whole_bytes = None;
        }
        self.file.write_all(bytes).inspect_err(|_| {
            self.whole_bytes = Some(length);
            // If this fails too, it is done before the next line.
            let _later = self.cut(length).map(|()| self.whole_bytes = None);
        })
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.file.metadata()?.is_file() {
            self.file.set_len(length)?;
            self.file.seek(SeekFrom::Start(length))?;
        }
        Ok(())
    }
}

/// Lines that wait for the disk: some seconds of a mesh of 32, a few MiB.
const QUEUE_LINES: usize = 2_048;
const BATCH_BYTES: usize = 64 << 10;
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("plesio-trace-{name}-{}", std::process::id()))
    }

    fn line(number: u64) -> Value {
        Line::new("late", json!({ "late_ns": number })).of(None, 1, None)
    }

    #[test]
    fn lines_are_added_or_begin_anew() {
        let path = place("lines");
        for (before, lines) in [(Before::Goes, 3), (Before::Stays, 6), (Before::Goes, 3)] {
            let (trace, writer) = Trace::open(&path, before).expect("a folder for temporary files");
            (0..3).for_each(|number| trace.say(&line(number)));
            writer.close();
            let text = std::fs::read_to_string(&path).expect("written");
            assert_eq!(text.lines().count(), lines);
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).expect("one object a line");
                assert_eq!((&line["schema"], &line["kind"]), (&json!(SCHEMA), &json!("late")));
            }
        }
        std::fs::remove_file(&path).expect("our own file");
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_so() {
        let (trace, writer) = Trace::open(Path::new("/dev/full"), Before::Stays).expect("a device");
        (0..10).for_each(|number| trace.say(&line(number)));
        let news = || {
            (0..500).find_map(|_| {
                std::thread::sleep(Duration::from_millis(10));
                trace.news()
            })
        };
        assert!(news().expect("it is noticed").starts_with("Degraded: the trace /dev/full"));
        assert_eq!(trace.news(), None, "said once");
        let state = trace.state();
        assert!(state.degraded.is_some() && state.dropped > 0 && state.lines == 0, "{state:?}");
        writer.close();
    }

    /// The disk has room again: half a line is cut off, and the loss is told.
    #[test]
    fn what_is_lost_is_told_by_the_next_line() {
        let path = place("again");
        let file = open(&path, Before::Goes).expect("a folder for temporary files");
        let state = Arc::new(State { path: "x".into(), ..State::default() });
        let mut disk = Disk { file, whole_bytes: None, state: Arc::clone(&state), told_lost: 0 };
        disk.write(b"{\"a\":1}\n", 1);
        // As a write that ended in the middle leaves it.
        disk.file.write_all(b"{\"b\":").expect("room");
        disk.whole_bytes = Some(8);
        state.lost.store(7, Ordering::Relaxed);
        *state.degraded() = Some("full".into());
        disk.write(b"{\"c\":1}\n", 1);
        let text = std::fs::read_to_string(&path).expect("written");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "{\"a\":1}", "{\"c\":1}"), "{text}");
        let told: Value = serde_json::from_str(lines[1]).expect("a line");
        assert_eq!((&told["kind"], &told["lines"]), (&json!("dropped"), &json!(7)));
        assert!(state.degraded().is_none());
        std::fs::remove_file(&path).expect("our own file");
    }

    /// A queue that nobody empties takes no time and no memory.
    #[test]
    fn a_slow_disk_holds_nobody_up() {
        let (lines, queue) = mpsc::sync_channel(QUEUE_LINES);
        let trace = Trace { lines, state: Arc::default() };
        (0..3 * QUEUE_LINES as u64).for_each(|number| trace.say(&line(number)));
        assert_eq!(trace.state().dropped, 2 * QUEUE_LINES as u64);
        assert_eq!(queue.try_iter().count(), QUEUE_LINES);
    }

    /// It went on behind half a line, and the trace could not be read any more.
    #[test]
    fn what_a_crash_cut_off_is_taken_away_and_what_is_no_trace_is_left_alone() {
        let path = place("half");
        std::fs::write(&path, format!("{}\n{{\"schema\":\"ple", line(1)))
            .expect("a folder for temporary files");
        let (trace, writer) = Trace::open(&path, Before::Stays).expect("a trace");
        trace.say(&line(2));
        writer.close();
        let text = std::fs::read_to_string(&path).expect("written");
        assert_eq!(read::read(text.as_bytes(), |_| true).expect("whole lines").len(), 2);
        for precious in ["precious\n", "no end", "{\"schema\":\"plesio.demo/1\"}\n"] {
            std::fs::write(&path, precious).expect("our own file");
            for before in [Before::Stays, Before::Goes] {
                let refused = Trace::open(&path, before).expect_err(precious);
                assert!(refused.cause.contains("no trace"), "{refused}");
            }
            assert_eq!(std::fs::read_to_string(&path).expect("still there"), precious);
        }
        std::fs::remove_file(&path).expect("our own file");
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for path in ["no/such/folder/trace", "/"] {
            let refused = Trace::open(Path::new(path), Before::Stays).expect_err(path);
            assert!(refused.exit == crate::failure::Exit::Usage && refused.code == "trace", "{refused}");
        }
    }
}
