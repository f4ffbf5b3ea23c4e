//! Runs a plan: decides what runs next, runs it, and survives crashes.
