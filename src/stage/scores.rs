//! Scores as a stage of an operator's own may give them: the document, or just its entries; checked, and put in order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::documents::{ScoreEntry, Scores};
use super::outputs::read;
use crate::cycle::Hotkey;

/// The scores that a value holds: `{environments, entries}`, or a list of entries.
///
/// # Errors
/// What is wrong with it, with the path.
pub(super) fn parse(value: &Value) -> Result<Scores, String> {
    let scores = if value.is_array() {
        let entries: Vec<ScoreEntry> = read(value)?;
        let environments: BTreeSet<_> = entries.iter().map(|entry| entry.environment.clone()).collect();
        Scores { environments: environments.into_iter().collect(), entries }
    } else {
        read(value)?
    };
    in_order(scores)
}

/// The same scores in the order of documents, if they are complete and none contradicts another.
pub(super) fn in_order(mut scores: Scores) -> Result<Scores, String> {
    for entry in &scores.entries {
        check(entry)
            .map_err(|problem| format!("the entry of `{}` in `{}` {problem}", entry.hotkey, entry.environment))?;
    }
    scores.environments.sort();
    scores.environments.dedup();
    scores.entries.sort_by(|a, b| (a.uid, &a.environment).cmp(&(b.uid, &b.environment)));
    let mut miners: BTreeMap<u16, &Hotkey> = BTreeMap::new();
    let mut uids: BTreeMap<&Hotkey, u16> = BTreeMap::new();
    let mut cells = BTreeSet::new();
    for entry in &scores.entries {
        let (uid, hotkey) = (entry.uid, &entry.hotkey);
        if *miners.entry(uid).or_insert(hotkey) != hotkey || *uids.entry(hotkey).or_insert(uid) != uid {
            return Err(format!("uid {uid} and hotkey `{hotkey}` do not belong together in all entries"));
        }
        if !scores.environments.contains(&entry.environment) {
            return Err(format!("`{}` is not among the environments of the scores", entry.environment));
        }
        if !cells.insert((uid, &entry.environment)) {
            return Err(format!("`{hotkey}` has two entries in `{}`", entry.environment));
        }
    }
    if cells.is_empty() {
        return Err("there are no entries".into());
    }
    if cells.len() != miners.len() * scores.environments.len() {
        return Err("not every miner has an entry in every environment".into());
    }
    Ok(scores)
}

fn check(entry: &ScoreEntry) -> Result<(), String> {
    let share = |name: &str, value: f64| match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(format!("has `{name}` {value}, which is from 0 to 1")),
    };
    share("success_rate", entry.success_rate)?;
    share("interval", entry.interval[0])?;
    share("interval", entry.interval[1])?;
    share("mean_score", entry.mean_score.unwrap_or_default())?;
    if !entry.mean_return.is_finite() {
        return Err("has a `mean_return` that is not finite".into());
    }
    if entry.episodes == 0 || entry.successes > entry.episodes {
        return Err(format!("has {} successes in {} episodes", entry.successes, entry.episodes));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An entry of a miner, whose hotkey is `m` and its uid.
    pub(in crate::stage) fn entry(uid: u16, environment: &str, rate: f64) -> Value {
        json!({
            "uid": uid, "hotkey": format!("m{uid}"), "environment": environment, "success_rate": rate,
            "interval": [0.0, 1.0], "mean_return": 1.5, "episodes": 10, "successes": 5, "outcomes": {"success": 5},
        })
    }

    #[test]
    fn a_list_becomes_the_document_in_order() {
        let list = json!([entry(2, "e/b", 0.5), entry(1, "e/b", 0.1), entry(2, "e/a", 1.0), entry(1, "e/a", 0.0)]);
        let scores = parse(&list).unwrap();
        assert_eq!(scores.environments.iter().map(ToString::to_string).collect::<Vec<_>>(), ["e/a", "e/b"]);
        let order: Vec<(u16, f64)> = scores.entries.iter().map(|entry| (entry.uid, entry.success_rate)).collect();
        assert_eq!(order, [(1, 0.0), (1, 0.1), (2, 1.0), (2, 0.5)]);
        assert_eq!(parse(&json!(scores)).unwrap(), scores);
    }

    #[test]
    fn contradictions_are_told() {
        let error = |list: Value| parse(&list).unwrap_err();
        assert!(error(json!([entry(1, "e/a", 1.1)])).contains("`m1` in `e/a` has `success_rate` 1.1"));
        assert!(error(json!([entry(1, "e/a", 1.0), entry(1, "e/a", 1.0)])).contains("two entries"));
        assert!(error(json!([entry(1, "e/a", 1.0), entry(2, "e/b", 1.0)])).contains("not every miner"));
        let mut stolen = entry(2, "e/a", 1.0);
        stolen["hotkey"] = json!("m1");
        assert!(error(json!([entry(1, "e/a", 1.0), stolen])).contains("do not belong together"));
        let mut lucky = entry(1, "e/a", 1.0);
        lucky["successes"] = json!(11);
        assert!(error(json!([lucky])).contains("11 successes in 10"));
        let mut more = entry(1, "e/a", 1.0);
        more["bonus"] = json!(1);
        assert!(error(json!([more])).contains("`[0].bonus`"));
        assert!(error(json!([])).contains("no entries"));
    }
}
