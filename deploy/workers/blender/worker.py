"""Starts the worker: `blender -b --factory-startup --python worker.py -- --allow-code`, or with plain Python
`python3 worker.py --no-blender --allow-code`. GW_WORKER_LIBRARY names a folder with nats-py where Blender's own
Python has none.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
if library := os.environ.get("GW_WORKER_LIBRARY"):
    sys.path.insert(1, library)

from causeway_blender import headless  # noqa: E402 the path comes first

# Blender leaves everything after `--` to the script
after = sys.argv.index("--") + 1 if "--" in sys.argv else 1
sys.stdout.flush()
code = headless.main(sys.argv[after:])
# Blender's own exit would run on into its user interface
sys.stderr.flush()
os._exit(code)
