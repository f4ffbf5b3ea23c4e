//! What became of a service's one task, as the manager knows it: why there is no server, or no more.

use std::{collections::HashMap, time::Duration};

use bollard::{
    models::{NodeState, Task, TaskState, TaskStatus},
    query_parameters::{ListTasksOptionsBuilder, LogsOptionsBuilder},
};
use futures::StreamExt;
use tokio::time::timeout;

use super::{hold::OUT_OF_MEMORY, nodes::Node};
use crate::cycle::InfraFault;
use crate::host::child::LastWords;
use crate::runtime::docker::{
    engine::is_not_found,
    made::Made,
    server::{MORE_MEMORY, TAIL},
};
use crate::runtime::{Error, Fault};

/// A pause between two looks at a task: a manager has no way to tell us.
pub(super) const PAUSE: Duration = Duration::from_millis(300);

/// How long a node may take to hand out what a container said.
const WORDS: Duration = Duration::from_secs(5);

/// A task on its node.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) made: &'a Made,
    pub(super) node: &'a Node,
    /// What the image is called.
    pub(super) image: &'a str,
}

/// How a task is.
enum Seen {
    /// It does not run yet.
    Coming,
    Running,
    /// It does not run any more, or never will.
    Lost(Box<Fault>),
}

impl Place<'_> {
    /// Wait until the task runs.
    pub(super) async fn until_running(self) -> Result<(), Error> {
        loop {
            match self.look().await? {
                Seen::Coming => tokio::time::sleep(PAUSE).await,
                Seen::Running => return Ok(()),
                Seen::Lost(fault) => return Err(fault.into()),
            }
        }
    }

    /// Wait until the task is lost, and say why.
    pub(super) async fn until_lost(self) -> Error {
        loop {
            match self.lost().await {
                Ok(None) => tokio::time::sleep(PAUSE).await,
                Ok(Some(fault)) => return fault.into(),
                Err(error) => return error,
            }
        }
    }

    /// Why the task does not run and will not; nothing while it does or may.
    pub(super) async fn lost(self) -> Result<Option<Box<Fault>>, Error> {
        Ok(match self.look().await? {
            Seen::Coming | Seen::Running => None,
            Seen::Lost(fault) => Some(fault),
        })
    }

    async fn look(self) -> Result<Seen, Error> {
        if let Some(fault) = self.is_off().await? {
            return Ok(Seen::Lost(fault));
        }
        let Some(task) = self.task().await? else { return self.without_a_task().await };
        let status = task.status.unwrap_or_default();
        Ok(match (status.state, status.err.as_deref().filter(|text| !text.is_empty())) {
            (Some(TaskState::RUNNING), _) => Seen::Running,
            (Some(TaskState::PENDING), Some(text)) => Seen::Lost(self.has_no_room(text)),
            (Some(state), _) if state > TaskState::RUNNING => {
                let words = self.last_words(task.id.as_deref().unwrap_or_default()).await;
                Seen::Lost(Box::new(self.ended(&status, &words).last_words(words)))
            }
            _ => Seen::Coming,
        })
    }

    /// A service that was just made has no task for a moment.
    async fn without_a_task(self) -> Result<Seen, Error> {
        let engine = &self.made.engine;
        match engine.client().await?.inspect_service(&self.made.name, None).await {
            Ok(_) => Ok(Seen::Coming),
            Err(error) if is_not_found(&error) => {
                let problem = format!("{} was removed by somebody else", self.made.name);
                Ok(Seen::Lost(Box::new(Fault::new(InfraFault::ServerLost, problem))))
            }
            Err(error) => Err(engine.fault("asking how a service is", &error)),
        }
    }

    /// That the node is gone, when the manager has noticed.
    async fn is_off(self) -> Result<Option<Box<Fault>>, Error> {
        let engine = &self.made.engine;
        let state = match engine.client().await?.inspect_node(&self.node.id).await {
            Ok(found) => found.status.and_then(|status| status.state),
            Err(error) if is_not_found(&error) => Some(NodeState::DOWN),
            Err(error) => return Err(engine.fault("asking how a node is", &error)),
        };
        if state == Some(NodeState::READY) {
            return Ok(None);
        }
        let state = state.map(|state| state.to_string()).unwrap_or_default();
        let problem = format!("node {} of the swarm of {} is {state}", self.node.name, engine.url());
        let remedy =
            format!("see `docker node inspect {}`, and that its engine runs and reaches the managers", self.node.name);
        Ok(Some(Box::new(Fault::new(InfraFault::HostUnreachable, problem).remedy(remedy))))
    }

    /// The first task: should the swarm make another, nobody waits for it.
    async fn task(self) -> Result<Option<Task>, Error> {
        let engine = &self.made.engine;
        let filters = HashMap::from([("service", vec![self.made.name.as_str()])]);
        let options = ListTasksOptionsBuilder::new().filters(&filters).build();
        match engine.client().await?.list_tasks(Some(options)).await {
            Ok(tasks) => Ok(tasks.into_iter().min_by_key(|task| task.version.as_ref().and_then(|it| it.index))),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(engine.fault("asking how a service is", &error)),
        }
    }

    fn has_no_room(self, text: &str) -> Box<Fault> {
        let problem = format!("node {} cannot have {}: {text}", self.node.name, self.made.name);
        let remedy = "see `docker node ls` for what it is, and `docker node inspect` for what it has: a family with `gpus` \
                      needs a node whose engine names `gpu` among its `node-generic-resources`";
        Box::new(Fault::new(InfraFault::NoCapacity, problem).remedy(remedy))
    }

    /// Why a task ended, from what its node said and its container's last words.
    fn ended(self, status: &TaskStatus, words: &LastWords) -> Fault {
        let (name, node) = (&self.made.name, &self.node.name);
        let text = status.err.as_deref().or(status.message.as_deref()).unwrap_or_default();
        let problem = format!("{name} on node {node} ended: {text}");
        let says = |wanted: &str| words.0.iter().any(|line| line.contains(wanted));
        if is_about_the_image(text) {
            let problem = format!("node {node} does not have the image `{}` and cannot get it: {text}", self.image);
            let remedy = format!(
                "bring it there with `docker save {0} | ssh {node} docker load`, or push it where all nodes can pull it \
                 from and pull it on the manager",
                self.image
            );
            Fault::new(InfraFault::ImageMissing, problem).remedy(remedy)
        } else if says("unrecognized subcommand") {
            let problem = format!("the image `{}` holds a robo that does not know swarms: {text}", self.image);
            let remedy = format!("build it again with: robo build-eval-env --tag {}", self.image);
            Fault::new(InfraFault::ImageMissing, problem).remedy(remedy)
        } else if says(OUT_OF_MEMORY) {
            let problem = format!("{name} on node {node} used more memory than it may and was killed");
            Fault::new(InfraFault::OutOfMemory, problem).remedy(MORE_MEMORY)
        } else if format!("{text} {words}").to_lowercase().contains("no space left on device") {
            Fault::new(InfraFault::DiskFull, problem).remedy(format!("make room on the disk of node {node}"))
        } else {
            Fault::new(InfraFault::ServerLost, problem)
        }
    }

    /// The end of what the container said; its node hands it out.
    async fn last_words(self, task: &str) -> LastWords {
        let Ok(client) = self.made.engine.client().await else { return LastWords::default() };
        let options = LogsOptionsBuilder::new().stdout(true).stderr(true).tail(TAIL).build();
        let said = client.task_logs(task, Some(options)).filter_map(|piece| async { Some(piece.ok()?.to_string()) });
        let said = timeout(WORDS, said.collect::<Vec<_>>()).await.unwrap_or_default().concat();
        LastWords(said.lines().map(|line| line.chars().take(500).collect()).collect())
    }

    /// What the container has said, when all that is known is that it does not answer.
    pub(super) async fn words(self) -> LastWords {
        match self.task().await {
            Ok(Some(Task { id: Some(id), .. })) => self.last_words(&id).await,
            _ => LastWords::default(),
        }
    }
}

/// Whether a node's words are about an image that it has not.
fn is_about_the_image(text: &str) -> bool {
    let text = text.to_lowercase();
    ["no such image", "manifest unknown", "pull access denied", "reference does not exist"]
        .iter()
        .any(|words| text.contains(words))
}
