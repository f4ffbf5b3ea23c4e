//! What a service may and may not: the request that makes it, of the same description as a container's. Pure.
//!
//! Services know less than containers: no limit of swap, and no right to more rights taken away by engines before 25, which
//! `robo env-server-hold` therefore gives up by itself.

use bollard::models::{
    EndpointSpec, EndpointSpecModeEnum, GenericResourcesInner, GenericResourcesInnerDiscreteResourceSpec, Limit, Mount,
    MountTmpfsOptions, MountType, NetworkAttachmentConfig, ResourceObject, ServiceSpec, ServiceSpecMode,
    ServiceSpecModeReplicated, TaskSpec, TaskSpecContainerSpec, TaskSpecContainerSpecPrivileges, TaskSpecLogDriver,
    TaskSpecPlacement, TaskSpecResources, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};

use super::nodes::NODE;
use crate::manifest::{Network, Resources};
use crate::runtime::docker::spec::{Hardening, SCRATCH_BYTES, Spec, USER, USER_ID};

/// Where the server is taken hold of, inside its container.
const HELD_AT: &str = "0.0.0.0:8701";

/// Rights of the program that holds the server, where it keeps it to its miners: over the network of its container, and to
/// be another user. The server has none.
const KEEPERS_RIGHTS: [&str; 3] = ["NET_ADMIN", "SETUID", "SETGID"];

/// How long a task that is removed may take to end, in billionths of a second.
const GRACE: i64 = 5_000_000_000;

/// The service of a server.
pub(super) fn service(spec: Spec<'_>, name: &str, node: &str) -> ServiceSpec {
    let mut labels = spec.labels.clone();
    labels.insert(NODE.into(), node.to_owned());
    let network = NetworkAttachmentConfig { target: Some(spec.network.clone()), ..NetworkAttachmentConfig::default() };
    let task = TaskSpec {
        resources: Some(resources(spec.resources)),
        container_spec: Some(container(spec)),
        // Whoever needs the server starts another one.
        restart_policy: Some(TaskSpecRestartPolicy {
            condition: Some(TaskSpecRestartPolicyConditionEnum::NONE),
            ..TaskSpecRestartPolicy::default()
        }),
        placement: Some(TaskSpecPlacement {
            constraints: Some(vec![format!("node.id=={node}")]),
            ..TaskSpecPlacement::default()
        }),
        networks: Some(vec![network]),
        log_driver: Some(TaskSpecLogDriver { name: Some("json-file".into()), options: Some(Hardening::log_options()) }),
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: Some(name.to_owned()),
        labels: Some(labels),
        task_template: Some(task),
        mode: Some(ServiceSpecMode {
            replicated: Some(ServiceSpecModeReplicated { replicas: Some(1) }),
            ..ServiceSpecMode::default()
        }),
        // Its name stands for its one task; no address in between has to be balanced.
        endpoint_spec: Some(EndpointSpec { mode: Some(EndpointSpecModeEnum::DNSRR), ports: None }),
        ..ServiceSpec::default()
    }
}

fn container(spec: Spec<'_>) -> TaskSpecContainerSpec {
    let is_kept = spec.resources.network == Network::MinersOnly;
    let hold = [&spec.command[0], "env-server-hold", "--listen", HELD_AT].map(str::to_owned);
    let user = is_kept.then(|| ["--user".to_owned(), USER_ID.to_string()]).into_iter().flatten();
    let server = std::iter::once("--".to_owned()).chain(spec.command.iter().cloned());
    let mut command = hold.into_iter().chain(user).chain(server);
    TaskSpecContainerSpec {
        image: Some(spec.image.to_owned()),
        user: Some(if is_kept { "0:0" } else { USER }.into()),
        labels: Some(spec.labels),
        // Whatever the image would start is left out, not wrapped.
        command: Some(command.by_ref().take(1).collect()),
        args: Some(command.collect()),
        env: Some(spec.env),
        dir: Some("/tmp".into()),
        privileges: Some(TaskSpecContainerSpecPrivileges {
            no_new_privileges: Some(true),
            ..TaskSpecContainerSpecPrivileges::default()
        }),
        capability_drop: Some(vec!["ALL".into()]),
        capability_add: is_kept.then(|| KEEPERS_RIGHTS.map(str::to_owned).to_vec()),
        read_only: Some(true),
        mounts: Some(vec![Mount {
            target: Some("/tmp".into()),
            typ: Some(MountType::TMPFS),
            // Without programs, devices and other users' rights: engines mount it so by themselves.
            tmpfs_options: Some(MountTmpfsOptions {
                size_bytes: Some(SCRATCH_BYTES),
                mode: Some(0o1777),
                ..MountTmpfsOptions::default()
            }),
            ..Mount::default()
        }]),
        stop_grace_period: Some(GRACE),
        // Whatever processes leave behind is reaped, and signals reach the program.
        init: Some(true),
        ..TaskSpecContainerSpec::default()
    }
}

fn resources(resources: &Resources) -> TaskSpecResources {
    let limits = Hardening::of(resources);
    // Nodes say what they have of these; no engine of a swarm passes a device by its number.
    let gpus = (resources.gpus > 0).then(|| {
        vec![GenericResourcesInner {
            discrete_resource_spec: Some(GenericResourcesInnerDiscreteResourceSpec {
                kind: Some("gpu".into()),
                value: Some(resources.gpus.into()),
            }),
            ..GenericResourcesInner::default()
        }]
    });
    TaskSpecResources {
        limits: Some(Limit { nano_cpus: limits.nano_cpus, memory_bytes: limits.memory, pids: Some(limits.pids) }),
        reservations: gpus.map(|gpus| ResourceObject { generic_resources: Some(gpus), ..ResourceObject::default() }),
        ..TaskSpecResources::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn made(resources: &Resources) -> ServiceSpec {
        let spec = Spec {
            image: "sha256:1",
            labels: HashMap::from([("robo.epoch".into(), "3".into())]),
            command: vec!["/bin/robo".into(), "env-server".into()],
            env: vec!["A=1".into()],
            resources,
            network: "robo-x".into(),
        };
        service(spec, "robo-x", "n1")
    }

    #[test]
    fn a_service_is_given_what_its_manifest_says_and_nothing_else() {
        let resources =
            Resources { memory: Some(8 << 30), cpus: Some(1.5), gpus: 2, pids: Some(64), network: Network::Full };
        let made = made(&resources);
        let labels = made.labels.unwrap();
        assert_eq!((labels[NODE].as_str(), labels["robo.epoch"].as_str()), ("n1", "3"));
        let task = made.task_template.unwrap();
        let container = task.container_spec.unwrap();
        assert_eq!(container.user.as_deref(), Some("10001:10001"));
        assert_eq!((container.read_only, container.init), (Some(true), Some(true)));
        assert_eq!((container.capability_drop, container.capability_add), (Some(vec!["ALL".into()]), None));
        assert_eq!(container.privileges.unwrap().no_new_privileges, Some(true));
        assert_eq!(container.command.unwrap(), ["/bin/robo"]);
        let arguments = container.args.unwrap().join(" ");
        assert_eq!(arguments, "env-server-hold --listen 0.0.0.0:8701 -- /bin/robo env-server");
        let mounts = container.mounts.unwrap();
        assert!(mounts.len() == 1 && mounts[0].source.is_none(), "nothing of the node");
        let limits = task.resources.clone().unwrap().limits.unwrap();
        assert_eq!(
            (limits.memory_bytes, limits.nano_cpus, limits.pids),
            (Some(8 << 30), Some(1_500_000_000), Some(64))
        );
        let cards = task.resources.unwrap().reservations.unwrap().generic_resources.unwrap();
        assert_eq!(cards[0].discrete_resource_spec.as_ref().unwrap().value, Some(2));
        assert_eq!(task.placement.unwrap().constraints.unwrap(), ["node.id==n1"]);
        assert_eq!(task.restart_policy.unwrap().condition, Some(TaskSpecRestartPolicyConditionEnum::NONE));
        assert_eq!(made.endpoint_spec.unwrap().ports, None, "no port is published");
    }

    #[test]
    fn only_what_holds_a_server_to_its_miners_has_rights_and_the_server_none() {
        let resources = Resources { network: Network::MinersOnly, ..Resources::default() };
        let task = made(&resources).task_template.unwrap();
        assert_eq!(task.resources.unwrap().reservations, None);
        let container = task.container_spec.unwrap();
        assert_eq!(container.user.as_deref(), Some("0:0"));
        assert_eq!(container.capability_add.unwrap(), ["NET_ADMIN", "SETUID", "SETGID"]);
        assert!(container.args.unwrap().join(" ").contains("--user 10001 -- /bin/robo env-server"));
    }
}
