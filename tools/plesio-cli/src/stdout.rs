//! Data on stdout: one document, one line of a stream, or one table. A reader that has gone away is no error; a
//! result that could not be written, on a full disk for example, is kept as one until the command ends.

use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::OnceLock;

/// Why the first text that was lost could not be written.
static LOST: OnceLock<String> = OnceLock::new();

/// A whole text.
pub(crate) fn text(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            let _known = LOST.set(cause.to_string());
        }
        _ => {}
    }
}

/// Why data for stdout was lost, if any was.
pub(crate) fn lost() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}

/// One JSON document.
pub(crate) fn document(document: &Value) {
    text(&format!("{document:#}\n"));
}

/// One line of a JSON stream.
pub(crate) fn emit(event: &str, data: &Value) {
    text(&format!("{}\n", json!({ "event": event, "data": data })));
}
