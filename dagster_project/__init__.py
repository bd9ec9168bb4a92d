"""The code location: definitions, partitions, jobs, settings and the command line.

What belongs here: how the graph is put together and driven. What does not: the method
(``dsir/``), an asset's own steps (``assets/``), files and databases (``resources/``).
"""

import warnings

# Dagster copies sensors with a parameter that it warns of, whether it is used or not.
warnings.filterwarnings("ignore", message=".*`owners` of initializer `SensorDef")
