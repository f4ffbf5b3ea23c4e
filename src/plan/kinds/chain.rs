//! The stage kind that reads the chain.

use super::{Absent, DISCOVERY, Kind, Purity, Rule, Type, output, setting};

pub(super) const MINERS: Kind = Kind {
    name: DISCOVERY,
    doc: "takes the miners from the chain, at one finalized block to which the cycle is pinned from then on",
    settings: &[
        setting(
            "network",
            Type::String,
            Rule::Free,
            Absent::Optional,
            "`finney`, `test`, `local`, or URLs of nodes with commas between them; `--network` or ROBO_BACKEND_NETWORK when left out",
        ),
        setting(
            "netuid",
            Type::Integer,
            Rule::Between(0, 65_535),
            Absent::Optional,
            "uid of the subnet; `--netuid` or ROBO_BACKEND_NETUID when left out",
        ),
        setting(
            "template",
            Type::String,
            Rule::Free,
            Absent::Default(r#""https://{id}.deployments.basilica.ai""#),
            "address of deployments that are committed by their id, with `{id}` in its place; `--deployment-template` or ROBO_BACKEND_DEPLOYMENT_TEMPLATE when left out",
        ),
    ],
    outputs: &[
        output("miners", Type::Miners, "the miners that take part, by uid"),
        output("count", Type::Integer, "how many there are"),
        output("block", Type::Integer, "number of the block that was read"),
        output("block_hash", Type::String, "its hash"),
        output("genesis", Type::String, "hash of the chain's first block: which chain it is"),
        output("network", Type::String, "the network as it was named"),
        output("netuid", Type::Integer, "uid of the subnet"),
        output("uids", Type::Object, "the uid of every registered hotkey: `uids[\"5F...\"]`"),
        output("statuses", Type::Object, "how many hotkeys have which status"),
        output(
            "left_out",
            Type::List,
            "hotkeys that do not take part, `{uid, hotkey, status, detail?}`; 4096 of them at most",
        ),
    ],
    declares_outputs: false,
    purity: Purity::Effects,
};
