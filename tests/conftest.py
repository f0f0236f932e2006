"""Settings that every test folder shares."""

from hypothesis import settings

# Derandomised: the same examples in every run, so that a failure is a failure everywhere. No
# deadline: the first example of a test may compile a kernel.
settings.register_profile("gatewise", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("gatewise")
