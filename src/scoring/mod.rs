//! Pure functions from success rates to weights: same input, same bytes out.
//!
//! `docs/scoring.md` has the formulas and the algorithm. The order of work: a [`Table`] of success rates is checked once;
//! [`pareto()`] compares every two miners and plays the subset game; [`Pareto::weights`] turns points into a normalised vector.
//! [`wilson()`] says how sure a success rate is, [`bias()`] whether episodes that ran again differ from the others.
//!
//! Nothing here reads a clock, a file, the environment or a random number. Sums run in ascending uid, `exp` is that of the
//! `libm` crate and everything else is an IEEE operation, so no platform's mathematics library can change a digit. Whether a
//! difference is more than a margin is decided by whole numbers.

mod bias;
mod exact;
mod gap;
mod hitting;
mod margin;
mod pareto;
mod relation;
mod table;
mod ties;
mod weights;
mod wilson;

#[cfg(test)]
mod brute_force;
#[cfg(test)]
mod properties;

pub use bias::{Bias, Stratum, bias};
pub use gap::{Gap, Missing, missing};
pub use hitting::TooHard;
pub use pareto::{Pareto, SubsetWeighting, pareto, undominated};
pub use relation::{Rule, Ties};
pub use table::{MAX_ENVIRONMENTS, MinerRow, Table, TableError};
pub use weights::{AllZero, Weights, WeightsError, WeightsU16, normalise, quantise};
pub use wilson::{Interval, wilson, wilson_of_mean};
