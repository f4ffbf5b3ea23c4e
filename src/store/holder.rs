//! Who holds a lease: a process as [`crate::host`] names it. One that cannot be judged from here is never called dead; its
//! lease runs out instead.

pub(super) use crate::host::Identity as Holder;
