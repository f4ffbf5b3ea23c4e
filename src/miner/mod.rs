//! The client for endpoints that strangers control, and the demo miner.
