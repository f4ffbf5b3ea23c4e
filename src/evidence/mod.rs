//! What makes results checkable: canonical JSON and its digest.
//!
//! Pure. Two programs that agree on a value agree on its bytes here.

mod canonical;

pub use canonical::{canonical, digest};
