//! The weights that validators are given, kept in memory: asked for again and again by all of them, they cost the database
//! nothing, and are there while it is away, marked so.
//!
//! The database is looked at every second. What is shown is at most that much behind it.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use chrono::Utc;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    answer::{Answer, Cache},
    ask, documents,
    problem::Problem,
    standing::{Database, Status, Validity},
};
use crate::store::{CycleSummary, PublicationRow, Standing, Store};

/// How often the database is looked at.
const ROUND: Duration = Duration::from_secs(1);

/// The vector that counts, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Latest {
    shown: watch::Receiver<Option<Arc<Answer>>>,
}

/// Who keeps it up to date.
pub(super) struct Keeper {
    store: Store,
    validity: Validity,
    shown: watch::Sender<Option<Arc<Answer>>>,
    known: Option<Known>,
}

/// What the answer was made of.
struct Known {
    latest: PublicationRow,
    held: Option<PublicationRow>,
    cycle: CycleSummary,
    /// As it was last shown; none before that.
    status: Option<Status>,
}

impl Latest {
    /// Nothing known yet, and who is to look.
    pub(super) fn of(store: &Store, validity: Validity) -> (Self, Keeper) {
        let (sender, shown) = watch::channel(None);
        (Self { shown }, Keeper { store: store.clone(), validity, shown: sender, known: None })
    }

    /// The answer, where any vector is known.
    pub(super) fn answer(&self) -> Option<Arc<Answer>> {
        self.shown.borrow().clone()
    }
}

impl Keeper {
    /// Look now: what counts is known before the first client asks, if the database answers.
    pub(super) async fn look(&mut self) {
        match ask(self.store.standing()).await {
            Ok(Standing { latest: Some(latest), held }) => self.found(latest, held).await,
            // Weights are never taken back: an empty database is another database.
            Ok(Standing { latest: None, .. }) => self.forget(),
            Err(_) => self.show(Database::Away),
        }
    }

    /// Look every second, for ever.
    pub(super) async fn keep(mut self) {
        let mut clock = interval(ROUND);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            clock.tick().await;
            self.look().await;
        }
    }

    async fn found(&mut self, latest: PublicationRow, held: Option<PublicationRow>) {
        let is_known = self.known.as_ref().is_some_and(|known| known.latest == latest && known.held == held);
        if !is_known {
            let Ok(cycle) = ask(self.store.cycle_summary(latest.cycle)).await else { return };
            self.known = Some(Known { latest, held, cycle, status: None });
        }
        self.show(Database::Answers);
    }

    fn forget(&mut self) {
        self.known = None;
        self.shown.send_replace(None);
    }

    /// Make the answer anew if its word has changed.
    fn show(&mut self, database: Database) {
        let Some(known) = &mut self.known else { return };
        let status = Status::of((&known.latest, known.held.as_ref()), Utc::now(), (self.validity, database));
        let made = status.and_then(|status| {
            if Some(&status) == known.status.as_ref() {
                return Ok(None);
            }
            let weights = documents::weights((&known.latest, &known.cycle), self.validity, Some(&status))?;
            known.status = Some(status);
            Ok(Some(Answer::new(&weights, Cache::Moments)))
        });
        match made {
            Ok(None) => {}
            Ok(Some(answer)) => drop(self.shown.send_replace(Some(Arc::new(answer)))),
            Err(error) => tracing::error!("{:#}", anyhow::Error::from(error)),
        }
    }
}

/// No weights to show: there are none, or the database cannot be asked.
pub(super) async fn nothing(store: &Store) -> Problem {
    match ask(store.standing()).await {
        Ok(Standing { held: Some(held), .. }) => {
            let reason = held.held.unwrap_or_default();
            let detail =
                format!("no weights have been given out yet; those of cycle {} are held back: {reason}", held.cycle);
            Problem::new(StatusCode::NOT_FOUND, detail)
        }
        Ok(_) => Problem::new(StatusCode::NOT_FOUND, "no weights have been published yet"),
        Err(problem) => problem,
    }
}
