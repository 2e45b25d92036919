"""The studies: problems, runs, floors, stores, engines and the command line."""
