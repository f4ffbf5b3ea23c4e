//! The journal's contract on how miners were found.

use robo::cycle::{Journal, JournalError, Lease, MinerStatus, Seen, Sighting};
use uuid::Uuid;

use super::Subject;

fn sighting(seen: Seen) -> Sighting {
    Sighting { environment: "m/a".parse().unwrap(), hotkey: "miner".parse().unwrap(), seen }
}

pub(super) async fn what_is_seen_of_a_miner_is_kept_once_and_fenced<S: Subject>(subject: &S) {
    let cycle = subject.create().await;
    let lease = subject.journal().acquire(cycle).await.unwrap();
    let cold = sighting(Seen { detail: Some("says \u{0} 503".into()), ..Seen::new(MinerStatus::Cold) });
    let active = sighting(Seen {
        address: Some("8.8.8.8".into()),
        certificate: Some("ab".repeat(32)),
        model: Some("sha256:x".into()),
        ..Seen::new(MinerStatus::Active)
    });
    for seen in [&cold, &active, &active] {
        subject.journal().record_sighting(&lease, seen).await.unwrap();
    }
    let kept = subject.sightings(cycle).await;
    assert_eq!(kept.len(), 2);
    assert_eq!((kept[0].seen.status, &kept[1]), (MinerStatus::Cold, &active));
    let stale = Lease { owner: Uuid::new_v4(), ..lease };
    let refused = subject.journal().record_sighting(&stale, &cold).await;
    assert!(matches!(refused, Err(JournalError::LeaseLost(_))), "{refused:?}");
}
