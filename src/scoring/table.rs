//! The table that is scored: one success rate per miner and environment, checked once at its only door.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Environments that can be scored together: a subset of them is one bit mask.
pub const MAX_ENVIRONMENTS: usize = 64;

/// Success rates of miners. What exists is valid: see [`Table::new`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct Table {
    environments: Vec<String>,
    episodes: Vec<u32>,
    miners: Vec<MinerRow>,
}

/// What one miner achieved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerRow {
    /// Its uid.
    pub uid: u16,
    /// Block of its first commitment; none counts as later than any block.
    #[serde(default)]
    pub first_block: Option<u64>,
    /// Share of successful episodes, 0 to 1, in the order of the table's environments.
    pub rates: Vec<f64>,
}

/// Why numbers are not a table.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// Nothing to be good at.
    #[error("a table needs at least one environment")]
    NoEnvironments,
    /// More than a mask has bits.
    #[error("{count} environments are more than the {MAX_ENVIRONMENTS} that can be scored together")]
    TooManyEnvironments {
        /// How many there are.
        count: usize,
    },
    /// One environment, two columns.
    #[error("environment `{environment}` appears twice")]
    DuplicateEnvironment {
        /// Which.
        environment: String,
    },
    /// Episode numbers and environments do not pair up.
    #[error("{found} episode counts for {expected} environments")]
    EpisodeCounts {
        /// Environments.
        expected: usize,
        /// Episode counts.
        found: usize,
    },
    /// One uid, two rows.
    #[error("miner `{uid}` appears twice")]
    DuplicateUid {
        /// Which.
        uid: u16,
    },
    /// A row that is too short or too long.
    #[error("miner `{uid}` has {found} success rates for {expected} environments")]
    RowLength {
        /// Whose.
        uid: u16,
        /// Environments.
        expected: usize,
        /// Rates.
        found: usize,
    },
    /// Not a share.
    #[error("miner `{uid}` has {rate} on `{environment}`, and a success rate lies between 0 and 1")]
    Rate {
        /// Whose.
        uid: u16,
        /// Where.
        environment: String,
        /// The number.
        rate: f64,
    },
}

impl Table {
    /// A table of `miners` on `environments`, with the number of episodes behind each rate of an environment.
    ///
    /// Rows are sorted by uid. A table without miners is valid; one without environments is not.
    ///
    /// # Errors
    /// The first [`TableError`] found.
    pub fn new(environments: Vec<String>, episodes: Vec<u32>, mut miners: Vec<MinerRow>) -> Result<Self, TableError> {
        check_environments(&environments, &episodes)?;
        miners.sort_by_key(|row| row.uid);
        if let Some(pair) = miners.windows(2).find(|pair| pair[0].uid == pair[1].uid) {
            return Err(TableError::DuplicateUid { uid: pair[0].uid });
        }
        miners.iter().try_for_each(|row| check_row(row, &environments))?;
        Ok(Self { environments, episodes, miners })
    }

    /// The environments, in column order.
    pub fn environments(&self) -> &[String] {
        &self.environments
    }

    /// Episodes behind each rate, in column order.
    pub fn episodes(&self) -> &[u32] {
        &self.episodes
    }

    /// The rows, by ascending uid.
    pub fn miners(&self) -> &[MinerRow] {
        &self.miners
    }
}

fn check_environments(environments: &[String], episodes: &[u32]) -> Result<(), TableError> {
    match environments.len() {
        0 => return Err(TableError::NoEnvironments),
        count if count > MAX_ENVIRONMENTS => return Err(TableError::TooManyEnvironments { count }),
        expected if expected != episodes.len() => {
            return Err(TableError::EpisodeCounts { expected, found: episodes.len() });
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    match environments.iter().find(|environment| !seen.insert(*environment)) {
        Some(environment) => Err(TableError::DuplicateEnvironment { environment: environment.clone() }),
        None => Ok(()),
    }
}

fn check_row(row: &MinerRow, environments: &[String]) -> Result<(), TableError> {
    let uid = row.uid;
    if row.rates.len() != environments.len() {
        return Err(TableError::RowLength { uid, expected: environments.len(), found: row.rates.len() });
    }
    // NaN is in no range, so this refuses it too.
    match row.rates.iter().zip(environments).find(|(rate, _)| !(0.0..=1.0).contains(*rate)) {
        Some((&rate, environment)) => Err(TableError::Rate { uid, environment: environment.clone(), rate }),
        None => Ok(()),
    }
}

/// A table as it is read, before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    environments: Vec<String>,
    episodes: Vec<u32>,
    miners: Vec<MinerRow>,
}

impl TryFrom<Wire> for Table {
    type Error = TableError;

    fn try_from(wire: Wire) -> Result<Self, TableError> {
        Self::new(wire.environments, wire.episodes, wire.miners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn row(uid: u16, rates: &[f64]) -> MinerRow {
        MinerRow { uid, first_block: None, rates: rates.to_vec() }
    }

    #[test]
    fn rows_are_sorted_by_uid() {
        let table = Table::new(names(&["a"]), vec![5], vec![row(9, &[0.5]), row(10, &[0.1]), row(2, &[1.0])]).unwrap();
        assert_eq!(table.miners().iter().map(|row| row.uid).collect::<Vec<_>>(), [2, 9, 10]);
    }

    #[test]
    fn what_is_not_a_rate_is_refused() {
        for rate in [f64::NAN, f64::INFINITY, -0.01, 1.000_000_1] {
            let error = Table::new(names(&["a", "b"]), vec![5, 5], vec![row(7, &[0.0, rate])]).unwrap_err();
            assert!(matches!(&error, TableError::Rate { uid: 7, environment, .. } if environment == "b"), "{error:?}");
        }
        assert!(Table::new(names(&["a", "b"]), vec![5, 5], vec![row(7, &[0.0, 1.0])]).is_ok());
    }

    #[test]
    fn the_shape_must_fit() {
        let two = || names(&["a", "b"]);
        let error = |environments, episodes, miners| Table::new(environments, episodes, miners).unwrap_err();
        assert_eq!(error(vec![], vec![], vec![]), TableError::NoEnvironments);
        assert_eq!(error(two(), vec![5], vec![]), TableError::EpisodeCounts { expected: 2, found: 1 });
        assert_eq!(
            error(names(&["a", "a"]), vec![5, 5], vec![]),
            TableError::DuplicateEnvironment { environment: "a".into() }
        );
        assert_eq!(
            error(two(), vec![5, 5], vec![row(1, &[0.5])]),
            TableError::RowLength { uid: 1, expected: 2, found: 1 }
        );
        assert_eq!(
            error(names(&["a"]), vec![5], vec![row(1, &[0.5]), row(1, &[0.5])]),
            TableError::DuplicateUid { uid: 1 }
        );
    }

    #[test]
    fn sixty_four_environments_and_no_more() {
        let many = |count: usize| (0..count).map(|index| format!("family/{index}")).collect::<Vec<_>>();
        assert!(Table::new(many(64), vec![5; 64], vec![]).is_ok());
        assert_eq!(
            Table::new(many(65), vec![5; 65], vec![]).unwrap_err(),
            TableError::TooManyEnvironments { count: 65 }
        );
    }

    #[test]
    fn reading_json_passes_the_same_door() {
        let good =
            r#"{"environments": ["a"], "episodes": [5], "miners": [{"uid": 1, "first_block": 3, "rates": [0.5]}]}"#;
        let table: Table = serde_json::from_str(good).unwrap();
        assert_eq!(serde_json::from_value::<Table>(serde_json::to_value(&table).unwrap()).unwrap(), table);
        assert!(serde_json::from_str::<Table>(&good.replace("0.5", "1.5")).is_err());
    }
}
