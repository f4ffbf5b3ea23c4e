#!/usr/bin/env python3
"""A server that speaks the protocol of affinetes images: it plays whole MetaWorld episodes and calls miners by itself.

Images made for affinetes hold such a server. This one is for trying `protocol: affinetes` without any of them, and for
seeing what they do; it needs a Python that has MetaWorld, and nothing else beyond the standard library:

    python3 examples/affinetes_server.py --port 8000
"""

import argparse
import http.client
import inspect
import json
import threading
import time
import traceback
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from metaworld.env_dict import ALL_V3_ENVIRONMENTS

# What the images wait for a miner's answer to /reset; the protocol has no word for it.
RESET_TIMEOUT = 5.0


class MinerError(Exception):
    """What went wrong with a miner, under the name that the images' HTTP library has for it."""

    def __init__(self, name, text=""):
        """Keep both."""
        super().__init__(text)
        self.name = name


def call_miner(base_url, path, body, timeout):
    """Post JSON to a miner and return the JSON of its answer."""
    url = urllib.parse.urlsplit(base_url.rstrip("/") + path)
    make = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = make(url.hostname, url.port, timeout=timeout)
    try:
        connection.connect()
    except TimeoutError:
        raise MinerError("ConnectTimeout") from None
    except OSError as error:
        raise MinerError("ConnectError", str(error)) from None
    try:
        connection.request("POST", url.path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except TimeoutError:
        raise MinerError("ReadTimeout") from None
    except http.client.RemoteDisconnected:
        raise MinerError("RemoteProtocolError", "Server disconnected without sending a response.") from None
    except http.client.HTTPException as error:
        raise MinerError("RemoteProtocolError", f"illegal answer: {error!r}") from None
    except OSError as error:
        raise MinerError("ReadError", str(error)) from None
    finally:
        connection.close()
    if answer.status >= 300:
        kind = "Redirect response" if answer.status < 400 else "Client error" if answer.status < 500 else "Server error"
        raise MinerError("HTTPStatusError", f"{kind} '{answer.status} {answer.reason}' for url '{url.geturl()}'")
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise MinerError("JSONDecodeError", str(error)) from None
    except UnicodeDecodeError as error:
        raise MinerError("UnicodeDecodeError", str(error)) from None


class Actor:
    """What an image offers: its public methods can be called."""

    def __init__(self):
        """Start without simulators."""
        self._made = {}
        self._turns = {}
        self._lock = threading.Lock()

    def list_environments(self):
        """Name every environment that there is."""
        return [f"metaworld/{name}" for name in sorted(ALL_V3_ENVIRONMENTS)]

    def evaluate(
        self,
        task_id,
        seed=None,
        model=None,
        base_url=None,
        env_id="metaworld/pick-place-v3",
        max_timesteps=500,
        action_timeout=0.5,
        use_images=True,
        timeout=300,
        **kwargs,
    ):
        """Play one episode with a miner and say what came of it."""
        if base_url is None:
            raise ValueError("base_url (miner endpoint) is required")
        seed = task_id if seed is None else seed
        started = time.time()
        told = {"task_id": task_id, "seed": seed, "env_id": env_id}
        result = {"task_name": f"robotics:{env_id}", "score": 0.0, "success": False}
        with self._lock:
            turn = self._turns.setdefault(env_id, threading.Lock())
        try:
            # Calls of one environment share its simulator.
            with turn:
                limits = (max_timesteps, action_timeout, started + timeout)
                played = self._play(env_id, seed, base_url, limits)
        except Exception as error:
            played = {"error": f"{type(error).__name__}: {error}\n{traceback.format_exc()}"}
        extra = told | played.pop("extra", {}) | {"model": model, "base_url": base_url}
        return result | played | {"time_taken": time.time() - started, "extra": extra}

    def _environment(self, env_id):
        family, _, task = env_id.partition("/")
        if family != "metaworld" or task not in ALL_V3_ENVIRONMENTS:
            raise ValueError(f"Unknown environment: {env_id}")
        if env_id not in self._made:
            self._made[env_id] = ALL_V3_ENVIRONMENTS[task]()
        return self._made[env_id]

    def _play(self, env_id, seed, base_url, limits):
        max_timesteps, action_timeout, deadline = limits
        environment = self._environment(env_id)
        family, _, task = env_id.partition("/")
        task_config = {"env_id": env_id, "env_name": family, "task_name": task, "seed": seed, "task_id": seed}
        try:
            call_miner(base_url, "/reset", {"task_config": task_config}, RESET_TIMEOUT)
        except MinerError as error:
            return {"error": f"Miner reset failed: {error.name}: {error}"}
        # MetaWorld ignores `reset(seed=...)`; this is the one source of chance in it that can be seeded.
        environment._partially_observable = True
        environment._set_task_called = True
        environment._freeze_rand_vec = False
        environment.seeded_rand_vec = True
        environment.seed(seed)
        observation, _ = environment.reset()
        total, waits, success = 0.0, [], False
        for step in range(max_timesteps):
            if time.time() > deadline:
                return {"error": "Evaluation timeout", "extra": {"timesteps_completed": step}}
            asked = time.time()
            try:
                body = {"observation": observation[:4].tolist()}
                answer = call_miner(base_url, "/act", body, action_timeout)
                if not isinstance(answer, dict):
                    raise MinerError("AttributeError", f"{type(answer).__name__!r} object has no attribute 'get'")
                action = np.array(answer.get("action", []))
            except MinerError as error:
                late = error.name in ("ReadTimeout", "ConnectTimeout")
                failed = f"Miner action failed at step {step}: {error.name}: {error}"
                told = f"Miner action timeout at step {step}" if late else failed
                return {"error": told, "extra": {"timesteps_completed": step}}
            waits.append(time.time() - asked)
            action = np.pad(action.flatten()[:4], (0, max(0, 4 - action.size)))
            observation, reward, _, truncated, info = environment.step(action)
            total += float(reward)
            success = success or bool(info["success"])
            if success or truncated:
                break
        extra = {"timesteps": step + 1, "total_reward": total}
        extra |= {"mean_action_time": float(np.mean(waits)), "max_action_time": float(np.max(waits))}
        return {"success": success, "score": float(success), "extra": extra}


class Handler(BaseHTTPRequestHandler):
    """The routes of the protocol."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self):
        """Say that we are well, or what can be called."""
        if self.path == "/health":
            self.answer(200, {"status": "ok"})
        elif self.path == "/methods":
            methods = [
                {"name": name, "signature": str(inspect.signature(method)), "source": "Actor"}
                for name, method in inspect.getmembers(Actor, inspect.isfunction)
                if not name.startswith("_")
            ]
            self.answer(200, {"methods": methods})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self):
        """Call a method."""
        call = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        name = call.get("method", "")
        if self.path != "/call" or name.startswith("_") or not hasattr(Actor, name):
            self.answer(404, {"detail": f"Method not found: {name}"})
            return
        try:
            result = getattr(self.server.actor, name)(*call.get("args", []), **call.get("kwargs", {}))
        except Exception as error:
            self.answer(500, {"detail": f"{error}\n{traceback.format_exc()}"})
            return
        self.answer(200, {"status": "success", "result": result, "error": None})

    def answer(self, status, body):
        """Send JSON."""
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Say nothing about single requests."""


def main():
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    server = ThreadingHTTPServer((arguments.host, arguments.port), Handler)
    server.actor = Actor()
    print(f"listening on http://{arguments.host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
