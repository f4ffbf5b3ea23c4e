"""The simulator's side of an environment server: Gymnasium environments behind frames on a pipe.

The package makes, resets and steps environments as `Simulation` documents describe them (docs/protocols.md).
It never opens a socket, never meets a miner and never measures time: that is the environment server's work.
"""

__version__ = "0.1.0"
