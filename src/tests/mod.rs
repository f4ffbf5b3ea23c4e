//! The integration tests, one binary: each file tests an area through the doors that others use.

mod api;
mod architecture;
mod host;
mod runtime;
