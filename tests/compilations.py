"""How many programs are compiled."""

from jax import monitoring


def count_compilations(function):
    """Programs that XLA compiles while `function` runs."""
    seen = []

    def listen(event, seconds, **_):
        if "backend_compile" in event:
            seen.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        function()
    finally:
        monitoring.unregister_event_duration_listener(listen)
    return len(seen)
