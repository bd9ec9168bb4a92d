"""The code location: definitions, partitions, jobs, settings and the command line.

What belongs here: how the graph is put together and driven. What does not: the method
(``dsir/``), an asset's own steps (``assets/``), files and databases (``resources/``).
"""

import os
import sys
import warnings

# Before pyarrow is loaded, which reads it then. What it takes otherwise, mimalloc, gives freed memory back to the
# system and gets it anew for the next batch: passes over the pool took a quarter longer, and 200 MB more at the peak.
if sys.platform == "linux":  # where every build of pyarrow has it
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")

# Dagster copies sensors with a parameter that it warns of, whether it is used or not.
warnings.filterwarnings("ignore", message=".*`owners` of initializer `SensorDef")
