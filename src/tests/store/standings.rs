//! The journal's contract for what a discovery leaves behind: all of it with the line that ends it, or nothing.

use std::collections::BTreeMap;

use robo::cycle::{Appended, CycleId, Discovery, Entry, Hotkey, Journal, Lease, Pin, Standing, TaskEvent};
use serde_json::json;

use super::{Subject, append, is_lost, line, task};

/// The pin of a cycle at a block.
pub(super) fn pin(block: u64) -> Pin {
    Pin { genesis: "0xgenesis".into(), netuid: 3, block, hash: format!("0x{block:064x}") }
}

fn standing(first_block: u64) -> Standing {
    Standing { first_block, registered_at: Some(1), model: "m@1".into(), endpoint: "e".repeat(64) }
}

/// The line that ends a discovery at `block`, which found these hotkeys with the first blocks of what they serve.
fn found(block: u64, hotkeys: &[(&str, u64)]) -> Entry {
    let standings = hotkeys.iter().map(|(hotkey, first)| (hotkey.parse().unwrap(), standing(*first))).collect();
    let event = TaskEvent::Succeeded { output: json!({ "block": block }) };
    Entry { discovery: Some(Discovery { pin: pin(block), standings }), ..line(task("discover", ""), 1, event) }
}

async fn begun<S: Subject>(subject: &S) -> (CycleId, Lease) {
    let cycle = subject.create().await;
    let lease = subject.journal().acquire(cycle).await.unwrap();
    let _ = append(subject.journal(), &lease, line(task("discover", ""), 1, TaskEvent::Started)).await;
    (cycle, lease)
}

async fn known<J: Journal>(journal: &J) -> BTreeMap<String, u64> {
    let standings: BTreeMap<Hotkey, Standing> = journal.standings("0xgenesis", 3).await.unwrap();
    standings.into_iter().map(|(hotkey, standing)| (hotkey.to_string(), standing.first_block)).collect()
}

fn blocks(expected: &[(&str, u64)]) -> BTreeMap<String, u64> {
    expected.iter().map(|(hotkey, block)| ((*hotkey).to_owned(), *block)).collect()
}

pub(super) async fn a_discovery_is_kept_with_its_line_or_not_at_all<S: Subject>(subject: &S) {
    let journal = subject.journal();
    let (cycle, lease) = begun(subject).await;
    let ends = found(100, &[("a", 5), ("b", 6)]);
    // With a line that does not fit, and under a lease that is void, nothing of it stands.
    let illegal = line(task("publish", ""), 1, TaskEvent::Succeeded { output: json!({}) });
    assert!(journal.append_all(&lease, &[ends.clone(), illegal]).await.is_err());
    assert!(is_lost(journal.append(&Lease { epoch: lease.epoch + 1, ..lease }, &ends).await));
    assert_eq!((known(journal).await, journal.load(cycle).await.unwrap().pin), (blocks(&[]), Some(pin(7))));
    assert_eq!(append(journal, &lease, ends.clone()).await, Appended::Recorded);
    assert_eq!(append(journal, &lease, ends).await, Appended::AlreadyRecorded);
    assert_eq!(known(journal).await, blocks(&[("a", 5), ("b", 6)]));
    assert_eq!(journal.load(cycle).await.unwrap().pin, Some(pin(100)));
    let whole = journal.standings("0xgenesis", 3).await.unwrap();
    assert_eq!(whole[&"a".parse().unwrap()], standing(5));
    // Of this subnet of this chain alone.
    assert!(journal.standings("0xgenesis", 4).await.unwrap().is_empty());
    assert!(journal.standings("0xother", 3).await.unwrap().is_empty());
}

pub(super) async fn a_discovery_takes_nothing_back_that_a_later_block_has_shown<S: Subject>(subject: &S) {
    let journal = subject.journal();
    // Two cycles discover the same subnet; the one that read the later block is written down first.
    let ((_, slow), (_, fast)) = (begun(subject).await, begun(subject).await);
    let _ = append(journal, &fast, found(200, &[("a", 150), ("b", 6)])).await;
    let _ = append(journal, &slow, found(100, &[("a", 5), ("b", 6), ("c", 7)])).await;
    assert_eq!(known(journal).await, blocks(&[("a", 150), ("b", 6), ("c", 7)]));
    // Whoever is not there any more keeps what it had.
    let (_, next) = begun(subject).await;
    let _ = append(journal, &next, found(300, &[("b", 250)])).await;
    assert_eq!(known(journal).await, blocks(&[("a", 150), ("b", 250), ("c", 7)]));
}
