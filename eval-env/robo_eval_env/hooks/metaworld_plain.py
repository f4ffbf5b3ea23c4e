"""MetaWorld without the quick steps: the same seeds and the same numbers, for whoever wants to compare the two."""

from robo_eval_env.hooks.metaworld import MetaWorldHook


def hook() -> MetaWorldHook:
    """Returns this family's hook."""
    return MetaWorldHook(plain=True)
