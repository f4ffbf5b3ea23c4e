//! What a container may and may not: the body of the request that creates it. Pure.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, DeviceRequest, HostConfig, HostConfigLogConfig};
use uuid::Uuid;

use crate::cycle::Lease;
use crate::manifest::Resources;

/// The label that every container and network of ours carries, with the id of its row in the ledger.
pub(super) const RESOURCE: &str = "robo.resource";
/// The label of containers that count against a host's capacity.
pub(super) const SERVER: &str = "robo.server";
const CYCLE: &str = "robo.cycle";
const EPOCH: &str = "robo.epoch";

/// Nobody in particular: no account of any image has this number.
pub(super) const USER: &str = "10001:10001";
/// The same number.
pub(super) const USER_ID: u32 = 10001;
/// Processes and threads where a manifest says nothing.
const PIDS: u32 = 512;
/// Bytes that a program may write, all of them in memory and counted as such.
pub(super) const SCRATCH_BYTES: i64 = 256 << 20;

/// A container that is to be.
#[derive(Debug, Clone)]
pub(super) struct Spec<'a> {
    /// Its image, by id.
    pub(super) image: &'a str,
    /// What it carries to be found by.
    pub(super) labels: HashMap<String, String>,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// Variables as `NAME=value`.
    pub(super) env: Vec<String>,
    /// What it may use.
    pub(super) resources: &'a Resources,
    /// The network it joins, or `none`.
    pub(super) network: String,
}

/// The labels of what belongs to a resource.
pub(super) fn labels(resource: Uuid, lease: Option<Lease>) -> HashMap<String, String> {
    let mut labels = HashMap::from([(RESOURCE.to_owned(), resource.to_string())]);
    if let Some(lease) = lease {
        labels.insert(CYCLE.into(), lease.cycle.to_string());
        labels.insert(EPOCH.into(), lease.epoch.to_string());
    }
    labels
}

/// The name of a resource's container and network.
pub(super) fn name(resource: Uuid) -> String {
    format!("robo-{}", resource.simple())
}

impl Spec<'_> {
    /// The request. Standard input stays open until the one who attaches to it lets go.
    pub(super) fn body(self) -> ContainerCreateBody {
        let host = hardened(self.resources, self.network);
        let mut command = self.command.into_iter();
        ContainerCreateBody {
            image: Some(self.image.to_owned()),
            user: Some(USER.into()),
            labels: Some(self.labels),
            // Whatever the image would start is left out, not wrapped.
            entrypoint: Some(command.next().into_iter().collect()),
            cmd: Some(command.collect()),
            env: Some(self.env),
            working_dir: Some("/tmp".into()),
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}

/// The most that a container or service may use, in an engine's units.
pub(super) struct Hardening {
    /// Bytes.
    pub(super) memory: Option<i64>,
    /// Billionths of a core.
    pub(super) nano_cpus: Option<i64>,
    /// Processes and threads.
    pub(super) pids: i64,
}

impl Hardening {
    pub(super) fn of(resources: &Resources) -> Self {
        Self {
            memory: resources.memory.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
            nano_cpus: resources.cpus.map(|cpus| (cpus * 1e9) as i64),
            pids: resources.pids.unwrap_or(PIDS).into(),
        }
    }

    /// How much of what a program says is kept: it may not fill the host's disk.
    pub(super) fn log_options() -> HashMap<String, String> {
        HashMap::from([("max-size".into(), "1m".into()), ("max-file".into(), "2".into())])
    }
}

/// Everything that is taken from a container, whatever runs in it.
pub(super) fn hardened(resources: &Resources, network: String) -> HostConfig {
    let Hardening { memory, nano_cpus, pids } = Hardening::of(resources);
    let scratch = format!("rw,nosuid,nodev,noexec,size={SCRATCH_BYTES},mode=1777");
    let gpus = (resources.gpus > 0).then(|| {
        vec![DeviceRequest {
            count: Some(resources.gpus.into()),
            capabilities: Some(vec![vec!["gpu".into()]]),
            ..DeviceRequest::default()
        }]
    });
    HostConfig {
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        privileged: Some(false),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".into(), scratch)])),
        pids_limit: Some(pids),
        memory,
        // Equal to memory: no swap.
        memory_swap: memory,
        nano_cpus,
        device_requests: gpus,
        network_mode: Some(network),
        // Whatever processes leave behind is reaped, and signals reach the program.
        init: Some(true),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".into()), config: Some(Hardening::log_options()) }),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Network;

    #[test]
    fn a_container_is_given_what_its_manifest_says_and_nothing_else() {
        let resources =
            Resources { memory: Some(8 << 30), cpus: Some(1.5), gpus: 2, pids: Some(64), network: Network::MinersOnly };
        let lease = Lease { cycle: crate::cycle::CycleId::generate(), owner: Uuid::nil(), epoch: 3 };
        let spec = Spec {
            image: "sha256:1",
            labels: labels(Uuid::nil(), Some(lease)),
            command: vec!["/bin/robo".into(), "env-server".into()],
            env: vec!["A=1".into()],
            resources: &resources,
            network: "robo-x".into(),
        };
        let body = spec.body();
        assert_eq!(body.user.as_deref(), Some("10001:10001"));
        assert_eq!((body.entrypoint, body.cmd), (Some(vec!["/bin/robo".into()]), Some(vec!["env-server".into()])));
        let labels = body.labels.unwrap();
        assert_eq!((labels["robo.epoch"].as_str(), labels["robo.cycle"].clone()), ("3", lease.cycle.to_string()));
        let host = body.host_config.unwrap();
        assert_eq!(host.cap_drop, Some(vec!["ALL".into()]));
        assert_eq!(host.cap_add, None);
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges:true".into()]));
        assert_eq!((host.readonly_rootfs, host.privileged), (Some(true), Some(false)));
        assert_eq!((host.memory, host.memory_swap), (Some(8 << 30), Some(8 << 30)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_500_000_000), Some(64)));
        assert_eq!((host.binds, host.mounts, host.port_bindings), (None, None, None));
        assert_eq!(host.network_mode.as_deref(), Some("robo-x"));
        assert_eq!(host.device_requests.unwrap()[0].count, Some(2));
    }

    #[test]
    fn no_graphics_card_is_asked_for_where_none_is_named() {
        let host = hardened(&Resources::default(), "none".into());
        assert_eq!(host.device_requests, None);
        assert_eq!(host.pids_limit, Some(512));
    }
}
