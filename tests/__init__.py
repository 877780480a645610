"""The tests, in processes that look for garbage as seldom as those of the commands do."""

import gc

# By default after every 700 objects: imports alone make millions, none of which is garbage.
gc.set_threshold(200_000, 50, 50)
