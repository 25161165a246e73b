//! Answers owed to the peer: one per question about a message, oldest first.
//!
//! A peer asks about a message at most once per round trip; of one that asks more, the oldest questions are
//! forgotten, and it asks again.

use alloc::collections::VecDeque;

/// The answers, in the words of an ACK's `chunk`: the question's number, then whether a window takes the message.
#[derive(Debug)]
pub(crate) struct Answers {
    answers: VecDeque<u32>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { answers: VecDeque::with_capacity(ANSWERS_MAX) }
    }
}

impl Answers {
    pub(crate) fn push(&mut self, number: u32, takes: bool) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(number << 1 | u32::from(takes));
    }

    /// The next answer; 0 answers nothing.
    pub(crate) fn pop(&mut self) -> u32 {
        self.answers.pop_front().unwrap_or(0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}

const ANSWERS_MAX: usize = 64;
