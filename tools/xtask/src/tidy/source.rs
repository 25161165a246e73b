//! Rust source as tidy sees it: each line parted into code and comment, with literals emptied.
//!
//! Knows comments, strings and characters, nothing of grammar; enough that a word inside a string or a
//! comment is never taken for code. Invariant: there are as many parted lines as lines of text.

/// One line of a source file.
pub(super) struct Line<'a> {
    /// The line as it stands, without the blanks around it.
    pub(super) text: &'a str,
    /// What the compiler reads, the insides of literals left out.
    pub(super) code: String,
    /// What stands in comments.
    pub(super) comment: String,
}

#[derive(Clone, Copy)]
enum State {
    Code,
    BlockComment { depth: usize },
    Text { hashes: Option<usize> },
}

/// Parts a whole file.
pub(super) fn lines(text: &str) -> Vec<Line<'_>> {
    let mut state = State::Code;
    text.lines().map(|line| part(line, &mut state)).collect()
}

fn part<'a>(text: &'a str, state: &mut State) -> Line<'a> {
    let mut line = Line { text: text.trim(), code: String::new(), comment: String::new() };
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let mut width = letter.len_utf8();
        match *state {
            State::BlockComment { depth } => {
                if rest.starts_with("*/") {
                    width = 2;
                    *state = if depth == 1 { State::Code } else { State::BlockComment { depth: depth - 1 } };
                } else if rest.starts_with("/*") {
                    width = 2;
                    *state = State::BlockComment { depth: depth + 1 };
                } else {
                    line.comment.push(letter);
                }
            }
            State::Text { hashes: None } => match letter {
                '\\' => width += rest[1..].chars().next().map_or(0, char::len_utf8),
                '"' => *state = State::Code,
                _ => {}
            },
            State::Text { hashes: Some(hashes) } => {
                let closes = letter == '"' && rest[1..].bytes().take_while(|b| *b == b'#').count() >= hashes;
                if closes {
                    width += hashes;
                    *state = State::Code;
                }
            }
            State::Code => {
                if rest.starts_with("//") {
                    line.comment.push_str(rest);
                    break;
                } else if rest.starts_with("/*") {
                    width = 2;
                    *state = State::BlockComment { depth: 1 };
                } else if let Some(hashes) = raw_text(rest, &line.code) {
                    width += hashes + 1;
                    *state = State::Text { hashes: Some(hashes) };
                } else if letter == '"' {
                    *state = State::Text { hashes: None };
                } else if let Some(len) = character(rest) {
                    width = len;
                } else {
                    line.code.push(letter);
                }
            }
        }
        rest = &rest[width..];
    }
    line
}

/// The number of hashes when a raw string begins here.
fn raw_text(rest: &str, before: &str) -> Option<usize> {
    let tail = rest.strip_prefix('r')?;
    let hashes = tail.bytes().take_while(|b| *b == b'#').count();
    let inside_a_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.ends_with('b');
    (tail[hashes..].starts_with('"') && !inside_a_word).then_some(hashes)
}

/// The length of a character literal that begins here; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    let first = inside.chars().next()?;
    if first == '\\' {
        let escaped = inside[1..].chars().next()?.len_utf8();
        return inside[1 + escaped..].find('\'').map(|end| 3 + escaped + end);
    }
    inside[first.len_utf8()..].starts_with('\'').then_some(first.len_utf8() + 2)
}

/// Whether `word` stands in the code as a word of its own.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
}

/// Whether the line says `unsafe` and then, as a word of its own, `what`.
pub(super) fn declares(code: &str, what: &str) -> bool {
    code.split_once("unsafe").is_some_and(|(_, after)| has_word(after, what))
}
