//! Looks for the puck blindly: grasps at places of a raster until the gripper feels something, then carries it. Pure.

use super::{
    follower::Follower,
    policy::{Hand, Motion, towards},
};

/// How high the hand travels between places, and how low it grasps.
const HIGH: f64 = 0.10;
const LOW: f64 = 0.05;

/// How fast it moves to a place, and how gently it holds it.
const FAST: f64 = 15.0;
const GENTLE: f64 = 10.0;

/// Steps the gripper needs to close.
const CLOSING: u32 = 13;

/// How far a gripper is open that holds the puck: closed on nothing it reads less, not yet closed more.
const HOLDING: std::ops::Range<f64> = 0.34..0.75;

/// Where the puck may lie, likeliest first.
const RASTER: [[f64; 2]; 10] = [
    [0.0, 0.635],
    [0.04, 0.635],
    [-0.04, 0.635],
    [0.08, 0.635],
    [-0.08, 0.635],
    [0.0, 0.67],
    [0.04, 0.67],
    [-0.04, 0.67],
    [0.08, 0.67],
    [-0.08, 0.67],
];

enum Phase {
    Approach,
    Lower,
    Close,
    Lift,
    Carry(Follower),
}

/// A hand that looks for the puck.
pub(super) struct GraspSweep {
    phase: Phase,
    /// Steps in this phase.
    steps: u32,
    /// Place of the raster, counted on without end.
    place: usize,
    carry: fn() -> Follower,
}

impl GraspSweep {
    /// A sweep that does `carry` with what it finds.
    pub(super) fn new(carry: fn() -> Follower) -> Self {
        Self { phase: Phase::Approach, steps: 0, place: 0, carry }
    }

    /// The next motion. A phase that ends with this step still gives its motion; the next one begins a step later.
    pub(super) fn act(&mut self, hand: Hand) -> Motion {
        let [x, y] = RASTER[self.place % RASTER.len()];
        let [hand_x, hand_y, hand_z, gripper] = hand;
        self.steps += 1;
        match &mut self.phase {
            Phase::Approach => {
                if (x - hand_x).abs() < 0.012 && (y - hand_y).abs() < 0.012 && self.steps > 3 {
                    self.turn_to(Phase::Lower);
                }
                towards([x, y, HIGH], hand, FAST, -1.0)
            }
            Phase::Lower => {
                if hand_z < LOW + 0.012 || self.steps > 14 {
                    self.turn_to(Phase::Close);
                }
                towards([x, y, LOW], hand, FAST, -1.0)
            }
            Phase::Close => {
                if self.steps >= CLOSING {
                    if HOLDING.contains(&gripper) {
                        let mut carry = (self.carry)();
                        let motion = carry.act(hand);
                        self.turn_to(Phase::Carry(carry));
                        return motion;
                    }
                    self.place += 1;
                    self.turn_to(Phase::Lift);
                }
                towards([x, y, LOW], hand, GENTLE, 1.0)
            }
            Phase::Lift => {
                if hand_z > HIGH - 0.012 || self.steps > 10 {
                    self.turn_to(Phase::Approach);
                }
                towards([hand_x, hand_y, HIGH + 0.02], hand, FAST, -1.0)
            }
            Phase::Carry(carry) => carry.act(hand),
        }
    }

    fn turn_to(&mut self, phase: Phase) {
        self.phase = phase;
        self.steps = 0;
    }
}
