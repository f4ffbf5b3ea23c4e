//! `robo env-server`: drives episodes between simulator workers and miners.
