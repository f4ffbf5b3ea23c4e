//! The table of permits and the servers that use them, played against each other at random: messages come late, twice and out
//! of order, streams break, servers have no room.

use std::collections::{BTreeMap, HashMap, VecDeque};

use proptest::prelude::*;

use super::table::{Granted, RunId, Table};
use crate::cycle::{CycleId, Hotkey};
use crate::rollout::permits::Permits;

const MINERS: usize = 3;
const RUNS: usize = 4;

fn hotkey(miner: usize) -> Hotkey {
    ["a", "b", "c"][miner].parse().unwrap()
}

/// What a server tells, in order.
#[derive(Debug, Clone, Copy)]
enum Said {
    Open(usize),
    Started(usize),
    Ended(usize),
    Returned(usize),
    Unused(usize, u32),
}

/// A miner as a server knows it.
#[derive(Debug, Default)]
struct Guest {
    permits: Permits,
    waiting: u32,
    playing: u32,
}

/// A run on its server.
#[derive(Debug)]
struct Server {
    run: RunId,
    cycle: CycleId,
    guests: Vec<Guest>,
    /// On the way to the engine.
    said: VecDeque<Said>,
    /// Grants that were sent at some time. Any of them may arrive any time, also again.
    grants: Vec<(usize, u64)>,
    /// Has no place for an episode.
    is_full: bool,
}

#[derive(Debug)]
struct World {
    table: Table,
    servers: Vec<Server>,
    capacity: [u32; MINERS],
    per_miner: u32,
    /// Starts by miner and run.
    starts: Vec<(usize, RunId)>,
}

/// What happens next. Indexes are taken modulo what there is.
#[derive(Debug, Clone, Copy)]
enum Event {
    Grant(usize, usize),
    Start(usize, usize),
    End(usize, usize),
    Return(usize, usize),
    Tick(usize),
    Hear(usize),
    Cut(usize),
    Room(usize),
}

impl World {
    /// Runs of two cycles with so many episodes of each miner.
    fn new(capacity: [u32; MINERS], per_miner: u32, episodes: &[[u32; MINERS]]) -> Self {
        let cycles = [CycleId::generate(), CycleId::generate()];
        let mut world = Self { table: Table::default(), servers: Vec::new(), capacity, per_miner, starts: Vec::new() };
        for (number, episodes) in episodes.iter().enumerate() {
            let (run, cycle) = (number as RunId, cycles[number % 2]);
            let asked: HashMap<Hotkey, u32> =
                (0..MINERS).filter(|miner| episodes[*miner] > 0).map(|it| (hotkey(it), episodes[it])).collect();
            world.table.enter(run, (cycle, per_miner), asked);
            let guests = episodes.map(|waiting| Guest { waiting, ..Guest::default() }).into();
            let said = (0..MINERS).filter(|miner| episodes[*miner] > 0).map(Said::Open).collect();
            world.servers.push(Server { run, cycle, guests, said, grants: Vec::new(), is_full: false });
        }
        world
    }

    fn happen(&mut self, event: Event) {
        if self.servers.is_empty() {
            return;
        }
        let count = self.servers.len();
        match event {
            Event::Grant(server, grant) => self.servers[server % count].take_grant(grant),
            Event::Start(server, miner) => {
                let server = &mut self.servers[server % count];
                if server.start(miner) {
                    self.starts.push((miner, server.run));
                }
            }
            Event::End(server, miner) => self.servers[server % count].end(miner, Said::Ended(miner)),
            Event::Return(server, miner) => self.servers[server % count].end(miner, Said::Returned(miner)),
            Event::Tick(server) => self.servers[server % count].tick(),
            Event::Hear(server) => self.hear(server % count),
            Event::Room(server) => {
                let server = &mut self.servers[server % count];
                server.is_full = !server.is_full;
            }
            Event::Cut(server) => {
                let server = self.servers.remove(server % count);
                let granted = self.table.leave(server.run);
                self.deliver(granted);
            }
        }
    }

    fn hear(&mut self, server: usize) {
        let Some(said) = self.servers[server].said.pop_front() else { return };
        let run = self.servers[server].run;
        let granted = match said {
            Said::Open(miner) => self.table.open(run, &hotkey(miner), Some(self.capacity[miner])),
            Said::Started(miner) => self.table.started(run, &hotkey(miner)),
            Said::Ended(miner) => self.table.ended(run, &hotkey(miner)),
            Said::Returned(miner) => self.table.returned(run, &hotkey(miner)),
            Said::Unused(miner, count) => self.table.unused(run, &hotkey(miner), count),
        };
        self.deliver(granted);
    }

    fn deliver(&mut self, granted: Vec<Granted>) {
        for Granted { run, hotkey, total } in granted {
            let miner = usize::from(hotkey.as_str().as_bytes()[0] - b'a');
            if let Some(server) = self.servers.iter_mut().find(|server| server.run == run) {
                server.grants.push((miner, total));
            }
        }
    }

    /// Whatever is on its way: no miner plays, or could at once be made to play, more than it can or than a cycle may.
    fn check(&self) -> Result<(), TestCaseError> {
        for miner in 0..MINERS {
            let mut by_cycle: BTreeMap<String, u64> = BTreeMap::new();
            for server in &self.servers {
                *by_cycle.entry(server.cycle.to_string()).or_default() += server.could_play(miner);
            }
            let all: u64 = by_cycle.values().sum();
            prop_assert!(all <= u64::from(self.capacity[miner]), "{all} of miner {miner}");
            prop_assert!(by_cycle.values().all(|count| *count <= u64::from(self.per_miner)));
        }
        Ok(())
    }

    /// Let everything come in that is on its way, and play what may be played, until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..2000 {
            if self.servers.iter().all(|server| server.is_full || server.is_done()) {
                break;
            }
            for server in 0..self.servers.len() {
                let grants = 0..self.servers[server].grants.len();
                grants.for_each(|grant| self.happen(Event::Grant(server, grant)));
                self.servers[server].grants.clear();
                for miner in 0..MINERS {
                    self.happen(Event::Start(server, miner));
                    self.happen(Event::End(server, miner));
                }
                self.happen(Event::Tick(server));
                while !self.servers[server].said.is_empty() {
                    self.happen(Event::Hear(server));
                }
            }
        }
    }
}

impl Server {
    fn take_grant(&mut self, grant: usize) {
        if !self.grants.is_empty() {
            let (miner, total) = self.grants[grant % self.grants.len()];
            self.guests[miner].permits.grant(total);
        }
    }

    fn start(&mut self, miner: usize) -> bool {
        let guest = &mut self.guests[miner];
        let starts = !self.is_full && guest.waiting > 0 && guest.permits.take();
        if starts {
            guest.waiting -= 1;
            guest.playing += 1;
            self.said.push_back(Said::Started(miner));
        }
        starts
    }

    fn end(&mut self, miner: usize, said: Said) {
        let guest = &mut self.guests[miner];
        if guest.playing > 0 {
            guest.playing -= 1;
            guest.waiting += u32::from(matches!(said, Said::Returned(_)));
            self.said.push_back(said);
        }
    }

    fn tick(&mut self) {
        for (miner, guest) in self.guests.iter_mut().enumerate() {
            let count = guest.permits.give_back() as u32;
            if count > 0 {
                self.said.push_back(Said::Unused(miner, count));
            }
        }
    }

    /// Episodes that play, and those that the server could start once every grant has arrived.
    fn could_play(&self, miner: usize) -> u64 {
        let mut permits = self.guests[miner].permits;
        self.grants.iter().filter(|(of, _)| *of == miner).for_each(|(_, total)| permits.grant(*total));
        u64::from(self.guests[miner].playing) + permits.left()
    }

    fn is_done(&self) -> bool {
        self.said.is_empty() && self.guests.iter().all(|guest| guest.waiting + guest.playing == 0)
    }
}

fn event() -> impl Strategy<Value = Event> {
    let (server, miner) = (|| 0..RUNS, || 0..MINERS);
    prop_oneof![
        6 => (server(), 0usize..8).prop_map(|(server, grant)| Event::Grant(server, grant)),
        6 => (server(), miner()).prop_map(|(server, miner)| Event::Start(server, miner)),
        4 => (server(), miner()).prop_map(|(server, miner)| Event::End(server, miner)),
        1 => (server(), miner()).prop_map(|(server, miner)| Event::Return(server, miner)),
        2 => server().prop_map(Event::Tick),
        8 => server().prop_map(Event::Hear),
        1 => server().prop_map(Event::Room),
        1 => server().prop_map(Event::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_permit_is_used_twice_and_none_is_lost(
        capacity in proptest::array::uniform3(1u32..5),
        per_miner in 1u32..5,
        episodes in proptest::collection::vec(proptest::array::uniform3(0u32..6), 1..=RUNS),
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let mut world = World::new(capacity, per_miner, &episodes);
        for event in events {
            world.happen(event);
            world.check()?;
        }
        // One server stays full: it keeps nobody else from playing.
        for (number, server) in world.servers.iter_mut().enumerate() {
            server.is_full = number == 0 && episodes.len() > 1;
        }
        world.settle();
        world.check()?;
        let stuck = world.servers.iter().any(|server| !server.is_full && !server.is_done());
        prop_assert!(!stuck, "{world:?}");
        world.servers.iter_mut().for_each(|server| server.is_full = false);
        world.settle();
        prop_assert!(world.servers.iter().all(Server::is_done), "{world:?}");
    }
}

#[test]
fn runs_get_a_miner_in_turn() {
    let mut world = World::new([1; MINERS], 16, &[[4, 0, 0], [4, 0, 0], [2, 0, 0]]);
    world.settle();
    let runs: Vec<RunId> = world.starts.iter().map(|(_, run)| *run).collect();
    // The first run stood in line again before the others came.
    assert_eq!(runs, [0, 0, 1, 2, 0, 1, 2, 0, 1, 1]);
}

#[test]
fn a_miner_that_announces_more_is_given_as_much_as_a_cycle_may() {
    let mut table = Table::default();
    let cycle = CycleId::generate();
    table.enter(1, (cycle, 4), [(hotkey(0), 10)].into());
    table.enter(2, (cycle, 4), [(hotkey(0), 10)].into());
    assert_eq!(table.open(1, &hotkey(0), None).len(), 1, "one, as long as nothing is known");
    assert_eq!(table.open(2, &hotkey(0), Some(16)).len(), 3);
    table.enter(3, (CycleId::generate(), 16), [(hotkey(0), 20)].into());
    assert_eq!(table.open(3, &hotkey(0), Some(16)).len(), 12, "sixteen for both cycles together");
    // It changes its mind: nothing is taken away, and nothing more granted before it fits.
    assert_eq!(table.open(3, &hotkey(0), Some(1)), []);
    table.started(1, &hotkey(0));
    assert_eq!(table.ended(1, &hotkey(0)), []);
}
