"""How fast the emulator is, always beside a plain operation on the same bytes in the same run: one file a bench."""
