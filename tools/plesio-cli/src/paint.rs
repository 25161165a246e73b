//! Colour in what a person reads: asked for, or for terminals.

use crate::args::ColorArg;

/// Colours of the terminal, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    /// For a stream that is a terminal or not.
    pub(crate) fn new(color: ColorArg, terminal: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(match color {
            ColorArg::Always => true,
            ColorArg::Never => false,
            ColorArg::Auto => terminal && !plain,
        })
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }
    pub(crate) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }
    pub(crate) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }
    pub(crate) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }
    pub(crate) fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_asked_for_or_for_terminals() {
        assert_eq!(Paint::new(ColorArg::Always, false).red("x"), "\x1b[31mx\x1b[0m");
        assert_eq!(Paint::new(ColorArg::Never, true).red("x"), "x");
        assert_eq!(Paint::new(ColorArg::Auto, false).red("x"), "x");
    }
}
