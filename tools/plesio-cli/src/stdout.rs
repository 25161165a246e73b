//! Data on stdout: one document, one line of a stream, or one table. A reader that has gone away is no error.

use serde_json::{Value, json};
use std::io::{self, Write};

/// A whole text.
pub(crate) fn text(text: &str) {
    let mut out = io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// One JSON document.
pub(crate) fn document(document: &Value) {
    text(&format!("{document:#}\n"));
}

/// One line of a JSON stream.
pub(crate) fn emit(event: &str, data: &Value) {
    text(&format!("{}\n", json!({ "event": event, "data": data })));
}
