//! As many requests as the machine gives: wrk, whose connections ask again as soon as they are answered.

use tokio::process::Command;

/// Of one round.
pub(crate) const SECONDS: u32 = 5;

/// What one round has shown.
pub(crate) struct Figures {
    pub(crate) rate: f64,
    pub(crate) p99_ms: f64,
}

impl Figures {
    /// Of several rounds, each figure by itself.
    pub(crate) fn median(rounds: Vec<Self>) -> Self {
        let middle = |figure: fn(&Self) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(figure).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        Self { rate: middle(|it| it.rate), p99_ms: middle(|it| it.p99_ms) }
    }
}

/// One round; with a tag every answer is to be 304.
pub(crate) async fn run(url: &str, connections: usize, tag: Option<&str>) -> Figures {
    let mut command = Command::new("wrk");
    // The application in Python keeps some waiting for longer than wrk does by itself.
    command.args(["--threads", "1", "--latency", "--timeout", "60s", "--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{SECONDS}s")]);
    if let Some(tag) = tag {
        command.args(["--header", &format!("If-None-Match: {tag}")]);
    }
    let output = command.arg(url).output().await.expect("scripts/bench-api has installed wrk");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !said.contains("Socket errors"), "{said}");
    // wrk counts 304 as an answer like any other.
    assert!(!said.contains("Non-2xx"), "{said}");
    let figure = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let rate = figure("Requests/sec:").and_then(|text| text.parse().ok()).expect("wrk says it");
    Figures { rate, p99_ms: figure("99%").and_then(milliseconds).expect("wrk says it") }
}

/// A time as wrk writes it: `1.23ms`, `456.00us`, `1.00s`.
fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}
