//! Moves the hand from waypoint to waypoint by proprioception alone. Pure.

use super::policy::{Hand, Motion, towards};

/// A hand that moves less than this in a step stands still: it has run into something.
const STILL: f64 = 0.0008;

/// Steps without movement after which a waypoint counts as out of reach.
const PATIENCE: u32 = 12;

/// A place to be at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Waypoint {
    pub(super) place: [f64; 3],
    /// From -1 (open) to 1 (closed), all the way there.
    pub(super) gripper: f64,
    /// Close enough, on every axis, in metres.
    pub(super) tolerance: f64,
    /// Steps after which the next one is tried, there or not.
    pub(super) longest: u32,
}

impl Waypoint {
    pub(super) const fn new(place: [f64; 3], gripper: f64) -> Self {
        Self { place, gripper, tolerance: 0.02, longest: 120 }
    }

    pub(super) const fn within(self, tolerance: f64) -> Self {
        Self { tolerance, ..self }
    }

    pub(super) const fn at_most(self, longest: u32) -> Self {
        Self { longest, ..self }
    }
}

/// What follows the last waypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Hold it.
    Stay,
    /// Begin again.
    Repeat,
}

/// A hand on its way.
#[derive(Debug, Clone)]
pub(super) struct Follower {
    route: Vec<Waypoint>,
    gain: f64,
    then: Then,
    current: usize,
    steps: u32,
    still: u32,
    last: Option<Hand>,
}

impl Follower {
    /// A follower of a route with at least one waypoint.
    pub(super) fn new(route: Vec<Waypoint>, gain: f64, then: Then) -> Self {
        Self { route, gain, then, current: 0, steps: 0, still: 0, last: None }
    }

    /// The next motion.
    pub(super) fn act(&mut self, hand: Hand) -> Motion {
        self.feel(hand);
        // Waypoints already reached are passed in one step, each at most once.
        for _ in 0..self.route.len() {
            if !self.is_done(hand) || !self.advance() {
                break;
            }
        }
        self.last = Some(hand);
        self.steps += 1;
        let waypoint = self.route[self.current];
        towards(waypoint.place, hand, self.gain, waypoint.gripper)
    }

    fn feel(&mut self, hand: Hand) {
        let Some(last) = self.last else { return };
        let moved = (0..3).map(|axis| (hand[axis] - last[axis]).abs()).fold(0.0, f64::max);
        self.still = if moved < STILL { self.still + 1 } else { 0 };
    }

    fn is_done(&self, hand: Hand) -> bool {
        let waypoint = self.route[self.current];
        let far = (0..3).map(|axis| (waypoint.place[axis] - hand[axis]).abs()).fold(0.0, f64::max);
        let stuck = self.still > PATIENCE && self.steps > PATIENCE;
        far < waypoint.tolerance || self.steps >= waypoint.longest || stuck
    }

    /// Turn to the next waypoint, if there is one.
    fn advance(&mut self) -> bool {
        let next = self.current + 1;
        if next == self.route.len() && self.then == Then::Stay {
            return false;
        }
        self.current = next % self.route.len();
        (self.steps, self.still, self.last) = (0, 0, None);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route() -> Vec<Waypoint> {
        vec![Waypoint::new([0.0, 0.0, 0.0], -1.0), Waypoint::new([1.0, 0.0, 0.0], 1.0).at_most(5)]
    }

    #[test]
    fn a_waypoint_reached_is_passed_at_once() {
        let mut follower = Follower::new(route(), 10.0, Then::Stay);
        assert_eq!(follower.act([0.01, 0.0, 0.0, 1.0]), [1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_last_one_is_held_or_the_route_begins_again() {
        let far = [0.5, 0.0, 0.0, 1.0];
        for (then, gripper) in [(Then::Stay, 1.0), (Then::Repeat, -1.0)] {
            let mut follower = Follower::new(route(), 10.0, then);
            follower.act([0.0; 4]);
            let last = (0..5).map(|_| follower.act(far)).last().unwrap();
            assert_eq!(last[3], gripper, "{then:?}");
        }
    }

    #[test]
    fn a_hand_that_is_stuck_moves_on() {
        let mut follower = Follower::new(route(), 10.0, Then::Stay);
        let stuck = [0.5, 0.5, 0.5, 1.0];
        let motions: Vec<_> = (0..30).map(|_| follower.act(stuck)).collect();
        assert_eq!(motions[5][3], -1.0);
        assert_eq!(motions[29][3], 1.0);
    }
}
