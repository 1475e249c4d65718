"""What a model was compiled with, as the user gave it."""


def compile_argument(model, name):
    """The argument of `model.compile(...)` of that name, None for a model not compiled."""
    if not getattr(model, "compiled", False):
        return None
    return model._compile_config.config.get(name)
