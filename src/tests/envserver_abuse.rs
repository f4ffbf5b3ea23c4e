//! A running environment server against miners that misbehave at the level of bytes: nothing of it stays in memory, and
//! whoever plays beside them plays as if they were not there.

use std::fs;

use robo::{
    cycle::{MinerFault, Outcome},
    rollout::protocol::{EpisodesRequest, Open},
};

use crate::{
    abuse::Abuse,
    children::Serving,
    envserver::{client, faulty, faulty_package, open, request, run},
};

/// Episodes of each miner in a round.
const EPISODES: u32 = 3;

/// What may be left of one round's tens of megabytes: memory that an allocator keeps for the next.
const LEFT: u64 = 12 << 20;

fn reason(abuse: Abuse) -> MinerFault {
    match abuse {
        Abuse::Silence | Abuse::Trickle => MinerFault::ActionTimeout,
        Abuse::Hangup => MinerFault::ConnectionError,
        Abuse::EndlessBody
        | Abuse::EndlessChunks
        | Abuse::EndlessHeaders
        | Abuse::EndlessInterim
        | Abuse::HugeLength => MinerFault::ResponseTooLarge,
        Abuse::DeepJson | Abuse::OtherProtocol => MinerFault::MalformedResponse,
        Abuse::ManyNumbers => MinerFault::InvalidAction,
        Abuse::Redirect => MinerFault::RedirectNotAllowed,
    }
}

/// Memory of a process in bytes.
fn resident(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

async fn endpoints(abuses: impl Iterator<Item = Abuse>) -> Vec<(Abuse, String, String)> {
    let mut miners = Vec::new();
    for abuse in abuses {
        miners.push((abuse, format!("{abuse:?}"), abuse.start().await));
    }
    miners
}

async fn play_abusers(server: &Serving, miners: &[(Abuse, String, String)], request: &EpisodesRequest) {
    let reports = run(server, request).await;
    for (abuse, name, _) in miners {
        for seed in 0..EPISODES {
            let report = &reports[&(name.clone(), seed)];
            assert_eq!(report.outcome, Outcome::MinerFault(reason(*abuse)), "{abuse:?}: {report:?}");
        }
    }
}

#[tokio::test]
async fn abuse_leaves_nothing_in_memory_and_disturbs_nobody() {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &[]);
    open(&server, vec![faulty("never")], 1, 32).await;
    let good = Serving::demo_miner("noop", &[]);
    let polite = request("faulty/never", &[("good", good.url())], 0..EPISODES);
    let alone = run(&server, &polite).await;
    let hashes = |reports: &std::collections::BTreeMap<_, robo::cycle::EpisodeReport>| {
        reports.values().map(|report| report.trajectory_hash.clone().unwrap()).collect::<Vec<_>>()
    };
    let is_slow = |abuse: &Abuse| reason(*abuse) == MinerFault::ActionTimeout;
    let slow = endpoints(Abuse::ALL.into_iter().filter(is_slow)).await;
    let quick = endpoints(Abuse::ALL.into_iter().filter(|abuse| !is_slow(abuse))).await;
    let orders = |miners: &[(Abuse, String, String)]| {
        let miners: Vec<_> = miners.iter().map(|(_, name, url)| (name.as_str(), url.clone())).collect();
        request("faulty/never", &miners, 0..EPISODES)
    };
    let slow_orders = EpisodesRequest { action_timeout_ms: 100, ..orders(&slow) };
    let quick_orders = orders(&quick);
    let mut before = 0;
    for round in 0..6 {
        let (beside, (), ()) = tokio::join!(
            run(&server, &polite),
            play_abusers(&server, &slow, &slow_orders),
            play_abusers(&server, &quick, &quick_orders),
        );
        assert_eq!(hashes(&beside), hashes(&alone));
        // In the first rounds memory is taken that is used again and again.
        if round == 1 {
            before = resident(server.id());
        }
    }
    let after = resident(server.id());
    assert!(after < before + LEFT, "{before} bytes before, {after} after");
}

#[tokio::test]
async fn a_miner_that_is_slow_without_end_is_cut_off_and_nobody_else_is() {
    let package = faulty_package();
    let server = Serving::env_server(package.path(), &[]);
    open(&server, vec![faulty("never")], 1, 8).await;
    let (slow, good) = (Serving::demo_miner("noop", &["--latency", "20ms"]), Serving::demo_miner("noop", &[]));
    let orders = |name: &str, url: String, budget| EpisodesRequest {
        run: uuid::Uuid::nil(),
        budget_ms: budget,
        per_miner: 1,
        ..request("faulty/never", &[(name, url)], 0..3)
    };
    let (slow, good) = (orders("slow", slow.url(), Some(10)), orders("good", good.url(), Some(600_000)));
    let (slow, good) = tokio::join!(run(&server, &slow), run(&server, &good));
    for report in slow.values() {
        assert_eq!(report.outcome, Outcome::MinerFault(MinerFault::BudgetExhausted), "{report:?}");
        assert_eq!(report.steps, 0);
    }
    assert!(good.values().all(|report| report.outcome == Outcome::Success && report.steps == 5), "{good:?}");
    // What was used up in an earlier request is gone.
    let late = EpisodesRequest {
        budget_ms: Some(60_000),
        spent_ms: [("late".parse().unwrap(), 60_000)].into(),
        ..request("faulty/never", &[("late", "http://127.0.0.1:9".to_owned())], 0..3)
    };
    for report in run(&server, &late).await.values() {
        assert_eq!(report.outcome, Outcome::MinerFault(MinerFault::BudgetExhausted), "{report:?}");
    }
}

#[tokio::test]
async fn a_server_that_may_not_open_enough_files_refuses_to_start_and_blames_nobody() {
    let package = faulty_package();
    let server = Serving::env_server_with_files(100, package.path());
    let simulations = vec![faulty("never")];
    let refused = client(&server).open(&Open { simulations, workers: 1, slots_per_worker: 64 }).await.unwrap_err();
    assert!(!refused.is_retryable(), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("may have 100 files open and needs") && text.contains("ulimit -n"), "{text}");
    // Too many miners are as bad as too many slots.
    open(&server, vec![faulty("never")], 1, 8).await;
    let miners: Vec<_> = (0..40).map(|miner| (format!("m{miner}"), "http://127.0.0.1:9".to_owned())).collect();
    let miners: Vec<_> = miners.iter().map(|(name, url)| (name.as_str(), url.clone())).collect();
    let refused = client(&server).episodes(&request("faulty/never", &miners, 0..1)).await.err().unwrap();
    assert!(refused.to_string().contains("may have 100 files open and needs 124"), "{refused}");
}
