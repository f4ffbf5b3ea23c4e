//! Nodes that go wrong while a subnet is read: each is left for the next one, and alone it is one clear error. Nothing is ever
//! read half.

use std::time::Duration;

use robo::chain::{Metagraph, Network, Patience, Problem, Unreachable};
use serde_json::json;

use crate::support::{
    meddler::{Asked, Deed, Fate, Meddler},
    replay_node::{Fault, ReplayNode},
};

const NETUID: u16 = 7;

/// What a node does with requests, and what is said of it when it is alone.
struct Case {
    name: &'static str,
    meddle: fn(&Asked<'_>) -> Deed,
    is_right: fn(&Problem) -> bool,
}

fn patience() -> Patience {
    Patience { connect: Duration::from_secs(60), read: Duration::from_secs(120), rounds: 1 }
}

fn network(urls: &[&str]) -> Network {
    urls.join(",").parse().unwrap()
}

async fn read(urls: &[&str], patience: Patience) -> Result<Metagraph, Unreachable> {
    Metagraph::read(&network(urls), NETUID, patience).await
}

/// A node that does this with requests, before one that is good.
async fn bad(good: &ReplayNode, meddle: fn(&Asked<'_>) -> Deed) -> Meddler {
    let refused = Fate::Refused(1010, "Invalid Transaction", None);
    Meddler::before(&good.url, refused, move |asked, _| meddle(asked)).await
}

fn is(asked: &Asked<'_>, method: &str) -> bool {
    asked.method == method
}

fn when(condition: bool, deed: Deed) -> Deed {
    if condition { deed } else { Deed::Pass }
}

fn is_rpc(problem: &Problem) -> bool {
    matches!(problem, Problem::Rpc(text) if !text.is_empty())
}

/// It answers, and what it answers is nothing of the kind.
fn is_told(problem: &Problem) -> bool {
    matches!(problem, Problem::Unreadable(text) | Problem::Rpc(text) if !text.is_empty())
}

const CASES: [Case; 10] = [
    Case { name: "cut at once", meddle: |_| Deed::Cut, is_right: is_rpc },
    Case {
        name: "cut before the first entries of a map",
        meddle: |asked| when(is(asked, "state_getKeysPaged"), Deed::Cut),
        is_right: is_rpc,
    },
    Case {
        name: "cut in the middle of a map",
        meddle: |asked| when(is(asked, "state_getKeysPaged") && asked.count == 4, Deed::Cut),
        is_right: is_rpc,
    },
    Case {
        name: "cut between the keys of a map and their values",
        meddle: |asked| when(is(asked, "state_queryStorageAt") && asked.count == 2, Deed::Cut),
        is_right: is_rpc,
    },
    Case {
        name: "no head",
        meddle: |asked| when(is(asked, "chain_getFinalizedHead"), Deed::Answer(json!("latest"))),
        is_right: is_told,
    },
    Case {
        name: "a block that is not there",
        meddle: |asked| when(is(asked, "chain_getHeader"), Deed::Answer(json!(null))),
        is_right: is_told,
    },
    Case {
        name: "no description of the runtime",
        meddle: |asked| when(is(asked, "state_call"), Deed::Answer(json!("0x6d657461ff00"))),
        is_right: is_told,
    },
    Case {
        name: "keys that are none",
        meddle: |asked| when(is(asked, "state_getKeysPaged"), Deed::Answer(json!(["0x1234", "no digits", 7]))),
        is_right: is_told,
    },
    Case {
        name: "values that are none",
        meddle: |asked| {
            when(is(asked, "state_queryStorageAt"), Deed::Answer(json!([{ "block": 1, "changes": "all" }])))
        },
        is_right: is_told,
    },
    Case {
        name: "a vector that is none",
        meddle: |asked| when(is(asked, "state_getStorage"), Deed::Answer(json!("0xff"))),
        is_right: is_told,
    },
];

#[tokio::test]
async fn whatever_a_node_does_wrong_the_next_one_is_read_and_alone_it_is_one_error() {
    let good = ReplayNode::start(Fault::None).await;
    for Case { name, meddle, is_right } in CASES {
        let first = bad(&good, meddle).await;
        let found = read(&[&first.url, &good.url], patience()).await.unwrap();
        assert_eq!((&found.node, found.neurons.len(), found.commitments.len()), (&good.url, 256, 230), "{name}");
        let again = bad(&good, meddle).await;
        let alone = read(&[&again.url], patience()).await.unwrap_err();
        assert!(
            matches!(&alone.problems[..], [(url, problem)] if *url == again.url && is_right(problem)),
            "{name}: {alone}"
        );
        assert_eq!(alone.to_string().lines().count(), 1, "{name}: {alone}");
    }
}

#[tokio::test]
async fn a_node_that_is_late_is_read_and_one_that_never_answers_is_left() {
    let good = ReplayNode::start(Fault::None).await;
    let late = bad(&good, |_| Deed::Late).await;
    let found = read(&[&late.url, &good.url], patience()).await.unwrap();
    assert_eq!((&found.node, found.neurons.len(), found.commitments.len()), (&late.url, 256, 230));
    let never: [fn(&Asked<'_>) -> Deed; 4] = [
        |_| Deed::Hang,
        |asked| when(is(asked, "state_call"), Deed::Hang),
        |asked| when(is(asked, "state_getKeysPaged") && asked.count == 3, Deed::Hang),
        |asked| when(is(asked, "state_getStorage"), Deed::Hang),
    ];
    for meddle in never {
        let silent = bad(&good, meddle).await;
        let short = Patience { connect: Duration::from_secs(1), read: Duration::from_secs(1), rounds: 1 };
        let alone = read(&[&silent.url], short).await.unwrap_err();
        assert!(matches!(alone.problems[..], [(_, Problem::Silent(_))]), "{alone}");
    }
}

#[tokio::test]
async fn a_node_of_another_chain_is_left_for_the_next() {
    const RIGHT: &str = "0x2f0555cc76fc2840a25a6ea3b9637146806f1f44b090c175ffde2a7e5ab36c03";
    let good = ReplayNode::start(Fault::None).await;
    let right = bad(&good, |asked| {
        let of_block_0 = is(asked, "chain_getBlockHash") && asked.parameters.first() == Some(&json!(0));
        when(of_block_0, Deed::Answer(json!(RIGHT)))
    })
    .await;
    let both = network(&[&good.url, &right.url]).on_chain(RIGHT);
    let found = Metagraph::read(&both, NETUID, patience()).await.unwrap();
    assert_eq!((&found.node, found.neurons.len()), (&right.url, 256));
}
