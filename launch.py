"""Train and evaluate one experiment: python launch.py --config configs/quickstart.py [--workdir DIR]"""

import sys

from absl import flags

from mammojax import launch

if __name__ == "__main__":
    flags.adopt_module_key_flags(launch)
    sys.exit(launch.launch(sys.argv))
