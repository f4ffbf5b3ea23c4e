//! How the miners of a cycle were found, whether they stayed what they were, and what became of their episodes: the part of
//! `robo cycle show` and `explain` that tells a miner why it got nothing.

use std::collections::{BTreeMap, BTreeSet};

use comfy_table::Table;
use serde_json::{Value, json};

use super::{db, exit::Result, report};
use crate::cycle::{Change, CycleId, EnvironmentId, Hotkey, MinerStatus, Seen, changes};
use crate::store::{FaultCount, Store};

/// Of more miners only those are listed that there is something to say of.
const READABLE: usize = 40;

/// A miner of a cycle.
pub(super) struct Found {
    pub(super) hotkey: Hotkey,
    /// How it was seen last, by environment.
    seen: BTreeMap<EnvironmentId, Seen>,
    changes: Vec<Change>,
    faults: Vec<FaultCount>,
}

/// Every miner of a cycle that was looked for, by hotkey.
pub(super) async fn find(store: &Store, cycle: CycleId) -> Result<Vec<Found>> {
    let sightings = store.sightings(cycle).await.map_err(db::failure)?;
    let faults = store.miner_faults(cycle).await.map_err(db::failure)?;
    let mut changes = changes(&sightings);
    let mut seen: BTreeMap<Hotkey, BTreeMap<EnvironmentId, Seen>> = BTreeMap::new();
    for sighting in sightings {
        // The last one of an environment comes last.
        seen.entry(sighting.hotkey).or_default().insert(sighting.environment, sighting.seen);
    }
    let hotkeys: BTreeSet<Hotkey> =
        seen.keys().cloned().chain(faults.iter().map(|fault| fault.hotkey.clone())).collect();
    let found = hotkeys.into_iter().map(|hotkey| Found {
        seen: seen.remove(&hotkey).unwrap_or_default(),
        changes: changes.remove(&hotkey).unwrap_or_default(),
        faults: faults.iter().filter(|fault| fault.hotkey == hotkey).cloned().collect(),
        hotkey,
    });
    Ok(found.collect())
}

impl Found {
    /// The worst status of any environment; none when nobody looked for it.
    pub(super) fn status(&self) -> Option<MinerStatus> {
        let rank = |status: MinerStatus| match status {
            MinerStatus::Active => 0,
            MinerStatus::Cold => 1,
            MinerStatus::Unreachable => 2,
            MinerStatus::Refused => 3,
        };
        self.seen.values().map(|seen| seen.status).max_by_key(|status| rank(*status))
    }

    fn is_plain(&self) -> bool {
        self.status() == Some(MinerStatus::Active) && self.changes.is_empty() && self.faults.is_empty()
    }

    /// Where it was found so, when it was not everywhere.
    fn environments(&self, status: MinerStatus) -> String {
        let there: Vec<&str> =
            self.seen.iter().filter(|(_, seen)| seen.status == status).map(|(id, _)| id.as_str()).collect();
        match there.as_slice() {
            all if all.len() == self.seen.len() => String::new(),
            [one] => format!(" in {one}"),
            some => format!(" in {} of {} environments", some.len(), self.seen.len()),
        }
    }

    /// What there is to say of it, a line each.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(status) = self.status().filter(|status| *status != MinerStatus::Active) {
            let detail = self.seen.values().find(|seen| seen.status == status).and_then(|seen| seen.detail.clone());
            lines.extend(detail);
        }
        for fault in &self.faults {
            let detail = fault.detail.as_deref().filter(|detail| !lines.iter().any(|line| line == detail));
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            lines.push(format!("{} x {}{detail}", fault.count, fault.reason));
        }
        lines.extend(self.changes.iter().map(|change| format!("{}: {}", change.flag, change.seen.join(" -> "))));
        lines
    }

    /// The miner for programs.
    pub(super) fn document(&self) -> Value {
        let seen = self.seen.iter().map(|(environment, seen)| {
            let mut document = json!(seen);
            document["environment"] = json!(environment);
            document
        });
        let fault =
            |fault: &FaultCount| json!({ "reason": fault.reason, "count": fault.count, "detail": fault.detail });
        json!({
            "hotkey": self.hotkey,
            "status": self.status().map(MinerStatus::word),
            "seen": seen.collect::<Vec<_>>(),
            "flags": self.changes,
            "faults": self.faults.iter().map(fault).collect::<Vec<_>>(),
        })
    }
}

/// The miners for people; nothing when nobody was looked for.
pub(super) fn table(found: &[Found]) -> Option<Table> {
    if found.is_empty() {
        return None;
    }
    let mut table = report::plain(["miner", "status", "what"].map(str::to_owned));
    let mut plain = 0;
    for miner in found {
        if found.len() > READABLE && miner.is_plain() {
            plain += 1;
            continue;
        }
        let status =
            miner.status().map_or("-".into(), |status| format!("{}{}", status.word(), miner.environments(status)));
        table.add_row([miner.hotkey.to_string(), status, miner.remarks().join("\n")]);
    }
    if plain > 0 {
        table.add_row([format!("({plain} others)"), MinerStatus::Active.word().to_owned(), String::new()]);
    }
    Some(table)
}
