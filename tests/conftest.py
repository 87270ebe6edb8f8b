"""Settings of the whole suite."""

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail: neither a slow example nor slow data generation says anything about a law.
settings.register_profile("gymnast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gymnast")
