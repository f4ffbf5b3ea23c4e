//! Whose fault an error text is. Such servers say it in words only; the table is in docs/environments.md.
//!
//! A text blames a miner only for what it says beyond doubt. An unknown text is an infrastructure fault; the stage blames the
//! miner later if such faults return for this miner alone (`cycle::unexplained`). The first words and the name of the
//! exception are the server's own. The miner may choose what follows, so only the number of an error of the operating
//! system is read from there, and only where it comes first. The name and the number select a row of the one table of blame.

use std::io;

use crate::cycle::{Condition, InfraFault, MinerFault, Outcome, Party};

/// What a server was at when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reset,
    Act,
}

/// What an error comes to, and the condition behind it where the one table of blame calls it undecided: it is the miner's
/// unless a canary failed at the same time.
pub(super) fn outcome(text: &str) -> (Outcome, Option<Condition>) {
    let text = text.trim_start();
    let simulator = (Outcome::InfraFault(InfraFault::SimulatorError), None);
    if text.starts_with("Miner action timeout at step ") {
        return (Outcome::MinerFault(MinerFault::ActionTimeout), Some(Condition::Silence));
    }
    if text.starts_with("Miner returned no action at step ") {
        return (Outcome::MinerFault(MinerFault::MalformedResponse), None);
    }
    if text.starts_with("Evaluation timeout") || text.starts_with("Task execution exceeded timeout") {
        // A miner that is in time at every step has the time it needs (`timeout` is checked against it).
        return (Outcome::InfraFault(InfraFault::SimulatorTimeout), None);
    }
    let told = match (text.strip_prefix("Miner reset failed: "), text.strip_prefix("Miner action failed at step ")) {
        (Some(rest), _) => Some((Phase::Reset, rest)),
        (_, Some(rest)) => rest.split_once(": ").map(|(_, rest)| (Phase::Act, rest)),
        _ => None,
    };
    let Some((phase, rest)) = told else { return simulator };
    // An exception without words ends in `Name: `, or `Name:` once it is trimmed.
    let (name, words) = rest.split_once(':').unwrap_or((rest, ""));
    let (name, words) = (name.trim(), words.trim_start());
    let condition = condition(name, words);
    if let Some(Party::Infrastructure(fault)) = condition.map(Condition::party) {
        return (Outcome::InfraFault(fault), None);
    }
    let Some(fault) = exception(phase, name, words) else { return simulator };
    (Outcome::MinerFault(fault), condition.filter(|condition| condition.party() == Party::Undecided))
}

/// The condition that an exception tells of, where it tells of one below HTTP.
///
/// A miner can make a server print a name of its choice, but not let the text begin with an error of the system.
fn condition(name: &str, words: &str) -> Option<Condition> {
    let code = words.strip_prefix("[Errno ").and_then(|rest| rest.split_once(']')?.0.parse::<i32>().ok());
    match (name, code) {
        // Numbers below zero are those of the resolver.
        ("ConnectError", Some(..=-1)) => Some(Condition::NameLookup),
        ("ConnectError" | "OSError" | "MemoryError", Some(code @ 1..)) => {
            Some(Condition::of(&io::Error::from_raw_os_error(code)))
        }
        // Several addresses were tried, and which error each gave is not told.
        ("ConnectError", None) if words.starts_with("All connection attempts failed") => Some(Condition::Silence),
        ("ConnectTimeout" | "ReadTimeout" | "WriteTimeout", _) => Some(Condition::Silence),
        _ => None,
    }
}

/// The fault behind an exception that calling a miner has raised; none when it is not the miner's beyond doubt.
fn exception(phase: Phase, name: &str, words: &str) -> Option<MinerFault> {
    let late = match phase {
        Phase::Reset => MinerFault::ResetTimeout,
        Phase::Act => MinerFault::ActionTimeout,
    };
    Some(match name {
        "ReadTimeout" | "WriteTimeout" => late,
        "ConnectError"
        | "ConnectTimeout"
        | "ReadError"
        | "WriteError"
        | "CloseError"
        | "UnsupportedProtocol"
        | "InvalidURL" => MinerFault::ConnectionError,
        "RemoteProtocolError" if words.starts_with("Server disconnected") || words.starts_with("peer closed") => {
            MinerFault::ConnectionError
        }
        "RemoteProtocolError" | "JSONDecodeError" | "UnicodeDecodeError" => MinerFault::MalformedResponse,
        "HTTPStatusError" if words.starts_with("Redirect response") => MinerFault::RedirectNotAllowed,
        "TooManyRedirects" => MinerFault::RedirectNotAllowed,
        "HTTPStatusError" => MinerFault::HttpError,
        "DecodingError" => MinerFault::UnsupportedEncoding,
        // The answer is JSON, and no object.
        "AttributeError" if phase == Phase::Act && words.ends_with("object has no attribute 'get'") => {
            MinerFault::MalformedResponse
        }
        "ValidationError" if phase == Phase::Act => MinerFault::InvalidAction,
        "ValueError" if phase == Phase::Act && words.starts_with("setting an array element with a sequence") => {
            MinerFault::InvalidAction
        }
        _ => return None,
    })
}

/// The number of the step that a text names.
pub(super) fn step(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once(" at step ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INFRA: Outcome = Outcome::InfraFault(InfraFault::SimulatorError);

    #[test]
    fn what_servers_say_of_miners_is_told_apart() {
        use MinerFault::*;
        for (text, fault) in [
            ("Miner action timeout at step 17", ActionTimeout),
            ("Miner returned no action at step 0", MalformedResponse),
            ("Miner action failed at step 3: ReadTimeout: ", ActionTimeout),
            ("Miner action failed at step 3: ConnectError: All connection attempts failed", ConnectionError),
            ("Miner action failed at step 0: ConnectError: [Errno -2] Name or service not known", ConnectionError),
            ("Miner action failed at step 3: ReadError:", ConnectionError),
            (
                "Miner action failed at step 3: ConnectError: [Errno -3] Temporary failure in name resolution",
                ConnectionError,
            ),
            ("Miner action failed at step 3: ConnectError: [Errno 101] Network is unreachable", ConnectionError),
            (
                "Miner action failed at step 3: ConnectError: [Errno 99] Cannot assign requested address",
                ConnectionError,
            ),
            ("Miner reset failed: ConnectError: certificate is for '[Errno 24] Too many open files'", ConnectionError),
            ("Miner reset failed: ConnectError: Too many open files", ConnectionError),
            ("Miner action failed at step 3: ReadError", ConnectionError),
            (
                "Miner action failed at step 12: RemoteProtocolError: Server disconnected without sending a response.",
                ConnectionError,
            ),
            ("Miner action failed at step 12: RemoteProtocolError: illegal status line", MalformedResponse),
            (
                "Miner action failed at step 1: HTTPStatusError: Server error '500 Internal Server Error' for url 'x'",
                HttpError,
            ),
            (
                "Miner action failed at step 1: HTTPStatusError: Redirect response '302 Found' for url",
                RedirectNotAllowed,
            ),
            ("Miner action failed at step 1: JSONDecodeError: Expecting value: line 1 column 1", MalformedResponse),
            ("Miner action failed at step 1: DecodingError: incorrect header check", UnsupportedEncoding),
            ("Miner action failed at step 1: AttributeError: 'list' object has no attribute 'get'", MalformedResponse),
            ("Miner action failed at step 1: ValidationError: 1 validation error for Action", InvalidAction),
            (
                "Miner action failed at step 1: ValueError: setting an array element with a sequence. The requested",
                InvalidAction,
            ),
            ("Miner reset failed: ReadTimeout: ", ResetTimeout),
            ("Miner reset failed: ConnectTimeout: ", ConnectionError),
            ("Miner reset failed: ConnectError: [Errno 111] Connection refused", ConnectionError),
            ("Miner reset failed: HTTPStatusError: Client error '404 Not Found' for url", HttpError),
            ("Miner reset failed: JSONDecodeError: Expecting value", MalformedResponse),
        ] {
            assert_eq!(outcome(text).0, Outcome::MinerFault(fault), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_miners_beyond_doubt_is_ours() {
        for text in [
            "",
            "Miner",
            "ValueError: could not broadcast\nTraceback (most recent call last):\n  Miner action timeout at step 3",
            "Miner action failed at step 3: RuntimeError: Event loop is closed",
            "Miner action failed at step 3: PoolTimeout: ",
            "Miner action failed at step 3: LocalProtocolError: Illegal header value",
            "Miner action failed at step 3: AttributeError: 'NoneType' object has no attribute 'shape'",
            "Miner action failed at step 3: ValueError: mujoco says no",
            "Miner action failed at step 3: MemoryError: ",
            "Miner reset failed: RuntimeError: Event loop is closed",
            "Miner reset failed: ValidationError: 1 validation error",
            "Invalid env_id for MetaWorld container: genesis/x. Must start with 'metaworld/'",
            "FatalError: gladLoadGL error",
        ] {
            assert_eq!(outcome(text), (INFRA, None), "{text}");
        }
        for text in ["Evaluation timeout after 300s", "Evaluation timeout", "Task execution exceeded timeout of 300s"] {
            assert_eq!(outcome(text), (Outcome::InfraFault(InfraFault::SimulatorTimeout), None), "{text}");
        }
    }

    #[test]
    fn local_exhaustion_is_infrastructure() {
        for text in [
            "Miner action failed at step 3: OSError: [Errno 24] Too many open files",
            "Miner action failed at step 3: ConnectError: [Errno 24] Too many open files",
            "Miner reset failed: ConnectError: [Errno 23] Too many open files in system",
            "Miner reset failed: ConnectError: [Errno 105] No buffer space available",
        ] {
            assert_eq!(outcome(text), (Outcome::InfraFault(InfraFault::ResourcesExhausted), None), "{text}");
        }
    }

    #[test]
    fn what_a_dead_network_explains_is_undecided() {
        use Condition::*;
        for (text, condition) in [
            ("Miner action timeout at step 17", Silence),
            ("Miner action failed at step 3: ReadTimeout: ", Silence),
            ("Miner reset failed: ConnectTimeout: ", Silence),
            ("Miner action failed at step 3: ConnectError: All connection attempts failed", Silence),
            ("Miner action failed at step 0: ConnectError: [Errno -2] Name or service not known", NameLookup),
            ("Miner action failed at step 3: ConnectError: [Errno 101] Network is unreachable", Unreachable),
            ("Miner action failed at step 3: ConnectError: [Errno 99] Cannot assign requested address", NoLocalAddress),
        ] {
            let (outcome, told) = outcome(text);
            assert!(matches!(outcome, Outcome::MinerFault(_)), "{text}");
            assert_eq!(told, Some(condition), "{text}");
        }
        for text in
            ["Miner reset failed: ConnectError: [Errno 111] Connection refused", "Miner reset failed: ReadError"]
        {
            assert_eq!(outcome(text).1, None, "{text}");
        }
    }

    #[test]
    fn the_step_is_read_where_it_is_told() {
        assert_eq!(step("Miner action timeout at step 17"), Some(17));
        assert_eq!(step("Miner action failed at step 3: ReadError"), Some(3));
        assert_eq!(step("Miner reset failed: ReadError"), None);
        assert_eq!(step("x at step 99999999999"), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_strange_ones_blame_nobody(text in any::<String>()) {
            prop_assert!(!outcome(&text).0.is_scored() || text.trim_start().starts_with("Miner "));
            let _ = step(&text);
        }

        /// Whatever a miner makes a server say after the exception's name, it does not clear it.
        #[test]
        fn a_miner_does_not_talk_itself_out_of_a_fault(words in any::<String>()) {
            for name in ["HTTPStatusError", "JSONDecodeError", "ReadError", "DecodingError", "RemoteProtocolError"] {
                let text = format!("Miner action failed at step 1: {name}: {words}");
                prop_assert!(matches!(outcome(&text), (Outcome::MinerFault(_), None)), "{text}");
            }
            // Words inside the error of a connection, such as the name on a certificate.
            for own in ["[Errno 24] Too many open files", "Network is unreachable", "[Errno -3] Temporary failure"] {
                let text = format!("Miner reset failed: ConnectError: [SSL] not valid for '{words}{own}'");
                prop_assert!(matches!(outcome(&text), (Outcome::MinerFault(_), None)), "{text}");
            }
        }
    }
}
