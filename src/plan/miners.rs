//! `file/miners`: the list of miners, written in the pipeline or in a file of its own, becomes part of the definition.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::address::{FORBIDDEN_PORTS, Reach, Rules};
use crate::cycle::{Hotkey, Miner};
use crate::manifest::decode::decode_at;
use crate::manifest::document::{Document, NodeId};
use crate::manifest::located::Located;
use crate::manifest::pipeline::MinersWire;
use crate::manifest::{Diagnostic, Diagnostics, shown_path, suggest};

use super::{Environment, Miners, draft::Draft, expression};

/// The policies behind `demo:POLICY`. The program that plays them is another layer's; a test holds the two together.
pub const DEMO_POLICIES: [&str; 6] = ["random", "noop", "forward", "reacher", "novice", "heuristic"];

/// How many numbers a demo policy answers with: those that move MetaWorld's arm.
const DEMO_ACTION_SIZE: u32 = 4;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MinerWire {
    uid: Located<u16>,
    hotkey: Located<String>,
    endpoint: Located<String>,
    #[serde(default)]
    first_block: Option<u64>,
}

/// Put the miners in place of the path to their file, and check those that are known.
///
/// `at` is where a setting is written, if it is.
pub(super) fn resolve(
    document: &Document,
    settings: &mut Map<String, Value>,
    at: &dyn Fn(&str) -> NodeId,
    root: &Path,
    found: &mut Diagnostics,
) {
    let list = match (settings.get("path"), settings.get("miners")) {
        (Some(_), Some(_)) => {
            found.push(document.error(at("path"), "`path` and `miners` exclude each other: write one of them"));
            return;
        }
        // One that is written and has come to nothing was reported.
        (None, None) if at("path") != at("miners") => return,
        (None, None) => {
            let problem = document.error(at("path"), "`file/miners` needs either `path` or `miners`");
            found.push(problem.help("`with: { path: pipelines/miners.yaml }`"));
            return;
        }
        (Some(Value::String(path)), None) if path.contains("${{") => {
            // An input without a value is reported where it is declared, if it must have one.
            if !expression::needs_only(path, &["inputs"]) {
                found.push(document.error(at("path"), "the path must be known before the cycle starts"));
            }
            return;
        }
        (Some(path), None) => {
            let path = path.as_str().unwrap_or_default();
            from_file(&root.join(path), document.error(at("path"), String::new()), found)
        }
        // An expression over what stages give: the engine checks it when it is known.
        (None, Some(value)) if holds_expression(value) => return,
        (None, Some(value)) => {
            let node = at("miners");
            if document.value(node) == *value {
                read(document, node, found)
            } else {
                // What came out of expressions has no places of its own; it is checked as a whole.
                from_value(value).map_err(|reason| found.push(document.error(node, reason))).ok()
            }
        }
    };
    settings.shift_remove("path");
    if let Some(list) = list {
        settings.insert("miners".into(), serde_json::to_value(list).unwrap_or_default());
    }
}

fn holds_expression(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${{"),
        Value::Array(items) => items.iter().any(holds_expression),
        Value::Object(fields) => fields.values().any(holds_expression),
        _ => false,
    }
}

/// Warn of demo policies in environments that they cannot play: all of their episodes would be invalid actions.
pub(super) fn warn_of_demos(
    problem: impl Fn(String) -> Diagnostic,
    settings: &Map<String, Value>,
    environments: &[Environment],
    found: &mut Diagnostics,
) {
    let listed = settings.get("miners").and_then(Value::as_array).into_iter().flatten();
    let mut demos = listed.filter_map(|miner| miner["endpoint"].as_str()).filter(|end| end.starts_with("demo:"));
    let sizes = environments
        .iter()
        .filter_map(|one| Some((&one.simulation.environment, one.simulation.adapter()?.action.size)));
    let strange = sizes.into_iter().find(|(_, size)| *size != DEMO_ACTION_SIZE);
    if let (Some(demo), Some((environment, size))) = (demos.next(), strange) {
        let message = format!("`{demo}` answers with {DEMO_ACTION_SIZE} numbers, `{environment}` takes {size}");
        found.push(
            problem(message).warning().help("demo policies play MetaWorld only; examples/miner.py is a miner to copy"),
        );
    }
}

/// Longest that a cycle waits for a miner to wake up.
const LONGEST_COLD_START: u64 = 3_600_000;

/// How a pipeline wants its miners to be called.
pub(super) fn rules(document: &Document, wire: &MinersWire, found: &mut Diagnostics) -> Miners {
    let reach = if wire.allow_private_endpoints { Reach::Private } else { Reach::Public };
    let ports = wire.forbidden_ports.as_ref();
    let mut forbidden_ports =
        ports.map_or_else(|| FORBIDDEN_PORTS.to_vec(), |ports| ports.iter().map(|port| port.value).collect());
    forbidden_ports.sort_unstable();
    forbidden_ports.dedup();
    let mut miners = Miners { rules: Rules { reach, forbidden_ports }, ..Miners::default() };
    if let Some(cold_start) = &wire.cold_start {
        miners.cold_start_ms = cold_start.budget.value.milliseconds();
        if miners.cold_start_ms > LONGEST_COLD_START {
            found.push(
                document.error(cold_start.budget.at, "a miner that needs more than an hour to wake up is not there"),
            );
        }
    }
    miners
}

/// Warn of listed miners whose endpoints may not be called: the cycle would run, and count their episodes as faults.
pub(super) fn warn_of_refused(document: &Document, rules: &Rules, drafts: &[Draft<'_>], found: &mut Diagnostics) {
    let plays = |draft: &&Draft<'_>| draft.kind.is_some_and(|kind| kind.name == "episodes/run");
    if !drafts.iter().any(|draft| plays(&draft)) {
        return;
    }
    for draft in drafts.iter().filter(|draft| draft.kind.is_some_and(|kind| kind.name == "file/miners")) {
        let listed = draft.with.get("miners").and_then(Value::as_array).into_iter().flatten();
        let endpoints = listed.filter_map(|miner| Some((miner["hotkey"].as_str()?, miner["endpoint"].as_str()?)));
        let strangers = endpoints.filter(|(_, endpoint)| !endpoint.starts_with("demo:") && !endpoint.contains("${{"));
        let mut refused = strangers.filter_map(|(hotkey, endpoint)| Some((hotkey, rules.check(endpoint).err()?)));
        let Some((hotkey, refusal)) = refused.next() else { continue };
        let more = match refused.count() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let message = format!("`{hotkey}` will not be called{more}: {refusal}");
        let help = "its episodes will count as `miner_fault(endpoint_address_forbidden)`";
        found.push(document.error(draft.at, message).warning().help(help));
    }
}

/// Check a file that holds nothing but miners.
pub(super) fn check_list(document: &Document, found: &mut Diagnostics) {
    read(document, document.root(), found);
}

fn from_file(path: &Path, named_here: Diagnostic, found: &mut Diagnostics) -> Option<Vec<Miner>> {
    match Document::read(&shown_path(path)) {
        Ok(document) => read(&document, document.root(), found),
        Err(problem) if problem.pointer.is_none() => {
            // The file is not usable at all: what the operator can change is its name in the pipeline.
            let file = problem.file.unwrap_or_default();
            found.push(Diagnostic { message: format!("miners file `{file}`: {}", problem.message), ..named_here });
            None
        }
        Err(problem) => {
            found.push(problem);
            None
        }
    }
}

fn read(document: &Document, node: NodeId, found: &mut Diagnostics) -> Option<Vec<Miner>> {
    let wire: Vec<Located<MinerWire>> = decode_at(document, node, found)?;
    if wire.is_empty() {
        let problem = document.error(node, "No miners found: the list is empty");
        found.push(problem.help("write at least one `- { uid: 1, hotkey: NAME, endpoint: \"http://host:port\" }`"));
        return None;
    }
    let mut miners: Vec<Miner> = Vec::new();
    let mut sound = true;
    for entry in wire {
        match check(document, entry.value, &miners) {
            Ok(miner) => miners.push(miner),
            Err(problems) => {
                sound = false;
                problems.into_iter().for_each(|problem| found.push(problem));
            }
        }
    }
    miners.sort_by_key(|miner| miner.uid);
    sound.then_some(miners)
}

fn from_value(value: &Value) -> Result<Vec<Miner>, String> {
    let mut miners: Vec<Miner> =
        serde_json::from_value(value.clone()).map_err(|error| format!("this is not a list of miners: {error}"))?;
    if miners.is_empty() {
        return Err("No miners found: the list is empty".into());
    }
    miners.sort_by_key(|miner| miner.uid);
    let hotkeys: BTreeSet<&str> = miners.iter().map(|miner| miner.hotkey.as_str()).collect();
    if hotkeys.len() < miners.len() || miners.windows(2).any(|pair| pair[0].uid == pair[1].uid) {
        return Err("two miners of the list share a uid or a hotkey".into());
    }
    for miner in &miners {
        check_endpoint(&miner.endpoint)
            .map_err(|reason| format!("`{}` is not an endpoint: {reason}", miner.endpoint))?;
    }
    Ok(miners)
}

fn check(document: &Document, wire: MinerWire, others: &[Miner]) -> Result<Miner, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    if others.iter().any(|other| other.uid == wire.uid.value) {
        problems
            .push(document.error(wire.uid.at, format!("uid {} is taken by another miner of the list", wire.uid.value)));
    }
    if others.iter().any(|other| other.hotkey.as_str() == wire.hotkey.value) {
        let message = format!("hotkey `{}` is taken by another miner of the list", wire.hotkey.value);
        problems.push(document.error(wire.hotkey.at, message));
    }
    let hotkey = wire.hotkey.value.parse::<Hotkey>().map_err(|error| document.error(wire.hotkey.at, error.to_string()));
    if let Err(reason) = check_endpoint(&wire.endpoint.value) {
        let message = format!("`{}` is not an endpoint: {reason}", wire.endpoint.value);
        let policy = wire.endpoint.value.strip_prefix("demo:");
        let help = match policy.and_then(|policy| suggest::closest(policy, DEMO_POLICIES)) {
            Some(near) => format!("did you mean `demo:{near}`?"),
            None => "write `http://host:port`, `https://host/prefix` or `demo:POLICY`".into(),
        };
        problems.push(document.error(wire.endpoint.at, message).help(help));
    }
    match hotkey {
        Ok(hotkey) if problems.is_empty() => {
            Ok(Miner { uid: wire.uid.value, hotkey, endpoint: wire.endpoint.value, first_block: wire.first_block })
        }
        Ok(_) => Err(problems),
        Err(problem) => {
            problems.push(problem);
            Err(problems)
        }
    }
}

/// `http(s)://host[:port][/prefix]`, or `demo:POLICY`.
fn check_endpoint(endpoint: &str) -> Result<(), &'static str> {
    if let Some(policy) = endpoint.strip_prefix("demo:") {
        let known = DEMO_POLICIES.contains(&policy);
        return if known { Ok(()) } else { Err("there is no such demo policy") };
    }
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let rest = rest.ok_or("it starts with neither `http://`, `https://` nor `demo:`")?;
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if !prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)) {
        return Err("the prefix holds characters that do not belong there");
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (address, after) = v6.split_once(']').ok_or("the address is not closed by `]`")?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| "the address is not IPv6")?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("the port is wrong")?) };
            ("v6", port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err("the host is wrong");
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(()),
        _ => Err("the port is wrong"),
    }
}

#[cfg(test)]
mod tests {
    use super::check_endpoint;

    #[test]
    fn endpoints() {
        let good = ["http://h", "https://h:1/p/q", "http://10.0.0.1:8001", "http://[::1]:80/x", "demo:reacher"];
        for endpoint in good {
            assert_eq!(check_endpoint(endpoint), Ok(()), "{endpoint}");
        }
        let bad = [
            "",
            "h:80",
            "ftp://h",
            "http://",
            "http://:80",
            "http://h:0",
            "http://h:99999",
            "http://user@h",
            "http://h/?q",
            "http://h/#f",
            "http://[::1",
            "http://[x]",
            "http://h h",
            "demo:",
            "demo:../x",
            "demo:heuristc",
            "http://h/${{ x }}",
            "HTTP://h",
        ];
        for endpoint in bad {
            assert!(check_endpoint(endpoint).is_err(), "{endpoint}");
        }
    }
}
