"""What every test starts from."""

import os

# Two processes with as many threads as cores each are slower than two with one, and the order of sums, so the
# last digits, follow from the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
