//! Where the hand goes for each task: places on MetaWorld's table, in metres. Found by trying; none depends on the seed.

use super::follower::{Follower, Then, Waypoint};

const OPEN: f64 = -1.0;
const CLOSED: f64 = 1.0;

/// Slow and exact.
const GENTLE: f64 = 10.0;
/// As fast as the arm goes.
const FIRM: f64 = 25.0;

const fn open(x: f64, y: f64, z: f64) -> Waypoint {
    Waypoint::new([x, y, z], OPEN)
}

const fn closed(x: f64, y: f64, z: f64) -> Waypoint {
    Waypoint::new([x, y, z], CLOSED)
}

/// Down, then forward.
pub(super) fn forward() -> Follower {
    Follower::new(vec![closed(0.0, 0.45, 0.10), closed(0.0, 0.95, 0.10)], FIRM, Then::Stay)
}

/// The middle of where reach goals lie.
pub(super) fn centre() -> Follower {
    Follower::new(vec![open(0.0, 0.85, 0.22)], GENTLE, Then::Stay)
}

/// All of where reach goals lie, in columns, up and down in turn: out along one row, back along the next.
pub(super) fn sweep() -> Follower {
    let out = [-0.075, -0.025, 0.025, 0.075].map(|x| (x, 0.825));
    let back = [0.075, 0.025, -0.025, -0.075].map(|x| (x, 0.875));
    let columns = out.into_iter().chain(back).enumerate();
    let route = columns.flat_map(|(index, (x, y))| {
        let (first, second) = if index % 2 == 0 { (0.08, 0.36) } else { (0.36, 0.08) };
        [open(x, y, first), open(x, y, second)]
    });
    Follower::new(route.collect(), GENTLE, Then::Repeat)
}

/// Along the table through where objects lie.
pub(super) fn push_along_table() -> Follower {
    Follower::new(vec![closed(0.0, 0.50, 0.15), closed(0.0, 0.50, 0.06), closed(0.0, 0.92, 0.06)], GENTLE, Then::Stay)
}

/// Against the front of an open drawer.
pub(super) fn push_drawer() -> Follower {
    Follower::new(vec![closed(0.0, 0.45, 0.20), closed(0.0, 0.45, 0.10), closed(0.0, 0.95, 0.10)], FIRM, Then::Stay)
}

/// Behind the handle of a closed drawer and back, at each of these places from left to right.
pub(super) fn pull_drawer(places: &[f64]) -> Follower {
    let attempt = |&x: &f64| {
        [
            open(x, 0.735, 0.30),
            open(x, 0.735, 0.075).at_most(60),
            open(x, 0.40, 0.07).at_most(80),
            open(x, 0.40, 0.30).within(0.03),
        ]
    };
    Follower::new(places.iter().flat_map(attempt).collect(), FIRM, Then::Repeat)
}

/// Straight down in the middle.
pub(super) fn press_once() -> Follower {
    Follower::new(vec![closed(0.0, 0.85, 0.36), closed(0.0, 0.85, 0.12)], FIRM, Then::Stay)
}

/// Straight down at eight places, close enough together that the button is under one of them.
pub(super) fn press() -> Follower {
    let places = [0.83, 0.88].into_iter().flat_map(|y| [-0.08, -0.027, 0.027, 0.08].map(|x| (x, y)));
    let route = places.flat_map(|(x, y)| [closed(x, y, 0.36), closed(x, y, 0.12).at_most(30)]);
    Follower::new(route.collect(), FIRM, Then::Repeat)
}

/// Behind the door's handle and back.
pub(super) fn pull_door_once() -> Follower {
    let route = vec![closed(0.27, 0.68, 0.35), closed(0.27, 0.68, 0.15).at_most(60), closed(-0.02, 0.45, 0.15)];
    Follower::new(route, FIRM, Then::Stay)
}

/// The same at four places.
pub(super) fn pull_door() -> Follower {
    let attempt = |(x, y)| {
        [
            closed(x, y, 0.33).within(0.03).at_most(60),
            closed(x, y, 0.15).at_most(25),
            closed(-0.05, 0.45, 0.15).within(0.03).at_most(60),
            closed(-0.05, 0.45, 0.33).within(0.05).at_most(15),
        ]
    };
    let places = [(0.25, 0.70), (0.30, 0.68), (0.22, 0.73), (0.27, 0.66)];
    Follower::new(places.into_iter().flat_map(attempt).collect(), FIRM, Then::Repeat)
}

/// With the puck in hand: along where push goals lie.
pub(super) fn carry_along_table() -> Follower {
    let route = vec![
        closed(0.0, 0.80, 0.055).at_most(60),
        closed(-0.09, 0.83, 0.055).at_most(40),
        closed(0.09, 0.83, 0.055).at_most(40),
        closed(0.09, 0.88, 0.055).at_most(40),
        closed(-0.09, 0.88, 0.055).at_most(60),
    ];
    Follower::new(route, GENTLE, Then::Repeat)
}

/// With the puck in hand: up and down through where pick-and-place goals lie.
pub(super) fn carry_in_the_air() -> Follower {
    let route = vec![
        closed(-0.05, 0.85, 0.10).within(0.03).at_most(80),
        closed(-0.05, 0.85, 0.33).within(0.03).at_most(60),
        closed(0.05, 0.85, 0.33).within(0.03).at_most(40),
        closed(0.05, 0.85, 0.08).within(0.03).at_most(60),
    ];
    Follower::new(route, GENTLE, Then::Repeat)
}
