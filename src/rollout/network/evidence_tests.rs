//! Evidence in small worlds with a clock of their own: miners that play, canaries, an outage, and a miner that does what it
//! likes.

use proptest::prelude::*;

use super::*;

const fn ms(milliseconds: u64) -> At {
    At::from_millis(milliseconds)
}

/// How long miners play on at the end, the step of the worlds' clock, and how often a verdict is asked for.
const AFTER: u64 = 8_000;
const TICK: u64 = 10;
const LOOK: u64 = 50;

fn who(name: &str, network: u8) -> Who {
    let host = format!("8.8.{network}.8");
    Who::new(&name.parse().unwrap(), &host, host.parse().ok())
}

/// A miner that plays one call after the other.
#[derive(Debug, Clone)]
struct Player {
    latency: u64,
    gap: u64,
    offset: u64,
    /// How long its calls may take.
    timeout: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum CanaryIs {
    Healthy,
    /// Down by itself from then on.
    DownFrom(u64),
    NeverThere,
}

#[derive(Debug, Clone, Default)]
struct World {
    players: Vec<Player>,
    canary: Option<CanaryIs>,
    outage: Option<(u64, u64)>,
    /// Failures that a miner brings about, under hotkeys of its own at one network.
    staged: Vec<(u64, u64)>,
    /// Whether one more miner is never there.
    has_a_dead_one: bool,
    end: u64,
}

enum Event {
    Sent,
    Answered(Span),
    Failed(Failure),
}

enum Came {
    Answered,
    Failed,
}

/// When the next probe ends, when it began, and what it finds.
type Probe = Option<(u64, u64, Found)>;

impl World {
    fn touches_outage(&self, from: u64, to: u64) -> bool {
        self.outage.is_some_and(|(begins, ends)| from < ends && begins <= to)
    }

    /// Everything that miners do, in order of time.
    fn events(&self) -> Vec<(u64, Who, Event)> {
        let mut events = Vec::new();
        let mut add = |name: &Who, (from, to): (u64, u64), came: Came| {
            let span = Span { from: ms(from), to: ms(to) };
            events.push((from, name.clone(), Event::Sent));
            let event = match came {
                Came::Answered => Event::Answered(span),
                Came::Failed => Event::Failed(Failure { who: name.clone(), span, manner: Manner::Connection }),
            };
            events.push((to, name.clone(), event));
        };
        for (number, (from, takes)) in self.staged.iter().enumerate() {
            add(&who(&format!("staged-{number}"), 0), (*from, from + takes), Came::Failed);
        }
        if self.has_a_dead_one {
            let turns = (0..self.end / 3000).map(|turn| (turn * 3000, turn * 3000 + 2000));
            turns.for_each(|turn| add(&who("dead", 99), turn, Came::Failed));
        }
        for (number, player) in (1..).zip(&self.players) {
            let name = who(&format!("player-{number}"), number);
            let mut at = player.offset;
            while at < self.end + AFTER {
                let answered = at + player.latency;
                let ends = if self.touches_outage(at, answered) {
                    add(&name, (at, at + player.timeout), Came::Failed);
                    at + player.timeout
                } else {
                    add(&name, (at, answered), Came::Answered);
                    answered
                };
                at = ends + player.gap;
            }
        }
        events.sort_by_key(|(at, ..)| *at);
        events
    }

    fn probe(&self, at: u64) -> (u64, u64, Found) {
        let is_down = |at: u64| match self.canary {
            Some(CanaryIs::DownFrom(from)) => at >= from,
            Some(CanaryIs::NeverThere) => true,
            _ => false,
        };
        let opens = |at: u64| !is_down(at) && !self.touches_outage(at, at + 20);
        match [at, at + 200].into_iter().find(|at| opens(*at)) {
            Some(sent) => (sent + 20, at, Found::Works { is_local: false }),
            None => (at + 900, at, Found::Fails),
        }
    }

    /// Every failure with its verdict.
    fn verdicts(&self) -> Vec<(Failure, Verdict)> {
        let (mut evidence, mut awaited, mut done) = (Evidence::default(), Vec::<Failure>::new(), Vec::new());
        let canary = self.canary.map(|_| evidence.canary("1.1.1.1:443", false));
        let mut events = self.events().into_iter().peekable();
        let mut probe: Probe = None;
        let patience = ms(self.players.iter().map(|player| player.timeout).max().unwrap_or_default());
        let mut at = 0;
        while at < self.end + 30_000 && (at < self.end || !awaited.is_empty()) {
            while let Some((_, who, event)) = events.next_if(|(time, ..)| *time <= at) {
                match event {
                    Event::Sent => evidence.sent(&who, ms(at)),
                    Event::Answered(span) => evidence.answered(&who, span),
                    Event::Failed(failure) => {
                        evidence.failed(&who, failure.span);
                        awaited.push(failure);
                    }
                }
            }
            if let Some(canary) = canary {
                if let Some((_, from, found)) = probe.take_if(|(ends, ..)| *ends <= at) {
                    evidence.probed(canary, Span { from: ms(from), to: ms(at) }, found);
                }
                if probe.is_none() && evidence.is_due_at(canary, !awaited.is_empty()) <= ms(at) {
                    probe = Some(self.probe(at));
                }
            }
            if at % LOOK == 0 {
                awaited.retain(|failure| {
                    let until = failure.span.to + WINDOW.max(patience + ms(2000));
                    let verdict = evidence.judge(failure, ms(at), until);
                    let is_open = verdict == Verdict::Wait;
                    if !is_open {
                        done.push((failure.clone(), verdict));
                    }
                    is_open
                });
            }
            at += TICK;
        }
        assert!(awaited.is_empty(), "no verdict is awaited for ever");
        done
    }
}

fn players(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Player>> {
    let player = (10..80u64, 1..300u64, 0..300u64, prop::sample::select(vec![100, 500, 2000]));
    let player = player.prop_map(|(latency, gap, offset, timeout)| Player { latency, gap, offset, timeout });
    prop::collection::vec(player, count)
}

fn staged() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..20_000u64, prop::sample::select(vec![0, 5, 100, 900, 2000, 7000])), 1..12)
}

fn is_blamed(found: &(Failure, Verdict)) -> bool {
    found.1 == Verdict::Miner
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever one miner does, under however many hotkeys at its address: while the network works, its failures are its own.
    #[test]
    fn one_miner_alone_never_makes_its_failures_infrastructure_faults(
        players in players(0..6),
        staged in staged(),
        canary in prop::option::of(prop_oneof![
            Just(CanaryIs::Healthy),
            Just(CanaryIs::NeverThere),
            (1000..20_000u64).prop_map(CanaryIs::DownFrom),
        ]),
        has_a_dead_one: bool,
    ) {
        // A canary that goes down by itself is found out by those who play on. With nobody there it would be believed.
        let canary = canary.filter(|canary| !matches!(canary, CanaryIs::DownFrom(_)) || players.len() > 1);
        let world = World { players, canary, outage: None, staged, has_a_dead_one, end: 20_000 };
        for (failure, verdict) in world.verdicts() {
            prop_assert_eq!(verdict, Verdict::Miner, "{:?}", failure);
        }
    }

    /// During an outage nobody is blamed, whatever the order of events, be it a canary or the other miners that show it.
    #[test]
    fn during_an_outage_nobody_is_blamed(
        players in players(3..8),
        from in 1000..6000u64,
        lasts in 4000..12_000u64,
        has_canary: bool,
        has_a_dead_one: bool,
    ) {
        let canary = has_canary.then_some(CanaryIs::Healthy);
        let world =
            World { players, canary, outage: Some((from, from + lasts)), staged: vec![], has_a_dead_one, end: 20_000 };
        let verdicts = world.verdicts();
        let met = |failure: &Failure| failure.who.hotkey.as_str() != "dead";
        prop_assert!(verdicts.iter().any(|(failure, _)| met(failure)), "the outage is felt");
        for (failure, verdict) in verdicts.iter().filter(|(failure, _)| met(failure)) {
            prop_assert!(matches!(verdict, Verdict::Network(_)), "{:?}", failure);
        }
    }

    /// One miner in a cycle: the canary decides alone.
    #[test]
    fn with_one_miner_the_canary_decides(players in players(1), from in 1000..6000u64, lasts in 4000..12_000u64) {
        let world = World { players, outage: Some((from, from + lasts)), end: 20_000, ..World::default() };
        prop_assert!(world.verdicts().iter().all(is_blamed), "without a canary nothing speaks for it");
        let world = World { canary: Some(CanaryIs::Healthy), ..world };
        prop_assert!(!world.verdicts().iter().any(is_blamed));
    }
}

#[test]
fn the_evidence_is_told() {
    let failure = |name: &str, network| Failure {
        who: who(name, network),
        span: Span { from: ms(1000), to: ms(3000) },
        manner: Manner::Connection,
    };
    let mut evidence = Evidence::default();
    for network in 0..4 {
        let failed = failure(&format!("miner-{network}"), network);
        evidence.sent(&failed.who, failed.span.from);
        evidence.failed(&failed.who, failed.span);
    }
    let verdict = evidence.judge(&failure("miner-0", 0), ms(3000), ms(8000));
    assert_eq!(verdict, Verdict::Network("3 of 3 other miners failed the same way within 5 s".into()));
    let canary = evidence.canary("1.2.3.4:443", false);
    evidence.probed(canary, Span { from: ms(0), to: ms(20) }, Found::Works { is_local: false });
    evidence.probed(canary, Span { from: ms(3000), to: ms(3900) }, Found::Fails);
    let verdict = evidence.judge(&failure("miner-0", 0), ms(3900), ms(8000));
    assert_eq!(verdict, Verdict::Network("the canary 1.2.3.4:443 failed at the same time".into()));
}

#[test]
fn a_demo_miner_of_this_machine_says_nothing_of_an_outage() {
    let failure =
        Failure { who: who("miner", 1), span: Span { from: ms(900), to: ms(1000) }, manner: Manner::Connection };
    let mut evidence = Evidence::default();
    for network in 2..5 {
        evidence.failed(&who(&format!("miner-{network}"), network), failure.span);
    }
    let demo = Who::new(&"demo".parse().unwrap(), "127.0.0.1", "127.0.0.1".parse().ok());
    evidence.answered(&demo, Span { from: ms(1010), to: ms(1020) });
    let verdict = evidence.judge(&failure, ms(1100), ms(6000));
    assert_eq!(verdict, Verdict::Network("3 of 3 other miners failed the same way within 5 s".into()));
}

#[test]
fn a_canary_speaks_for_what_it_can_know() {
    let public =
        Failure { who: who("miner", 1), span: Span { from: ms(100), to: ms(200) }, manner: Manner::Connection };
    let named = Failure { manner: Manner::Lookup, ..public.clone() };
    let private = Who::new(&"miner".parse().unwrap(), "10.0.0.7", "10.0.0.7".parse().ok());
    let private = Failure { who: private, ..public.clone() };
    let says = |is_named, is_local, failure: &Failure| {
        let mut evidence = Evidence::default();
        let canary = evidence.canary("canary", is_named);
        evidence.probed(canary, Span { from: ms(200), to: ms(220) }, Found::Works { is_local });
        matches!(evidence.testimony(failure), Testimony::Works)
    };
    assert!(says(false, false, &public) && says(true, false, &named) && says(false, true, &private));
    assert!(!says(false, false, &named), "an address shows nothing of name servers");
    assert!(!says(false, true, &public), "a machine next door shows nothing of the way out");
}
