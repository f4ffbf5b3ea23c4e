//! Honest miners on a machine that has other work to do: what is recorded of them beside programs that take every core.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use robo::cycle::{InfraFault, Outcome};

use super::{
    mock::Mock,
    play::{Kind, Load, Table},
    round::{Inflation, inflation},
};

/// The time-out of an action, as manifests have it.
const ACTION_TIMEOUT: Duration = Duration::from_millis(100);

/// Programs that compute without end, at normal priority.
const LOOPS: usize = 8;

const LOAD: Load = Load { miner: Duration::from_millis(20), of_each: 1 };

/// What came of the episodes.
pub(crate) struct Outcomes {
    pub(crate) played: usize,
    pub(crate) miner_faults: usize,
    pub(crate) overloaded: usize,
    pub(crate) inflation: Inflation,
    pub(crate) seconds: f64,
}

/// The same episodes on a machine that is idle otherwise, and beside the busy loops.
pub(crate) async fn measure(workers: u32) -> [Outcomes; 2] {
    let mock = Mock::start(LOAD.miner);
    let table = Table::set(LOAD, workers, Kind::Quick).await;
    // Once for the environments to be made.
    table.play_many(LOAD, &mock, 0).await;
    let idle = round(&table, &mock, 1000).await;
    let loops: Vec<Busy> = (0..LOOPS).map(|_| Busy::start()).collect();
    let busy = round(&table, &mock, 2000).await;
    drop(loops);
    [idle, busy]
}

async fn round(table: &Table, mock: &Mock, first_seed: u32) -> Outcomes {
    let started = Instant::now();
    let reports = table.play_many_within(LOAD, mock, first_seed, ACTION_TIMEOUT).await;
    let count = |is: fn(Outcome) -> bool| reports.iter().filter(|(_, report)| is(report.outcome)).count();
    let played = count(|outcome| matches!(outcome, Outcome::Success | Outcome::Failure));
    let (miner_faults, overloaded) = (
        count(|outcome| matches!(outcome, Outcome::MinerFault(_))),
        count(|outcome| outcome == Outcome::InfraFault(InfraFault::Overloaded)),
    );
    assert_eq!(played + miner_faults + overloaded, reports.len(), "nothing else goes wrong: {reports:?}");
    let answered: Vec<_> = reports.into_iter().filter(|(_, report)| report.latency.is_some()).collect();
    let seconds = started.elapsed().as_secs_f64();
    Outcomes { played, miner_faults, overloaded, inflation: inflation(&answered, mock), seconds }
}

/// A program that takes a core. It ends when this is dropped.
struct Busy(Child);

impl Busy {
    fn start() -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("a shell starts"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
