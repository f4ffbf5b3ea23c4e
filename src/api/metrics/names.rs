//! Every metric of a backend: its name, what it is and what it means. What is not here is not shown, and `docs/metrics.md` has the
//! same words.

/// A metric.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts of values by their size.
    Histogram,
}

impl Kind {
    #[cfg(test)]
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($constant:ident = $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(pub(super) static $constant: Definition =
            Definition { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// All of them.
        #[cfg(test)]
        static ALL: &[&Definition] = &[$(&$constant),*];
    };
}

metrics! {
    CYCLES = Counter "robo_eval_cycles_total" ["pipeline", "status"]
        "Cycles that have ended, by how: completed, failed or cancelled. One that was opened again ends more than once.";
    CYCLE_DURATION = Histogram "robo_eval_duration_seconds" []
        "From the creation of a cycle to its end, of completed cycles that were not made of others.";
    LAST_START = Gauge "robo_eval_last_start_timestamp_seconds" ["pipeline"]
        "When the newest cycle was created; before the first, since when this process knows the schedule.";
    LAST_SUCCESS = Gauge "robo_eval_last_success_timestamp_seconds" ["pipeline"]
        "When the last cycle that completed did so.";
    STAGE_DURATION = Histogram "robo_stage_duration_seconds" ["kind"]
        "How long attempts of tasks took, by the kind of their stage.";
    EPISODES = Counter "robo_episodes_total" ["outcome", "reason"]
        "Episodes that were played, by outcome and the reason of a fault. Those lost to infra_fault are played again.";
    LATENCY = Histogram "robo_miner_latency_seconds" []
        "Median time of a miner's answers to /act, one value for each episode.";
    MINERS = Gauge "robo_miners_active" []
        "Miners that were scored in the vector that counts.";
    SCORES = Gauge "robo_miner_scores" ["uid", "hotkey", "environment"]
        "Success rate in the vector that counts, from 0 to 1.";
    SCORES_OMITTED = Gauge "robo_miner_scores_omitted" []
        "Scores that are not shown because there are too many.";
    SERVERS = Gauge "robo_environment_servers_up" ["kind"]
        "Environment servers that cycles have started and that have not ended: processes, containers, services.";
    STALLS = Counter "robo_env_server_stall_seconds_total" []
        "How long environment servers did not get the processor. A rate above 0.1 means that their machine is overloaded.";
    TASKS = Gauge "robo_tasks" ["state"]
        "Tasks of open cycles: ready for a free place, waiting for others, running, paused until a person decides.";
    EPISODES_PENDING = Gauge "robo_episodes_pending" []
        "Episodes of open cycles that are still to be played.";
    LEASES = Gauge "robo_leases" []
        "Cycles that a backend holds.";
    LEASES_HELD = Gauge "robo_leases_held" []
        "Cycles that this backend holds.";
    WEIGHTS_AGE = Gauge "robo_weights_age_seconds" []
        "Age of the vector that validators are given; nothing before the first.";
    GUARD = Gauge "robo_publish_guard_held" []
        "1 while the publish guard holds a newer vector back, else 0.";
    INTERVAL = Gauge "robo_schedule_interval_seconds" ["pipeline"]
        "The longest time between two cycles that the schedule allows; nothing while it is paused.";
    PAUSED = Gauge "robo_schedules_paused" []
        "Pipelines whose schedules are paused.";
    DATABASE_UP = Gauge "robo_database_up" []
        "1 if the database answered the last time, else 0: then everything it is asked for is what it said before.";
    DATABASE_AGE = Gauge "robo_database_snapshot_age_seconds" []
        "Age of what the database has said; nothing before its first answer.";
    DATABASE_FAILURES = Counter "robo_database_failures_total" []
        "Times that the database did not answer when it was asked for metrics.";
    POOL_SIZE = Gauge "robo_database_pool_size" []
        "Connections of this process to the database that are open.";
    POOL = Gauge "robo_database_pool_connections" ["state"]
        "The same by what they do: idle or in_use.";
    DOCKER = Gauge "robo_docker_host_up" ["host"]
        "1 if the Docker engine answered the last time, else 0. Only with --runtime docker or swarm.";
    REQUESTS = Counter "robo_http_requests_total" ["route", "status"]
        "Requests that were answered, by the template of their address and the status.";
    REQUEST_DURATION = Histogram "robo_http_request_duration_seconds" ["route"]
        "Time to the head of the answer.";
    BUILD = Gauge "robo_build_info" ["version"]
        "Always 1; the version of this program.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_about_metrics_lists_all_of_them_in_these_words() {
        let listed: Vec<String> = ALL
            .iter()
            .map(|it| {
                let labels = if it.labels.is_empty() { String::new() } else { format!("`{}`", it.labels.join("`, `")) };
                format!("| `{}` | {} | {labels} | {} |", it.name, it.kind.word(), it.help)
            })
            .collect();
        let page = include_str!("../../../docs/metrics.md");
        let is_row = |line: &&str| line.starts_with("| `robo_") && line.matches(" | ").count() == 3;
        let shown: Vec<&str> = page.lines().filter(is_row).collect();
        assert_eq!(shown, listed, "the table of docs/metrics.md should be:\n{}", listed.join("\n"));
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names: Vec<&str> = ALL.iter().map(|it| it.name).collect();
        for it in ALL {
            let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            assert!(it.name.starts_with("robo_") && is_plain(it.name), "{}", it.name);
            assert!(it.labels.iter().all(|label| is_plain(label) && *label != "le"), "{}", it.name);
            assert_eq!(it.name.ends_with("_total"), it.kind == Kind::Counter, "{}", it.name);
            assert!(it.kind != Kind::Histogram || it.name.ends_with("_seconds"), "{}", it.name);
            assert!(it.help.ends_with('.'), "{}", it.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len(), "each has its own name");
    }
}
