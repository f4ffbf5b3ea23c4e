//! The policies by name, and what one of them is in the middle of an episode. Pure: the same episode id and the same
//! observations give the same actions.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};

use super::{follower::Follower, grasp::GraspSweep, routes};

/// What a MetaWorld arm shows of itself: hand x, y, z and how far the gripper is open.
pub(super) type Hand = [f64; 4];

/// How a MetaWorld arm is moved: the hand by x, y, z, and the gripper from -1 (open) to 1 (closed).
pub(super) type Motion = [f64; 4];

/// A demonstration policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Policy {
    /// Uniform noise, seeded by the episode id alone
    Random,
    /// Never moves
    Noop,
    /// Lowers the hand and pushes forward, whatever the task
    Forward,
    /// Sweeps the volume in front of the arm, whatever the task
    Reacher,
    /// One open-loop attempt made for the task
    Novice,
    /// Repeated attempts made for the task, with a sense of the gripper
    Heuristic,
}

/// A policy in the middle of an episode.
pub(super) enum Player {
    Noop,
    Random(Box<StdRng>),
    Follower(Follower),
    GraspSweep(GraspSweep),
}

impl Policy {
    /// The policy at the start of an episode of `task` (`push-v3`). Those made for a task sweep when they do not know it.
    pub(super) fn start(self, task: &str, episode_id: &str) -> Player {
        let task = task.strip_suffix("-v3").unwrap_or(task);
        match self {
            Self::Random => Player::Random(Box::new(StdRng::from_seed(Sha256::digest(episode_id.as_bytes()).into()))),
            Self::Noop => Player::Noop,
            Self::Forward => Player::Follower(routes::forward()),
            Self::Reacher => Player::Follower(routes::sweep()),
            Self::Novice => Player::Follower(match task {
                "reach" => routes::centre(),
                "door-open" => routes::pull_door_once(),
                "drawer-open" => routes::pull_drawer(&[0.0]),
                "drawer-close" => routes::push_drawer(),
                "button-press" | "button-press-topdown" => routes::press_once(),
                _ => routes::push_along_table(),
            }),
            Self::Heuristic => match task {
                "push" => Player::GraspSweep(GraspSweep::new(routes::carry_along_table)),
                "pick-place" => Player::GraspSweep(GraspSweep::new(routes::carry_in_the_air)),
                "door-open" => Player::Follower(routes::pull_door()),
                "drawer-open" => Player::Follower(routes::pull_drawer(&[0.0, -0.07, 0.07])),
                "drawer-close" => Player::Follower(routes::push_drawer()),
                "button-press" | "button-press-topdown" => Player::Follower(routes::press()),
                "peg-insert" | "peg-insert-side" => Player::Follower(routes::push_along_table()),
                _ => Player::Follower(routes::sweep()),
            },
        }
    }
}

impl Player {
    /// The next action.
    pub(super) fn act(&mut self, hand: Hand) -> Motion {
        match self {
            Self::Noop => [0.0; 4],
            Self::Random(random) => std::array::from_fn(|_| random.random_range(-1.0..=1.0)),
            Self::Follower(follower) => follower.act(hand),
            Self::GraspSweep(sweep) => sweep.act(hand),
        }
    }
}

/// The motion that goes straight for a place, as fast as the arm takes commands.
pub(super) fn towards(place: [f64; 3], hand: Hand, gain: f64, gripper: f64) -> Motion {
    let along = |axis: usize| (gain * (place[axis] - hand[axis])).clamp(-1.0, 1.0);
    [along(0), along(1), along(2), gripper]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Policy; 6] =
        [Policy::Random, Policy::Noop, Policy::Forward, Policy::Reacher, Policy::Novice, Policy::Heuristic];

    fn play(policy: Policy, task: &str, episode_id: &str, steps: usize) -> Vec<Motion> {
        let mut player = policy.start(task, episode_id);
        // A hand that goes where it is told, at the pace of the simulator's arm.
        let mut hand = [0.0, 0.6, 0.2, 1.0];
        (0..steps)
            .map(|_| {
                let motion = player.act(hand);
                for axis in 0..3 {
                    hand[axis] += 0.008 * motion[axis];
                }
                hand[3] = if motion[3] > 0.0 { 0.27 } else { 1.0 };
                motion
            })
            .collect()
    }

    #[test]
    fn random_depends_on_the_episode_alone() {
        let first = play(Policy::Random, "push-v3", "a", 50);
        assert_eq!(first, play(Policy::Random, "reach-v3", "a", 50));
        assert_ne!(first, play(Policy::Random, "push-v3", "b", 50));
    }

    #[test]
    fn a_task_is_known_by_its_short_and_its_long_name() {
        for (short, long) in [("button-press-v3", "button-press-topdown-v3"), ("peg-insert-v3", "peg-insert-side-v3")] {
            for policy in [Policy::Novice, Policy::Heuristic] {
                assert_eq!(play(policy, short, "e", 200), play(policy, long, "e", 200));
            }
        }
    }

    #[test]
    fn the_grasp_sweep_carries_what_it_feels() {
        let mut player = Policy::Heuristic.start("pick-place-v3", "e");
        let mut hand = [0.0, 0.6, 0.2, 1.0];
        let mut highest: f64 = 0.0;
        for _ in 0..400 {
            let motion = player.act(hand);
            for axis in 0..3 {
                hand[axis] += 0.008 * motion[axis];
            }
            // Something is between the fingers, wherever they close.
            hand[3] = if motion[3] > 0.0 { 0.44 } else { 1.0 };
            if motion[3] > 0.0 {
                highest = highest.max(hand[2]);
            }
        }
        assert!(highest > 0.25, "carried up to {highest}");
    }

    proptest! {
        #[test]
        fn every_action_is_in_range(
            policy in proptest::sample::select(&ALL[..]),
            task in proptest::sample::select(&["reach-v3", "push-v3", "pick-place-v3", "door-open-v3", "x"][..]),
            hands in proptest::collection::vec([-2.0..2.0, -2.0..2.0, -2.0..2.0, 0.0..1.0], 1..200),
        ) {
            let mut player = policy.start(task, "e");
            for hand in hands {
                prop_assert!(player.act(hand).iter().all(|number: &f64| (-1.0..=1.0).contains(number)));
            }
        }
    }
}
