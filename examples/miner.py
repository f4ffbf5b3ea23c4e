#!/usr/bin/env python3
"""A whole miner in one file: the three routes of docs/protocols.md, with nothing but Python's standard library.

It exists to be copied, and to try environments that the demo policies of robo do not know. Put a policy of your own in
`POLICIES`: its `act` makes of an observation as many numbers as the environment's manifest says under `action.size`.

    python3 examples/miner.py --policy swing-up --port 9001
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def swing_up(observation):
    """Play Gymnasium's pendulum: pump energy while it hangs, hold it once it stands."""
    cosine, sine, speed = observation
    if cosine > 0.9:
        torque = -12.0 * sine - 3.0 * speed
    else:
        # Gravity 10, length 1, mass 1: the energy of standing still on top is 5, that of hanging -5.
        missing = 5.0 - (speed * speed / 6.0 + 5.0 * cosine)
        torque = 2.0 * missing if speed >= 0 else -2.0 * missing
    return [max(-1.0, min(1.0, torque / 2.0))]


class Damped:
    """Swing up without jerks. It remembers its last torque, so it plays one episode at a time: `/reset` forgets it."""

    max_concurrency = None

    def reset(self):
        """Forget the episode before."""
        self.torque = 0.0

    def act(self, observation):
        """Go half the way to the torque that is wanted."""
        self.torque += 0.5 * (swing_up(observation)[0] - self.torque)
        return [self.torque]


class SwingUp:
    """Swing up by the observation alone: any number of episodes may be mixed."""

    max_concurrency = 16

    def reset(self):
        """Nothing is remembered."""

    def act(self, observation):
        """Give the torque that is wanted."""
        return swing_up(observation)


class Still(SwingUp):
    """Do nothing."""

    def act(self, observation):
        """Give no torque."""
        return [0.0]


POLICIES = {"swing-up": SwingUp, "damped": Damped, "still": Still}


class Miner(BaseHTTPRequestHandler):
    """Answers one request after the other on a connection that stays open."""

    protocol_version = "HTTP/1.1"
    # Answers are small and waited for: the system must not hold them back to fill a packet.
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        """Say that we are well and, if it is more than one, how many episodes we can play at a time."""
        most = self.server.policy.max_concurrency
        self.answer(
            200 if self.path == "/health" else 404,
            {"status": "ok", **({"max_concurrency": most} if most else {})},
        )

    def do_POST(self):
        """Begin an episode, or act in it."""
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.path == "/reset":
            # A memory of several episodes is kept by request["task_config"]["episode_id"]. Each /act repeats it in the
            # header X-Episode-Id.
            self.server.policy.reset()
            self.answer(200, {"status": "ok"})
        elif self.path == "/act":
            self.answer(200, {"action": self.server.policy.act(request["observation"])})
        else:
            self.answer(404, {"error": "there is nothing at this address"})

    def answer(self, status, body):
        """Send a JSON object."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format, *arguments):
        """Print nothing: thousands of requests an episode would fill the screen."""


def main():
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A miner for robo, in plain Python.")
    parser.add_argument("--policy", choices=POLICIES, default="swing-up")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9001, help="0 takes a free one")
    arguments = parser.parse_args()
    server = ThreadingHTTPServer((arguments.host, arguments.port), Miner)
    server.daemon_threads = True
    server.policy = POLICIES[arguments.policy]()
    print(f"listening on http://{server.server_address[0]}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
