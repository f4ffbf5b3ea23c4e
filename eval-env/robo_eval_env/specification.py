"""The `Simulation` document (src/manifest/simulation.rs): all that a worker is told about an environment.

Frozen dataclasses that refuse unknown keys, so that a manifest and a worker of different versions never
misunderstand each other silently.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robo_eval_env.errors import BadRequestError
from robo_eval_env.fields import Fields, finite

_HOOK_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LARGEST_STEPS = 2**32 - 1
_LARGEST_SIDE = 1024
_LARGEST_ACTION = 1024


@dataclass(frozen=True, slots=True)
class Gymnasium:
    """How an environment is made."""

    make: str
    kwargs: Mapping[str, Any]
    imports: tuple[str, ...]
    hook: str | None

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Gymnasium":
        """Reads the `gymnasium` object."""
        fields = Fields(value, where)
        hook = fields.take("hook", str | None, None)
        if hook is not None and not _HOOK_NAME.fullmatch(hook):
            raise BadRequestError(f"`{where}.hook` must be the name of a module, not `{hook}`")
        made = cls(
            make=fields.take("make", str),
            kwargs=fields.take("kwargs", dict, {}),
            imports=fields.texts("imports"),
            hook=hook,
        )
        fields.finish()
        return made


POSES = {"position": 3, "orientation": 4, "linear_velocity": 3, "angular_velocity": 3}
"""What can be measured of an end effector, and how many numbers each has."""


@dataclass(frozen=True, slots=True)
class StatePart:
    """A part of what a miner may see: of the simulator's observation, or a measurement of the end effector."""

    path: tuple[str, ...]
    slice: tuple[int, int] | None
    pose: str | None = None

    @classmethod
    def from_json(cls, value: Any, where: str) -> "StatePart":
        """Reads one item of `observation.state`."""
        fields = Fields(value, where)
        path = fields.texts("path")
        bounds = fields.take("slice", list | None, None)
        pose = fields.take("pose", str | None, None)
        # How the numbers are written to a miner is the environment server's business.
        for name in ("channel", "scale", "offset"):
            fields.take(name, object, None)
        fields.finish()
        if pose is not None:
            if pose not in POSES or path or bounds is not None:
                raise BadRequestError(f"`{where}.pose` must stand alone and be one of {', '.join(POSES)}, not `{pose}`")
            return cls(path=(), slice=None, pose=pose)
        if bounds is None:
            return cls(path=path, slice=None)
        if len(bounds) != 2 or not all(type(bound) is int for bound in bounds) or not 0 <= bounds[0] < bounds[1]:
            raise BadRequestError(f"`{where}.slice` must be [start, end) with start < end, not {bounds}")
        return cls(path=path, slice=(bounds[0], bounds[1]))


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera of the simulator and the size of its images, in pixels."""

    camera: str
    width: int
    height: int

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Camera":
        """Reads one value of `observation.cameras`."""
        fields = Fields(value, where)
        camera = cls(
            camera=fields.take("camera", str),
            width=fields.whole("width", 1, _LARGEST_SIDE),
            height=fields.whole("height", 1, _LARGEST_SIDE),
        )
        fields.finish()
        return camera


@dataclass(frozen=True, slots=True)
class Render:
    """How images are drawn; the defaults are cheap."""

    shadows: int = 0
    msaa: int = 0
    reflections: bool = False
    mesh_cells: int = 24

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Render":
        """Reads the `render` object; None is the default."""
        if value is None:
            return cls()
        fields = Fields(value, where)
        render = cls(
            shadows=fields.whole("shadows", 0, 8192, 0),
            msaa=fields.whole("msaa", 0, 16, 0),
            reflections=fields.take("reflections", bool, False),
            mesh_cells=fields.whole("mesh_cells", 0, 4096, 24),
        )
        fields.finish()
        return render


@dataclass(frozen=True, slots=True)
class Observation:
    """What a miner may see."""

    state: tuple[StatePart, ...]
    cameras: Mapping[str, Camera]
    size: int | None
    render: Render

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Observation":
        """Reads the `observation` object."""
        fields = Fields(value, where)
        state = fields.take("state", list)
        cameras = fields.take("cameras", dict, {})
        size = fields.take("size", int | None, None)
        render = Render.from_json(fields.take("render", object, None), f"{where}.render")
        # How images travel to miners is the environment server's business.
        fields.texts("encodings")
        fields.finish()
        return cls(
            size=size,
            render=render,
            state=tuple(StatePart.from_json(part, f"{where}.state[{i}]") for i, part in enumerate(state)),
            cameras={
                name: Camera.from_json(camera, f"{where}.cameras.{name}") for name, camera in sorted(cameras.items())
            },
        )


@dataclass(frozen=True, slots=True)
class Action:
    """What a miner may do."""

    size: int
    low: float
    high: float
    out_of_range: str
    kind: str

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Action":
        """Reads the `action` object."""
        fields = Fields(value, where)
        action = cls(
            size=fields.whole("size", 1, _LARGEST_ACTION),
            low=fields.number("low"),
            high=fields.number("high"),
            out_of_range=fields.choice("out_of_range", ("refuse", "clip")),
            kind=fields.choice("kind", ("direct", "scaled", "discrete")),
        )
        # How a miner writes its action is the environment server's business.
        fields.take("channels", list, [])
        fields.finish()
        if not action.low < action.high:
            raise BadRequestError(f"`{where}.low` must be below `{where}.high`")
        if action.kind == "discrete" and action.size != 1:
            raise BadRequestError(f"`{where}.size` must be 1 for a discrete action, not {action.size}")
        return action


@dataclass(frozen=True, slots=True)
class Success:
    """When an episode counts as a success: a rule, its argument, and the steps at which it is looked at."""

    rule: str
    argument: str | float | None
    when: str

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Success":
        """Reads the `success` object, whose rule is `survive` or an object with the rule as its only key."""
        fields = Fields(value, where)
        rule, argument = _success_rule(fields.take("rule", object), f"{where}.rule")
        when = fields.choice("when", ("any", "last"))
        fields.finish()
        return cls(rule=rule, argument=argument, when=when)


def _success_rule(value: Any, where: str) -> tuple[str, str | float | None]:
    """Reads a success rule in its externally tagged form."""
    if value == "survive":
        return "survive", None
    if isinstance(value, Mapping) and len(value) == 1:
        ((rule, argument),) = value.items()
        if rule == "info" and isinstance(argument, str):
            return rule, argument
        if rule in ("return_at_least", "reward_at_least"):
            return rule, finite(argument, f"{where}.{rule}")
        if rule == "expression" and isinstance(argument, str):
            return rule, argument
    raise BadRequestError(
        f"`{where}` must be `survive`, {{info: KEY}}, {{return_at_least: NUMBER}}, {{reward_at_least: NUMBER}} "
        "or {expression: TEXT}"
    )


@dataclass(frozen=True, slots=True)
class Score:
    """What an episode is worth, judged by the environment server: read here so that a slip in it is told."""

    source: str
    least: float
    most: float

    @classmethod
    def from_json(cls, value: Any, where: str) -> "Score":
        """Reads the `score` object."""
        fields = Fields(value, where)
        score = cls(source=fields.choice("from", ("return",)), least=fields.number("min"), most=fields.number("max"))
        fields.finish()
        if not score.least < score.most:
            raise BadRequestError(f"`{where}.min` must be below `{where}.max`")
        return score


@dataclass(frozen=True, slots=True)
class Simulation:
    """One environment, complete."""

    environment: str
    gymnasium: Gymnasium
    observation: Observation
    action: Action
    success: Success
    score: Score | None
    determinism: str
    max_steps: int
    stop_on_success: bool

    @classmethod
    def from_json(cls, value: Any) -> "Simulation":
        """Reads a whole document.

        Raises:
            BadRequestError: A key is unknown, missing, or has a value it cannot have.
        """
        fields = Fields(value, "simulation")
        environment = fields.take("environment", str)
        # From here on, messages name the environment: a server is told of several at once.
        fields.where = environment
        # How miners are spoken to is the environment server's business.
        fields.choice("dialect", ("native", "canonical"))
        simulation = cls(
            environment=environment,
            gymnasium=Gymnasium.from_json(fields.take("gymnasium", object), f"{environment}.gymnasium"),
            observation=Observation.from_json(fields.take("observation", object), f"{environment}.observation"),
            action=Action.from_json(fields.take("action", object), f"{environment}.action"),
            success=Success.from_json(fields.take("success", object), f"{environment}.success"),
            score=_optional_score(fields.take("score", object, None), f"{environment}.score"),
            determinism=fields.choice("determinism", ("bitwise", "none")),
            max_steps=fields.whole("max_steps", 1, _LARGEST_STEPS),
            stop_on_success=fields.take("stop_on_success", bool),
        )
        fields.finish()
        if simulation.stop_on_success and simulation.success.when != "any":
            raise BadRequestError(f"`{environment}.stop_on_success` needs `success.when: any`")
        return simulation


def _optional_score(value: Any, where: str) -> Score | None:
    """Reads a score that may be absent."""
    return None if value is None else Score.from_json(value, where)
