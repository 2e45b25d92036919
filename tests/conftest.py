from hypothesis import settings

settings.register_profile("fpsim", derandomize=True, deadline=None, database=None)
settings.load_profile("fpsim")
