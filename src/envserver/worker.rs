//! One worker process: requests of many slots go down its standard input, pipelined; answers come up in the same order.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::FusedFuture};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    process::Child,
    sync::{mpsc, oneshot},
};
use tokio_util::codec::LengthDelimitedCodec;

use super::{
    frame::{Answer, Refusal, Request},
    memory,
    processor::Processor,
};

/// Largest answer: a few images of the largest size a manifest allows.
const FRAME_LIMIT: usize = 64 << 20;

/// Lines of a worker's standard error that are kept to explain its end.
const LAST_WORDS: usize = 12;

/// Imports and first environments may take this long on a cold disk.
const OPEN_PATIENCE: Duration = Duration::from_secs(300);

/// Requests written in one go.
const BATCH: usize = 64;

/// How a worker's life ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// It ended, or broke the protocol; the text says how.
    Died(String),
    /// The kernel killed it: more memory was used than there may be. The text says how it ended.
    OutOfMemory(String),
    /// It did not answer in time and was killed.
    Hung,
    /// The same, and it did not get the processor for most of that time.
    Starved,
    /// Nobody needs it any more.
    Dismissed,
}

impl Fate {
    /// In words.
    pub(super) fn describe(&self) -> &str {
        match self {
            Self::Died(how) | Self::OutOfMemory(how) => how,
            Self::Hung => "it did not answer in time and was killed",
            Self::Starved => {
                "the simulator's worker did not answer in time because it did not get the processor, and was killed"
            }
            Self::Dismissed => "it was dismissed",
        }
    }
}

/// What a request had to do with the end of its worker, which handles one request after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// The worker owed this answer and no other.
    Culprit,
    /// It owed several answers: one of them was the last it worked on.
    Suspect,
    /// The request never reached it.
    Bystander,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CallError {
    /// The worker refused; it goes on.
    Refused(Refusal),
    /// The worker is gone.
    Gone(Fate, Part),
}

type Reply = oneshot::Sender<Result<Bytes, Part>>;

/// A handle to a worker. Cheap to clone; when the last is gone, the worker is dismissed.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// Unbounded, yet never long: a slot has one request on its way, and perhaps its `close`.
    requests: mpsc::UnboundedSender<Outgoing>,
    fate: Arc<OnceLock<Fate>>,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Vec<u8>,
    reply: Reply,
}

impl Worker {
    /// Ask and wait for the answer.
    pub(super) async fn call<A: Answer>(&self, request: &Request<'_>) -> Result<A, CallError> {
        let gone = |part| CallError::Gone(self.fate.get().cloned().unwrap_or(Fate::Dismissed), part);
        let answer = self.send(request).ok_or_else(|| gone(Part::Bystander))?;
        let frame = answer.await.unwrap_or(Err(Part::Bystander)).map_err(gone)?;
        let mut answer: A = rmp_serde::from_slice(&frame).map_err(|error| {
            let message = format!("the worker's answer is not of the protocol: {error}");
            CallError::Refused(Refusal { kind: "bad_answer".to_owned(), message })
        })?;
        match answer.refusal() {
            Some(refusal) => Err(CallError::Refused(refusal)),
            None => Ok(answer),
        }
    }

    /// Ask and let the answer go by.
    pub(super) fn tell(&self, request: &Request<'_>) {
        // A worker that is gone needs not be told.
        let _ = self.send(request);
    }

    /// Whether its life has ended. True before anybody who waits for an answer learns it.
    pub(super) fn is_gone(&self) -> bool {
        self.fate.get().is_some()
    }

    /// A worker without a process, and what it is asked.
    #[cfg(test)]
    pub(super) fn detached() -> (Self, mpsc::UnboundedReceiver<Outgoing>) {
        let (requests, asked) = mpsc::unbounded_channel();
        (Self { requests, fate: Arc::default() }, asked)
    }

    fn send(&self, request: &Request<'_>) -> Option<oneshot::Receiver<Result<Bytes, Part>>> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Outgoing { frame: request.to_frame(), reply }).ok()?;
        Some(answer)
    }
}

/// The life of a worker, to be driven to its end.
#[derive(Debug)]
pub(super) struct Life {
    child: Child,
    requests: mpsc::UnboundedReceiver<Outgoing>,
    fate: Arc<OnceLock<Fate>>,
    patience: Duration,
}

/// A worker of this process. It is killed when it leaves a request unanswered for `patience`.
pub(super) fn worker(child: Child, patience: Duration) -> (Worker, Life) {
    let (sender, requests) = mpsc::unbounded_channel();
    let fate = Arc::new(OnceLock::new());
    (Worker { requests: sender, fate: fate.clone() }, Life { child, requests, fate, patience })
}

impl Life {
    /// Carry requests and answers until the worker is gone; say how it ended. Whoever waits learns it as well.
    pub(super) async fn run(self) -> Fate {
        let Self { mut child, mut requests, fate, patience } = self;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Fate::Died("its standard streams are not piped".to_owned());
        };
        let pending = Pending::default();
        let kills = memory::kills();
        let last_words = Mutex::new(VecDeque::new());
        let mut listening = pin!(listen(stderr, &last_words).fuse());
        let mut ended = tokio::select! {
            ended = write(stdin, &mut requests, &pending) => ended,
            ended = read(stdout, &pending) => ended,
            ended = watch(&pending, patience, Processor::of(child.id())) => ended,
            never = async {
                listening.as_mut().await;
                std::future::pending().await
            } => never,
        };
        if let Fate::Died(how) = &ended {
            // What it said last may still be on its way.
            if !listening.is_terminated() {
                let _ = tokio::time::timeout(Duration::from_secs(1), listening).await;
            }
            let text = epitaph(&mut child, how, &last_words).await;
            let for_memory = memory::kills().zip(kills).is_some_and(|(now, before)| now > before);
            ended = if for_memory { Fate::OutOfMemory(text) } else { Fate::Died(text) };
        }
        // The process and whatever it may have started.
        if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = child.kill().await;
        // Before those who wait are let go, so that they find it.
        let _ = fate.set(ended.clone());
        pending.release();
        requests.close();
        while let Ok(outgoing) = requests.try_recv() {
            let _ = outgoing.reply.send(Err(Part::Bystander));
        }
        ended
    }
}

/// Requests on their way, oldest first.
#[derive(Default)]
struct Pending(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Instant, Reply)>,
    last_answer: Option<Instant>,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing between lock and unlock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asked(&self, batch: &mut Vec<Outgoing>, frames: &mut Vec<u8>) {
        let now = Instant::now();
        let mut queue = self.lock();
        for outgoing in batch.drain(..) {
            frames.extend_from_slice(&outgoing.frame);
            queue.waiting.push_back((now, outgoing.reply));
        }
    }

    /// Let everybody go who waits for an answer that will not come.
    fn release(&self) {
        let mut queue = self.lock();
        let part = if queue.waiting.len() == 1 { Part::Culprit } else { Part::Suspect };
        for (_, reply) in queue.waiting.drain(..) {
            // Whoever asked may have given up.
            let _ = reply.send(Err(part));
        }
    }

    fn answered(&self) -> Option<Reply> {
        let mut queue = self.lock();
        queue.last_answer = Some(Instant::now());
        queue.waiting.pop_front().map(|(_, reply)| reply)
    }

    /// Whether the worker has owed an answer and kept silent for longer than it may.
    fn is_overdue(&self, patience: Duration) -> bool {
        let queue = self.lock();
        match (queue.waiting.front(), queue.last_answer) {
            (None, _) => false,
            (Some((asked, _)), None) => asked.elapsed() > patience.max(OPEN_PATIENCE),
            (Some((asked, _)), Some(answer)) => answer.max(*asked).elapsed() > patience,
        }
    }
}

async fn write(
    mut stdin: impl AsyncWrite + Unpin,
    requests: &mut mpsc::UnboundedReceiver<Outgoing>,
    pending: &Pending,
) -> Fate {
    let (mut batch, mut frames) = (Vec::with_capacity(BATCH), Vec::new());
    loop {
        if requests.recv_many(&mut batch, BATCH).await == 0 {
            return Fate::Dismissed;
        }
        // Requests come in flocks, one behind the other: those that are ready to be asked go along in the same write.
        tokio::task::yield_now().await;
        while batch.len() < BATCH
            && let Ok(outgoing) = requests.try_recv()
        {
            batch.push(outgoing);
        }
        frames.clear();
        pending.asked(&mut batch, &mut frames);
        if let Err(error) = stdin.write_all(&frames).await {
            return Fate::Died(format!("its input is closed: {error}"));
        }
    }
}

async fn read(stdout: impl AsyncRead + Unpin, pending: &Pending) -> Fate {
    let mut frames = LengthDelimitedCodec::builder().max_frame_length(FRAME_LIMIT).new_read(stdout);
    loop {
        match frames.next().await {
            Some(Ok(frame)) => match pending.answered() {
                // Whoever asked may have given up.
                Some(reply) => drop(reply.send(Ok(frame.freeze()))),
                None => return Fate::Died("it answered without being asked".to_owned()),
            },
            Some(Err(error)) => return Fate::Died(format!("its output cannot be read: {error}")),
            None => return Fate::Died("it ended".to_owned()),
        }
    }
}

async fn watch(pending: &Pending, patience: Duration, mut processor: Processor) -> Fate {
    let mut ticks = tokio::time::interval((patience / 4).max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        if pending.is_overdue(patience) {
            return if processor.is_starved() { Fate::Starved } else { Fate::Hung };
        }
        processor.look();
    }
}

/// Log what the worker says, to the end, and keep its last words.
async fn listen(stderr: impl AsyncRead + Unpin, last_words: &Mutex<VecDeque<String>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tracing::debug!("worker: {line}");
        let mut kept = last_words.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == LAST_WORDS {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

/// What can be said of a worker that died: how it was noticed, its exit status, its last words.
async fn epitaph(child: &mut Child, how: &str, last_words: &Mutex<VecDeque<String>>) -> String {
    let mut text = how.to_owned();
    // A process whose pipes have closed is about to end; one that is not, is killed next.
    if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(1), child.wait()).await {
        text = format!("{text} ({status})");
    }
    // The last line says what happened and the others where, and a long text loses its end on the way to its reader.
    let mut lines = last_words.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(what) = lines.pop_back() {
        lines.push_front(what);
    }
    for line in lines {
        text = format!("{text}\n{line}");
    }
    text
}
