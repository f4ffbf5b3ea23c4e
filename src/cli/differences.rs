//! What differs between two definitions, in the words of their files.

use serde_json::{Value, json};

use crate::evidence;
use crate::plan::Difference;

/// The longest value that is shown as it is.
const LONGEST: usize = 60;

/// A line for each difference: `episodes: with.episodes 3 -> 5`.
pub(super) fn lines(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(|one| format!("{}: {}", one.stage, line(one))).collect()
}

/// `with.episodes 3 -> 5`.
pub(super) fn line(difference: &Difference) -> String {
    let Difference { component, before, after, .. } = difference;
    match (before, after) {
        (None, Some(after)) => format!("{component} is new: {}", short(after)),
        (Some(before), None) => format!("{component} is gone, it was {}", short(before)),
        (before, after) => format!("{component} {} -> {}", maybe(before.as_ref()), maybe(after.as_ref())),
    }
}

/// The same for programs.
pub(super) fn document(differences: &[Difference]) -> Value {
    let one = |one: &Difference| json!({ "stage": one.stage, "component": one.component, "before": one.before, "after": one.after });
    differences.iter().map(one).collect()
}

fn maybe(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".into(), short)
}

/// A value, or for a long one the start of its digest.
fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= LONGEST { text } else { format!("sha256:{}", &evidence::digest(value)[..12]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_says_what_it_was_and_is() {
        let difference = |before, after| Difference {
            stage: "episodes".parse().unwrap(),
            component: "with.episodes".into(),
            before,
            after,
        };
        let told = lines(&[difference(Some(json!(3)), Some(json!(5))), difference(None, Some(json!("x".repeat(99))))]);
        assert_eq!(told[0], "episodes: with.episodes 3 -> 5");
        assert!(told[1].starts_with("episodes: with.episodes is new: sha256:"), "{}", told[1]);
        assert_eq!(line(&difference(Some(json!(3)), None)), "with.episodes is gone, it was 3");
    }
}
