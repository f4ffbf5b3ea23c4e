//! Integration tests: the binary and the library from outside, one module per area.

mod manifest;
