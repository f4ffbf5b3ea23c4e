//! Answers that are made from many rows, kept for a moment: however many ask, the database is asked once a second.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{answer::Answer, problem::Problem, view::View};

/// How long an answer is given again.
const MOMENT: Duration = Duration::from_secs(1);
/// Answers that are kept at most.
const MOST: usize = 512;

type Place = Arc<Mutex<Option<(Instant, Arc<Answer>)>>>;

/// Answers of the last moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Memo {
    places: Arc<Lock<HashMap<(String, View), Place>>>,
}

impl Memo {
    /// The answer of this name, made anew if there is none of the last moment. Whoever asks meanwhile waits for it.
    pub(super) async fn answer(
        &self,
        (name, view): (impl Into<String>, View),
        make: impl Future<Output = Result<Answer, Problem>>,
    ) -> Result<Arc<Answer>, Problem> {
        let place = self.place((name.into(), view));
        let mut kept = place.lock().await;
        if let Some((since, answer)) = &*kept
            && since.elapsed() < MOMENT
        {
            return Ok(Arc::clone(answer));
        }
        let answer = Arc::new(make.await?);
        *kept = Some((Instant::now(), Arc::clone(&answer)));
        Ok(answer)
    }

    fn place(&self, name: (String, View)) -> Place {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= MOST && !places.contains_key(&name) {
            // A moment's answers are soon made again; those who wait for one hold their own place.
            places.clear();
        }
        Arc::clone(places.entry(name).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::http::StatusCode;
    use serde_json::json;

    use super::*;
    use crate::api::answer::Cache;

    #[tokio::test]
    async fn many_ask_and_one_answer_is_made() {
        let (memo, made) = (Memo::default(), AtomicU32::new(0));
        let make = || async {
            made.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Ok(Answer::new(&json!({}), Cache::Moments))
        };
        let all = futures::future::join_all((0..50).map(|_| memo.answer(("a", View::Public), make()))).await;
        assert!(all.iter().all(Result::is_ok) && made.load(Ordering::Relaxed) == 1);
        memo.answer(("a", View::Operator), make()).await.unwrap();
        assert_eq!(made.load(Ordering::Relaxed), 2, "an operator's answer is another");
    }

    #[tokio::test]
    async fn what_failed_is_tried_again_and_only_so_many_answers_are_kept() {
        let memo = Memo::default();
        let fail = async { Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "away")) };
        assert!(memo.answer(("a", View::Public), fail).await.is_err());
        for name in 0..2 * MOST {
            let make = async { Ok(Answer::new(&json!({}), Cache::Moments)) };
            memo.answer((name.to_string(), View::Public), make).await.unwrap();
        }
        assert!(memo.places.lock().unwrap().len() <= MOST);
    }
}
