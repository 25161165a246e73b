//! What members own, as a person reads it.

/// `equal`, or a share of a hundred for each member in the order of the view.
pub(crate) fn text(shares: &[f64]) -> String {
    if shares.is_empty() {
        return "equal".into();
    }
    let parts: Vec<String> = shares.iter().map(|share| format!("{:.1}", 100.0 * share)).collect();
    format!("{} %", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn shares_are_equal_or_told_one_by_one() {
        assert_eq!(text(&[]), "equal");
        assert_eq!(text(&[0.849, 0.0, 0.151]), "84.9 0.0 15.1 %");
    }
}
