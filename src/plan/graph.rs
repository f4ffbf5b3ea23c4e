//! The graph of a definition: which stage waits for which, in what order they run, and how that looks.
//!
//! Pure questions over an immutable graph; what has happened so far is the engine's to know and is passed in.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use petgraph::Direction;
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::cycle::StageId;

use super::{Definition, Phase, Stage};

/// Stages that wait for each other in a circle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stages wait for each other in a circle: {}", circle.join(" -> "))]
pub struct CycleError {
    /// The circle, its first member repeated at the end.
    pub circle: Vec<String>,
}

/// Why a definition has no graph. Compiled definitions always have one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// Stages wait for each other.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// A stage waits for one that is not there.
    #[error("stage `{stage}` waits for `{missing}`, which does not exist")]
    Unknown {
        /// The stage that waits.
        stage: StageId,
        /// What it waits for.
        missing: StageId,
    },
}

/// The stages of a definition and what they wait for.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Edges lead from what must be done first.
    graph: DiGraph<Stage, ()>,
    index: HashMap<StageId, NodeIndex>,
    order: Vec<NodeIndex>,
}

impl Graph {
    /// The graph of a definition.
    ///
    /// # Errors
    /// [`GraphError`] when somebody changed the definition by hand; `compile` has found such mistakes before.
    pub fn new(definition: &Definition) -> Result<Self, GraphError> {
        let mut graph = DiGraph::new();
        let mut index = HashMap::new();
        for stage in &definition.stages {
            index.insert(stage.id.clone(), graph.add_node(stage.clone()));
        }
        for stage in &definition.stages {
            for dependency in &stage.depends_on {
                let missing = || GraphError::Unknown { stage: stage.id.clone(), missing: dependency.clone() };
                let from = *index.get(dependency).ok_or_else(missing)?;
                graph.update_edge(from, index[&stage.id], ());
            }
        }
        let order = order(&graph).map_err(|circle| CycleError {
            circle: circle.into_iter().map(|node| graph[node].id.to_string()).collect(),
        })?;
        Ok(Self { graph, index, order })
    }

    /// Every stage after all it waits for; ties as in the definition. Those of `finally` last.
    pub fn topological(&self) -> impl Iterator<Item = &Stage> {
        let phase =
            |wanted| self.order.iter().map(|node| &self.graph[*node]).filter(move |stage| stage.phase == wanted);
        phase(Phase::Main).chain(phase(Phase::OnFailure)).chain(phase(Phase::Finally))
    }

    /// The stages of one phase, in topological order.
    pub fn phase(&self, phase: Phase) -> impl Iterator<Item = &Stage> {
        self.topological().filter(move |stage| stage.phase == phase)
    }

    /// What a stage waits for, directly.
    pub fn dependencies(&self, stage: &StageId) -> BTreeSet<&StageId> {
        self.neighbours(stage, Direction::Incoming)
    }

    /// What waits for a stage, directly.
    pub fn dependents(&self, stage: &StageId) -> BTreeSet<&StageId> {
        self.neighbours(stage, Direction::Outgoing)
    }

    /// All that must be done before a stage, directly or not.
    pub fn ancestors(&self, stage: &StageId) -> BTreeSet<&StageId> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&StageId> = self.dependencies(stage).into_iter().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(self.dependencies(next));
            }
        }
        seen
    }

    /// Stages of a phase that are not in `begun` and whose dependencies are all in `done`, in topological order.
    pub fn ready(&self, phase: Phase, begun: &BTreeSet<StageId>, done: &BTreeSet<StageId>) -> Vec<&Stage> {
        let may_start = |stage: &&Stage| {
            !begun.contains(&stage.id)
                && self.dependencies(&stage.id).iter().all(|dependency| done.contains(*dependency))
        };
        self.phase(phase).filter(may_start).collect()
    }

    fn neighbours(&self, stage: &StageId, direction: Direction) -> BTreeSet<&StageId> {
        let Some(node) = self.index.get(stage) else { return BTreeSet::new() };
        self.graph.neighbors_directed(*node, direction).map(|node| &self.graph[node].id).collect()
    }

    /// The graph in the language of Graphviz.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph pipeline {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n");
        for stage in self.topological() {
            let style = match stage.phase {
                Phase::Main => "",
                Phase::OnFailure => ", style=\"rounded,dashed\", color=firebrick",
                Phase::Finally => ", style=\"rounded,dashed\"",
            };
            let _ = writeln!(text, "  {} [label=\"{}\"{style}];", stage.id, label(stage, "\\n"));
        }
        for (from, to) in self.edges() {
            let _ = writeln!(text, "  {from} -> {to};");
        }
        text.push_str("}\n");
        text
    }

    /// The graph in the language of Mermaid.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        for stage in self.topological() {
            // Mermaid takes some lower-case words for its own (`end`), so every name gets a prefix.
            let _ = match stage.phase {
                Phase::Main => writeln!(text, "  s_{}[\"{}\"]", stage.id, label(stage, "<br/>")),
                Phase::OnFailure => writeln!(text, "  s_{}{{{{\"{}\"}}}}", stage.id, label(stage, "<br/>")),
                Phase::Finally => writeln!(text, "  s_{}([\"{}\"])", stage.id, label(stage, "<br/>")),
            };
        }
        for (from, to) in self.edges() {
            let _ = writeln!(text, "  s_{from} --> s_{to}");
        }
        text
    }

    fn edges(&self) -> impl Iterator<Item = (&StageId, &StageId)> {
        self.topological().flat_map(|stage| self.dependencies(&stage.id).into_iter().map(move |from| (from, &stage.id)))
    }
}

fn label(stage: &Stage, newline: &str) -> String {
    match stage.tasks.len() {
        _ if stage.expansion.is_some() => format!("{}{newline}{} x later", stage.id, stage.uses),
        1 => format!("{}{newline}{}", stage.id, stage.uses),
        tasks => format!("{}{newline}{} x {tasks}", stage.id, stage.uses),
    }
}

/// A topological order in which ties keep the order of the nodes, or a circle with its first member repeated.
pub(super) fn order<N>(graph: &DiGraph<N, ()>) -> Result<Vec<NodeIndex>, Vec<NodeIndex>> {
    let mut waiting: Vec<usize> =
        graph.node_indices().map(|node| graph.neighbors_directed(node, Direction::Incoming).count()).collect();
    let mut ready: BTreeSet<NodeIndex> = graph.node_indices().filter(|node| waiting[node.index()] == 0).collect();
    let mut order = Vec::with_capacity(graph.node_count());
    while let Some(node) = ready.pop_first() {
        order.push(node);
        for next in graph.neighbors_directed(node, Direction::Outgoing) {
            waiting[next.index()] -= 1;
            if waiting[next.index()] == 0 {
                ready.insert(next);
            }
        }
    }
    if order.len() == graph.node_count() { Ok(order) } else { Err(circle(graph)) }
}

fn circle<N>(graph: &DiGraph<N, ()>) -> Vec<NodeIndex> {
    let in_circle = |group: &Vec<NodeIndex>| group.len() > 1 || graph.contains_edge(group[0], group[0]);
    let mut groups: Vec<Vec<NodeIndex>> = tarjan_scc(graph).into_iter().filter(in_circle).collect();
    groups.sort_by_key(|group| group.iter().min().copied());
    let Some(group) = groups.first() else { return Vec::new() };
    let Some(start) = group.iter().min().copied() else { return Vec::new() };
    // Every member of the group leads to another member, so this walk must come back to a node it has seen.
    let mut walk = vec![start];
    loop {
        let last = walk[walk.len() - 1];
        let next = graph.neighbors_directed(last, Direction::Outgoing).filter(|next| group.contains(next)).min();
        let Some(next) = next else { return walk };
        if let Some(first) = walk.iter().position(|seen| *seen == next) {
            walk.drain(..first);
            walk.push(next);
            return walk;
        }
        walk.push(next);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn graph_of(nodes: usize, edges: &[(usize, usize)]) -> DiGraph<(), ()> {
        let mut graph = DiGraph::new();
        let indices: Vec<_> = (0..nodes).map(|_| graph.add_node(())).collect();
        for (from, to) in edges {
            graph.update_edge(indices[*from % nodes], indices[*to % nodes], ());
        }
        graph
    }

    proptest! {
        #[test]
        fn the_order_respects_every_edge(nodes in 1usize..30, edges in prop::collection::vec((0usize..30, 0usize..30), 0..80)) {
            let forward: Vec<_> = edges
                .iter()
                .map(|(a, b)| (a % nodes, b % nodes))
                .filter(|(a, b)| a != b)
                .map(|(a, b)| (a.min(b), a.max(b)))
                .collect();
            let graph = graph_of(nodes, &forward);
            let order = order(&graph).unwrap();
            prop_assert_eq!(order.len(), nodes);
            let place = |node: usize| order.iter().position(|other| other.index() == node).unwrap();
            for (from, to) in forward {
                prop_assert!(place(from) < place(to));
            }
        }

        #[test]
        fn an_order_or_a_true_circle(nodes in 1usize..12, edges in prop::collection::vec((0usize..12, 0usize..12), 0..30)) {
            let graph = graph_of(nodes, &edges);
            if let Err(circle) = order(&graph) {
                prop_assert!(circle.len() >= 2);
                prop_assert_eq!(circle.first(), circle.last());
                for pair in circle.windows(2) {
                    prop_assert!(graph.contains_edge(pair[0], pair[1]));
                }
            }
        }
    }

    #[test]
    fn ties_keep_the_order_of_the_nodes() {
        let graph = graph_of(4, &[(3, 0)]);
        let order: Vec<usize> = order(&graph).unwrap().into_iter().map(NodeIndex::index).collect();
        assert_eq!(order, [1, 2, 3, 0]);
    }
}
