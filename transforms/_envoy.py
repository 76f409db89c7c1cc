"""Leave to send from an Envoy rate limit service, asked by Beam's own client for it."""

from collections.abc import Callable

from apache_beam.io.components.rate_limiter import EnvoyRateLimiter

from transforms.records.settings import EnvoySettings


def envoy_allow(settings: EnvoySettings) -> Callable[[int], bool]:
    """Return a function that takes a number of calls and returns True when the service allows them.

    It blocks while the limit is used up, may be called from several threads at a time, and raises when the service
    can't be reached, after five tries ten seconds apart.
    """
    limiter = EnvoyRateLimiter(
        service_address=settings.address,
        domain=settings.domain,
        descriptors=settings.descriptors,
        timeout=settings.timeout,
        block_until_allowed=True,
        namespace="CallModel",
    )
    return limiter.allow
