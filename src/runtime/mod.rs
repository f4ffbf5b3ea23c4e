//! Where environment servers run.
