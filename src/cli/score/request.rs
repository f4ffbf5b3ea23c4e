//! What `robo score` is asked: a JSON document checked as a whole, every problem with its path and place.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;

use crate::scoring::{AllZero, MAX_ENVIRONMENTS, MinerRow, Rule, SubsetWeighting, Table, Ties};

use super::json::{self, Entry, Node, Value, shortened};

/// A document without a problem.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) table: Table,
    pub(super) rule: Rule,
    pub(super) ties: Ties,
    pub(super) subset_weighting: SubsetWeighting,
    pub(super) temperature: f64,
    pub(super) all_zero: AllZero,
}

/// One thing that is wrong with a document.
#[derive(Debug)]
pub(super) struct Problem {
    /// The byte it is at.
    pub(super) at: usize,
    /// The value it is about, as `scores["7"]["metaworld/reach-v3"]`; empty for the document as a whole.
    pub(super) path: String,
    /// What is wrong.
    pub(super) message: String,
}

const KEYS: [&str; 9] = [
    "environments",
    "episodes_per_env",
    "temperature",
    "rule",
    "subset_weighting",
    "all_zero",
    "scores",
    "first_blocks",
    "ties",
];

/// What a rate is that a miner lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// A mistake.
    Error,
    /// A rate of 0.
    Zero,
}

/// Read a document.
///
/// # Errors
/// All its problems, in the order of the text. A syntax error is the only one, since nothing after it can be judged.
pub(super) fn read(text: &str, missing: Missing) -> Result<Request, Vec<Problem>> {
    let root = json::parse(text)
        .map_err(|error| vec![Problem { at: error.at, path: String::new(), message: error.message }])?;
    let mut reader = Reader { problems: Vec::new(), missing };
    reader.equal_keys(&root, "");
    let request = reader.request(&root);
    let mut problems = reader.problems;
    match request {
        Some(request) if problems.is_empty() => Ok(request),
        _ => {
            problems.sort_by_key(|problem| problem.at);
            Err(problems)
        }
    }
}

/// Reads the value at a path.
type ReadValue<T> = fn(&mut Reader, &Node<'_>, &str) -> Option<T>;

/// Collects problems; a part that has one comes back as `None`, and reading goes on with the next.
struct Reader {
    problems: Vec<Problem>,
    missing: Missing,
}

impl Reader {
    fn request(&mut self, root: &Node<'_>) -> Option<Request> {
        let entries = self.object(root, "", "the document must be an object")?;
        for entry in entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
            let hint = suggestion(&entry.key, KEYS);
            self.report(entry.at, key_path("", &entry.key), format!("unknown key{hint}"));
        }
        let optional = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let mut required = |key: &str| {
            let found = optional(key);
            if found.is_none() {
                self.report(root.at, key.into(), "missing");
            }
            found
        };
        let environments = required("environments");
        let episodes = required("episodes_per_env");
        let scores = required("scores");

        let environments = environments.and_then(|node| self.environments(node));
        let episodes = episodes.and_then(|node| self.episodes(node, environments.as_deref()));
        let temperature = optional("temperature").map_or(Some(1.0), |node| self.temperature(node));
        let rule = optional("rule").map_or(Some(Rule::default()), |node| {
            self.choice(node, "rule", &[("epsilon", Rule::Epsilon), ("first_commit", Rule::FirstCommit)])
        });
        let ties = optional("ties").map_or(Some(Ties::default()), |node| {
            self.choice(node, "ties", &[("both_earlier", Ties::BothEarlier), ("lower_uid", Ties::LowerUid)])
        });
        let subset_weighting = optional("subset_weighting").map_or(Some(SubsetWeighting::default()), |node| {
            let weightings = [
                ("size", SubsetWeighting::Size),
                ("exponential", SubsetWeighting::Exponential),
                ("equal", SubsetWeighting::Equal),
            ];
            self.choice(node, "subset_weighting", &weightings)
        });
        let all_zero = optional("all_zero").map_or(Some(AllZero::default()), |node| self.all_zero(node));
        let mut miners = scores.map(|node| self.miners(node, environments.as_deref()))?;
        if let Some(node) = optional("first_blocks") {
            self.first_blocks(node, &mut miners);
        }
        if !self.problems.is_empty() {
            return None;
        }
        let table = Table::new(environments?, episodes?, miners)
            .map_err(|error| self.report(root.at, String::new(), error))
            .ok()?;
        Some(Request {
            table,
            rule: rule?,
            ties: ties?,
            subset_weighting: subset_weighting?,
            temperature: temperature?,
            all_zero: all_zero?,
        })
    }

    fn environments(&mut self, node: &Node<'_>) -> Option<Vec<String>> {
        let Value::Array(items) = &node.value else {
            self.report(node.at, "environments".into(), format!("{} is not a list of environments", found(node)));
            return None;
        };
        if items.is_empty() || items.len() > MAX_ENVIRONMENTS {
            let count = items.len();
            let message = format!("{count} environments; 1 to {MAX_ENVIRONMENTS} can be scored together");
            self.report(node.at, "environments".into(), message);
            return None;
        }
        let mut names: Vec<String> = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = format!("environments[{index}]");
            match &item.value {
                Value::Text(name) if name.is_empty() => self.report(item.at, path, "an environment needs a name"),
                Value::Text(name) if names.contains(name) => {
                    self.report(item.at, path, format!("`{}` is listed twice", shortened(name)));
                }
                Value::Text(name) => names.push(name.clone()),
                _ => self.report(item.at, path, format!("{} is not the name of an environment", found(item))),
            }
        }
        (names.len() == items.len()).then_some(names)
    }

    /// One number for all environments, or one for each.
    fn episodes(&mut self, node: &Node<'_>, environments: Option<&[String]>) -> Option<Vec<u32>> {
        let path = "episodes_per_env";
        if let Value::Object(_) = node.value {
            return self.per_environment(node, path, environments, (Self::episode_count, None));
        }
        let count = self.episode_count(node, path)?;
        Some(vec![count; environments?.len()])
    }

    fn episode_count(&mut self, node: &Node<'_>, path: &str) -> Option<u32> {
        let count = whole_number(node).and_then(|number| u32::try_from(number).ok());
        if count.is_none() {
            let message = format!("{} is not a number of episodes, a whole number from 0 to {}", found(node), u32::MAX);
            self.report(node.at, path.into(), message);
        }
        count
    }

    fn temperature(&mut self, node: &Node<'_>) -> Option<f64> {
        let temperature = number(node).filter(|number| *number > 0.0 && number.is_finite());
        if temperature.is_none() {
            let message = format!("{} is not a temperature, a number above 0", found(node));
            self.report(node.at, "temperature".into(), message);
        }
        temperature
    }

    fn choice<T: Copy>(&mut self, node: &Node<'_>, path: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = if let Value::Text(text) = &node.value { text.as_str() } else { "" };
        let choice = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if choice.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            self.report(node.at, path.into(), format!("{} is none of {}", found(node), names.join(", ")));
        }
        choice
    }

    fn all_zero(&mut self, node: &Node<'_>) -> Option<AllZero> {
        let burnt = match &node.value {
            Value::Text(text) if text == "uniform" => return Some(AllZero::Uniform),
            Value::Object(entries) => match &entries[..] {
                [Entry { key, value, .. }] if key == "burn" => {
                    whole_number(value).and_then(|number| u16::try_from(number).ok())
                }
                _ => None,
            },
            _ => None,
        };
        if burnt.is_none() {
            let message = "expected `\"uniform\"` or `{\"burn\": UID}`, with a uid from 0 to 65535";
            self.report(node.at, "all_zero".into(), message);
        }
        burnt.map(AllZero::Burn)
    }

    fn miners(&mut self, node: &Node<'_>, environments: Option<&[String]>) -> Vec<MinerRow> {
        let expected = "expected an object of miners: `{\"UID\": {\"ENVIRONMENT\": RATE}}`";
        let Some(entries) = self.object(node, "scores", expected) else { return Vec::new() };
        if entries.is_empty() {
            self.report(node.at, "scores".into(), "there is no miner to score");
        }
        let mut miners = Vec::with_capacity(entries.len());
        for entry in entries {
            let path = key_path("scores", &entry.key);
            let uid = self.uid(entry, &path);
            let absent = (self.missing == Missing::Zero).then_some(0.0);
            let rates = self.per_environment(&entry.value, &path, environments, (Self::rate, absent));
            if let Some(uid) = uid {
                // A row with a problem still counts as a miner, so that `first_blocks` may name it.
                miners.push(MinerRow { uid, first_block: None, rates: rates.unwrap_or_default() });
            }
        }
        miners
    }

    fn rate(&mut self, node: &Node<'_>, path: &str) -> Option<f64> {
        let rate = number(node).filter(|number| (0.0..=1.0).contains(number));
        if rate.is_none() {
            self.report(node.at, path.into(), format!("{} is not a success rate, a number from 0 to 1", found(node)));
        }
        rate
    }

    fn first_blocks(&mut self, node: &Node<'_>, miners: &mut [MinerRow]) {
        let expected = "expected an object of blocks: `{\"UID\": BLOCK}`";
        let rows: BTreeMap<u16, usize> = miners.iter().enumerate().map(|(index, row)| (row.uid, index)).collect();
        for entry in self.object(node, "first_blocks", expected).unwrap_or_default() {
            let path = key_path("first_blocks", &entry.key);
            let uid = self.uid(entry, &path);
            let block = whole_number(&entry.value);
            if block.is_none() && !matches!(entry.value.value, Value::Null) {
                let message = format!("{} is not a block, a whole number from 0, or `null`", found(&entry.value));
                self.report(entry.value.at, path.clone(), message);
            }
            match uid.map(|uid| rows.get(&uid)) {
                Some(Some(&row)) => miners[row].first_block = block,
                Some(None) => self.report(entry.at, path, "no such miner in `scores`"),
                None => {}
            }
        }
    }

    /// Read an object with one value for every environment and nothing else, in the order of the environments. A value that is not
    /// there is `absent`, or a mistake.
    fn per_environment<T: Copy>(
        &mut self,
        node: &Node<'_>,
        path: &str,
        environments: Option<&[String]>,
        (read, absent): (ReadValue<T>, Option<T>),
    ) -> Option<Vec<T>> {
        let entries = self.object(node, path, "expected an object with a number for every environment")?;
        let mut values = Vec::with_capacity(entries.len());
        for entry in entries {
            let path = key_path(path, &entry.key);
            // Without a valid list of environments nothing can be said about names.
            if let Some(known) = environments.filter(|known| !known.contains(&entry.key)) {
                let hint = suggestion(&entry.key, known.iter().map(String::as_str));
                self.report(entry.at, path.clone(), format!("not one of `environments`{hint}"));
            }
            values.push((&entry.key, read(self, &entry.value, &path)));
        }
        let mut row = Vec::with_capacity(values.len());
        for environment in environments? {
            match values.iter().find(|(name, _)| *name == environment) {
                Some((_, value)) => row.extend(*value),
                None if absent.is_some() => row.extend(absent),
                None => self.report(node.at, key_path(path, environment), "missing"),
            }
        }
        (row.len() == environments?.len()).then_some(row)
    }

    fn uid(&mut self, entry: &Entry<'_>, path: &str) -> Option<u16> {
        // One spelling per uid: `07` or `+7` would be a second `7`.
        let uid = entry.key.parse::<u16>().ok().filter(|uid| uid.to_string() == entry.key);
        if uid.is_none() {
            let message = format!("`{}` is not a uid, a whole number from 0 to 65535", shortened(&entry.key));
            self.report(entry.at, path.into(), message);
        }
        uid
    }

    fn object<'n, 'a>(&mut self, node: &'n Node<'a>, path: &str, expected: &str) -> Option<&'n [Entry<'a>]> {
        if let Value::Object(entries) = &node.value {
            return Some(entries);
        }
        self.report(node.at, path.into(), format!("{expected}, found {}", found(node)));
        None
    }

    /// Equal keys in one object, anywhere: which of the two was meant cannot be known.
    fn equal_keys(&mut self, node: &Node<'_>, path: &str) {
        match &node.value {
            Value::Object(entries) => {
                let mut seen = HashSet::new();
                for entry in entries {
                    if !seen.insert(&entry.key) {
                        self.report(entry.at, key_path(path, &entry.key), "appears twice");
                    }
                    if matches!(entry.value.value, Value::Object(_) | Value::Array(_)) {
                        self.equal_keys(&entry.value, &key_path(path, &entry.key));
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.equal_keys(item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn report(&mut self, at: usize, path: String, message: impl Display) {
        self.problems.push(Problem { at, path, message: message.to_string() });
    }
}

fn number(node: &Node<'_>) -> Option<f64> {
    if let Value::Number(number) = node.value { number.parse().ok() } else { None }
}

fn whole_number(node: &Node<'_>) -> Option<u64> {
    if let Value::Number(number) = node.value { number.parse().ok() } else { None }
}

/// The path of a key of the value at `path`: bare at the top, `["key"]` below.
fn key_path(path: &str, key: &str) -> String {
    let key = shortened(key);
    if path.is_empty() { key } else { format!("{path}[{key:?}]") }
}

/// What stands where something else was expected.
fn found(node: &Node<'_>) -> String {
    match &node.value {
        Value::Null => "`null`".into(),
        Value::Bool => "a truth value".into(),
        Value::Number(word) | Value::NotFinite(word) => format!("`{}`", shortened(word)),
        Value::Text(text) => format!("the text `{}`", shortened(text)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "an object".into(),
    }
}

/// `; did you mean ...?` when something known is close.
fn suggestion<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let distance = |known: &str| strsim::damerau_levenshtein(text, known);
    match known.into_iter().min_by_key(|known| distance(known)).filter(|known| distance(known) <= 3) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn document(rate: &str) -> String {
        format!(r#"{{"environments": ["a"], "episodes_per_env": 50, "scores": {{"7": {{"a": {rate}}}}}}}"#)
    }

    #[test]
    fn paths_name_keys_that_need_quoting() {
        let problems = read(&document("2").replace("\"a\"", r#""a \" b""#), Missing::Error).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].path, r#"scores["7"]["a \" b"]"#);
        assert_eq!(problems[0].message, "`2` is not a success rate, a number from 0 to 1");
    }

    #[test]
    fn episodes_may_differ() {
        let text = r#"{"environments": ["b", "a"], "episodes_per_env": {"a": 3, "b": 4}, "scores": {"7": {"a": 0.1, "b": 1}}}"#;
        let request = read(text, Missing::Error).unwrap();
        assert_eq!(request.table.episodes(), [4, 3]);
        assert_eq!(request.table.miners()[0].rates, [1.0, 0.1]);
        let problems = read(&text.replace("\"b\": 4", "\"c\": 4"), Missing::Error).unwrap_err();
        let found: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.path, p.message)).collect();
        assert_eq!(
            found,
            [
                r#"episodes_per_env["b"]: missing"#,
                r#"episodes_per_env["c"]: not one of `environments`; did you mean `b`?"#
            ]
        );
    }

    #[test]
    fn a_rate_that_is_missing_is_a_mistake_or_nothing() {
        let text = r#"{"environments": ["b", "a"], "episodes_per_env": 4, "scores": {"7": {"a": 0.5}, "8": {}}}"#;
        let problems = read(text, Missing::Error).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, [r#"scores["7"]["b"]"#, r#"scores["8"]["b"]"#, r#"scores["8"]["a"]"#]);
        let request = read(text, Missing::Zero).unwrap();
        let rates: Vec<&[f64]> = request.table.miners().iter().map(|miner| miner.rates.as_slice()).collect();
        assert_eq!(rates, [[0.0, 0.5], [0.0, 0.0]]);
        // A rate that is there and wrong is still a mistake, and so is a missing number of episodes.
        for (old, new) in [("0.5", "null"), ("4,", r#"{"a": 4},"#), ("{\"a\": 0.5}", "{\"c\": 0.5}")] {
            assert_eq!(read(&text.replace(old, new), Missing::Zero).unwrap_err().len(), 1, "{old}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn a_rate_is_read_to_the_last_digit(rate in 0.0..=1.0_f64) {
            prop_assert_eq!(read(&document(&rate.to_string()), Missing::Error).unwrap().table.miners()[0].rates[0].to_bits(), rate.to_bits());
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), at in 0_usize..90, cut in 0_usize..20) {
            let mut mangled = document("0.5");
            let end = (at + cut).min(mangled.len());
            mangled.replace_range(at.min(end)..end, &text);
            let _ = read(&mangled, Missing::Zero);
        }
    }
}
