//! Whether an action is one the environment takes. Pure.

use crate::cycle::MinerFault;
use crate::manifest::simulation::{Action, ActionKind, OutOfRange};

use super::Fault;

/// The action as the simulator gets it: of the right size, finite, in range.
///
/// # Errors
/// `invalid_action` that names the first number that is wrong.
pub fn check(mut numbers: Vec<f64>, space: &Action) -> Result<Vec<f64>, Fault> {
    let invalid = |detail: String| Fault::new(MinerFault::InvalidAction, detail);
    if numbers.len() != space.size as usize {
        return Err(invalid(format!("the action has {} numbers, not {}", numbers.len(), space.size)));
    }
    for (index, number) in numbers.iter_mut().enumerate() {
        if !number.is_finite() {
            return Err(invalid(format!("number {index} of the action is not finite")));
        }
        if space.kind == ActionKind::Discrete && number.fract() != 0.0 {
            return Err(invalid(format!("number {index} of the action is {number}, not a whole number")));
        }
        if (space.low..=space.high).contains(number) {
            continue;
        }
        match space.out_of_range {
            OutOfRange::Clip => *number = number.clamp(space.low, space.high),
            OutOfRange::Refuse => {
                let (low, high) = (space.low, space.high);
                return Err(invalid(format!("number {index} of the action is {number}, not between {low} and {high}")));
            }
        }
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(out_of_range: OutOfRange, kind: ActionKind) -> Action {
        Action { size: 2, low: -1.0, high: 1.0, out_of_range, kind, channels: Vec::new() }
    }

    #[test]
    fn what_is_in_range_passes_unchanged() {
        let space = space(OutOfRange::Refuse, ActionKind::Direct);
        assert_eq!(check(vec![-1.0, 0.25], &space).unwrap(), [-1.0, 0.25]);
    }

    #[test]
    fn each_wrong_number_is_named() {
        let space = space(OutOfRange::Refuse, ActionKind::Direct);
        for (numbers, part) in [
            (vec![0.0], "has 1 numbers, not 2"),
            (vec![0.0; 3], "has 3 numbers"),
            (vec![0.0, f64::NAN], "number 1 of the action is not finite"),
            (vec![f64::NEG_INFINITY, 0.0], "number 0"),
            (vec![0.0, 1.5], "is 1.5, not between -1 and 1"),
        ] {
            let fault = check(numbers, &space).unwrap_err();
            assert_eq!(fault.reason, MinerFault::InvalidAction);
            assert!(fault.detail.contains(part), "{fault}");
        }
    }

    #[test]
    fn clipping_is_only_as_declared_and_never_hides_what_is_not_finite() {
        let space = space(OutOfRange::Clip, ActionKind::Direct);
        assert_eq!(check(vec![1e300, -7.0], &space).unwrap(), [1.0, -1.0]);
        assert!(check(vec![f64::INFINITY, 0.0], &space).is_err());
    }

    #[test]
    fn a_discrete_action_is_one_whole_number_of_its_range() {
        let whole = space(OutOfRange::Refuse, ActionKind::Discrete);
        let space = Action { size: 1, low: 0.0, high: 3.0, ..whole };
        assert_eq!(check(vec![3.0], &space).unwrap(), [3.0]);
        for wrong in [0.5, -1.0, 4.0] {
            assert!(check(vec![wrong], &space).is_err(), "{wrong}");
        }
    }
}
