//! Guesses what was meant.

/// The candidate that a typing mistake would turn into `written`, if one is near enough.
pub(crate) fn closest<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Short words need a smaller distance, or everything would look alike.
    let limit = (written.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *candidate != written)
        .min()
        .map(|(_, candidate)| candidate)
}

fn distance(written: &str, candidate: &str) -> usize {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    strsim::damerau_levenshtein(&plain(written), &plain(candidate))
}

#[cfg(test)]
mod tests {
    use super::closest;

    #[test]
    fn near_words_only() {
        assert_eq!(closest("dependson", ["depends_on", "description"]), Some("depends_on"));
        assert_eq!(closest("depends-on", ["depends_on"]), Some("depends_on"));
        assert_eq!(closest("push-v2", ["push-v3", "reach-v3"]), Some("push-v3"));
        assert_eq!(closest("x", ["stages", "inputs"]), None);
    }
}
