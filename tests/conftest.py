import signal

from hypothesis import settings

settings.register_profile("fpsim", derandomize=True, deadline=None, database=None)
settings.load_profile("fpsim")

# A shell that starts the tests in the background has them, and the commands that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
