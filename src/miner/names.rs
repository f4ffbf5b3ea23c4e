//! Asks name servers, for each name one question at a time: whoever wants the same name meanwhile waits for the same answer.
//!
//! The system's resolver takes a thread for each question, and gives it back only when it has an answer. A name whose servers
//! are slow on purpose would take one with every try, until none is left for the names of others.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

/// Answers to a question that was asked longer ago count no more.
const OLDEST: Duration = Duration::from_secs(30);

type Answer = Result<Vec<SocketAddr>, Arc<io::Error>>;

/// How a name server is asked.
pub(super) type Lookup = dyn Fn(String, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Name servers.
pub(super) struct Names {
    lookup: Box<Lookup>,
    open: Mutex<HashMap<(String, u16), Question>>,
}

struct Question {
    asked: Instant,
    answer: Shared<BoxFuture<'static, Answer>>,
}

impl Names {
    /// Those of this machine.
    pub(super) fn of_the_system() -> Self {
        Self::new(Box::new(|name, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
        }))
    }

    pub(super) fn new(lookup: Box<Lookup>) -> Self {
        Self { lookup, open: Mutex::default() }
    }

    /// The addresses of a name. Giving up waiting takes nothing from others who wait for it.
    pub(super) async fn look_up(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let answer = {
            // Nothing between lock and unlock can panic half-way.
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|_, question| question.answer.peek().is_none() && question.asked.elapsed() < OLDEST);
            let question = open.entry((name.to_owned(), port)).or_insert_with(|| {
                let answer = (self.lookup)(name.to_owned(), port).map(|answer| answer.map_err(Arc::new));
                Question { asked: Instant::now(), answer: answer.boxed().shared() }
            });
            question.answer.clone()
        };
        answer.await.map_err(|error| match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        })
    }
}

/// Where the system's resolver reads whom to ask.
const RESOLVERS: &str = "/etc/resolv.conf";

/// Whether this machine names no resolver at all.
pub(super) fn has_no_resolver() -> bool {
    // A machine without the file, or with one that cannot be read, asks its own address, where a resolver may listen.
    std::fs::read_to_string(RESOLVERS).is_ok_and(|text| names_no_resolver(&text))
}

fn names_no_resolver(text: &str) -> bool {
    !text.lines().any(|line| line.split_whitespace().next() == Some("nameserver"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[test]
    fn a_file_without_a_nameserver_names_no_resolver() {
        assert!(names_no_resolver("# nameserver 1.1.1.1\nsearch example\n"));
        assert!(!names_no_resolver("search example\nnameserver\t127.0.0.53\n"));
    }

    #[tokio::test]
    async fn a_name_that_is_slow_on_purpose_is_asked_for_once() {
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (counter, gate) = (asked.clone(), answers.clone());
        let names = Names::new(Box::new(move |_, port| {
            counter.fetch_add(1, Ordering::SeqCst);
            let gate = gate.clone();
            Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                Ok(vec![SocketAddr::from(([8, 8, 8, 8], port))])
            })
        }));
        // Whoever gives up leaves the question to the next one.
        for _ in 0..5 {
            assert!(names.look_up("slow.example", 80).now_or_never().is_none());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let (one, other, ()) =
            tokio::join!(names.look_up("slow.example", 80), names.look_up("slow.example", 80), async {
                answers.add_permits(1);
            });
        assert_eq!(one.unwrap(), other.unwrap());
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        // An answer serves those who waited for it, and nobody after them.
        answers.add_permits(1);
        names.look_up("slow.example", 80).await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
}
