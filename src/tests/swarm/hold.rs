//! `robo env-server-hold` by itself, without an engine: it starts what it is to hold, and lets it end when it is let go.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;

struct Held {
    process: Child,
    address: String,
}

impl Held {
    /// Hold a server that is a line of shell.
    fn start(flags: &[&str], server: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_robo"))
            .args(["env-server-hold", "--listen", "127.0.0.1:0"])
            .args(flags)
            .args(["--", "sh", "-c", server])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        // The server inherits the output: what it says comes after this line.
        let mut output = process.stdout.take().unwrap();
        while !line.ends_with('\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            line.push(byte[0] as char);
        }
        process.stdout = Some(output);
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { process, address: said["listening"].as_str().unwrap().to_owned() }
    }

    fn take(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(&self.address).unwrap())
    }

    /// How it ended, and what it and the server said.
    fn wait(self) -> (ExitStatus, String) {
        let output = self.process.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8(said).unwrap())
    }
}

fn ask(hold: &mut BufReader<TcpStream>, line: &str) -> String {
    writeln!(hold.get_mut(), "{line}").unwrap();
    let mut answer = String::new();
    hold.read_line(&mut answer).unwrap();
    answer
}

#[test]
fn a_server_lives_while_it_is_held_and_ends_nicely_when_it_is_let_go() {
    let held = Held::start(&[], "grep NoNewPrivs /proc/self/status; cat; echo it has ended");
    let mut hold = held.take();
    assert_eq!(ask(&mut hold, "{}"), "{}\n");
    assert_eq!(ask(&mut hold, "{}"), "{}\n", "a sign of life starts nothing twice");
    assert!(ask(&mut hold, "hello").contains("not of the protocol"));
    assert!(TcpStream::connect(&held.address).is_err(), "nobody else can take it");
    drop(hold);
    let (status, said) = held.wait();
    assert!(status.success(), "{said}");
    assert_eq!(said, "NoNewPrivs:\t1\nit has ended\n");
}

#[test]
fn whoever_falls_silent_or_never_comes_holds_nothing() {
    let held = Held::start(&["--silence", "3s"], "cat; echo it has ended");
    let mut hold = held.take();
    ask(&mut hold, "{}");
    let (status, said) = held.wait();
    assert!(status.success() && said == "it has ended\n", "{said}");
    drop(hold);

    let (status, said) = Held::start(&["--patience", "0.1s"], "echo it has started").wait();
    assert!(!status.success() && said.contains("nobody came"), "{said}");
    assert!(!said.contains("it has started"), "{said}");
}

#[test]
fn a_server_that_ends_by_itself_ends_its_holder_with_its_reason() {
    let held = Held::start(&[], "exit 7");
    let mut hold = held.take();
    ask(&mut hold, "{}");
    let (status, said) = held.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the environment server ended (exit status: 7)"), "{said}");
}
