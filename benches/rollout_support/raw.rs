//! The same workers without a server and without miners: steps back to back, as fast as the simulator goes.

use std::{
    io::{BufReader, Read, Write},
    process::{Child, Command, Stdio},
    thread,
};

use robo::manifest::simulation::Simulation;
use serde_json::{Value, json};

use super::cpu::cpu_seconds;
use crate::children;

/// CPU milliseconds per step with this many workers side by side, each with its share of the episodes, all of its slots
/// asked in one go. Measures the middle of episodes of `steps` steps.
pub(crate) fn cpu_ms_per_step(simulations: &[Simulation], workers: u32, slots: u32, steps: u32) -> f64 {
    let measured = steps * 70 / 100;
    let ready = std::sync::Barrier::new(workers as usize);
    let used: Vec<f64> = thread::scope(|scope| {
        let run = || {
            let mut worker = Worker::start(simulations, slots);
            ready.wait();
            // The same part of the episodes that is measured with the server: later steps cost more than the first ones.
            worker.step_all(steps * 15 / 100);
            let before = cpu_seconds(&[worker.child.id()]);
            worker.step_all(measured);
            let used = cpu_seconds(&[worker.child.id()]) - before;
            // Nobody has the machine to itself before everybody has been measured.
            ready.wait();
            used
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a worker is measured")).collect()
    });
    used.iter().sum::<f64>() * 1000.0 / f64::from(workers * slots * measured)
}

struct Worker {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    slots: u32,
    noise: u64,
}

impl Worker {
    /// A worker with an episode in each slot, the tasks in turn.
    fn start(simulations: &[Simulation], slots: u32) -> Self {
        let mut child = Command::new(children::python())
            .args(["-m", "robo_eval_env", "worker"])
            .env("PYTHONPATH", children::package())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("Python starts");
        let answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut worker = Self { child, answers, slots, noise: 1 };
        worker.ask(&[json!({ "op": "open", "simulations": simulations })]);
        for slot in 0..slots {
            let simulation = &simulations[slot as usize % simulations.len()];
            worker.ask(&[json!({ "op": "reset", "slot": slot, "environment": simulation.environment, "seed": slot })]);
        }
        worker
    }

    fn step_all(&mut self, times: u32) {
        for _ in 0..times {
            let requests: Vec<Value> = (0..self.slots)
                .map(|slot| {
                    let action = super::noise(&mut self.noise);
                    json!({ "op": "step", "slot": slot, "action": action })
                })
                .collect();
            self.ask(&requests);
        }
    }

    fn ask(&mut self, requests: &[Value]) {
        let mut frames = Vec::new();
        for request in requests {
            let content = rmp_serde::to_vec_named(request).expect("it is MessagePack");
            frames.extend_from_slice(&(content.len() as u32).to_be_bytes());
            frames.extend_from_slice(&content);
        }
        self.child.stdin.as_mut().expect("it is piped").write_all(&frames).expect("the worker reads");
        for request in requests {
            let mut length = [0; 4];
            self.answers.read_exact(&mut length).expect("the worker answers");
            let mut content = vec![0; u32::from_be_bytes(length) as usize];
            self.answers.read_exact(&mut content).expect("the worker answers");
            let answer: Value = rmp_serde::from_slice(&content).expect("it is MessagePack");
            assert!(answer.get("error").is_none(), "{request}: {answer}");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
