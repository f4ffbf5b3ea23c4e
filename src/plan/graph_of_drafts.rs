//! The order of stages while they are being compiled.

use std::collections::BTreeSet;

use petgraph::graph::{DiGraph, NodeIndex};

use crate::manifest::Diagnostic;
use crate::manifest::document::Document;

use super::draft::Draft;
use super::graph::{self, CycleError};

/// For every stage, all that come before it; and a topological order of all.
#[derive(Debug)]
pub(super) struct Ancestry {
    before: Vec<BTreeSet<usize>>,
    pub(super) order: Vec<usize>,
}

impl Ancestry {
    /// All stages before one, directly or not.
    pub(super) fn of(&self, stage: usize) -> &BTreeSet<usize> {
        &self.before[stage]
    }
}

/// Order the stages, or say which wait for each other.
pub(super) fn ancestry(document: &Document, drafts: &[Draft<'_>]) -> Result<Ancestry, Diagnostic> {
    let mut graph = DiGraph::new();
    let nodes: Vec<NodeIndex> = drafts.iter().map(|_| graph.add_node(())).collect();
    for (index, draft) in drafts.iter().enumerate() {
        for (dependency, _) in &draft.depends_on {
            graph.update_edge(nodes[*dependency], nodes[index], ());
        }
    }
    match graph::order(&graph) {
        Ok(order) => {
            let order: Vec<usize> = order.into_iter().map(NodeIndex::index).collect();
            let mut before = vec![BTreeSet::new(); drafts.len()];
            for stage in &order {
                for (dependency, _) in &drafts[*stage].depends_on {
                    let further: BTreeSet<usize> = before[*dependency].clone();
                    before[*stage].extend(further);
                    before[*stage].insert(*dependency);
                }
            }
            Ok(Ancestry { before, order })
        }
        Err(circle) => {
            let error = CycleError { circle: circle.iter().map(|node| drafts[node.index()].id.to_string()).collect() };
            // The place where the second member says that it waits for the first.
            let place = circle.get(1).and_then(|second| {
                let waits = &drafts[second.index()].depends_on;
                waits.iter().find(|(stage, _)| *stage == circle[0].index()).map(|(_, at)| *at)
            });
            let at = place.unwrap_or_else(|| document.root());
            Err(document.error(at, error.to_string()).help("take out one of these dependencies"))
        }
    }
}
