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

/// Workers side by side, each with its share of the episodes. They live as long as those of the server.
pub(crate) struct Raw(Vec<Worker>);

impl Raw {
    /// Workers with `slots` episodes each, their environments made.
    pub(crate) fn start(simulations: &[Simulation], workers: u32, slots: u32) -> Self {
        let mut raw = Self((0..workers).map(|_| Worker::start(simulations, slots)).collect());
        raw.cpu_ms_per_step(0, 1);
        raw
    }

    /// CPU milliseconds per step, all slots of a worker asked in one go, in the middle of episodes of `steps` steps: the
    /// part that is measured with the server too, since later steps cost more than the first ones.
    pub(crate) fn cpu_ms_per_step(&mut self, first_seed: u32, steps: u32) -> f64 {
        let measured = (steps * 70).div_ceil(100);
        let everybody = std::sync::Barrier::new(self.0.len());
        let run = |worker: &mut Worker| {
            worker.reset_all(first_seed);
            worker.step_all(steps * 15 / 100);
            everybody.wait();
            let before = cpu_seconds(&[worker.child.id()]);
            worker.step_all(measured);
            let used = cpu_seconds(&[worker.child.id()]) - before;
            // Nobody has the machine to itself before everybody has been measured.
            everybody.wait();
            used * 1000.0 / f64::from(worker.slots * measured)
        };
        let used: Vec<f64> = thread::scope(|scope| {
            let threads: Vec<_> = self.0.iter_mut().map(|worker| scope.spawn(|| run(worker))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a worker is measured")).collect()
        });
        used.iter().sum::<f64>() / used.len() as f64
    }
}

/// What matters of an answer here.
#[derive(serde::Deserialize)]
struct Answer {
    error: Option<Value>,
}

struct Worker {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    slots: u32,
    /// Of each slot.
    environments: Vec<String>,
    noise: u64,
}

impl Worker {
    /// A worker with the tasks in its slots in turn.
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
        let names = simulations.iter().map(|simulation| simulation.environment.to_string());
        let environments = names.cycle().take(slots as usize).collect();
        let mut worker = Self { child, answers, slots, environments, noise: 1 };
        worker.ask(&[json!({ "op": "open", "simulations": simulations })]);
        worker
    }

    fn reset_all(&mut self, first_seed: u32) {
        for slot in 0..self.slots {
            let environment = &self.environments[slot as usize];
            let request = json!({ "op": "reset", "slot": slot, "environment": environment, "seed": first_seed + slot });
            self.ask(&[request]);
        }
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
            let answer: Answer = rmp_serde::from_slice(&content).expect("it is MessagePack");
            assert!(answer.error.is_none(), "{request}: {:?}", answer.error);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
