"""Plays an episode again from its seed and actions, and films it if asked.

No miner takes part. Drawing never touches the physics, so the film shows the very trajectory that was judged.
"""

import json
import subprocess
from typing import Any

from robo_eval_env.environment import Environment, Pool
from robo_eval_env.episode import Episode, simulating
from robo_eval_env.errors import BadRequestError, ImportFailedError
from robo_eval_env.fields import Fields
from robo_eval_env.scenes import Studio
from robo_eval_env.specification import Simulation

_WIDTH, _HEIGHT = 320, 240
_MOST_FRAMES = 250
_FRAME_MILLISECONDS = 50


def replay(file: str, *, film: str | None, camera: str | None) -> dict[str, Any]:
    """Plays the episode of a JSON file `{simulation, seed, actions}`; returns its ending, or null if it has none yet.

    Raises:
        WorkerError: The episode cannot be played, or not be filmed.
    """
    with open(file, encoding="utf-8") as source:
        fields = Fields(json.load(source), "episode")
    document = dict(fields.take("simulation", dict))
    seed = fields.whole("seed", 0, 2**32 - 1)
    actions = fields.take("actions", list)
    fields.finish()
    # What miners were shown is not asked for here, and drawing it would take longer than the physics.
    seen = dict(document.get("observation") or {})
    declared = seen.pop("cameras", None) or {}
    document["observation"] = {**seen, "cameras": {}, "state": seen.get("state") or [{}]}
    studio = Studio()
    environment = Pool([Simulation.from_json(document)], studio).take(document["environment"])
    episode = Episode(environment, seed)
    reel = Reel(environment, camera or _first(declared), len(actions)) if film else None
    episode.start()
    end = None
    for step, action in enumerate(actions):
        if end is not None:
            raise BadRequestError(f"the episode ended after {step} of {len(actions)} steps")
        if reel:
            reel.take(step)
        end = episode.step(action)[2]
    if reel:
        reel.take(len(actions), last=True)
        reel.write(film)
    return {"end": end.to_json() if end else None}


def _first(cameras: dict[str, Any]) -> str | None:
    """Returns the simulator's name of the first camera that a manifest declares."""
    return next((camera["camera"] for camera in cameras.values()), None)


class Reel:
    """The frames of a film."""

    def __init__(self, environment: Environment, camera: str | None, steps: int) -> None:
        """Prepares to film about as many steps; long episodes are shown in leaps."""
        self._environment = environment
        self._camera = camera
        self._every = max(1, -(-steps // _MOST_FRAMES))
        self._frames: list[bytes] = []

    def take(self, step: int, *, last: bool = False) -> None:
        """Films what is there before a step, if it is its turn."""
        if step % self._every == 0 or last:
            with simulating(self._environment.simulation.environment):
                self._frames.append(self._environment.picture(self._camera, _WIDTH, _HEIGHT))

    def write(self, path: str) -> None:
        """Writes an MP4 where the name says so, an animated GIF otherwise."""
        if path.lower().endswith(".mp4"):
            self._write_mp4(path)
        else:
            self._write_gif(path)

    def _write_mp4(self, path: str) -> None:
        """Has `ffmpeg` write it, with the codec that it takes for MP4 itself."""
        size, rate = f"{_WIDTH}x{_HEIGHT}", str(1000 // _FRAME_MILLISECONDS)
        frames = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", rate]
        # Players want colours at half the resolution, and to begin before all has come.
        film = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", "-y", path]
        command = ["ffmpeg", "-loglevel", "error", *frames, "-i", "-", *film]
        try:
            done = subprocess.run(command, input=b"".join(self._frames), capture_output=True, check=False)
        except FileNotFoundError as error:
            raise ImportFailedError("MP4 needs the program `ffmpeg`: install it, or write a .gif") from error
        if done.returncode != 0:
            words = done.stderr.decode(errors="replace").strip()
            raise ImportFailedError(f"`ffmpeg` wrote no film: {words}")

    def _write_gif(self, path: str) -> None:
        try:
            from PIL import Image
        except ImportError as error:
            raise ImportFailedError("films need the package `pillow`, which is not in this family's lock") from error
        frames = [Image.frombytes("RGB", (_WIDTH, _HEIGHT), frame) for frame in self._frames]
        first, *others = [frame.quantize(64, dither=Image.Dither.NONE) for frame in frames]
        first.save(
            path,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=_FRAME_MILLISECONDS,
            loop=0,
            optimize=False,
        )
