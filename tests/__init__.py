"""The tests, in processes that are set up as those of the commands and of the worker are."""

import gc
import os

# By default after every 700 objects: imports alone make millions, none of which is garbage.
gc.set_threshold(200_000, 50, 50)
# Before numpy is imported: a thread more waits for matrices as small as a forecast's by using up its core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
